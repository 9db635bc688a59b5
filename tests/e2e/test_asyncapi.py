"""AsyncAPI's own parser reads docs/asyncapi.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from support.described_bus import ASYNCAPI
from support.node import run_node

#: That there is a newer version of the specification is no fault of the document's.
_ALLOWED: Final = {"asyncapi-latest-version"}


def parsed(document: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_node("asyncapi.mjs", document))
    return found


@pytest.mark.timeout(700)
def test_the_document_is_accepted_without_a_complaint() -> None:
    found = parsed(ASYNCAPI)
    assert [one for one in found["complaints"] if one["code"] not in _ALLOWED] == []
    assert found["accepted"]


@pytest.mark.timeout(700)
def test_one_with_a_fault_is_not(tmp_path: Path) -> None:
    document = yaml.safe_load(ASYNCAPI.read_text())
    del document["channels"]["ask"]
    broken = tmp_path / "asyncapi.yaml"
    broken.write_text(yaml.safe_dump(document))
    assert not parsed(broken)["accepted"]
