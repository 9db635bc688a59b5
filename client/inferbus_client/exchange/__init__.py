"""One request from its first send to its end, for threads and event loops alike."""
