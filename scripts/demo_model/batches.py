"""Endless training batches of whole dialogues, of about the same number of tokens each.

Dialogues of like length share a batch and are padded at the end, so plain causal attention keeps
them apart and no mask is needed: a mask cost 40 % of the time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import torch

from .dialogue import Message
from .tokenizer import Encoder

TOKENS_PER_BATCH: Final = 4096
_DIALOGUES_PER_POOL: Final = 1500
_LENGTH_STEP: Final = 16
_IGNORED: Final = -100

Example = tuple[list[int], list[bool]]
#: One dialogue made up, for a training that is so far done (0 to 1): that is for the curriculum.
MakeUp = Callable[[Random, float], list[Message]]


@dataclass(frozen=True)
class Batch:
    """Token ids and labels, both [dialogues, tokens]; labels are -100 where nothing is learned."""

    ids: torch.Tensor
    labels: torch.Tensor


def batches(make_up: MakeUp, encoder: Encoder, rng: Random, longest: int, progress: "Progress") -> Iterator[Batch]:
    """Batches without end; ``progress`` says how far the training is."""
    while True:
        dialogues = [make_up(rng, progress.done) for _ in range(_DIALOGUES_PER_POOL)]
        pool = [e for e in encoder.encode(dialogues) if len(e[0]) <= longest]
        grouped = list(_grouped(sorted(pool, key=lambda example: len(example[0]))))
        rng.shuffle(grouped)
        yield from (_padded(group) for group in grouped)


@dataclass
class Progress:
    """How much of the training is done, from 0 to 1."""

    done: float = 0.0


def _grouped(pool: list[Example]) -> Iterator[list[Example]]:
    group: list[Example] = []
    for example in pool:
        if group and (len(group) + 1) * len(example[0]) > TOKENS_PER_BATCH:
            yield group
            group = []
        group.append(example)
    if group:
        yield group


def _padded(group: list[Example]) -> Batch:
    width = -(-max(len(ids) for ids, _ in group) // _LENGTH_STEP) * _LENGTH_STEP
    ids = torch.zeros(len(group), width, dtype=torch.long)
    labels = torch.full((len(group), width), _IGNORED, dtype=torch.long)
    for row, (tokens, spoken) in enumerate(group):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        wanted = [t if said else _IGNORED for t, said in zip(tokens[1:], spoken[1:], strict=True)]
        labels[row, : len(wanted)] = torch.tensor(wanted)
    return Batch(ids, labels)
