"""The house: which room may use which. No circles, nothing heavy where it is not at home, every arrow drawn here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

import inferbus_client
import inferbus_worker

#: Each room, in the order in which a request meets it, and what it may use besides itself and `_BELOW`.
_CLIENT: Final = {
    "contract": "",
    "mqtt": "contract",
    "settings": "contract mqtt web",
    "exchange": "contract mqtt settings",
    "client": "contract exchange settings",
    "aio": "contract exchange settings",
    "fleet": "client contract exchange mqtt settings",
    "conformance": "contract fleet mqtt settings",
    "web": "",
    "shapes": "contract exchange",
    "gateway": "aio contract exchange fleet settings shapes web",
    "cli": "aio client conformance contract exchange fleet gateway settings shapes",
}
_WORKER: Final = {
    "cli": "config_check daemon demo engines logs settings",
    "config_check": "settings",
    "demo": "engines",
    "doctor": "engines settings state",
    "estimate": "engines",
    "inventory": "settings state",
    "daemon": "engines logs settings wiring",
    "wiring": "admission bus engines flow group ops replies settings state",
    "group": "admission bus engines flow replies settings state",
    "ops": "engines flow replies settings state",
    "bus": "replies settings",
    "admission": "bus engines flow replies settings state",
    "flow": "engines replies settings state",
    "engines": "logs settings",
    "replies": "",
    "state": "settings",
    "logs": "",
    "settings": "",
}
#: What speaks of nothing else here: everybody may use it.
_BELOW: Final = {
    "inferbus_client": {"errors", "exits", "own_thread", "shown", "tracing", "units", "wording"},
    "inferbus_worker": {"chat", "counting", "outcome", "seldom", "stats_line", "tracing"},
}
#: Imported where they are needed, and in their own rooms alone.
_HEAVY: Final[Mapping[str, str | tuple[str, ...]]] = {
    "vllm": "inferbus_worker.engines.vllm",
    "torch": "inferbus_worker.engines.vllm",
    "starlette": (
        "inferbus_worker.engines.vllm",
        "inferbus_worker.ops",
        "inferbus_client.web",
        "inferbus_client.gateway",
    ),
    "openai": "inferbus_worker.engines.remote",
    "anthropic": "inferbus_worker.engines.remote",
    "httpx": "inferbus_worker.engines.remote",
    "httpx2": "inferbus_worker.engines.remote",
    "uvicorn": "inferbus_client.web",
    "prometheus_client": ("inferbus_worker.ops", "inferbus_client.gateway"),
    "psutil": "inferbus_worker.engines",
    "gguf": "inferbus_worker.engines.estimate",
    "huggingface_hub": "inferbus_worker.engines",
    "opentelemetry": "inferbus_client.tracing",
    "redis": "inferbus_worker.state.redis",
}


def modules(package: Path) -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(package.rglob("*.py")):
        name = ".".join(file.relative_to(package.parent).with_suffix("").parts)
        yield name, ast.parse(file.read_text())


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


HOUSE: Final = [
    *modules(Path(inferbus_client.__file__).parent),
    *modules(Path(inferbus_worker.__file__).parent),
]


@pytest.mark.parametrize(("wing", "rooms"), [("inferbus_client", _CLIENT), ("inferbus_worker", _WORKER)])
def test_each_room_uses_what_is_drawn_and_no_more(wing: str, rooms: dict[str, str]) -> None:
    used: dict[str, set[str]] = {}
    for name, tree in HOUSE:
        here = room(name)
        if not name.startswith(f"{wing}.") or here in {"__init__", "__main__", *_BELOW[wing]}:
            continue
        there = {room(one) for one in imports(tree) if one.startswith(f"{wing}.")}
        used.setdefault(here, set()).update(there - {here, "__version__", "Client"} - _BELOW[wing])
    assert used == {name: set(arrows.split()) for name, arrows in rooms.items()}


@pytest.mark.parametrize("rooms", [_CLIENT, _WORKER], ids=["client", "worker"])
def test_no_arrows_make_a_circle(rooms: dict[str, str]) -> None:
    def reached(name: str) -> set[str]:
        below = set(rooms.get(name, "").split())
        return below.union(*(reached(one) for one in below))

    assert [name for name in rooms if name in reached(name)] == []


def test_what_lies_below_stands_on_nothing_but_its_like_and_the_contract() -> None:
    for name, tree in HOUSE:
        wing = name.partition(".")[0]
        if room(name) in _BELOW[wing]:
            ours = {room(one) for one in imports(tree) if one.startswith(f"{wing}.")}
            assert ours <= {*_BELOW[wing], "contract"}, name


def test_the_light_wing_never_needs_the_heavy_one() -> None:
    for name, tree in HOUSE:
        if name.startswith("inferbus_client"):
            assert not [one for one in imports(tree) if one.startswith("inferbus_worker")], name


def test_what_is_heavy_is_imported_in_its_own_room_when_it_is_needed() -> None:
    for name, tree in HOUSE:
        at_the_top = ast.Module([node for node in tree.body if not is_for_types(node)], [])
        for one in imports(tree):
            home = _HEAVY.get(one.partition(".")[0])
            if home is not None:
                assert name.startswith(home or "nobody"), f"{name} imports {one}"
        for node in at_the_top.body:
            heavy = [one for one in imports(ast.Module([node], [])) if one.partition(".")[0] in _HEAVY]
            assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not heavy, name


def is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_the_worker_is_wired_without_anything_heavy() -> None:
    code = "import inferbus_worker.daemon, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & set(_HEAVY)
