-- Take up what was left behind: leases that have run out, jobs that nobody confirmed, sessions that nobody came back to.
local instance, token, lease_ms, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local max_attempts, session_ttl_ms, not_after = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

local at = now()
-- The store has stalled with this before it: those that live have yet to renew what they have.
if at > not_after then
  return {0, 0, {}, {}}
end
local requeued, dropped, mine, evicted = 0, 0, {}, {}
for _, id in ipairs(call('ZRANGE', LEASES, '-inf', at, 'BYSCORE', 'LIMIT', 0, most)) do
  local job = load(id)
  if not job then
    call('ZREM', LEASES, id)
  elseif job.state == 'owed' then
    lease(id, job, instance, token, at + lease_ms, at)
    mine[#mine + 1] = taken_row(id, job, at, false)
  else
    job.lost = job.lost + 1
    if job.lost >= max_attempts then
      -- Nobody survives it: it is ended, not run.
      call('HSET', key_of(id), 'lost', job.lost)
      job.run = call('HINCRBY', key_of(id), 'run', 1)
      lease(id, job, instance, token, at + lease_ms, at)
      mine[#mine + 1] = taken_row(id, job, at, true)
    else
      unlease(id, job)
      return_to_lane(id, job)
      requeued = requeued + 1
    end
  end
end

-- Nobody has heard that these were accepted: their admitters are lost.
for _, id in ipairs(call('ZRANGE', UNCONFIRMED, '-inf', at, 'BYSCORE', 'LIMIT', 0, most)) do
  local job = load(id)
  if job then
    drop(id, job)
    dropped = dropped + 1
  else
    call('ZREM', UNCONFIRMED, id)
  end
end

for _, name in ipairs(call('ZRANGE', SESSIONS, '-inf', at - session_ttl_ms, 'BYSCORE', 'LIMIT', 0, most)) do
  if call('HEXISTS', P .. 'session:' .. name, 'claim') == 1 then
    call('ZADD', SESSIONS, at, name)
  else
    forget_session(name)
    evicted[#evicted + 1] = name
  end
end
return {requeued, dropped, mine, evicted}
