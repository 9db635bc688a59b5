"""What a program serves over HTTP, on a thread of its own. starlette and uvicorn are imported when it is built."""
