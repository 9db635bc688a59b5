-- Let others run what this worker took; it is not to blame. What is owed already, somebody else sends.
local at = now()
for index = 1, #ARGV, 2 do
  local id = ARGV[index]
  local job = held(id, ARGV[index + 1])
  if job and job.state == 'running' then
    unlease(id, job)
    return_to_lane(id, job)
  elseif job then
    call('ZADD', LEASES, at, id)
  end
end
return 0
