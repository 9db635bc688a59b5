"""docs/fleet.md: what it names of ours is there."""

from __future__ import annotations

import re
from typing import Final

import pytest
import yaml

from fleet_simulation.page import PAGE
from inferbus_client.settings.flags import flags_of
from inferbus_worker.settings.store_url import StoreUrl
from inferbus_worker.settings.worker import Settings
from support.fleet_page import vllm_options
from support.scripts import ROOT

TEXT: Final = PAGE.read_text()
#: Of `inferbus state`, `scripts/demo` and `scripts/simulate-fleet`, whose own help has them.
_OTHERS: Final = {"--yes", "--workers", "--sessions", "--answer", "--think"}


def test_every_option_is_one_of_the_worker_s() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"<!--.*?-->", "", TEXT)))
    assert "--ack" in named
    assert named - _OTHERS <= set(flags_of(Settings))


@pytest.mark.parametrize("url", re.findall(r"`((?:rediss?|unix|redis\+\w+)://[^`]+)`", TEXT))
def test_every_url_of_a_store_is_taken(url: str) -> None:
    assert str(StoreUrl.parse(url))


def test_redis_is_told_what_the_page_says() -> None:
    """But for the last row, which is no setting."""
    _, _, section = TEXT.partition("\n## Redis\n")
    named = re.findall(r"^\| `([\w-]+ \w+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    shipped = (ROOT / "deploy/redis/redis.conf").read_text().splitlines()
    assert len(named) == 3
    assert set(named) <= set(shipped)


def test_vllm_s_options_are_written_as_the_file_has_them() -> None:
    options = yaml.safe_load("\n".join(vllm_options()))
    assert {"tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"} <= options.keys()
