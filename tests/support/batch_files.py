"""Files of requests and answers in OpenAI's batch format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def request(custom_id: str, text: str = "hello", **body: Any) -> dict[str, Any]:
    """One line's object: a question in one message, and whatever else its body says."""
    asked = {"messages": [{"role": "user", "content": text}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": asked}


def write(path: Path, lines: Iterable[object]) -> Path:
    """A file with one JSON value a line; text stands there as it is."""
    with path.open("w") as file:
        for line in lines:
            file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def texts(path: Path) -> dict[str, str]:
    """What was answered to each request; every one has a single answer."""
    found = read(path)
    answers = {one["custom_id"]: one["response"]["body"]["choices"][0]["message"]["content"] for one in found}
    assert len(answers) == len(found), "something was answered twice"
    return answers
