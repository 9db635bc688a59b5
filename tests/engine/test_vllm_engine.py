"""What `VllmEngine` promises, on a real vLLM with the demo model."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from inferbus_worker.chat import Message
from inferbus_worker.engines.base import (
    CancelledGenerationError,
    ChatCall,
    Completion,
    ContextTooLongError,
    EngineStartError,
    FirstTokenTimeoutError,
    GenerationTimeoutError,
    InvalidCallError,
    Sampling,
)
from inferbus_worker.engines.vllm.engine import VllmEngine, parse_options
from inferbus_worker.engines.watchdog import PROBE_IN_FORM, probe
from support.inferbus import inferbus
from support.running_count import RunningCount
from support.schemas import WORST

pytestmark = pytest.mark.usefixtures("vllm_installed")


def call(text: str = "hello", *, stream: bool = False, **options: Any) -> ChatCall:
    sampling = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 24} | options
    return ChatCall([{"role": "user", "content": text}], Sampling(**sampling), stream=stream)


def whole(engine: VllmEngine, chat: ChatCall) -> Completion:
    return engine.generate(chat).wait(time.monotonic() + 60)


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.fixture
def long_calls(engine: VllmEngine, running: RunningCount) -> Iterator[list[Any]]:
    """Eight generations that outlast any test unless they are cancelled."""
    chats = [long_call(f"number {index}") for index in range(8)]
    generations = [engine.generate(chat) for chat in chats]
    yield generations
    for generation in generations:
        generation.cancel()
    assert eventually(lambda: running.now == 0)


def long_call(text: str) -> ChatCall:
    """A grammar that the model cannot leave before 1,500 characters; by itself it answers in a line."""
    long = {"name": "long", "schema": {"type": "string", "minLength": 1500}}
    return call(text, max_tokens=100_000, extra={"response_format": {"type": "json_schema", "json_schema": long}})


def test_greedy_answers_are_the_same_every_time(engine: VllmEngine) -> None:
    answers = {whole(engine, call("My name is Zorvek")) for _ in range(3)}
    assert len(answers) == 1
    (answer,) = answers
    assert answer.text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0


def test_streamed_chunks_join_to_the_whole_answer(engine: VllmEngine) -> None:
    assert whole(engine, call("Who are you?", stream=True)) == whole(engine, call("Who are you?"))


def test_streaming_tells_text_before_the_end(engine: VllmEngine) -> None:
    said: list[str] = []
    done = engine.generate(call("Who are you?", stream=True), lambda text, _, *_calls: said.append(text)).wait(None)
    assert len(said) > 2
    assert "".join(said) == done.text


def test_an_explicit_temperature_of_zero_is_greedy_and_one_is_not(engine: VllmEngine) -> None:
    seeds = range(8)
    cold = {whole(engine, call(extra={"seed": seed})).text for seed in seeds}
    hot = {whole(engine, call(temperature=2.0, extra={"seed": seed})).text for seed in seeds}
    assert len(cold) == 1
    assert len(hot) > 1


def test_max_tokens_ends_the_answer_with_length(engine: VllmEngine) -> None:
    answer = whole(engine, call("Who are you?", max_tokens=2))
    assert answer.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


def test_concurrent_calls_are_one_batch(running: RunningCount, long_calls: list[Any]) -> None:
    assert eventually(lambda: running.now == len(long_calls))


def test_cancelled_generations_leave_the_batch(running: RunningCount, long_calls: list[Any]) -> None:
    assert eventually(lambda: running.now == len(long_calls))
    for generation in long_calls:
        generation.cancel()
    for generation in long_calls:
        with pytest.raises(CancelledGenerationError):
            generation.wait(None)
    assert eventually(lambda: running.now == 0, seconds=5.0)


def test_a_generation_cancelled_at_once_never_runs(engine: VllmEngine, running: RunningCount) -> None:
    generation = engine.generate(call())
    generation.cancel()
    generation.cancel()
    with pytest.raises(CancelledGenerationError):
        generation.wait(None)
    assert eventually(lambda: running.now == 0)


def test_cancelling_after_the_end_changes_nothing(engine: VllmEngine) -> None:
    generation = engine.generate(call())
    done = generation.wait(None)
    generation.cancel()
    assert generation.wait(None) == done


def test_the_deadline_ends_a_generation(engine: VllmEngine, running: RunningCount) -> None:
    with pytest.raises(GenerationTimeoutError):
        engine.generate(long_call("slow")).wait(time.monotonic() + 0.2)
    assert eventually(lambda: running.now == 0)


def test_a_reader_who_leaves_in_the_middle_stops_the_engine(engine: VllmEngine, running: RunningCount) -> None:
    chat, begun = long_call("tell me everything"), threading.Event()
    generation = engine.generate(chat._replace(stream=True), lambda *_: begun.set())
    assert begun.wait(60)
    generation.cancel()
    assert eventually(lambda: running.now == 0)


@pytest.mark.parametrize("arguments", ['{"city": "Graz"}', "", '{"half": ', "[1]", "[" * 150 + "]" * 150])
def test_a_conversation_in_which_a_tool_was_called_is_taken(engine: VllmEngine, arguments: str) -> None:
    called = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    said: list[Message] = [
        {"role": "system", "content": [{"type": "text", "text": "You answer."}]},
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "tool_calls": [called]},
        {"role": "user", "content": "Hello"},
    ]
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=8)
    assert whole(engine, ChatCall(said, sampling)).usage.completion_tokens
    result: Message = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
    assert whole(engine, ChatCall([*said[:2], result], sampling)).usage.completion_tokens
    # It gets as far as the model's own template.
    with pytest.raises(InvalidCallError, match="knows the roles system, user, assistant and tool, not function"):
        whole(engine, ChatCall([*said[:2], {**result, "role": "function"}], sampling))


def test_a_prompt_that_cannot_fit_is_refused(engine: VllmEngine) -> None:
    with pytest.raises(ContextTooLongError):
        whole(engine, call("7 " * engine.context_tokens))


def test_the_last_prompt_that_fits_leaves_room_for_one_token(engine: VllmEngine) -> None:
    """At the edge there is an answer of one token or a refusal, nothing in between."""
    overhead = _prompt_tokens(engine, "7")
    for length in range(engine.context_tokens - overhead - 2, engine.context_tokens - overhead + 4):
        try:
            answer = whole(engine, call("7" * length, max_tokens=8))
        except ContextTooLongError:
            continue
        assert answer.usage is not None
        assert answer.usage.completion_tokens >= 1
        assert answer.usage.prompt_tokens + answer.usage.completion_tokens <= engine.context_tokens


def _prompt_tokens(engine: VllmEngine, text: str) -> int:
    usage = whole(engine, call(text, max_tokens=1)).usage
    assert usage is not None
    return usage.prompt_tokens


@pytest.mark.parametrize(
    "extra",
    [
        {"top_k": -5},
        {"presence_penalty": 99},
        {"stop": 3},
        {"seed": "many"},
        {"n": 1_000_000},
        {"min_tokens": 10},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"response_format": {"type": "structural_tag"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}},
    ],
    ids=str,
)
def test_absurd_parameters_fail_alone(engine: VllmEngine, extra: dict[str, Any]) -> None:
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(whole, engine, call("Who are you?")) for _ in range(4)]
        with pytest.raises(InvalidCallError) as refusal:
            whole(engine, call(extra=extra))
        assert all(other.result().text for other in others)
    assert str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_json_schema_shapes_the_answer(engine: VllmEngine) -> None:
    schema = {"name": "answer", "schema": {"enum": ["yes", "no"]}}
    answer = whole(engine, call(extra={"response_format": {"type": "json_schema", "json_schema": schema}}))
    assert answer.text in {'"yes"', '"no"'}


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def in_form(schema: Any, **options: Any) -> ChatCall:
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return call("hello", extra={"response_format": shape}, **options)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_one_of_several_forms_may_be_anywhere_in_a_schema(engine: VllmEngine, *, stream: bool) -> None:
    schema = {"anyOf": [{"oneOf": [{"const": "yes"}, {"const": "no"}]}]}
    assert whole(engine, in_form(schema, stream=stream)).text in {'"yes"', '"no"'}


@pytest.mark.parametrize("schema", WORST.values(), ids=WORST.keys())
def test_the_worst_schema_within_the_bounds_is_answered_or_refused_in_words(
    engine: VllmEngine, schema: dict[str, Any]
) -> None:
    """Nothing in between: an answer that the grammar has cut short is none."""
    with contextlib.suppress(InvalidCallError):
        answer = whole(engine, in_form(schema, max_tokens=8))
        assert answer.finish_reason == "length" or is_json(answer.text)
    assert engine.death is None


def test_a_schema_that_the_compiler_gives_up_is_the_requesters_and_logs_no_error(
    engine: VllmEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidCallError, match="gives this schema up"):
        whole(engine, in_form(WORST["500 optional properties"]))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_text_that_ends_the_answer_ends_one_in_a_form_too(engine: VllmEngine) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": "abcdefgh"}}}
    answer = whole(engine, call(extra={"response_format": shape, "stop": "c"}))
    assert (answer.text, answer.finish_reason) == ('"ab', "stop")


def test_a_grammar_that_compiles_for_long_ends_its_own_request_in_time(engine: VllmEngine) -> None:
    """Over the contract's bounds on purpose: nothing within them takes so long."""
    slow = {"type": "integer", "multipleOf": 400_009}
    with ThreadPoolExecutor(1) as pool:
        plain = pool.submit(whole, engine, call("Who are you?"))
        with pytest.raises(FirstTokenTimeoutError):
            engine.generate(in_form(slow)._replace(first_token_within=0.2)).wait(None)
        assert plain.result().text
        assert isinstance(probe(engine, 0.2, PROBE_IN_FORM), GenerationTimeoutError)
    assert eventually(lambda: probe(engine, 20, PROBE_IN_FORM) is None, 60)


