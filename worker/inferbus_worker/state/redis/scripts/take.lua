-- Take jobs for the models that have slots free here, in the order of turns that flow/queue.py has.
local plan = cjson.decode(ARGV[1])
local instance, token, lease_ms, prefer_ms = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local not_after = tonumber(ARGV[6])
local WANTED = 7
-- So many jobs that wait for a worker of their own are passed over in one lane.
local MOST_SKIPPED = 16
-- Lanes whose turns are read in one call: Lua passes no more than 8,000 values.
local MOST_AT_ONCE = 1000

local at = now()
-- Nobody waits for the answer any more: what is taken now would lie here for nobody.
if at > not_after then
  return {{}, ''}
end
local wanted = {}
for index = WANTED, #ARGV, 2 do
  wanted[ARGV[index]] = tonumber(ARGV[index + 1])
end

local lengths = {}
local pairs_of = call('HGETALL', LENGTHS)
for index = 1, #pairs_of, 2 do
  lengths[pairs_of[index]] = tonumber(pairs_of[index + 1])
end
local waiting, all = {}, {}
for _, one in ipairs(plan.lanes) do
  if (wanted[one[2]] or 0) > 0 and lengths[one[1]] then
    local lane = {name = one[1], model = one[2], weight = one[3], priority = one[4], skipped = 0}
    waiting[#waiting + 1] = lane
    all[#all + 1] = lane
  end
end
if #waiting == 0 then
  return {{}, ''}
end

local count, last_turn, changed = tonumber(call('HGET', TURNS, 'taken') or 0), {}, {}
for before = 0, #waiting - 1, MOST_AT_ONCE do
  local fields, some = {}, {unpack(waiting, before + 1, math.min(before + MOST_AT_ONCE, #waiting))}
  for _, lane in ipairs(some) do
    fields[#fields + 1] = 't' .. lane.name
    fields[#fields + 1] = 'v' .. lane.name
    fields[#fields + 1] = 'l' .. lane.model
  end
  local values = call('HMGET', TURNS, unpack(fields))
  for number, lane in ipairs(some) do
    lane.turn = tonumber(values[3 * number - 2] or 0)
    lane.clock = tonumber(values[3 * number - 1] or 0)
    last_turn[lane.model] = tonumber(values[3 * number] or 0)
  end
end

-- Of those with the highest priority plus age, the one whose model, then whose lane, has gone longest without a turn.
local function whose_turn()
  local urgency, class = {}, nil
  for _, lane in ipairs(waiting) do
    if lane.priority ~= waiting[1].priority then
      class = true
    end
  end
  if class then
    class = nil
    for _, lane in ipairs(waiting) do
      -- Read once for each job that it gives.
      lane.oldest = lane.oldest or call('ZRANGE', P .. 'ages:' .. lane.name, 0, 0, 'WITHSCORES')[2] or math.huge
      local own = lane.priority + (at - lane.oldest) / plan.ageing
      urgency[lane.priority] = math.max(urgency[lane.priority] or -math.huge, own)
    end
    for priority, most in pairs(urgency) do
      if class == nil or most > urgency[class] or (most == urgency[class] and priority > class) then
        class = priority
      end
    end
  end
  local best
  for index, lane in ipairs(waiting) do
    if class == nil or lane.priority == class then
      local other = best and waiting[best]
      if not other or last_turn[lane.model] < last_turn[other.model]
        or (last_turn[lane.model] == last_turn[other.model] and lane.turn < other.turn) then
        best = index
      end
    end
  end
  return best
end

local again_in
-- Whether a job waits for the worker that has its conversation in its cache; that one must be there.
local function waits_for_another(job, prefer)
  local left = job.at + prefer_ms - at
  if prefer == '' or prefer == instance or left <= 0 or call('EXISTS', P .. 'worker:' .. prefer) == 0 then
    return false
  end
  again_in = math.min(again_in or left, left)
  return true
end

-- The first job of a lane that this worker may have.
local function first(lane)
  while lane.skipped < MOST_SKIPPED do
    local id = call('ZRANGE', P .. 'lane:' .. lane.name, lane.skipped, lane.skipped)[1]
    if not id then
      return nil
    end
    local job = load(id)
    local prefer = job and call('HGET', key_of(id), 'prefer')
    if not job then
      call('ZREM', P .. 'lane:' .. lane.name, id)
      call('ZREM', P .. 'ages:' .. lane.name, id)
    elseif waits_for_another(job, prefer) then
      lane.skipped = lane.skipped + 1
    else
      return id, job
    end
  end
  return nil
end

local rows = {}
while #waiting > 0 do
  local index = whose_turn()
  local lane = waiting[index]
  local id, job = first(lane)
  if id then
    leave(id, job, true)
    lane.oldest = nil
    job.state = 'running'
    lease(id, job, instance, token, at + lease_ms, at)
    rows[#rows + 1] = taken_row(id, job, at, false)
    count = count + 1
    last_turn[lane.model] = count
    lane.clock = math.max(lane.clock, tonumber(job.score))
    changed['v' .. lane.name] = lane.clock
    changed['l' .. lane.model] = count
    changed['c' .. lane.priority .. '/' .. lane.model] = lane.turn
    lane.turn = lane.turn + 1 / lane.weight
    changed['t' .. lane.name] = lane.turn
    wanted[lane.model] = wanted[lane.model] - 1
    if wanted[lane.model] == 0 then
      for number = #waiting, 1, -1 do
        if waiting[number].model == lane.model then
          table.remove(waiting, number)
        end
      end
    end
  else
    table.remove(waiting, index)
  end
end

if #rows > 0 then
  local writes = {'taken', count}
  for field, value in pairs(changed) do
    writes[#writes + 1] = field
    writes[#writes + 1] = value
  end
  for first = 1, #writes, 2 * MOST_AT_ONCE do
    call('HSET', TURNS, unpack(writes, first, math.min(first + 2 * MOST_AT_ONCE - 1, #writes)))
  end
end
-- What is left is for somebody else, who may sleep; also what was passed over: this worker has no slot to come back with.
for _, lane in ipairs(all) do
  if wanted[lane.model] == 0 and call('EXISTS', P .. 'lane:' .. lane.name) == 1 then
    ring(lane.model)
  end
end
return {rows, again_in or ''}
