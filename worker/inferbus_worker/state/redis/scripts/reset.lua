-- Forget a conversation, but not its version: what is still on its way to its history comes too late.
local key = P .. 'session:' .. ARGV[1]
local values = call('HMGET', key, 'claim', 'version', 'bytes')
if values[1] then
  return false
end
if not values[2] then
  return 0
end
call('HINCRBY', KEPT, 'bytes', 0 - (values[3] or 0))
-- Until the history says so itself, this says that nothing in it counts.
call('HSET', key, 'version', values[2] + 1, 'tokens', 0, 'bytes', 0, 'pending', ARGV[2])
call('HDEL', key, 'system')
call('ZADD', SESSIONS, now(), ARGV[1])
return values[2] + 1
