-- Let everybody take what was admitted, and its admitter hold what was granted to him. Says which jobs are no more, since
-- it came too late for them; which have been cancelled of those that he holds; and which another worker has admitted anew.
-- Where the answer to the same was lost, and it comes again, the jobs may be over: that is no reason to say that they were
-- never confirmed.
local rings, instance, number, lease_ms = ARGV[1] == '1', ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local JOBS = 5

local at = now()
local latest = P .. 'confirmed:' .. instance
local again = number <= tonumber(call('GET', latest) or 0)
if not again then
  call('SET', latest, number, 'PX', REMEMBERED_MS)
end
local gone, cancelled, elsewhere, rung = {}, {}, {}, {}
for index = JOBS, #ARGV do
  local id = ARGV[index]
  local job = load(id)
  if not job then
    local why = call('GET', P .. 'gone:' .. id)
    if not why and not again then
      why = 'dropped'
      remember_end(id, why)
    end
    if why == 'dropped' then
      gone[#gone + 1] = id
    elseif why and why ~= 'answered' then
      elsewhere[#elsewhere + 1] = id
    end
  elseif job.state == 'unconfirmed' and job.token ~= '' then
    call('ZREM', UNCONFIRMED, id)
    job.state = 'running'
    lease(id, job, job.instance, job.token, at + lease_ms, at)
    if job.cancelled == '1' then
      cancelled[#cancelled + 1] = id
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
return {gone, cancelled, elsewhere}
