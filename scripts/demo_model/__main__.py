"""The command: generate, train, export, examine."""

import argparse
import os
import time
from pathlib import Path
from random import Random
from typing import Final

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from . import exam, exam_table, export, second_lesson, tokenizer, training
from .dialogue import everyday, generate

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_DEFAULT_OUT: Final = _REPOSITORY / "worker" / "inferbus_worker" / "demo_model"
_TOKENIZER_DIALOGUES: Final = 15_000
#: The README's table is of what the worker serves the model with on a CPU.
_TABLE_DTYPE: Final = "float32"
#: The second lesson's peak rates: what the first one taught is to be built upon, not to be lost.
_SECOND_RATE: Final = 0.5


def _say(text: str) -> None:
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train-demo-model",
        description="Train the built-in demo model from scratch on dialogues made up by this script.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=_DEFAULT_OUT, help="folder to write the model to")
    add("--tokens", type=float, default=12e6, help="the first lesson, everyday dialogues (default 12e6)")
    add("--second-tokens", type=float, default=5.5e6, help="the second lesson, a longer memory (default 5.5e6)")
    add("--second-lesson-of", type=Path, metavar="FOLDER", help="give this model the second lesson only")
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
    if options.second_lesson_of:
        model, words = export.load(options.second_lesson_of)
    else:
        model, words = _fresh(options.seed)
        _teach(model, words, training.Lesson(everyday, int(options.tokens)), options)
    _teach(model, words, training.Lesson(second_lesson.generate, int(options.second_tokens), _SECOND_RATE), options)
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
