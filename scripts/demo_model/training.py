"""The network, its optimizers and the training loop.

Muon on the hidden matrices and AdamW on the embeddings and norms: with AdamW alone a model of this
size needs several times the tokens before it copies words.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from .batches import Batch, MakeUp, Progress, batches
from .tokenizer import Encoder

CONTEXT: Final = 2048
_MUON_RATE: Final = 0.02
_ADAM_RATE: Final = 3e-3
_WARM_UP: Final = 0.02
_FINAL_RATE: Final = 0.02
_REPORT_EVERY_S: Final = 15.0


def build(vocabulary: int, padding: int, end: int) -> LlamaForCausalLM:
    """A fresh model of about two million parameters; the head size of 64 is what vLLM serves best."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=3,
            num_key_value_heads=3,
            head_dim=64,
            intermediate_size=512,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            pad_token_id=padding,
            eos_token_id=end,
            bos_token_id=None,
        )
    )


@dataclass(frozen=True)
class Lesson:
    """What is taught in one training, for how long, and how large the first steps are.

    Attributes:
        make_up: makes up the dialogues.
        tokens: how many to see.
        rate: the peak learning rates, as a fraction of a fresh model's.
        seed: added to the command's, so that a lesson given twice has other dialogues the second time.
    """

    make_up: MakeUp
    tokens: int
    rate: float = 1.0
    seed: int = 0


def train(
    model: LlamaForCausalLM,
    encoder: Encoder,
    lesson: Lesson,
    *,
    seed: int,
    minutes: float,
    report: Callable[[str], None],
) -> None:
    """Train until the lesson's tokens were seen or ``minutes`` have passed, whichever comes first."""
    optimizers = _optimizers(model, lesson.rate)
    clock = _Clock(lesson.tokens, minutes, report)
    rng = Random(seed + lesson.seed)  # noqa: S311 - made-up dialogues, no secrets
    for batch in batches(lesson.make_up, encoder, rng, CONTEXT, clock.progress):
        _set_rates(optimizers, clock.progress.done)
        loss = _loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if clock.tick(batch.ids.numel(), loss.item()):
            return


class _Clock:
    """Counts tokens and time, and reports now and then."""

    def __init__(self, tokens: int, minutes: float, report: Callable[[str], None]) -> None:
        self.progress = Progress()
        self._tokens, self._seconds, self._report = tokens, minutes * 60, report
        self._seen = 0
        self._losses: list[float] = []
        self._started = self._reported = time.monotonic()

    def tick(self, tokens: int, loss: float) -> bool:
        """Count one batch; True when the training is over."""
        now = time.monotonic()
        self._seen += tokens
        self._losses.append(loss)
        spent = now - self._started
        self.progress.done = min(1.0, max(self._seen / self._tokens, spent / self._seconds))
        if now - self._reported >= _REPORT_EVERY_S or self.progress.done >= 1:
            mean = sum(self._losses) / len(self._losses)
            self._report(f"{self.progress.done:4.0%}  {self._seen / 1e6:5.2f}M tokens  {spent:4.0f} s  loss {mean:.4f}")
            self._reported, self._losses = now, []
        return self.progress.done >= 1


def _loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Cross-entropy over the assistant's tokens; the other positions never reach the large head."""
    learned = batch.labels.flatten() >= 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden.flatten(0, 1)[learned])
    return torch.nn.functional.cross_entropy(logits.float(), batch.labels.flatten()[learned])


def _optimizers(model: LlamaForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=rate * _MUON_RATE, weight_decay=0.0),
        torch.optim.AdamW(others, lr=rate * _ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _set_rates(optimizers: list[torch.optim.Optimizer], done: float) -> None:
    """Warm-up, then a cosine down to a fiftieth of the peak."""
    falling = _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))
    rate = min(1.0, (done + 1e-3) / _WARM_UP) * falling
    for group in _groups(optimizers):
        group["lr"] = group["peak"] * rate


def _groups(optimizers: list[torch.optim.Optimizer]) -> Iterator[dict[str, float]]:
    for optimizer in optimizers:
        yield from optimizer.param_groups
