"""From what a job says to what the broker takes: streams, the sender, and the bound on what waits."""
