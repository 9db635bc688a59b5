"""The worker's place on the bus: its connection and presence, its acknowledgements, other workers."""
