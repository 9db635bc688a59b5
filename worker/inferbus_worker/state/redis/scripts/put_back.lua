-- An overdue job waits on: at its old place, or at the end of its owner's in another model's lane. It asks for no room.
local plan = cjson.decode(ARGV[1])
local id, token, model, look_in = ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local job = held(id, token)
if not job or job.state ~= 'running' then
  return 0
end
unlease(id, job)
-- Its project stands before its model.
local lane = job.lane:sub(1, -#job.model - 1) .. model
job.look = look_in ~= '' and now() + look_in or ''
if job.cancelled == '1' then
  -- It was cancelled meanwhile: whoever looks next ends it.
  job.look = now()
end
if lane ~= job.lane then
  if job.form == '1' then
    decrease(FORMS, job.model)
    call('HINCRBY', FORMS, model, 1)
  end
  job.lane, job.model, job.returned = lane, model, ''
  if not call('HGET', LENGTHS, lane) then
    for _, one in ipairs(plan.lanes) do
      if one[1] == lane then
        local turns = call('HMGET', TURNS, 't' .. lane, 'c' .. one[4] .. '/' .. model)
        call('HSET', TURNS, 't' .. lane, math.max(tonumber(turns[1] or 0), tonumber(turns[2] or 0)))
      end
    end
  end
  local last = call('HGET', P .. 'owners:' .. lane, 'v' .. job.owner)
  job.score = next_score(call('HGET', TURNS, 'v' .. lane), last)
end
call('HSET', key_of(id), 'state', 'queued', 'token', '', 'instance', '', 'prefer', '', 'look', job.look,
  'lane', lane, 'model', model, 'score', job.score, 'returned', job.returned)
if job.returned == '1' then
  call('HINCRBY', LENGTHS, lane, 1)
else
  local last = tonumber(call('HGET', P .. 'owners:' .. lane, 'v' .. job.owner) or 0)
  count_in(lane, job.owner, math.max(last, tonumber(job.score)))
end
stand(id, job)
ring(model)
return 1
