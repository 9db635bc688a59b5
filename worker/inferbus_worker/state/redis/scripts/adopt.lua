-- Whether a worker may answer a job that the store has forgotten, or that it was confirmed: the first who asks may, unless
-- its admitter has heard that it is dropped, and has said so. What is left of it goes.
local id, mine = ARGV[1], 'kept ' .. ARGV[2]
local said = call('GET', P .. 'gone:' .. id)
if said then
  return said == mine and 1 or 0
end
local job = load(id)
if job and (job.state ~= 'unconfirmed' or job.token == ARGV[2]) then
  return 0
end
if job then
  drop(id, job)
end
remember_end(id, mine)
return 1
