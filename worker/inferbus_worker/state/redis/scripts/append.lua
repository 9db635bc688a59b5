-- Write a turn into a session's history, a key and perhaps a node of its own: the only one of this script.
return write_history(KEYS[1], tonumber(ARGV[1]), ARGV, 2) and 1 or 0
