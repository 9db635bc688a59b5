"""The build stage of deploy/docker/Dockerfile, step by step in a folder, without Docker and without the dependencies.

What is put on here is what the stage has copied by then, and no more: so a part that the build needs and the image has
not is missing here, too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from inferbus_client import __version__
from support.scripts import ROOT

pytestmark = pytest.mark.slow

#: In the place of pip: makes wheels of the folders that are to be installed, with the build tool that is there.
_PIP: Final = f"""#!/bin/sh
for word; do
    case $word in ./*) set -- "$@" "$word" ;; esac
    shift
done
exec {sys.executable} -m pip wheel --no-deps --no-index --no-build-isolation --wheel-dir wheels "$@"
"""


def steps() -> Iterator[tuple[str, str]]:
    """The stage's instructions, each with what follows it."""
    stage = (ROOT / "deploy" / "docker" / "Dockerfile").read_text().split("\nFROM ")[1]
    lines = re.sub(r"^#.*\n", "", stage, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    for line in lines[1:]:
        word, _, rest = line.partition(" ")
        yield word, rest


def test_the_build_stage_copies_what_its_installations_need(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip").write_text(_PIP)
    (tmp_path / "bin" / "pip").chmod(0o755)
    image = tmp_path / "image"
    image.mkdir()
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "FLAVOUR": "gpu"}
    for word, rest in steps():
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy(ROOT / source, image / target, into=target.endswith("/"))
        elif word == "RUN" and "-m venv" not in rest:
            done = subprocess.run(
                ["sh", "-ec", rest],
                cwd=image,
                env=environment,
                capture_output=True,
                text=True,
                timeout=200,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
    made = {path.name for path in (image / "wheels").iterdir()}
    assert {f"inferbus_{wing}-{__version__}-py3-none-any.whl" for wing in ("client", "worker")} <= made


def copy(source: Path, target: Path, *, into: bool) -> None:
    """As COPY does: of a folder what it holds, of a file itself."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        (target if into else target.parent).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
