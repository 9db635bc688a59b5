"""The worker's settings: its own, its projects', and what of them cannot be meant together."""
