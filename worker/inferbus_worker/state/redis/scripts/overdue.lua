-- Waiting jobs that somebody must look at: their deadline has passed, or no slot came in time.
local instance, token, lease_ms, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local at = now()
local rows = {}
for _, id in ipairs(call('ZRANGE', LOOKS, '-inf', at, 'BYSCORE', 'LIMIT', 0, most)) do
  local job = load(id)
  if job and job.state == 'queued' then
    rows[#rows + 1] = take_out(id, job, instance, token, at + lease_ms, at)
  else
    call('ZREM', LOOKS, id)
  end
end
return rows
