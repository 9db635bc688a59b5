-- Say that this worker lives and what it serves, and hear who else does. The mark tells this group from another one of its
-- name in another store; where it was lost, whoever knows it brings it back.
local instance, worker, info, models, ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local MARK = P .. 'mark'
local at = now()
call('SETNX', MARK, ARGV[6])
call('HSET', P .. 'worker:' .. instance, 'worker', worker, 'info', info, 'models', models)
call('PEXPIRE', P .. 'worker:' .. instance, ttl_ms)
call('ZADD', WORKERS, at, instance)
call('ZREMRANGEBYSCORE', WORKERS, '-inf', at - ttl_ms)
local rows = {}
local beats = call('ZRANGE', WORKERS, 0, -1, 'WITHSCORES')
for index = 1, #beats, 2 do
  local values = call('HMGET', P .. 'worker:' .. beats[index], 'worker', 'info', 'models')
  if values[1] then
    rows[#rows + 1] = {values[1], beats[index], values[2], at - beats[index + 1], values[3]}
  end
end
return {at, rows, call('HGETALL', LENGTHS), call('ZCARD', LEASES), call('ZCARD', SESSIONS), call('GET', MARK)}
