"""Others' tools that read what this project writes, where these are Node packages: from npm, once per machine."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

from support.needs import needs_npm, needs_program
from support.scripts import ROOT

#: What is run, and `package.json`, which names the packages that it uses.
_SOURCES: Final = ROOT / "tests/node"
_CACHE: Final = ROOT / ".cache/node"
_INSTALL_TIMEOUT: Final = 600


def run_node(script: str, *arguments: str | Path, timeout: float = 120) -> str:
    """What a script of tests/node prints.

    Raises:
        subprocess.CalledProcessError: it ended with another status than 0; its words are in the error.
    """
    node = needs_program("node")
    done = subprocess.run(
        [node, _with_packages() / script, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, script, done.stdout, done.stderr)
    return done.stdout


def _with_packages() -> Path:
    """A copy of tests/node beside the packages that it names. Tests that run at once install them once."""
    named = hashlib.sha256((_SOURCES / "package.json").read_bytes()).hexdigest()[:16]
    there = _CACHE / named
    there.mkdir(parents=True, exist_ok=True)
    with (there / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for source in _SOURCES.iterdir():
            shutil.copy(source, there)
        if not (there / "installed").exists():
            _install(there)
            (there / "installed").touch()
    return there


def _install(there: Path) -> None:
    # No package runs anything of its own while it is installed.
    command = [needs_program("npm"), "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    done = subprocess.run(
        command,
        cwd=there,
        capture_output=True,
        text=True,
        timeout=_INSTALL_TIMEOUT,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        needs_npm(done.stderr)
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
