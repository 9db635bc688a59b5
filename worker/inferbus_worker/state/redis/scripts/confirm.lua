-- Let everybody take what was admitted. Says which jobs are no more: it came too late for them.
local rings = ARGV[1] == '1'
local JOBS = 2
-- For so long a confirmation whose answer was lost is sent again, and answered as before.
local REMEMBERED_MS = 120000
if #ARGV < JOBS then
  return {}
end

local at = now()
local gone, rung = {}, {}
for index = JOBS, #ARGV do
  local id = ARGV[index]
  local job = load(id)
  if not job then
    gone[#gone + 1] = id
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

-- A job that is no more may have been confirmed by this very call, and be over by now. It is in one confirmation only.
local mark = P .. 'confirmed:' .. ARGV[JOBS]
local before = #gone > 0 and call('GET', mark)
if before then
  return cjson.decode(before)
end
call('SET', mark, #gone > 0 and cjson.encode(gone) or '[]', 'PX', REMEMBERED_MS)
return gone
