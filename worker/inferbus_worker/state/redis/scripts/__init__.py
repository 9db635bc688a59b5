"""The scripts that decide in the store, as a whole or not at all: one file each, in Lua.

Before each stand `prelude.lua`, the clock, and `common.lua`, what they share. Every script costs the store O(log n), or
as many steps as there are lanes, or as its caller names things; none looks through all keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Final

#: Stand before each script, and are none.
_BEFORE: Final = ("prelude", "common")


def sources(prelude: str | None = None) -> Mapping[str, str]:
    """Every script by its name, ready to be loaded.

    Args:
        prelude: stands in the place of `prelude.lua`, for a test whose clock stands still.
    """
    texts = {
        file.name.removesuffix(".lua"): file.read_text(encoding="utf-8")
        for file in resources.files(__name__).iterdir()
        if file.name.endswith(".lua")
    }
    before = f"{texts['prelude'] if prelude is None else prelude}\n{texts['common']}\n"
    return {name: before + text for name, text in texts.items() if name not in _BEFORE}
