"""A chat template is tried before the engine's processes start: what is wrong with it is said then, in a sentence."""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.vllm.arguments import DEMO_PATH
from inferbus_worker.engines.vllm.engine import VllmEngine, parse_options
from inferbus_worker.engines.vllm.processes import engine_processes
from inferbus_worker.engines.vllm.template import check_template

PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
PARTS = PLAIN.replace("{{ m.content }}", "{% for p in m.content %}{{ p['text'] + '' }}{% endfor %}")
SYNTAX = "{% for m in messages %}\n{{ m.content }"

pytestmark = pytest.mark.usefixtures("vllm_installed")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The demo model, to be changed."""
    return Path(shutil.copytree(DEMO_PATH, tmp_path / "model"))


def with_template(model: Path, template: str | None) -> str:
    file = model / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("chat_template")
    file.write_text(json.dumps(settings if template is None else {**settings, "chat_template": template}))
    return str(model)


def checked(model: str, *options: str) -> str | None:
    from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415

    arguments = parse_options(model, ["--dtype", "float32", "--enforce-eager", *options])
    config: Any = AsyncEngineArgs.from_cli_args(arguments).create_engine_config()
    return check_template(model, config.model_config, arguments)


def test_the_demo_model_s_lets_no_special_token_through() -> None:
    assert checked("demo") is None


@pytest.mark.parametrize("template", [PLAIN, PARTS], ids=["text", "parts"])
def test_one_that_does_not_escape_lets_them_through(model: Path, template: str) -> None:
    assert checked(with_template(model, template)) in {"<|end|>", "<|user|>", "<|assistant|>"}


def test_one_that_ignores_the_message_works_and_lets_nothing_through(model: Path) -> None:
    assert checked(with_template(model, "<|assistant|>")) is None


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (SYNTAX, r"The chat template of .*model cannot be used \(line 2\): unexpected"),
        ("{{ raise_exception('not with me') }}", "cannot be used: not with me"),
        ("{{ messages[7].content.upper() }}", "cannot be used: "),
        (None, r"The model .*model has no chat template: name one with --chat-template\."),
    ],
    ids=["syntax", "raises", "assumes", "none"],
)
def test_a_bad_one_is_a_sentence(model: Path, template: str | None, complaint: str) -> None:
    with pytest.raises(EngineStartError, match=complaint):
        checked(with_template(model, template))


def test_a_bad_one_from_the_command_line_is_a_sentence_too(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(SYNTAX)
    with pytest.raises(EngineStartError, match=r"cannot be used \(line 2\)"):
        checked(str(model), "--chat-template", str(file))


def test_a_start_ends_with_it_before_any_process_begins(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine, others = VllmEngine(with_template(model, SYNTAX)), engine_processes()
    began = time.monotonic()
    with pytest.raises(EngineStartError, match="The chat template of"):
        engine.start()
    assert engine_processes() == others
    engine.stop(5)
    assert time.monotonic() - began < 60
