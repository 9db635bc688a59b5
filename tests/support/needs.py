"""Parts that tests need and a machine may lack: a skip with its reason on a laptop, a failure in CI."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Final, NoReturn

import pytest

#: Where Debian and Homebrew put daemons, which is not on everybody's PATH.
_DAEMONS: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"


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


def needs_packages(complaint: str) -> None:
    """Go on unless pip complained that it does not reach a package index."""
    if any(words in complaint for words in ("NewConnectionError", "Max retries", "from versions: none", "ReadTimeout")):
        _missing(f"pip reaches no package index: {complaint.strip().splitlines()[-1]}")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must run everything", pytrace=False)
    pytest.skip(reason)
