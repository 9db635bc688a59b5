"""OpenAI- and Anthropic-shaped HTTP, and a page, in front of the bus. Web servers are imported when it runs."""
