"""Node packages that tests need, from npm, once per machine: others' tools that read what this project writes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

from support.needs import needs_npm, needs_program
from support.scripts import ROOT

#: Folders with a `package.json`, which names the packages that their scripts use.
SCRIPTS: Final = ROOT / "tests/node"
_CACHE: Final = ROOT / ".cache/node"
_INSTALL_TIMEOUT: Final = 600


def run_node(script: str, *arguments: str | Path, timeout: float = 120) -> str:
    """What a script of tests/node prints.

    Raises:
        subprocess.CalledProcessError: it ended with another status than 0; its words are in the error.
    """
    node = needs_program("node")
    done = subprocess.run(
        [node, with_packages() / script, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, script, done.stdout, done.stderr)
    return done.stdout


def with_packages(sources: Path = SCRIPTS) -> Path:
    """A copy of a folder beside the packages that it names. Tests that run at once install them once."""
    named = hashlib.sha256((sources / "package.json").read_bytes()).hexdigest()[:16]
    there = _CACHE / named
    there.mkdir(parents=True, exist_ok=True)
    with (there / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for source in sources.iterdir():
            _renew(source, there / source.name)
        if not (there / "installed").exists():
            _install(there)
            (there / "installed").touch()
    return there


def _renew(source: Path, copy: Path) -> None:
    """Copy a file whose copy is out of date: at once, since another process may just read it."""
    if not copy.exists() or copy.read_bytes() != source.read_bytes():
        beside = copy.with_name(f"{copy.name}.new")
        shutil.copy(source, beside)
        beside.replace(copy)


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
