-- The end of a job, as a whole or not at all: history, memory of retries, accounts, all that it held, and the terminal
-- reply as owed. Says false to whoever does not hold the job any more; the same commit again says the same as before. Of a
-- job that a failover has forgotten, or that it was confirmed, it says that it is unknown: nobody else runs it either.
local id, token, instance = ARGV[1], ARGV[2], ARGV[3]
local owed, outcome, memory_ms = ARGV[4], ARGV[5], tonumber(ARGV[6])
local lease_ms, most_sessions, most_bytes = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local used, version, pending, tokens, system, bytes = ARGV[10], ARGV[11], ARGV[12], ARGV[13], ARGV[14], ARGV[15]
-- Where one server has everything, its history is written here as well, and is never behind.
local history, HISTORY = KEYS[2], 16
-- What became of the change: nothing, since the session has gone on without it; the record has it, and the history has to
-- follow; both have it. Of a job that is unknown nothing is written.
local NOTHING, RECORDED, WRITTEN, UNKNOWN = 0, 1, 2, 3
-- So many sessions are forgotten by one commit: each brings at most one, and bytes make themselves felt slowly.
local MOST_EVICTED, MOST_LOOKED_AT = 16, 32

local job = held(id, token)
if not job then
  job = load(id)
  if not job or job.state ~= 'unconfirmed' or job.token ~= token then
    return is_unknown(id, token) and {{}, UNKNOWN}
  end
  -- The store took no writes when it was to be confirmed, and now hears of its end first.
  call('ZREM', UNCONFIRMED, id)
  job.state = 'running'
  lease(id, job, instance, token, 0, now())
  remember_end(id, 'answered')
end
if job.state == 'owed' then
  return {{}, job.wrote == '' and NOTHING or history and WRITTEN or RECORDED}
end

local at = now()
local session = P .. 'session:' .. job.session
local wrote, became = '', NOTHING
if version ~= '' and job.session ~= '' then
  local before = call('HMGET', session, 'claim', 'version', 'bytes')
  -- A session that somebody dropped meanwhile is not written again.
  if before[1] == id and tonumber(version) > tonumber(before[2] or 0) then
    call('HSET', session, 'version', version, 'tokens', tokens, 'bytes', bytes, 'worker', instance)
    became = history and write_history(history, tonumber(version), ARGV, HISTORY) and WRITTEN or RECORDED
    if became == WRITTEN or pending == '' then
      call('HDEL', session, 'pending')
    else
      call('HSET', session, 'pending', pending)
    end
    if system ~= '' then
      call('HSET', session, 'system', system)
    end
    call('HINCRBY', KEPT, 'bytes', bytes - (before[3] or 0))
    call('ZADD', SESSIONS, at, job.session)
    wrote = version
  end
end

release(id, job)
if outcome ~= '' and job.retry ~= '' and memory_ms > 0 then
  -- Without the sign before it: an empty outcome is none.
  call('SET', P .. 'retry:' .. job.retry, 'f:' .. outcome:sub(2), 'PX', memory_ms)
end
if used ~= '' then
  settle_charge(id, job, used)
end
call('HSET', key_of(id), 'state', 'owed', 'owed', owed, 'wrote', wrote)
call('HDEL', key_of(id), 'body')
call('ZADD', LEASES, at + lease_ms, id)

-- The least recently used go, but for those that are claimed: they are some of few.
local evicted = {}
local count, kept = call('ZCARD', SESSIONS), tonumber(call('HGET', KEPT, 'bytes') or 0)
if wrote ~= '' and (count > most_sessions or kept > most_bytes) then
  for _, name in ipairs(call('ZRANGE', SESSIONS, 0, MOST_LOOKED_AT - 1)) do
    if (count <= most_sessions and kept <= most_bytes) or #evicted == MOST_EVICTED then
      break
    end
    if call('HEXISTS', P .. 'session:' .. name, 'claim') == 0 then
      forget_session(name)
      evicted[#evicted + 1] = name
      count, kept = count - 1, tonumber(call('HGET', KEPT, 'bytes') or 0)
    end
  end
end
return {evicted, became}
