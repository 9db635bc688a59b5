"""State that several workers share, in Redis or Valkey. Nothing outside this room imports redis."""
