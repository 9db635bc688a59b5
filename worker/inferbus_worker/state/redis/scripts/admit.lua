-- Decide on one request: duplicate, limits, claim, room, forms, deadline, token budget; where all say yes, it waits.
-- The first that says no answers. A refusal leaves nothing behind, but that what the limits let through counts in their
-- windows, whatever comes of it. The job waits unconfirmed: it holds its room, and nobody takes it before `confirm`.
-- Where its admitter has a slot free, and nobody is before it, it is granted to him, as a `take` behind this would do.
local plan = cjson.decode(ARGV[1])
local not_after, id, lane, model, owner = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local session, flying, names, retry, body = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local deadline, slot_by, most_ahead, form_limit = ARGV[12], ARGV[13], ARGV[14], ARGV[15]
local patience, may_repeat = tonumber(ARGV[16]), ARGV[17] == '1'
local token, instance = ARGV[18], ARGV[19]
local QUESTION, WINDOWS = 20, 28
-- An owner holds at most so many times what is free (see flow/lane.py).
local GREED = 7
-- For so long the nameless leave some room to somebody with a name.
local NAMED_MS = 600000
local MOST_CHARGES = 64
-- Whoever has not confirmed by then has refused what it asked for, since the answer did not come in time, or is lost.
local CONFIRMED_WITHIN_MS = 1000

local at = now()
if at > not_after then
  return {'stale'}
end

local function version_of_conversation()
  return session ~= '' and tonumber(call('HGET', P .. 'session:' .. session, 'version')) or 0
end

-- The same again, since the answer was lost: the same answer.
local before = call('HMGET', key_of(id), 'place', 'token')
if before[1] then
  if token ~= '' and before[2] == token then
    return {'granted', version_of_conversation()}
  end
  return {'admitted', tonumber(before[1])}
end

-- Whether a job is in flight. One that nobody will confirm is none, and makes way: nobody else would answer either.
local function flies(other)
  local values = call('HMGET', key_of(other), 'state', 'at')
  if values[1] and (values[1] ~= 'unconfirmed' or at - values[2] < CONFIRMED_WITHIN_MS) then
    return true
  end
  if values[1] then
    drop(other, load(other))
  end
  return false
end

local known, is_taken_up = retry ~= '' and may_repeat and call('GET', P .. 'retry:' .. retry), false
if known and known:sub(1, 2) == 'j:' then
  local other = known:sub(3)
  local values = call('HMGET', key_of(other), 'state', 'instance', 'cancelled')
  if values[1] == 'unconfirmed' and values[2] ~= instance then
    -- Its admitter may be dead, and the broker has dealt it anew; where he is not, he hears that it is ours now.
    drop(other, load(other))
    remember_end(other, 'elsewhere')
    is_taken_up = true
    if values[3] then
      return {'tombstoned'}
    end
  elseif flies(other) then
    return {'repeat'}
  end
  known = false
