"""What streams yield, where nobody takes a request over."""

from __future__ import annotations

from inferbus_client import Delta, Restarted


def text(part: Delta | Restarted) -> str:
    assert isinstance(part, Delta), part
    return part.text
