"""Writes docs/benchmarks.md, and beside it what it is made from, so that one suite can be measured anew alone."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from inferbus_client.units import counted

from .figures import Machine, Section, Verdict

#: What is written by hand, each between two marks, and kept.
_IN_SHORT, _WHY, _TRIED = "in short", "why goals are missed", "what was tried"

_INTRODUCTION: Final = """\
# Benchmarks

Written by `scripts/bench`, but for what stands between the marks of text written by hand. Figures are the median of the
rounds, with the lowest and the highest round in brackets; ratios are taken round by round, both sides in turns on the
same machine. A verdict on one round may be chance.
"""
SHORT: Final = "A short run (`--quick`): it shows that it works, and says nothing about speed."
#: What stands among the goals for as long as no section is of a GPU: the goal, its figure, the verdict, when.
_WITHOUT_GPU: Final = [
    "A GPU, 256 sessions: at least 0.98 of the requests/s of the same engine in-process, above vLLM's HTTP server",
    "`scripts/bench --gpu` takes it",
    "not measured",
    "",
]
_SECTIONS: Final = TypeAdapter(list[Section])
_ORDER: Final = (
    *("bus", "curves", "streams", "engine", "streaming", "overload", "memory", "startup", "gateway", "fleet"),
)


class DocumentError(RuntimeError):
    """There is no writing where the document is to be, or what lies there is not what was written there before."""


def check(path: Path) -> None:
    """See before hours of measuring that what comes of them can be written.

    Raises:
        DocumentError: it cannot.
    """
    try:
        _before(path)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except ValidationError:
        raise DocumentError(f"{_store(path)} is not what an earlier run has written beside its document") from None
    except OSError as error:
        raise DocumentError(f"{path} cannot be written: {error.strerror or error}") from None


def merge(path: Path, new: Iterable[Section]) -> list[Section]:
    """The sections that were measured before, with those of now in their places; written down for the next time."""
    found = {(section.suite, section.setting): section for section in (*_before(path), *new)}
    sections = sorted(found.values(), key=lambda section: (_ORDER.index(section.suite), section.setting))
    _replace(_store(path), _SECTIONS.dump_json(sections, indent=1) + b"\n")
    return sections


def write(path: Path, sections: list[Section], plots: Mapping[str, str]) -> None:
    """The document, with pictures by their names, and what they show; what was written by hand stays as it is."""
    parts = [_INTRODUCTION, _by_hand(path, _IN_SHORT)]
    if any(section.verdicts for section in sections):
        parts.append(_goals(sections))
    parts.append(_by_hand(path, _WHY))
    parts += [f"![{what}]({name})\n" for name, what in plots.items()]
    parts += [_section(section) for section in sections]
    parts.append(_by_hand(path, _TRIED))
    _replace(path, "\n".join(parts).encode())


def _store(path: Path) -> Path:
    return path.with_suffix(".json")


def _before(path: Path) -> list[Section]:
    return _SECTIONS.validate_json(_store(path).read_bytes()) if _store(path).exists() else []


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one go: whoever interrupts us leaves the old one."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def _by_hand(path: Path, name: str) -> str:
    begin, end = f"<!-- {name}: written by hand, kept by scripts/bench -->", f"<!-- end of {name} -->"
    found = re.search(f"{re.escape(begin)}(.*?){re.escape(end)}", path.read_text() if path.exists() else "", re.DOTALL)
    kept = found[1] if found else f"\n\n## {name.capitalize()}\n\n"
    return f"{begin}{kept}{end}\n"


def _goals(sections: list[Section]) -> str:
    verdicts = [(section, verdict) for section in sections for verdict in section.verdicts]
    missed = sum(not verdict.met for _, verdict in verdicts)
    summary = f"{len(verdicts) - missed} of {len(verdicts)} goals are met, {missed} missed"
    rows = [_verdict_row(section, verdict) for section, verdict in verdicts]
    if not any(section.machine is not None and section.machine.gpu for section in sections):
        summary += "; one more was not measured"
        rows.append(_WITHOUT_GPU)
    return f"## Goals\n\n{summary}.\n\n" + _table(["goal", "figure", "", "taken"], rows)


def _verdict_row(section: Section, verdict: Verdict) -> list[str]:
    said = "met" if verdict.met else "**missed**"
    taken = f"{section.taken.partition(' ')[0]}, {counted(section.rounds, 'round')}"
    if section.short:
        taken += ", short"
    return [verdict.goal, verdict.figure, said, taken]


def _section(section: Section) -> str:
    lines = [f"## {section.title}\n", *(f"- {sentence}" for sentence in section.method)]
    if section.machine is not None:
        by = f" by `{section.command}`" if section.command else ""
        on = _machine(section.machine)
        lines.append(f"- Taken {section.taken}, {counted(section.rounds, 'round')}{by}, on {on}.")
    speed = f"; calling a Python function took {section.call_ns:.0f} ns" if section.call_ns else ""
    lines.append(f"- Load average when it began: {section.load:.1f}{speed}.")
    if section.short:
        lines.append(f"- **{SHORT}**")
    return "\n".join(lines) + "\n\n" + _table(section.header, section.rows)


def _machine(machine: Machine) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    gpu = f", {machine.gpu}" if machine.gpu else ""
    cores = (
        f"{machine.cores} cores ({machine.cpu}{f', {machine.cache} of second-level cache' if machine.cache else ''})"
    )
    return f"{cores}, {machine.memory_gib} GiB{gpu}; {versions}; commit {machine.commit}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
