"""Parts that tests need and a machine may lack: a skip with its reason on a laptop, a failure in CI."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import pytest

#: Where Debian and Homebrew put daemons, which is not on everybody's PATH.
_DAEMONS: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"

#: Where scripts/lib/llama-server puts what it builds.
_LLAMA_SERVER: Final = Path(__file__).resolve().parents[2] / ".cache" / "llama.cpp" / "llama-server"


def needs_module(name: str) -> None:
    """Go on only if the Python module `name` is installed."""
    if importlib.util.find_spec(name) is None:
        _missing(f"the Python module {name} is not installed")


def needs_program(name: str) -> str:
    """The path of the program `name`; go on only if there is one."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_DAEMONS}")
    if path is None:
        _missing(f"the program {name} is not installed")
    return path


def needs_llama_server() -> str:
    """The path of llama.cpp's server; go on only if there is one."""
    if named := os.environ.get("INFERBUS_LLAMA_SERVER"):
        return named
    if not _LLAMA_SERVER.exists():
        _missing("llama.cpp's server is not built (scripts/setup backends builds it)")
    return str(_LLAMA_SERVER)


def needs_npm(complaint: str) -> None:
    """Go on unless npm complained that it does not reach its registry."""
    if any(words in complaint for words in ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN")):
        _missing(f"npm reaches no registry: {complaint.strip().splitlines()[-1]}")


def needs_packages(complaint: str) -> None:
    """Go on unless pip complained that it does not reach a package index."""
    if any(words in complaint for words in ("NewConnectionError", "Max retries", "from versions: none", "ReadTimeout")):
        _missing(f"pip reaches no package index: {complaint.strip().splitlines()[-1]}")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must run everything", pytrace=False)
    pytest.skip(reason)
