"""The servers of other makers that the tests speak to: each serves the demo model, and answers as the worker would."""

from __future__ import annotations

import pytest

from support.backends import LlamaServer, MlxServer, VllmServer

#: Asks that each tokenizer cuts in the same way: names, and what the demo model was taught about them.
NAMES = ["Marie", "Otto", "Lena", "Viktor", "Nora", "Ada"]


@pytest.fixture(scope="module")
def greedy_answers(vllm_server: VllmServer) -> dict[str, str]:
    """vLLM's, which the other servers must give as well."""
    return {name: vllm_server.ask(f"My name is {name}.") for name in NAMES}


def test_mlx_answers_greedily_as_vllm_does(mlx_server: MlxServer, greedy_answers: dict[str, str]) -> None:
    assert {name: mlx_server.ask(f"My name is {name}.") for name in NAMES} == greedy_answers


def test_llama_cpp_answers_greedily_as_vllm_does(llama_server: LlamaServer, greedy_answers: dict[str, str]) -> None:
    assert {name: llama_server.ask(f"My name is {name}.") for name in NAMES} == greedy_answers


def test_a_killed_server_comes_back_at_its_port() -> None:
    with MlxServer() as server:
        url = server.url
        server.kill()
        server.start()
        assert server.url == url
        assert server.ask("My name is Ada.")
