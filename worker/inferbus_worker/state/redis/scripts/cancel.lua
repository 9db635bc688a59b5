-- Stop the jobs of a session: those that wait are taken out for this worker to end, those that run are marked for theirs.
-- Where there is none, the request may still be on its way here: it is remembered for a while that it was cancelled.
local instance, token, lease_ms, tomb_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local flying, names = ARGV[5], ARGV[6]

local at = now()
local mine, running, found = {}, {}, false
local first, last = '-', '+'
if names ~= '' then
  first, last = '[' .. by_name(names), '(' .. by_name(names) .. '\255'
end
for _, member in ipairs(call('ZRANGE', P .. 'flying:' .. flying, first, last, 'BYLEX')) do
  local length = member:match('^%d+')
  local id = member:sub(#by_name('') + #length + length)
  -- A session may have very many, and what was cancelled already is cancelled again at next to no cost.
  if call('HGET', key_of(id), 'cancelled') then
    found = true
    running[#running + 1] = id
  else
    local job = load(id)
    if job then
      found = true
      call('HSET', key_of(id), 'cancelled', '1')
      job.cancelled = '1'
      -- Whatever it still says is not remembered: what comes behind this cancel finds the session free.
      let_session_go(id, job)
      if job.state == 'queued' then
        mine[#mine + 1] = take_out(id, job, instance, token, at + lease_ms, at)
      else
        running[#running + 1] = id
      end
    end
  end
end
if not found and names ~= '' then
  call('SET', P .. 'tomb:' .. #flying .. ':' .. flying .. '/' .. names, '1', 'PX', tomb_ms)
end
return {mine, running}