def test_sixteen_texts_may_end_an_answer(engine: VllmEngine) -> None:
    stops = [*(f"never {number}" for number in range(15)), "e"]
    assert "e" not in whole(engine, call("Who are you?", extra={"stop": stops})).text


def test_a_temperature_next_to_nothing_warns_nobody(engine: VllmEngine, caplog: pytest.LogCaptureFixture) -> None:
    assert whole(engine, call(temperature=0.001)).text
    assert whole(engine, call(temperature=1e-9)).text
    assert not caplog.records


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.png", "file:///etc/passwd", "data:image/png;base64,AAAA"])
def test_a_text_model_refuses_images_in_words(engine: VllmEngine, url: str) -> None:
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    chat = ChatCall([{"role": "user", "content": parts}], Sampling(0.0, 1.0, 8))
    with pytest.raises(InvalidCallError, match="images"):
        whole(engine, chat)


def test_tokens_are_counted_from_many_threads_at_once(engine: VllmEngine) -> None:
    texts = ["hello " * length for length in range(1, 65)]
    alone = [engine.count_tokens(text) for text in texts]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(engine.count_tokens, texts)) == alone
    assert alone == sorted(alone)


def test_it_says_what_it_serves(engine: VllmEngine) -> None:
    assert engine.model == "demo"
    assert engine.capacity == 64
    assert engine.context_tokens > 0
    assert engine.death is None


