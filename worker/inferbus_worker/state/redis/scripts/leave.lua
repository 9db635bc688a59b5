-- This worker goes.
local instance = ARGV[1]
call('ZREM', WORKERS, instance)
call('DEL', P .. 'worker:' .. instance, P .. 'bell:worker:' .. instance, P .. 'confirmed:' .. instance)
return 0
