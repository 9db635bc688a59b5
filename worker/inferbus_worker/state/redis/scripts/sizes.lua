-- How much of everything there is.
local leases = {}
for _, instance in ipairs(call('ZRANGE', WORKERS, 0, -1)) do
  leases[#leases + 1] = call('HGET', P .. 'worker:' .. instance, 'worker') or instance
  leases[#leases + 1] = call('SCARD', P .. 'held:' .. instance)
end
return {
  call('ZCARD', SESSIONS), tonumber(call('HGET', KEPT, 'bytes') or 0), call('HGETALL', LENGTHS), call('ZCARD', LEASES),
  leases, call('ZCARD', UNCONFIRMED),
}
