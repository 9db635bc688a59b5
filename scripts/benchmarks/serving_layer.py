"""What is asked of vLLM's chat serving layer where nothing of ours stands between."""

from __future__ import annotations

from typing import Any


def chat_request(messages: list[dict[str, str]], *, max_tokens: int, salt: str, stream: bool) -> Any:
    """A request in vLLM's own words, with the sampling of the engine's suites."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest  # noqa: PLC0415

    return ChatCompletionRequest(
        messages=messages, temperature=0.0, top_p=1.0, max_completion_tokens=max_tokens, cache_salt=salt, stream=stream
    )
