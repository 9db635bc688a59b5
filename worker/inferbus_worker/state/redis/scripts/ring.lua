-- Wake a worker that sleeps on its own bell.
ring('worker:' .. ARGV[1])
return 0
