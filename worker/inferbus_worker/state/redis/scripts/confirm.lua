-- Let everybody take what was admitted. Says which jobs are no more: it came too late for them. Where the answer to the
-- same was lost, and it comes again, the jobs may be over: that is no reason to say that they were never confirmed.
local rings, instance, number = ARGV[1] == '1', ARGV[2], tonumber(ARGV[3])
local JOBS = 4
-- For so long a worker may be stopped, or cut off, and still hear the same.
local REMEMBERED_MS = 3600000

local at = now()
local latest = P .. 'confirmed:' .. instance
local again = number <= tonumber(call('GET', latest) or 0)
if not again then
  call('SET', latest, number, 'PX', REMEMBERED_MS)
end
local gone, rung = {}, {}
for index = JOBS, #ARGV do
  local id = ARGV[index]
  local job = load(id)
  if not job then
    local key = P .. 'gone:' .. id
    if not again then
      call('SET', key, '1', 'PX', REMEMBERED_MS)
    end
    if call('EXISTS', key) == 1 then
      gone[#gone + 1] = id
    end
  elseif job.state == 'unconfirmed' then
    if job.cancelled == '1' then
      -- It was cancelled while it waited for this: whoever looks next ends it.
      job.look = at
      call('HSET', key_of(id), 'look', at)
    end
    call('HSET', key_of(id), 'state', 'queued')
    call('ZREM', UNCONFIRMED, id)
    decrease(P .. 'owners:' .. job.lane, 'unconfirmed')
    stand(id, job)
    -- Who served its session last has its prefix cached, and hears of it first.
    local prefer = call('HGET', key_of(id), 'prefer')
    if prefer ~= '' then
      if call('EXISTS', P .. 'worker:' .. prefer) == 1 then
        ring('worker:' .. prefer)
      end
    end
    rung[job.model] = rings
  end
end
for model, is_rung in pairs(rung) do
  if is_rung then
    ring(model)
  end
end
return gone
