"""examples/unity compiles; Unity and MQTTnet are no packages of Debian's, so declarations stand in for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.example_bus import EXAMPLES
from support.needs import needs_program
from support.scripts import ROOT


def test_it_compiles(tmp_path: Path) -> None:
    sources = [EXAMPLES / "unity/Inferbus.cs", ROOT / "tests/unity/StandIns.cs"]
    # 0649: Unity and JsonUtility give these fields their values.
    command = [needs_program("mcs"), "-target:library", "-warnaserror", "-nowarn:649", f"-out:{tmp_path / 'unity.dll'}"]
    done = subprocess.run([*command, *sources], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
