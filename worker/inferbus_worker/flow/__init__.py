"""From the queue to the end of a job: the only place to wait, the threads, the turn, what it leaves behind."""
