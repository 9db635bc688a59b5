"""The exam: whole conversations on vLLM with values and wordings that the training never saw."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from .exam_questions import Question, questions
from .exam_table import Result

_SEED: Final = 20
_SHOWN_FAILURES: Final = 3


def run(folder: Path, say: Callable[[str], None], dtype: str = "float32") -> list[Result]:
    """Examine the model in ``folder`` and say how many of each group it got right; the greedy results come back."""
    asked = list(questions(Random(_SEED)))  # noqa: S311 - no secrets
    say(f"Starting vLLM ({dtype}) for an exam of {len(asked)} conversations")
    examiner = _Examiner(folder, dtype)
    results = _judged(asked, examiner.replies(asked, temperature=0.0), say)
    sampled = [q for q in asked if q.group == "name, never seen"]
    say("Sampled at temperature 0.6, top_p 0.9:")
    _judged(sampled, examiner.replies(sampled, temperature=0.6), say)
    return results


class _Examiner:
    """vLLM with the model, holding many conversations at once."""

    def __init__(self, folder: Path, dtype: str) -> None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        from vllm import LLM  # noqa: PLC0415 - only the exam needs vLLM, and it must see the environment

        logging.getLogger("vllm").setLevel(logging.WARNING)
        self._llm = LLM(str(folder), dtype=dtype, enforce_eager=True, max_num_seqs=64, seed=0)

    def replies(self, asked: Sequence[Question], temperature: float) -> list[str]:
        """The last reply of each conversation, the earlier ones being the model's own too."""
        histories: list[list[dict[str, str]]] = [
            [{"role": "system", "content": q.system}] if q.system else [] for q in asked
        ]
        for turn in range(max(len(q.said) for q in asked)):
            going = [i for i, q in enumerate(asked) if len(q.said) > turn]
            for i in going:
                histories[i].append({"role": "user", "content": asked[i].said[turn]})
            texts = self._chat([histories[i] for i in going], temperature)
            for i, text in zip(going, texts, strict=True):
                histories[i].append({"role": "assistant", "content": text})
        return [history[-1]["content"] for history in histories]

    def _chat(self, histories: list[list[dict[str, str]]], temperature: float) -> Iterator[str]:
        from vllm import SamplingParams  # noqa: PLC0415

        sampling = SamplingParams(temperature=temperature, top_p=0.9 if temperature else 1.0, max_tokens=120)
        outputs: list[Any] = self._llm.chat(histories, sampling, use_tqdm=False)
        return (output.outputs[0].text for output in outputs)


def _judged(asked: Sequence[Question], replies: Sequence[str], say: Callable[[str], None]) -> list[Result]:
    total: Counter[str] = Counter()
    right: Counter[str] = Counter()
    failures: dict[str, list[str]] = {}
    for question, reply in zip(asked, replies, strict=True):
        total[question.group] += 1
        if question.passed_by(reply):
            right[question.group] += 1
        else:
            failures.setdefault(question.group, []).append(f"{question.said[0]!r} … {question.said[-1]!r}: {reply!r}")
    for group, count in total.items():
        say(f"{right[group]:4} of {count:4}  {group}")
        for failure in failures.get(group, [])[:_SHOWN_FAILURES]:
            say(f"                  wrong: {failure}")
    return [Result(group, right[group], count) for group, count in total.items()]
