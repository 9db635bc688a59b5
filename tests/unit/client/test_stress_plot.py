"""`--plot` without matplotlib: a sentence, before the run."""

from __future__ import annotations

import pytest

from inferbus_client.cli.stress import plot
from inferbus_client.settings import SettingsError


def test_a_missing_matplotlib_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"pip install 'inferbus-client\[plot\]'"):
        plot.require_matplotlib()
