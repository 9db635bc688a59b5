-- Forget up to so many jobs that wait in a lane. Nobody answers them.
local lane, most = ARGV[1], tonumber(ARGV[2])
local count = 0
for _, id in ipairs(call('ZRANGE', P .. 'lane:' .. lane, 0, most - 1)) do
  local job = load(id)
  if job then
    drop(id, job)
    count = count + 1
  else
    call('ZREM', P .. 'lane:' .. lane, id)
    call('ZREM', P .. 'ages:' .. lane, id)
  end
end
return count
