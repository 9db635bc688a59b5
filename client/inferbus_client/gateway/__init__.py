"""An OpenAI-shaped door to the bus."""
