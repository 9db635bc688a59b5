-- Let a worker's leases run out now, so that others take up its jobs. It is known by its name or by one life's mark.
local worker = ARGV[1]
local at, count = now(), 0
for _, id in ipairs(call('ZRANGE', LEASES, 0, -1)) do
  local instance = call('HGET', key_of(id), 'instance')
  if instance and (instance == worker or call('HGET', P .. 'worker:' .. instance, 'worker') == worker) then
    call('HSET', key_of(id), 'token', '')
    call('ZADD', LEASES, at, id)
    count = count + 1
  end
end
return count
