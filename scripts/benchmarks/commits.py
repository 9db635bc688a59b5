"""The code of another commit, to be run beside this one's."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[2]


class NoSuchCommitError(RuntimeError):
    """This checkout does not have the commit: it is shallow, or no checkout at all."""

    def __init__(self, commit: str) -> None:
        super().__init__(
            f"this checkout does not have the commit {commit}; a shallow one may get it by `git fetch --unshallow`"
        )


def short(commit: str) -> str:
    """Its abbreviated name.

    Raises:
        NoSuchCommitError: there is none.
    """
    return _git(commit, "rev-parse", "--short", "--verify", "--quiet", f"{commit}^{{commit}}").decode().strip()


@contextmanager
def exported(commit: str, *folders: str) -> Iterator[Path]:
    """A directory with these folders as the commit has them.

    Raises:
        NoSuchCommitError: there is none.
    """
    archive = _git(commit, "archive", short(commit), *folders)
    with tempfile.TemporaryDirectory(prefix="inferbus-bench-") as tree:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(tree, filter="data")
        yield Path(tree)


def _git(commit: str, *arguments: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise NoSuchCommitError(commit) from None
