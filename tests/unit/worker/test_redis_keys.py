"""The keys of a group, as the scripts name them and as the worker knows them."""

from __future__ import annotations

import re
from typing import Final

from inferbus_worker.state.redis.scripted import TYPES
from inferbus_worker.state.redis.scripts import sources

#: What a command that is sent to a key says of its type.
_OF: Final = {"Z": "zset", "H": "hash"}


def test_each_key_that_a_group_has_once_has_the_type_that_the_scripts_use() -> None:
    text = "\n".join(sources().values())
    names = dict(
        pair
        for left, right in re.findall(r"local ([A-Z, ]+) = ((?:P \.\. '[a-z]+'(?:, )?)+)", text)
        for pair in zip(left.split(", "), re.findall(r"'([a-z]+)'", right), strict=True)
    )
    calls = re.findall(r"call\('([HZ])[A-Z]+', ([A-Z]{2,})\b", text)
    used = {(names[name], _OF[command]) for command, name in calls}
    assert used == set(TYPES.items())
