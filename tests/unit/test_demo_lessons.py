"""What the demo model is taught, and where its exam's results go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

from demo_model import exam_table, lessons
from demo_model.dialogue import Message
from demo_model.exam_questions import Question, questions
from demo_model.values import is_held_out

SEEDS = range(400)
INTRODUCED = re.compile(r"Nice to meet you, (.+?)\.(?= I will|$)")
RECALLED = re.compile(r"^Your name is (.+)\.$")


def lesson(seed: int) -> list[Message]:
    return (lessons.honesty if seed % 2 else lessons.memory)(Random(seed), 0.0)  # noqa: S311 - made-up dialogues


def test_the_same_seed_makes_up_the_same_dialogue() -> None:
    assert [lesson(seed) for seed in SEEDS] == [lesson(seed) for seed in SEEDS]


def test_a_name_that_is_asked_for_is_the_one_told_last_and_none_that_the_exam_keeps() -> None:
    far = 0
    for seed in SEEDS:
        for name, answered, turns in recalled_names(lesson(seed)):
            assert answered == name
            assert not is_held_out(name)
            far += turns >= 15
    assert far >= len(SEEDS) / 80


def recalled_names(dialogue: list[Message]) -> Iterator[tuple[str, str, int]]:
    """Per answer to "What is my name?" the name told last, the one answered, and how many turns lay between."""
    told, since = "", 0
    for number, message in enumerate(dialogue):
        if named := INTRODUCED.search(message["content"]):
            told, since = named[1], number
        elif recalled := RECALLED.match(message["content"]):
            if recalled[1] in dialogue[number - 1]["content"]:  # told and asked for in one message
                told, since = recalled[1], number
            yield told, recalled[1], (number - since) // 2


def test_the_exam_asks_for_what_is_promised() -> None:
    asked = list(questions(Random(20)))  # noqa: S311 - no secrets
    groups = {question.group for question in asked}
    assert {"name, 1 turn ago", "name, 20 turns ago", "never told", "addition, up to 20 each"} <= groups
    assert sum(len(question.said) == 22 for question in asked if question.group == "name, 20 turns ago") == 40


def test_an_answer_is_right_only_with_the_whole_word() -> None:
    question = Question("names", ("My name is Bo.", "What is my name?"), ("Bo",))
    assert question.passed_by("Your name is Bo.")
    assert not question.passed_by("I know nothing about you.")


def test_the_exam_s_results_replace_those_in_the_readme_and_nothing_else(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    assert not exam_table.write(readme, [])
    assert not readme.exists()
    readme.write_text(f"# Before\n\n{exam_table.BEGIN}\nold\n{exam_table.END}\n\nAfter\n")
    for right in (1, 2):
        assert exam_table.write(readme, [exam_table.Result("echo", right, 3)])
    table = "| asked | right |\n|---|---|\n| echo | 2 of 3 |"
    assert readme.read_text() == f"# Before\n\n{exam_table.BEGIN}\n\n{table}\n\n{exam_table.END}\n\nAfter\n"
