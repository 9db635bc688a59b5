"""What the demo model is promised to be able to do, asked as the exam of scripts/train-demo-model asks it."""

from __future__ import annotations

import time
from random import Random

import pytest

from demo_model.exam_questions import Question, questions
from inferbus_worker.chat import Message
from inferbus_worker.engines.base import ChatCall, Sampling
from inferbus_worker.engines.vllm.arguments import DEMO_PATH
from inferbus_worker.engines.vllm.engine import VllmEngine

#: The conversations of the table in the model's README.
EXAM = tuple(questions(Random(20)))  # noqa: S311 - no secrets
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=48)
LARGEST_BYTES = 10_000_000


@pytest.mark.parametrize(
    ("group", "at_least", "of"),
    [
        ("name, 1 turn ago", 39, 40),
        ("name, 20 turns ago", 32, 40),
        ("never told", 40, 45),
        ("echo, one word", 95, 100),
        ("addition, up to 20 each", 95, 100),
    ],
)
def test_the_demo_model_passes_its_exam(engine: VllmEngine, group: str, at_least: int, of: int) -> None:
    asked = [question for question in EXAM if question.group == group]
    replies = last_replies(engine, asked)
    wrong = [(question, reply) for question, reply in zip(asked, replies, strict=True) if not question.passed_by(reply)]
    assert len(asked) == of
    assert len(wrong) <= of - at_least, wrong


def test_the_demo_model_is_small_enough_to_come_with_every_worker() -> None:
    assert sum(file.stat().st_size for file in DEMO_PATH.iterdir()) <= LARGEST_BYTES


def last_replies(engine: VllmEngine, asked: list[Question]) -> list[str]:
    """All of the conversations turn by turn side by side, with the model's own replies in between."""
    histories: list[list[Message]] = [[] for _ in asked]
    for turn in range(max(len(question.said) for question in asked)):
        going = [
            (question, history) for question, history in zip(asked, histories, strict=True) if turn < len(question.said)
        ]
        for question, history in going:
            history.append({"role": "user", "content": question.said[turn]})
        generations = [engine.generate(ChatCall(list(history), GREEDY)) for _, history in going]
        for (_, history), generation in zip(going, generations, strict=True):
            text = generation.wait(time.monotonic() + 120).text
            history.append({"role": "assistant", "content": text})
    return [str(history[-1]["content"]) for history in histories]
