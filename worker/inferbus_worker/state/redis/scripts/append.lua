-- Write a turn into a session's history, a key and perhaps a node of its own: version, header, then messages, oldest first.
-- Whoever writes the same again, since the answer was lost, hears yes again; whoever comes too late, no.
local key, version, header, ttl_ms = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local forgotten, dropped, resets = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'
local NEW, BEFORE = 7, 2

local before = tonumber(redis.call('LINDEX', key, 0) or 0)
if before > version then
  return 0
end
if resets or version == 1 then
  redis.call('DEL', key)
  redis.call('RPUSH', key, version, header)
elseif before == version then
  return 1
elseif before ~= version - 1 then
  return 0
else
  local messages = redis.call('LLEN', key) - BEFORE
  forgotten = math.min(forgotten, messages)
  dropped = math.min(dropped, messages - forgotten)
  if dropped > 0 then
    redis.call('LTRIM', key, 0, -dropped - 1)
  end
  -- What is cut off in front are the two marks and all but two of those forgotten: the marks take their places.
  redis.call('LTRIM', key, forgotten, -1)
  redis.call('LSET', key, 0, version)
  redis.call('LSET', key, 1, header)
end
for index = NEW, #ARGV do
  redis.call('RPUSH', key, ARGV[index])
end
redis.call('PEXPIRE', key, ttl_ms)
return 1
