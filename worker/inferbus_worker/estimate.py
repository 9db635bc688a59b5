"""`inferbus estimate`: what a model will take of the memory, from its own files alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from typing import Any, Final, cast

import click

from inferbus_client.cli.cells import folded
from inferbus_client.exits import Exit
from inferbus_client.shown import shown_in_line
from inferbus_client.units import parse_size, parse_whole
from inferbus_worker.engines.estimate import DTYPES, KV_DTYPES, Estimate, Terms, fits
from inferbus_worker.engines.estimate import estimate as reckon

_UNITS: Final = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_HONESTLY: Final = "Estimated; the engine will say what it really took at the start."


class _Size(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            size = parse_size(value)
        except (ValueError, OverflowError):
            size = 0
        if not isinstance(size, int) or not 0 < size < 2**63:
            self.fail(f"{value!r} is no size such as 24 GiB, 24GB or 500 MiB", param, ctx)
        return size


class _Whole(click.IntRange):
    """A whole number as people write it elsewhere too: `4096`, `1e4`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(cast("Any", parse_whole(value)), param, ctx)


@click.command(short_help="Say what a model will take of the memory.")
@click.argument("model")
@click.option("--concurrency", type=_Whole(1, 4096), default=8, show_default=True, help="Requests at once.")
@click.option(
    "--max-model-len",
    type=_Whole(1, 2**31),
    metavar="N",
    help="The longest prompt and answer, in tokens.  [the model's]",
)
@click.option("--quantization", metavar="METHOD", help="How vLLM is to quantize the weights: fp8, bitsandbytes.")
@click.option("--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="What it computes in.")
@click.option(
    "--kv-cache-dtype", type=click.Choice(list(KV_DTYPES)), default="auto", show_default=True, help="Of the KV cache."
)
@click.option(
    "--tensor-parallel-size", type=_Whole(1, 1024), default=1, show_default=True, help="GPUs that share the model."
)
@click.option("--memory", type=_Size(), metavar="SIZE", help="How many requests fit into so much (of each GPU).")
@click.option("--json", "as_json", is_flag=True, help="As JSON, sizes in bytes.")
def estimate(
    model: str,
    *,
    concurrency: int,
    max_model_len: int | None,
    quantization: str | None,
    dtype: str,
    kv_cache_dtype: str,
    tensor_parallel_size: int,
    memory: int | None,
    as_json: bool,
) -> int:
    """Say what MODEL will take of the memory: weights, KV cache, and what comes on top.

    MODEL is a folder, a GGUF file, a model in the hub's cache on this machine, or `demo`. Only the headers of its files
    are read; nothing is loaded, and nothing is downloaded. The options are vLLM's, by its own names.

    With --memory, the exit status is 1 where the model could never fit.
    """
    terms = Terms(concurrency, max_model_len, dtype, kv_cache_dtype, quantization, tensor_parallel_size)
    found = reckon(model, terms)
    click.echo(json.dumps(_as_fields(found, memory)) if as_json else _table(found, memory))
    return Exit.OK if memory is None or fits(found, memory) else Exit.FAILED


def _as_fields(found: Estimate, memory: int | None) -> dict[str, Any]:
    known = dataclasses.asdict(found) | {"terms": found.terms._asdict()}
    reckoned = {name: getattr(found, name) for name in ("kv_bytes_per_request", "kv_bytes", "total_bytes")}
    if memory is None:
        return known | reckoned
    return (
        known
        | reckoned
        | {
            "memory_bytes": memory,
            "requests_in_memory": found.requests_in(memory),
            "fits": fits(found, memory),
        }
    )


def _table(found: Estimate, memory: int | None) -> str:
    devices = found.terms.devices
    each = f", on each of {devices} GPUs" if devices > 1 else ""
    length = "" if found.context_tokens is None else f" of {found.context_tokens} tokens"
    rows = [
        ("weights", _size(found.weights_bytes)),
        ("KV cache per token", _size(found.kv_bytes_per_token)),
        (f"KV cache per request{length}", _size(found.kv_bytes_per_request)),
        (f"KV cache of {found.terms.concurrency} at once", _size(found.kv_bytes)),
        ("overhead (a guess)", _size(found.overhead_bytes)),
        ("sum" if found.kv_bytes is not None else "sum of what is known", _size(found.total_bytes)),
    ]
    head = f"{shown_in_line(found.model)}: {found.architecture or 'an unknown architecture'}{each}"
    below = [*([] if memory is None else [_verdict(found, memory)]), *map(shown_in_line, found.remarks), _HONESTLY]
    # A pipe gets each sentence in a line of its own.
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    wide = max(len(name) for name, _ in rows)
    table = [f"  {name:<{wide}}  {size:>10}" for name, size in rows]
    if max(map(len, table)) > columns:
        whole = ((name, size.replace(" ", "\N{NO-BREAK SPACE}")) for name, size in rows)
        table = [line for name, size in whole for line in folded(f"  {name}: {size}", columns, " " * 4)]
    return "\n".join([*folded(head, columns), *table, *(line for text in below for line in folded(text, columns))])


def _verdict(found: Estimate, memory: int) -> str:
    room = _size(memory)
    if not fits(found, memory):
        least = _size(found.weights_bytes + (found.kv_bytes_least or 0))
        what = "its weights and one such request" if found.kv_bytes_least else "its weights"
        return f"It can never fit into {room}: {what} take {least}."
    many = found.requests_in(memory)
    if many is None:
        return f"Its weights fit into {room}; how many requests beside them is not known."
    if not many:
        return f"In {room}: it may just fit, with one such request; nothing is left for more."
    return f"In {room}: {many} such request{'s' * (many != 1)} at once, more if they are shorter."


def _size(size: int | None) -> str:
    if size is None:
        return "not known"
    name, unit = next(((name, unit) for name, unit in _UNITS if size >= unit), ("B", 1))
    return f"{size} B" if unit == 1 else f"{size / unit:.2f} {name}"
