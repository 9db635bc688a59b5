-- What the scripts share. The loader puts it behind the prelude and before each script.
--
-- KEYS[1] is the prefix of all of a group's keys. Every other key is made of it here: its hash tag puts all of them into
-- one slot, so that one script may decide on them. Times are the store's, in ms.
local P = KEYS[1]
local call = redis.call

local LEASES, LOOKS, UNCONFIRMED = P .. 'leases', P .. 'looks', P .. 'unconfirmed'
local LENGTHS, TURNS, FORMS = P .. 'lengths', P .. 'turns', P .. 'forms'
local SESSIONS, KEPT, WORKERS = P .. 'sessions', P .. 'kept', P .. 'workers'

-- A bell that nobody has heard for so long is not worth a key.
local BELL_MS = 60000
-- Jobs that came back stand before all others of their lane, in the order in which they came.
local BEFORE_ALL = -1e15
-- For so long a worker may be stopped, or cut off, and still hear what became of its jobs.
local REMEMBERED_MS = 3600000

local function key_of(id)
  return P .. 'job:' .. id
end

-- What decides on a job's ways; never its body.
local FIELDS = {
  'state', 'token', 'instance', 'lane', 'model', 'owner', 'session', 'flying', 'names', 'retry', 'at', 'deadline',
  'look', 'form', 'charge', 'score', 'returned', 'run', 'lost', 'cancelled', 'wrote', 'taken',
}

-- A job, or nil where there is none.
local function load(id)
  local values = call('HMGET', key_of(id), unpack(FIELDS))
  if not values[1] then
    return nil
  end
  local job = {}
  for number, field in ipairs(FIELDS) do
    job[field] = values[number] or ''
  end
  return job
end

-- The job that somebody holds with this token, or nil: it has gone on without him.
local function held(id, token)
  local job = load(id)
  if job and job.token == token and (job.state == 'running' or job.state == 'owed') then
    return job
  end
  return nil
end

-- Say what became of a job to those who may yet ask: `dropped`, since nobody confirmed it in time; `answered`, by another
-- one than whoever asks; or that its request is somebody else's.
local function remember_end(id, what)
  call('SET', P .. 'gone:' .. id, what, 'PX', REMEMBERED_MS)
end

-- Whether the store has forgotten a job that somebody holds with this token, or forgotten that it was confirmed.
local function is_unknown(id, token)
  local values = call('HMGET', key_of(id), 'state', 'token')
  if values[1] then
    return values[1] == 'unconfirmed' and values[2] ~= token
  end
  return call('EXISTS', P .. 'gone:' .. id) == 0
end

-- Put one token on a bell, unless one lies there.
local function ring(bell)
  local key = P .. 'bell:' .. bell
  if call('EXISTS', key) == 0 then
    call('RPUSH', key, '1')
    call('PEXPIRE', key, BELL_MS)
  end
end

local function decrease(hash, field)
  if call('HINCRBY', hash, field, -1) <= 0 then
    call('HDEL', hash, field)
  end
end

-- ------------------------------------------------------------------------------------------------ room in a lane

-- The score of an owner's next job: start-time fair queueing, in which each job is one turn.
local function next_score(clock, last)
  return math.max(tonumber(clock or 0), tonumber(last or 0)) + 1
end

-- Count one more that waits, for its owner too.
local function count_in(lane, owner, score)
  call('HINCRBY', LENGTHS, lane, 1)
  call('HINCRBY', P .. 'owners:' .. lane, 'n' .. owner, 1)
  call('HSET', P .. 'owners:' .. lane, 'v' .. owner, score)
end

-- Undo `count_in`. An owner is known only while something of his waits. Whoever takes out his latest gets its turn back.
local function count_out(job, was_its_turn)
  local owners = P .. 'owners:' .. job.lane
  decrease(LENGTHS, job.lane)
  if job.returned == '1' then
    return
  end
  if call('HINCRBY', owners, 'n' .. job.owner, -1) <= 0 then
    call('HDEL', owners, 'n' .. job.owner, 'v' .. job.owner)
  elseif not was_its_turn and call('HGET', owners, 'v' .. job.owner) == job.score then
    call('HINCRBYFLOAT', owners, 'v' .. job.owner, -1)
  end
end

-- Stand in the lane, for everybody to take.
local function stand(id, job)
  call('ZADD', P .. 'lane:' .. job.lane, job.score, id)
  call('ZADD', P .. 'ages:' .. job.lane, job.at, id)
  if job.look ~= '' then
    call('ZADD', LOOKS, job.look, id)
  end
end

-- Take a job out of its lane.
local function leave(id, job, was_its_turn)
  call('ZREM', P .. 'lane:' .. job.lane, id)
  call('ZREM', P .. 'ages:' .. job.lane, id)
  if job.look ~= '' then
    call('ZREM', LOOKS, id)
  end
  count_out(job, was_its_turn)
end

-- Put a job that was taken at the head of its lane, for another run. It takes nobody's room: it is one of few.
local function return_to_lane(id, job)
  job.score = BEFORE_ALL + call('HINCRBY', TURNS, 'returned', 1)
  call('HSET', key_of(id), 'state', 'queued', 'token', '', 'instance', '', 'prefer', '', 'returned', '1',
    'score', job.score, 'run', job.run + 1, 'lost', job.lost)
  call('HINCRBY', LENGTHS, job.lane, 1)
  stand(id, job)
  ring(job.model)
