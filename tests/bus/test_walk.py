"""The way of a plain request, as docs/architecture.md tells it, is the way that it takes."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Final

from support.inferbus import environment
from support.mosquitto import Mosquitto
from support.scripts import ROOT

_WALK: Final = re.compile(r"<!-- walk -->\n(.*?)<!-- end of walk -->", re.DOTALL)
_PAGE: Final = ROOT / "docs/architecture.md"


def test_a_plain_request_passes_the_files_that_the_page_names_and_no_other(own_broker: Mosquitto) -> None:
    passed = subprocess.run(
        [sys.executable, "-m", "support.walk", own_broker.host, str(own_broker.port)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(PYTHONPATH=str(ROOT / "tests")),
        check=True,
    ).stdout.split()
    by_wing = list(zip(passed[::2], passed[1::2], strict=True))
    ours = {file for wing, file in by_wing if wing == "inferbus_worker"}
    page = _PAGE.read_text()
    (told,) = _WALK.findall(page)
    named = set(re.findall(r"`([\w/]+\.py)`", told))
    assert named - {"mqtt/network_loop.py", "mqtt/link.py"} == ours
    assert {file.partition("/")[0] for wing, file in by_wing if wing == "inferbus_client"} == {"contract", "mqtt"}
    assert f"one less: {len(ours)} in the worker" in page