end
if not known and names ~= '' and call('EXISTS', P .. 'tomb:' .. #flying .. ':' .. flying .. '/' .. names) == 1 then
  return {'tombstoned'}
end

-- Exact sliding windows: the request that came `limit` before decides. Counted in all of them or in none; what is taken up
-- has been counted.
local wait, windows = 0, is_taken_up and 0 or #ARGV
for index = WINDOWS, windows, 3 do
  local oldest = call('LINDEX', P .. 'window:' .. ARGV[index], -ARGV[index + 1])
  if oldest then
    wait = math.max(wait, oldest + ARGV[index + 2] - at)
  end
end
if wait > 0 then
  return {'limited', wait}
end
for index = WINDOWS, windows, 3 do
  -- One leaves for one that comes, if its time is over: so there are never more than have been let through at once.
  local window, length = P .. 'window:' .. ARGV[index], ARGV[index + 2]
  call('RPUSH', window, at)
  if at - call('LINDEX', window, 0) >= tonumber(length) then
    call('LPOP', window)
  end
  call('PEXPIRE', window, length)
end
if known then
  return {'known', known:sub(3)}
end

local conversation = {}
if session ~= '' then
  conversation = call('HMGET', P .. 'session:' .. session, 'claim', 'tokens', 'system', 'worker')
  if conversation[1] and flies(conversation[1]) then
    return {'busy'}
  end
end

-- Room, as flow/queue.py and flow/lane.py give it. Lanes that only others serve have nothing reserved here.
local lengths, total = {}, 0
local pairs_of = call('HGETALL', LENGTHS)
for index = 1, #pairs_of, 2 do
  lengths[pairs_of[index]] = tonumber(pairs_of[index + 1])
  total = total + pairs_of[index + 1]
end
local weight, priority, reserved
local over, counted = 0, 0
for _, other in ipairs(plan.lanes) do
  local length = lengths[other[1]] or 0
  over = over + math.max(0, length - other[5])
  counted = counted + length
  if other[1] == lane then
    weight, priority, reserved = other[3], other[4], other[5]
  end
end
over = over + total - counted
local length = lengths[lane] or 0
local free = math.max(0, reserved - length) + math.max(0, plan.shared - over)
free = math.min(free, math.max(0, plan.size - total))

local class = 'c' .. priority .. '/' .. model
local turns = call('HMGET', TURNS, 'n' .. lane, 't' .. lane, class, 'v' .. lane)
local waiting = length > 0 and call('HMGET', P .. 'owners:' .. lane, 'n' .. owner, 'v' .. owner, 'unconfirmed') or {}
local is_named = owner ~= ''
if is_named then
  call('HSET', TURNS, 'n' .. lane, at + NAMED_MS)
end
if is_named or at < tonumber(turns[1] or 0) then
  if tonumber(waiting[1] or 0) >= GREED * free then
    return {'no room'}
  end
elseif free <= 0 then
  return {'no room'}
end

-- Who goes before it in its own lane: those in front of its score, and all that are not confirmed yet.
local score = next_score(turns[4], waiting[2])
local position = 0
if length > 0 then
  position = call('ZCOUNT', P .. 'lane:' .. lane, '-inf', score) + tonumber(waiting[3] or 0)
end

-- A lane that was empty starts level with the others of its model and priority: idling earns no credit.
local turn, latest = tonumber(turns[2] or 0), tonumber(turns[3] or 0)
local start = length > 0 and turn or math.max(turn, latest)

-- And in the other lanes of its model, rather too many than too few.
local is_first = length == 0
if total > length then
  local mine = start + position / weight
  for _, other in ipairs(plan.lanes) do
    local others = lengths[other[1]] or 0
    if other[1] ~= lane and other[2] == model and others > 0 then
      is_first = false
      if other[4] == priority then
        local theirs = tonumber(call('HGET', TURNS, 't' .. other[1]) or 0)
        if mine >= theirs then
          position = position + math.min(others, math.floor((mine - theirs) * other[3]) + 1)
        end
      else
        local oldest = call('ZRANGE', P .. 'ages:' .. other[1], 0, 0, 'WITHSCORES')
        local urgency = other[4] + (at - (oldest[2] or at)) / plan.ageing
        if urgency > priority then
          position = position + others
        end
      end
    end
  end
end

if form_limit ~= '' and tonumber(call('HGET', FORMS, model) or 0) >= tonumber(form_limit) then
  return {'forms'}
end
if most_ahead ~= '' and position > tonumber(most_ahead) then
  return {'too late'}
end

-- The token budget: the most that it can take is charged, and `commit` puts in its place what it took.
local charged = ''
if ARGV[QUESTION] ~= '' then
  local question, default, answer, most = ARGV[QUESTION], ARGV[QUESTION + 1], ARGV[QUESTION + 2], ARGV[QUESTION + 3]
  local limit, window = tonumber(ARGV[QUESTION + 4]), tonumber(ARGV[QUESTION + 5])
  local has_own = ARGV[QUESTION + 6] == '1'
  local system = not has_own and conversation[3] or default
  -- How the history would be cut to fit is not known here; that prompt and answer fit into the context, is.
  local context = tonumber(ARGV[QUESTION + 7]) or math.huge
  local prompt = question + system
  prompt = prompt + math.max(0, math.min(tonumber(conversation[2] or 0), tonumber(most), context - prompt))
  answer = math.min(tonumber(answer), math.max(0, context - prompt))
  local tokens = prompt + answer
  if tokens > limit then
    return {'never fits', prompt, answer}
  end
  charged = session ~= '' and session or flying
  local budget = P .. 'budget:' .. charged
  local excess, gone = tokens - limit, 0
  local charges = {}
  for _, entry in ipairs(call('LRANGE', budget, 0, -1)) do
    local ms, spent = entry:match('^(%d+):(%d+):')
    if at - ms < window then
      charges[#charges + 1] = {tonumber(ms), tonumber(spent)}
      excess = excess + spent
    else
      gone = gone + 1
    end
  end
  for _, charge in ipairs(charges) do
    if excess <= 0 then
      break
    end
    excess = excess - charge[2]
    if excess <= 0 then
      return {'over budget', charge[1] + window - at}
    end
  end
  if gone > 0 then
    call('LTRIM', budget, gone, -1)
  end
  if #charges >= MOST_CHARGES then
    -- The two oldest become one that leaves with the later, and that nobody settles any more.
    call('LPOP', budget)
    call('LSET', budget, 0, string.format('%d:%d:', charges[2][1], charges[1][2] + charges[2][2]))
  end
  call('RPUSH', budget, string.format('%d:%d:%s', at, tokens, id))
  call('PEXPIRE', budget, window)
end

local look = ''
if deadline ~= '' then
  deadline = at + deadline
  look = deadline
end
if slot_by ~= '' then
  look = math.min(look ~= '' and look or math.huge, at + slot_by)
end
-- Who served its session last has its prefix in a cache, if it serves this model, and lives.
local prefer = conversation[4] or ''
if prefer ~= '' then
  local served = call('HGET', P .. 'worker:' .. prefer, 'models')
  if not served or not served:find(cjson.encode(model) .. ':', 1, true) then
    prefer = ''
  end
end
local is_granted = token ~= '' and is_first and (prefer == '' or prefer == instance)
call('HSET', key_of(id), 'state', 'unconfirmed', 'body', body, 'lane', lane, 'model', model, 'owner', owner,
  'session', session, 'flying', flying, 'names', names, 'retry', retry, 'at', at, 'deadline', deadline, 'look', look,
  'form', form_limit ~= '' and '1' or '', 'charge', charged, 'score', score, 'run', 0, 'lost', 0,
  'place', position, 'prefer', prefer, 'token', is_granted and token or '', 'instance', instance)
call('ZADD', UNCONFIRMED, at + patience, id)
call('ZADD', P .. 'flying:' .. flying, 0, by_name(names) .. id)
if session ~= '' then
  call('HSET', P .. 'session:' .. session, 'claim', id)
end
if form_limit ~= '' then
  call('HINCRBY', FORMS, model, 1)
end
if retry ~= '' then
  call('SET', P .. 'retry:' .. retry, 'j:' .. id)
end
if is_granted then
  -- Its turn has come, and has been: it takes nobody's room.
  call('HSET', TURNS, 'v' .. lane, score, class, start, 't' .. lane, start + 1 / weight,
    'l' .. model, call('HINCRBY', TURNS, 'taken', 1))
  return {'granted', version_of_conversation()}
end
if start ~= turn then
  call('HSET', TURNS, 't' .. lane, start)
end
count_in(lane, owner, score)
call('HINCRBY', P .. 'owners:' .. lane, 'unconfirmed', 1)
return {'admitted', position}
