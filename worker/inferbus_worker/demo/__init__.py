"""The body of `inferbus demo`: a broker, a worker and a chat in one command, and nothing left when it ends."""
