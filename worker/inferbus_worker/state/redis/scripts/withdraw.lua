-- Take back what was admitted and never confirmed. What is confirmed stays.
for index = 1, #ARGV do
  local job = load(ARGV[index])
  if job and job.state == 'unconfirmed' then
    drop(ARGV[index], job)
  end
end
return 0
