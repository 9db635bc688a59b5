"""What the worker tells of itself."""
