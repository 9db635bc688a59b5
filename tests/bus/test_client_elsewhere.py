"""One client, several projects: a request that names another one, and who it is for."""

from __future__ import annotations

import pytest

from inferbus_client import Client, RateLimitedError, RequestCancelledError
from support.mosquitto import Mosquitto
from support.streams import text
from support.worker import WorkerProcess


def test_a_request_may_go_to_another_project_and_is_cancelled_there(broker: Mosquitto) -> None:
    worker = WorkerProcess(broker, project=["a", "b"], simulated_per_token="10m")  # noqa: S106
    with worker, Client(broker.url, project="a") as client, client.stream("one two", project="b") as stream:
        assert text(next(stream))
        stream.cancel()
        with pytest.raises(RequestCancelledError):
            list(stream)


def test_whom_it_is_for_is_whom_the_limits_count(broker: Mosquitto) -> None:
    with WorkerProcess(broker, project="a", client_rate_limit="1/10m") as _, Client(broker.url, project="a") as client:
        ask = [{"role": "user", "content": "hello"}]
        client.ask(messages=ask, client_id="alice")
        with pytest.raises(RateLimitedError):
            client.ask(messages=ask, client_id="alice", retries=0)
        assert client.ask(messages=ask, client_id="bob").text
