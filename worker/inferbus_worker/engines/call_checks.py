"""What every engine refuses of a call before it begins: content and parameters that a stranger must not bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inferbus_worker.chat import Message
from inferbus_worker.engines.base import InvalidCallError

#: Parameters of a request that reach an engine. What is not here (`n`, `min_tokens`, `logit_bias`,
#: `chat_template_kwargs`, …) lets one request starve the others or rewrite the prompt around them.
EXTRA_PARAMETERS = frozenset(
    {
        "stop",
        "seed",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "response_format",
    }
)


def check_messages(messages: Sequence[Message], *, images: bool) -> None:
    """Refuse content that the model cannot take, and images that the engine would have to fetch.

    Raises:
        InvalidCallError: naming what is wrong.
    """
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            _check_part(part, images=images)


def _check_part(part: Any, *, images: bool) -> None:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return
    if kind != "image_url":
        raise InvalidCallError("A content part must be of type text or image_url.")
    if not images:
        raise InvalidCallError("This model takes no images.")
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, Mapping) else image
    # Anything else would make this machine fetch an address of the requester's choosing.
    if not isinstance(url, str) or not url.startswith("data:image/"):
        raise InvalidCallError("An image must be a data URI.")


def checked_parameters(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The allowlisted sampling parameters, ready for the engine.

    Raises:
        InvalidCallError: for any other.
    """
    unknown = sorted(extra.keys() - EXTRA_PARAMETERS)
    if unknown:
        raise InvalidCallError(f"Unknown parameter {unknown[0]}.")
    return dict(extra)