end

-- --------------------------------------------------------------------------------------------------------- leases

-- Note who has a job from now on.
local function lease(id, job, instance, token, until_ms, at)
  if job.instance ~= '' and job.instance ~= instance then
    call('SREM', P .. 'held:' .. job.instance, id)
  end
  call('HSET', key_of(id), 'state', job.state, 'token', token, 'instance', instance, 'taken', at)
  call('ZADD', LEASES, until_ms, id)
  call('SADD', P .. 'held:' .. instance, id)
end

local function unlease(id, job)
  call('ZREM', LEASES, id)
  call('SREM', P .. 'held:' .. job.instance, id)
end

-- What a worker is told of a job that it holds now: see `Taken`.
local function taken_row(id, job, at, is_poison)
  local key = key_of(id)
  local values = call('HMGET', key, 'body', 'owed')
  local version = job.session ~= '' and call('HGET', P .. 'session:' .. job.session, 'version')
  return {
    id, job.run, values[1] or '', job.session, version or '0', at - job.at,
    job.deadline ~= '' and job.deadline - at or '', values[2], is_poison and 1 or 0, job.cancelled == '1' and 1 or 0,
    job.model,
  }
end

-- Take a waiting job out of its lane, to be ended by this worker or put back.
local function take_out(id, job, instance, token, until_ms, at)
  leave(id, job, false)
  job.state = 'running'
  lease(id, job, instance, token, until_ms, at)
  return taken_row(id, job, at, false)
end

-- --------------------------------------------------------------------------------------- what a job holds besides

-- Put what a job really took in the place of what it was charged. A charge that was merged with another one stays.
local function settle_charge(id, job, tokens)
  if job.charge == '' then
    return
  end
  local key = P .. 'budget:' .. job.charge
  for index, entry in ipairs(call('LRANGE', key, 0, -1)) do
    local ms, whose = entry:match('^(%d+):%d+:(.*)$')
    if whose == id then
      call('LSET', key, index - 1, ms .. ':' .. tokens .. ':' .. id)
      return
    end
  end
end

-- What stands before a job among those of its session that fly, so that one can be found by its name.
local function by_name(names)
  return #names .. ':' .. names .. '/'
end

local function let_session_go(id, job)
  if job.session ~= '' then
    local session = P .. 'session:' .. job.session
    if call('HGET', session, 'claim') == id then
      call('HDEL', session, 'claim')
    end
  end
end

-- Let go of all that a job held from its admission on: claim, place among those that fly, form, retry. Any number of
-- times: only what is still this job's is let go.
local function release(id, job)
  let_session_go(id, job)
  if call('ZREM', P .. 'flying:' .. job.flying, by_name(job.names) .. id) == 1 and job.form == '1' then
    decrease(FORMS, job.model)
  end
  if job.retry ~= '' and call('GET', P .. 'retry:' .. job.retry) == 'j:' .. id then
    call('DEL', P .. 'retry:' .. job.retry)
  end
end

-- Forget a job that waits, as if it had never come; nobody answers it. Its windows have counted it.
local function drop(id, job)
  if job.state == 'unconfirmed' then
    call('ZREM', UNCONFIRMED, id)
    if job.token == '' then -- else it was granted, and counted nowhere
      decrease(P .. 'owners:' .. job.lane, 'unconfirmed')
      count_out(job, false)
    end
  else
    leave(id, job, false)
  end
  settle_charge(id, job, 0)
  release(id, job)
  if tonumber(job.run) > 0 then
    remember_end(id, 'answered') -- for whoever has run it before
  end
  call('DEL', key_of(id))
end

-- Forget a session; its history is for the caller to delete.
local function forget_session(name)
  local key = P .. 'session:' .. name
  local bytes = call('HGET', key, 'bytes')
  if bytes then
    call('HINCRBY', KEPT, 'bytes', 0 - bytes)
  end
  call('ZREM', SESSIONS, name)
  return call('DEL', key)
end

-- ------------------------------------------------------------------------------------------------------- histories

-- Write a turn into a session's history: version, header, then messages, oldest first. `args` has from `first` on the
-- header, how long to keep it in ms, how many of the oldest and of the newest messages go, whether all goes, and the new
-- ones. Says false to whoever comes too late, or too early; who writes the same again hears true again.
local function write_history(key, version, args, first)
  local header, ttl_ms = args[first], tonumber(args[first + 1])
  local forgotten, dropped, resets = tonumber(args[first + 2]), tonumber(args[first + 3]), args[first + 4] == '1'
  local new, marks = first + 5, 2

  local before = tonumber(call('LINDEX', key, 0) or 0)
  if before > version then
    return false
  end
  if resets or version == 1 then
    call('DEL', key)
    call('RPUSH', key, version, header)
  elseif before == version then
    return true
  elseif before ~= version - 1 then
    return false
  else
    local messages = call('LLEN', key) - marks
    forgotten = math.min(forgotten, messages)
    dropped = math.min(dropped, messages - forgotten)
    if dropped > 0 then
      call('LTRIM', key, 0, -dropped - 1)
    end
    -- What is cut off in front are the two marks and all but two of those forgotten: the marks take their places.
    call('LTRIM', key, forgotten, -1)
    call('LSET', key, 0, version)
    call('LSET', key, 1, header)
  end
  for index = new, #args do
    call('RPUSH', key, args[index])
  end
  call('PEXPIRE', key, ttl_ms)
  return true
end
