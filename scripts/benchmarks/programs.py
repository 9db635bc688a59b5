"""What other programs of this machine say of themselves, and of it."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from functools import cache
from typing import Final

_SECONDS: Final = 20


def answer(*command: str) -> str:
    """What a command prints, whatever its status (Mosquitto's help has one of its own); nothing where it fails."""
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False).stdout.strip()
    return ""


@cache
def gpu() -> str | None:
    """The first GPU's name; None where no NVIDIA driver answers."""
    lines = answer("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    return lines[0].strip() if lines else None
