-- Let a worker's leases run out now, so that others take up its jobs. It is known by its name or by one life's mark, and
-- may be meant only if it has not been heard of for a while.
local worker, silent_ms = ARGV[1], tonumber(ARGV[2])
local at, count = now(), 0
for _, id in ipairs(call('ZRANGE', LEASES, 0, -1)) do
  local instance = call('HGET', key_of(id), 'instance')
  local is_meant = instance and (instance == worker or call('HGET', P .. 'worker:' .. instance, 'worker') == worker)
  if is_meant and (silent_ms == 0 or at - (call('ZSCORE', WORKERS, instance) or 0) >= silent_ms) then
    call('HSET', key_of(id), 'token', '')
    call('ZADD', LEASES, at, id)
    count = count + 1
  end
end
return count
