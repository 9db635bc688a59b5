"""Engines: whatever answers an OpenAI chat completion, in this process or elsewhere."""
