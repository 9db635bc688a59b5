"""vLLM in this process. The only room that imports it, and only when an engine is started."""
