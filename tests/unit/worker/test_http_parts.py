"""The worker's HTTP side where something that it takes is not installed."""

from __future__ import annotations

import sys

import pytest

from inferbus_client.errors import SettingsError
from inferbus_worker.ops.http import make_http
from inferbus_worker.settings.worker import Settings
from support.needs import needs_module


@pytest.mark.parametrize("part", ["starlette", "uvicorn"])
def test_it_is_one_sentence_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    needs_module("starlette")
    for name in [name for name in sys.modules if name.partition(".")[0] == part]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, part, None)
    settings = Settings.load({"http": "127.0.0.1:0"}, None)
    with pytest.raises(SettingsError, match=rf"^--http needs {part}\S*: pip install 'inferbus-worker\[http\]'$"):
        make_http(settings, lambda: pytest.fail("nobody asks"), list, lambda: 0)
