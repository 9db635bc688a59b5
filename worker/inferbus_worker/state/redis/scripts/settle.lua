-- The terminal reply has left: the job is over. `written` says that the change lies in the session's history as well.
for index = 1, #ARGV, 3 do
  local id, token, written = ARGV[index], ARGV[index + 1], ARGV[index + 2]
  local job = held(id, token)
  if job and job.state == 'owed' then
    if written == '1' and job.wrote ~= '' then
      local session = P .. 'session:' .. job.session
      if call('HGET', session, 'version') == job.wrote then
        call('HDEL', session, 'pending')
      end
    end
    unlease(id, job)
    if tonumber(job.run) > 0 then
      remember_end(id, 'answered') -- for whoever has run it before
    end
    call('DEL', key_of(id))
  end
end
return 0