def test_a_path_without_a_model_is_one_sentence(tmp_path: Any) -> None:
    with pytest.raises(EngineStartError, match=r"There is no model at .*absent"):
        VllmEngine(str(tmp_path / "absent")).start()


def test_a_wrong_option_is_reported_by_vllm_and_exits_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_options("demo", ["--max-modell-len", "3"])
    assert exit_.value.code == 2
    assert "--max-modell-len" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("--max-modell-len", "--max-model-len"),  # vLLM's
        ("--queue-sise", "--queue-size"),  # ours, which goes to vLLM as whatever we do not know
        ("--password", "--password-file"),
    ],
)
def test_a_slip_of_an_option_is_told_which_one_is_meant_before_anything_starts(slip: str, meant: str) -> None:
    run = inferbus("serve", "demo", "--check-config", slip, "hunter2")
    assert (run.returncode, run.stdout) == (2, "")
    assert f"unrecognized arguments: {slip}; is {meant} meant?" in " ".join(run.stderr.split())
    assert "hunter2" not in run.stderr


def test_the_users_options_win_over_the_demo_models() -> None:
    arguments = parse_options("demo", ["--max-num-seqs", "7", "--max-model-len", "128"])
    assert (arguments.max_num_seqs, arguments.max_model_len) == (7, 128)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--max-modell-len=3", "w.yaml, line 3: vllm.max_modell_len: unrecognized arguments: --max-modell-len=3"),
        ("--max-num-seqs=many", "w.yaml, line 4: vllm.max_num_seqs: argument --max-num-seqs: "),
    ],
)
def test_an_option_in_the_file_is_reported_with_its_place(
    capsys: pytest.CaptureFixture[str], option: str, complaint: str
) -> None:
    places = {"max_modell_len": "w.yaml, line 3", "max_num_seqs": "w.yaml, line 4", "max": "w.yaml, line 5"}
    with pytest.raises(SystemExit) as exit_:
        parse_options("demo", [option], places)
    assert exit_.value.code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_the_first_schema_that_comes_does_not_choose_the_compiler_for_all() -> None:
    assert parse_options("demo", []).structured_outputs_config.backend == "guidance"
    chosen = parse_options("demo", ["--structured-outputs-config", '{"backend": "xgrammar"}'])
    assert chosen.structured_outputs_config.backend == "xgrammar"


def test_importing_the_module_imports_neither_vllm_nor_torch() -> None:
    code = "import sys, inferbus_worker.engines.vllm.engine; print(sorted({'vllm', 'torch'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path",
    [
        "vllm.engine.arg_utils:AsyncEngineArgs",
        "vllm.entrypoints.launchers.api_server.app_state:init_app_state",
        "vllm.entrypoints.launchers.cli_args:make_arg_parser",
        "vllm.entrypoints.launchers.cli_args:validate_parsed_serve_args",
        "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest",
        "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat.chat_completion_stream_generator",
        "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat._make_parser",
        "vllm.platforms:current_platform",
        "vllm.reasoning:ReasoningParserManager.import_reasoning_parser",
        "vllm.renderers.chat_utils:load_chat_template",
        "vllm.renderers.hf:resolve_chat_template",
        "vllm.tokenizers:cached_tokenizer_from_config",
        "vllm.usage.usage_lib:UsageContext.OPENAI_API_SERVER",
        "vllm.utils.argparse_utils:FlexibleArgumentParser",
        "vllm.v1.engine.async_llm:AsyncLLM.from_vllm_config",
    ],
)
def test_what_we_use_of_vllm_is_where_we_expect_it(path: str) -> None:
    module, _, names = path.partition(":")
    found: Any = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    assert found is not None
