"""The periodic stats as a person reads them: one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from inferbus_client.units import counted

#: From here on a bounded thing is worth a word.
_HALF: Final = 0.5


def in_a_line(stats: Mapping[str, Any]) -> str:
    """What is worth a glance of the figures in `stats`, which are those of `presence.Stats` by their own names."""
    latency = stats["latency_ms"]
    parts = [
        f"{stats['processed']} answered",
        f"{stats['errors']} failed",
        f"{sum(stats['rejected'].values())} refused",
        f"{stats['active']}/{'-' if stats['capacity'] is None else stats['capacity']} active",
        f"{stats['queued']}/{stats['queue_size']} queued",
        f"{stats['requests_per_s']:g} requests/s",
        f"{stats['tokens_per_s']:g} tokens/s",
    ]
    if latency["p50"] is not None:
        parts.append(f"p50 {latency['p50']:.0f} ms, p95 {latency['p95']:.0f} ms")
    if stats["replies_dropped"]:
        parts.append(f"{counted(stats['replies_dropped'], 'reply', 'replies')} dropped")
    levels = {name: level["now"] / level["bound"] for name, level in stats["levels"].items() if level["bound"]}
    parts += [f"{name} {share:.0%} full" for name, share in levels.items() if share > _HALF]
    return ", ".join(parts)
