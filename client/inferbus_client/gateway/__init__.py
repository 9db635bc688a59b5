"""OpenAI-shaped HTTP and a page in front of the bus. starlette and uvicorn are imported when it is built."""
