"""What the help says before anybody has read anything else, and what a slip of the verb is answered with."""

from __future__ import annotations

import re

import pytest

from support.inferbus import inferbus


@pytest.mark.parametrize("columns", ["80", "40"])
def test_every_verb_is_said_in_a_whole_sentence(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Click cuts what does not fit into the line, with three dots."""
    monkeypatch.setenv("COLUMNS", columns)
    run = inferbus("--help")
    _, _, verbs = run.stdout.partition("Commands:\n")
    said = re.split(r"\n  (?=\w)", verbs.rstrip())
    assert len(said) >= 9
    assert "..." not in verbs
    assert all(sentence.endswith(".") for sentence in said)


def test_the_lines_for_a_shells_own_file_can_be_copied() -> None:
    shown = inferbus("completion", "--help").stdout
    assert "\\b" not in shown
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        'bash eval "$(inferbus completion bash)" in ~/.bashrc',
        'zsh eval "$(inferbus completion zsh)" in ~/.zshrc',
        "fish inferbus completion fish | source in ~/.config/fish/config.fish",
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("verb", "without", "with_it"),
    [
        (
            "status",
            "project identity user session qos timeout first-timeout retries pacing",
            "username connect-timeout id",
        ),
        ("forget", "project identity user session qos timeout silence-timeout retries pacing", "cafile force id"),
        ("drain", "project identity user session qos timeout silence-timeout retries pacing", "cafile wait id"),
        ("doctor", "session silence-timeout retries pacing", "project identity user qos timeout first-timeout"),
    ],
)
def test_a_verb_lists_the_options_that_do_something(verb: str, without: str, with_it: str) -> None:
    """The others are taken all the same: what leads to a project may stand behind every verb."""
    listed = set(re.findall(r"--[\w-]+", inferbus(verb, "--help").stdout))
    assert not {f"--{name}" for name in without.split()} & listed
    assert {f"--{name}" for name in with_it.split()} <= listed


@pytest.mark.parametrize(
    ("slip", "meant"), [("sttaus", "status"), ("aks", "ask"), ("serv", "serve"), ("chat ", "chat")]
)
def test_a_slip_of_a_verb_is_told_which_one_is_meant(slip: str, meant: str) -> None:
    run = inferbus(slip)
    assert run.returncode == 2
    assert f"No such command {slip!r}; is {meant} meant?" in run.stderr


def test_a_verb_that_is_like_none_is_only_refused() -> None:
    run = inferbus("xyzzy")
    assert run.returncode == 2
    assert "No such command 'xyzzy'." in run.stderr


def test_a_question_without_quotes_is_told_what_it_lacks() -> None:
    run = inferbus("ask", "What", "is", "MQTT?")
    assert run.returncode == 2
    assert "the text must be one word to the shell: put it in quotes" in run.stderr
