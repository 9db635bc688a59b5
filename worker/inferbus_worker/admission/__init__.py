"""Who gets in: from a message that has arrived to a job in the queue, or a refusal."""
