"""Inferbus installed into an environment of its own, as on a machine where there is no checkout to work in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from support.inferbus import environment
from support.needs import needs_packages
from support.scripts import ROOT

#: A program that asks: its arguments are the broker's URL and the project.
QUESTION: Final = """
import sys
from inferbus_client import Client
with Client(sys.argv[1], project=sys.argv[2]) as client:
    print(client.ask("one question").text)
"""


class Installation:
    """A virtual environment of its own, with what one line puts there.

    Args:
        folder: where it is made; nothing may be there yet.
        line: what a person would type in a shell, in the repository's root: `pip install ./client`.
    """

    def __init__(self, folder: Path, line: str) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
        pip = f'pip() {{ "{sys.executable}" -m pip --python "{folder}/bin/python" -q "$@"; }}'
        # What is run once or twice here is not worth compiling all of it.
        env = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "requirements/lock-cpu.txt"), "PIP_NO_COMPILE": "1"}
        command = ["bash", "-euc", f"{pip}\n{line}"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode:
            needs_packages(done.stderr)
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.path_of(program), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(),
            cwd=self.folder,
            check=False,
        )

    def path_of(self, program: str) -> str:
        return str(self.folder / "bin" / program)

    @property
    def packages(self) -> set[str]:
        """The names of all distributions that are there, as their folders spell them."""
        return {path.name.split("-")[0].lower() for path in self.folder.glob("lib/python*/site-packages/*.dist-info")}
