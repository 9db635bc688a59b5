-- Hold on to jobs. What is leased to this worker for a while and not among them, it has never heard of: the answer to its
-- take was lost, and the job goes back; unless this comes so late that he may have taken more since he asked.
local instance, lease_ms, not_after = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local HELD = 4
local UNHEARD_MS = 2000

local at = now()
local lost, cancelled, unknown, named = {}, {}, {}, {}
for index = HELD, #ARGV, 2 do
  local id = ARGV[index]
  local values = call('HMGET', key_of(id), 'token', 'cancelled', 'state')
  named[id] = true
  if values[1] ~= ARGV[index + 1] then
    local gone = is_unknown(id, ARGV[index + 1]) and unknown or lost
    gone[#gone + 1] = id
  elseif values[3] ~= 'unconfirmed' then -- else the confirmation is behind this
    call('ZADD', LEASES, at + lease_ms, id)
    if values[2] == '1' and values[3] == 'running' then
      cancelled[#cancelled + 1] = id
    end
  end
end
for _, id in ipairs(call('SMEMBERS', P .. 'held:' .. instance)) do
  local job = at <= not_after and not named[id] and load(id)
  if job and job.instance == instance and job.taken + UNHEARD_MS < at then
    if job.state == 'running' then
      unlease(id, job)
      return_to_lane(id, job)
    else
      -- Its reply is ready: whoever reaps next sends it.
      call('ZADD', LEASES, at, id)
    end
  end
end
return {lost, cancelled, unknown}
