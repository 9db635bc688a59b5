"""Shell completion: the script that `inferbus completion` prints, and what it asks for at each Tab."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.inferbus import PROGRAM, environment, inferbus


def completions(*words: str) -> set[str]:
    """What bash is offered for the last of these words."""
    run = subprocess.run(
        [PROGRAM],
        env=environment(
            _INFERBUS_COMPLETE="bash_complete", COMP_WORDS=" ".join(("inferbus", *words)), COMP_CWORD=str(len(words))
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {line.partition(",")[2] for line in run.stdout.splitlines()}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("",), {"ask", "chat", "completion", "doctor", "serve", "status", "stress"}),
        (("st",), {"status", "stress"}),
        (("ask", "--str"), {"--stream"}),
        (("chat", "--sys"), {"--system-prompt"}),
        (("serve", "--queue"), {"--queue-size"}),
        (("ask", "--mqtt-version", ""), {"auto", "5", "3.1.1"}),
        (("serve", "--log-format", "j"), {"json"}),
        (("keys", ""), {"add", "list", "remove"}),
        (("completion", ""), {"bash", "zsh", "fish"}),
    ],
)
def test_verbs_options_and_choices(words: tuple[str, ...], offered: set[str]) -> None:
    assert offered <= completions(*words)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_its_shell_takes(shell: str, tmp_path: Path) -> None:
    run = inferbus("completion", shell)
    assert (run.returncode, run.stderr) == (0, "")
    assert "_INFERBUS_COMPLETE" in run.stdout
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(run.stdout)
        subprocess.run([shell, "-n", script], check=True, timeout=60)


def test_bash_completes_with_it() -> None:
    """As at a Tab: the function that the script defines is asked, and fills COMPREPLY."""
    ask = """
        eval "$(inferbus completion bash)"
        COMP_WORDS=(inferbus st) COMP_CWORD=1
        _inferbus_completion inferbus
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{Path(PROGRAM).parent}:{environment()['PATH']}"
    run = subprocess.run(
        ["bash", "-c", ask], env=environment(PATH=path), capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout.split() == ["state", "status", "stress"], run.stderr


def test_a_shell_that_nobody_knows() -> None:
    run = inferbus("completion", "tcsh")
    assert run.returncode == 2
    assert "'bash', 'zsh', 'fish'" in run.stderr
