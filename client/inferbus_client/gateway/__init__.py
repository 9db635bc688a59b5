"""OpenAI- and Anthropic-shaped HTTP, and a page, in front of the bus. starlette and uvicorn are imported when it runs."""
