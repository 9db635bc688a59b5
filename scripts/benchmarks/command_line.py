"""What may be said on the command line, and what of it cannot be meant together.

`scripts/bench` asks it first, when nothing is installed yet: it needs Python alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from .commits import NoSuchCommitError, short
from .plan import ALONE, ON_ENGINE, Plan
from .programs import gpu
from .shapes import SHAPES

_OUT: Final = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
ROUNDS: Final = 5
_QUICK_ROUNDS: Final = 2
LEVELS: Final = (1, 8, 64)
_GPU_SHAPE: Final = "1b"
_GPU_LEVELS: Final = (64, 256, 512, 1_000)

#: What `--compare` says of fewer rounds than it takes by itself.
CHANCE: Final = f"Of fewer than {ROUNDS} rounds a difference of a fifth may be chance."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"scripts/bench: {message}\n`scripts/bench --help` names every option; a suite follows --only.\n")


class Wishes(argparse.Namespace):
    """What was asked for.

    Attributes:
        plan: how much of it.
        suites: which.
        out: the document; None: what is measured is only printed.
        compare: the commit beside which the worker's CPU time is to be printed; None: measure the suites.
    """

    plan: Plan
    suites: list[str]
    out: Path | None
    compare: str | None


def read(words: Sequence[str]) -> Wishes:
    """What the words ask for.

    Raises:
        SystemExit: they cannot be meant, which has been said, or ask for help.
    """
    parser = _parser()
    split = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:split])
    options = tuple(words[split + 1 :])
    wishes = Wishes(compare=given.compare, out=_out(given.out, is_quick=given.quick))
    wishes.suites = given.only or [*([] if given.gpu else ALONE), *ON_ENGINE]
    of_engine = {"--gpu": given.gpu, "--sessions": given.sessions, "--shape": given.shape, "what follows --": options}
    said = [name for name, value in of_engine.items() if value]
    if given.compare is not None:
        said += [name for name, value in (("--only", given.only), ("--out", given.out)) if value]
        if said:
            parser.error(f"--compare prints one figure, and takes --rounds and --quick alone, not {said[0]}")
        if not given.compare:
            parser.error("--compare needs a commit")
        try:
            short(given.compare)
        except NoSuchCommitError as error:
            parser.error(f"--compare: {error}")
    elif said and not ON_ENGINE.keys() & set(wishes.suites):
        parser.error(f"{said[0]} is for the suites {' and '.join(ON_ENGINE)} alone")
    elif given.gpu and not ON_ENGINE.keys() >= set(wishes.suites):
        parser.error(f"--gpu measures the suites {' and '.join(ON_ENGINE)} alone")
    elif given.gpu and gpu() is None:
        parser.error("--gpu: no GPU answers here (nvidia-smi names none)")
    if wishes.out is not None and not wishes.out.parent.is_dir():
        parser.error(f"--out: there is no folder {wishes.out.parent}")
    if wishes.out is not None and (wishes.out.is_dir() or wishes.out.suffix == ".json"):
        parser.error(f"--out: {wishes.out} cannot be the document; beside it stands a file of the same name in .json")
    wishes.plan = Plan(
        rounds=given.rounds or (_QUICK_ROUNDS if given.quick else ROUNDS),
        quick=given.quick,
        levels=given.sessions or (_GPU_LEVELS if given.gpu else LEVELS),
        shape=given.shape or (_GPU_SHAPE if given.gpu else None),
        engine_options=options,
    )
    return wishes


def _out(given: Path | None, *, is_quick: bool) -> Path | None:
    """Figures that say nothing take nobody's place, unless that is asked for."""
    if given is None and is_quick:
        return None
    return (given or _OUT).resolve()


def _parser() -> argparse.ArgumentParser:
    suites = {**ALONE, **ON_ENGINE}
    parser = _Parser(
        prog="scripts/bench",
        usage="scripts/bench [OPTION ...] [-- OPTION OF VLLM'S ...]",
        description="Measures the worker beside its yardsticks, suite by suite. Each one's figures take the place of\n"
        "those that docs/benchmarks.md had of it, also if another machine took them: for your own, --out FILE.\n"
        "Installs what is missing first: vLLM, some gigabytes, and Mosquitto and Redis. Nothing else should run\n"
        "meanwhile. To measure a model of yours there is `inferbus stress`.\n\n"
        "suites, and about how many minutes a round of each takes on two cores:\n"
        + "\n".join(f"  {name:<11}{minutes:>2}  {what}" for name, (what, minutes) in suites.items()),
        epilog="What follows -- goes to vLLM, on every side alike:\n\n"
        "  scripts/bench --gpu -- --gpu-memory-utilization 0.5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--only", action="append", choices=suites, metavar="SUITE", help="measure this suite; repeatable (default: all)"
    )
    add(
        "--quick",
        action="store_true",
        help="a tenth of the requests, to see that it works; printed, and written only with --out",
    )
    add(
        *("--rounds",),
        type=_whole,
        metavar="N",
        help=f"take the median of so many rounds (default {ROUNDS}, quick {_QUICK_ROUNDS})",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="the document to write, with its .json and .svg beside it (default docs/benchmarks.md)",
    )
    add("--sessions", type=_levels, metavar="N,…", help="concurrent sessions of engine and streaming (default 1,8,64)")
    add(
        "--shape",
        choices=SHAPES,
        help="engine and streaming on random weights in the shape of a model of so many parameters (1b: a billion) "
        "instead of the demo model",
    )
    at = ", ".join(f"{level:,}" for level in _GPU_LEVELS)
    add("--gpu", action="store_true", help=f"engine and streaming alone: --shape {_GPU_SHAPE}, at {at} sessions")
    add(
        *("--compare",),
        metavar="COMMIT",
        help="only print what a request costs the worker beside what it does at a commit, in CPU time on an engine "
        f"that costs nothing; some minutes. {CHANCE}",
    )
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number, at least 1")
    return int(text)


def _levels(text: str) -> tuple[int, ...]:
    try:
        return tuple(_whole(level) for level in text.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError("must be whole numbers, at least 1, with commas between") from None


if __name__ == "__main__":
    read(sys.argv[1:])
