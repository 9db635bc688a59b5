"""The command: generate, train, export, examine."""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from . import exam, exam_table, export, lessons, tokenizer, training
from .dialogue import everyday, generate

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_DEFAULT_OUT: Final = _REPOSITORY / "worker" / "inferbus_worker" / "demo_model"
_TOKENIZER_DIALOGUES: Final = 15_000
#: The README's table is of what the worker serves the model with on a CPU.
_TABLE_DTYPE: Final = "float32"
#: Later lessons begin with lower rates: what the earlier ones taught is to be built upon, not to be lost.
_LESSONS: Final = (
    training.Lesson(everyday, 12_000_000),
    training.Lesson(lessons.memory, 5_500_000, rate=0.5),
    training.Lesson(lessons.honesty, 2_500_000, rate=0.4),
    training.Lesson(lessons.honesty, 1_500_000, rate=0.3, seed=1),
)


def _say(text: str) -> None:
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train-demo-model",
        description="Train the built-in demo model from scratch on dialogues made up by this script.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=_DEFAULT_OUT, help="folder to write the model to")
    add("--go-on-from", type=Path, metavar="FOLDER", help="begin with this model instead of a fresh one")
    add("--first-lesson", type=int, default=1, choices=range(1, len(_LESSONS) + 1), help="skip those before it")
    add("--part", type=float, default=1.0, help="of each lesson's tokens: 0.01 tries the way in a minute")
    add("--minutes", type=float, default=180.0, help="end each lesson earlier after this time, schedule and all")
    add("--seed", type=int, default=0, help="of the dialogues and the first weights")
    add("--threads", type=int, default=min(4, os.cpu_count() or 1), help="CPU threads")
    add("--no-exam", action="store_true", help="skip the exam on vLLM")
    add("--exam-only", action="store_true", help="only examine the model in --out")
    add("--exam-dtype", default=_TABLE_DTYPE, choices=("float32", "bfloat16"), help="what vLLM computes with")
    return parser.parse_args()


def _train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    model, words = export.load(options.go_on_from) if options.go_on_from else _fresh(options.seed)
    for lesson in _LESSONS[options.first_lesson - 1 :]:
        _teach(model, words, replace(lesson, tokens=int(lesson.tokens * options.part)), options)
    export.export(model, words, options.out)
    _say(f"Wrote {options.out}")


def _fresh(seed: int) -> tuple[LlamaForCausalLM, Tokenizer]:
    _say("Making up dialogues for the tokenizer")
    rng = Random(seed + 1)  # noqa: S311 - made-up dialogues, no secrets
    words = tokenizer.train([m["content"] for _ in range(_TOKENIZER_DIALOGUES) for m in generate(rng)])
    padding, end = (tokenizer.token_id(words, token) for token in (tokenizer.PADDING, tokenizer.END))
    return training.build(words.get_vocab_size(), padding, end), words


def _teach(model: LlamaForCausalLM, words: Tokenizer, lesson: training.Lesson, options: argparse.Namespace) -> None:
    _say(f"Training {model.num_parameters():,} parameters on {lesson.tokens / 1e6:.1f}M tokens")
    started = time.monotonic()
    training.train(model, tokenizer.Encoder(words), lesson, seed=options.seed, minutes=options.minutes, report=_say)
    _say(f"Trained in {time.monotonic() - started:.0f} s")


def main() -> None:
    """Run the command."""
    options = _arguments()
    if not options.exam_only:
        _train(options)
    if not options.no_exam:
        results = exam.run(options.out, _say, options.exam_dtype)
        if options.exam_dtype == _TABLE_DTYPE and exam_table.write(options.out / "README.md", results):
            _say(f"Put the results into {options.out / 'README.md'}")


if __name__ == "__main__":
    main()
