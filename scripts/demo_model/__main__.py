"""The command: generate, train, export, examine."""

import argparse
import os
import time
from pathlib import Path
from random import Random
from typing import Final

import torch

from . import exam, export, tokenizer, training
from .dialogue import generate

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_DEFAULT_OUT: Final = _REPOSITORY / "worker" / "inferbus_worker" / "demo_model"
_TOKENIZER_DIALOGUES: Final = 15_000


def _say(text: str) -> None:
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train-demo-model",
        description="Train the built-in demo model from scratch on dialogues made up by this script.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=_DEFAULT_OUT, help="folder to write the model to")
    add("--tokens", type=float, default=12e6, help="train on this many tokens (default 12e6)")
    add("--minutes", type=float, default=120.0, help="stop earlier after this time, schedule and all")
    add("--seed", type=int, default=0, help="of the dialogues and the first weights")
    add("--threads", type=int, default=min(4, os.cpu_count() or 1), help="CPU threads")
    add("--no-exam", action="store_true", help="skip the exam on vLLM")
    add("--exam-only", action="store_true", help="only examine the model in --out")
    add("--exam-dtype", default="float32", choices=("float32", "bfloat16"), help="what vLLM computes with")
    return parser.parse_args()


def _train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    _say("Making up dialogues for the tokenizer")
    rng = Random(options.seed + 1)  # noqa: S311 - made-up dialogues, no secrets
    texts = [m["content"] for _ in range(_TOKENIZER_DIALOGUES) for m in generate(rng)]
    words = tokenizer.train(texts)
    model = training.build(
        words.get_vocab_size(), tokenizer.token_id(words, tokenizer.PADDING), tokenizer.token_id(words, tokenizer.END)
    )
    _say(f"Training {model.num_parameters():,} parameters on {options.tokens / 1e6:.1f}M tokens")
    started = time.monotonic()
    training.train(
        model,
        tokenizer.Encoder(words),
        seed=options.seed,
        tokens=int(options.tokens),
        minutes=options.minutes,
        report=_say,
    )
    _say(f"Trained in {time.monotonic() - started:.0f} s")
    export.export(model, words, options.out)
    _say(f"Wrote {options.out}")


def main() -> None:
    """Run the command."""
    options = _arguments()
    if not options.exam_only:
        _train(options)
    if not options.no_exam:
        exam.run(options.out, _say, options.exam_dtype)


if __name__ == "__main__":
    main()
