-- Forget a session at once, claimed or not: whoever has it finishes its turn, and does not write it.
return forget_session(ARGV[1])
