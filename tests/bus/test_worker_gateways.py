"""A worker behind gateways: those for whom a gateway asks are told from each other, as users of their own are."""

from __future__ import annotations

from typing import Any, Final

from conftest import StartWorker
from support.mosquitto import Mosquitto
from support.replies import Replies
from support.stub_backend import StubBackend

GATEWAYS: Final = ["inferbus-gateway", "inferbus-gateway-2"]
SERVING: Final[dict[str, Any]] = {"identity": "topic", "gateway": GATEWAYS}
SLOW: Final[dict[str, Any]] = {"simulated_first_token": "100ms", "workers": 1, "rate_limit": "off"}
FLOOD: Final = 40


def asker(broker: Mosquitto, project: str, user: str = GATEWAYS[0]) -> Replies:
    """Who asks as this user of the topics."""
    return Replies(broker, f"{project}/users/{user}")


def outcomes(replies: Replies, *clients: str, **fields: Any) -> list[str]:
    """How a request for each of these clients ends: `done`, or the code of a failure."""
    ends = [replies.ask(clientId=client, **fields) for client in clients]
    return [end.get("code", end["type"]) for end in ends]


def test_one_client_s_limit_leaves_the_others_alone(broker: Mosquitto, start_worker: StartWorker) -> None:
    start_worker(project="gateways", client_rate_limit="2/60s", **SERVING)
    with asker(broker, "gateways") as gateway, asker(broker, "gateways", GATEWAYS[1]) as other:
        assert outcomes(gateway, "alice", "alice", "alice") == ["done", "done", "rate_limited"]
        assert outcomes(gateway, "bob") == ["done"]
        assert outcomes(other, "alice") == ["done"]


def test_names_that_a_stranger_makes_up_change_nothing(broker: Mosquitto, start_worker: StartWorker) -> None:
    start_worker(project="strangers", client_rate_limit="2/60s", **SERVING)
    with asker(broker, "strangers", "eve") as eve, asker(broker, "strangers") as gateway:
        assert outcomes(eve, "a", "b", "inferbus-gateway/c") == ["done", "done", "rate_limited"]
        assert outcomes(gateway, "a", "b", "c", "eve") == ["done"] * 4


def test_a_flood_of_one_client_holds_another_up_by_a_request(broker: Mosquitto, start_worker: StartWorker) -> None:
    start_worker(project="floods", **SLOW, **SERVING)
    with asker(broker, "floods") as gateway:
        flood = [gateway.send(clientId="flood") for _ in range(FLOOD)]
        calm = gateway.send(clientId="calm")
        gateway.end(calm)
        assert gateway.of(calm)[0]["queuePosition"] <= 1
        assert sum(len(gateway.of(request)) > 1 for request in flood) < FLOOD / 2


def test_each_client_has_a_salt_of_its_own(broker: Mosquitto, start_worker: StartWorker) -> None:
    askers = [(GATEWAYS[0], "alice"), (GATEWAYS[0], "bob"), (GATEWAYS[0], "alice"), ("eve", "alice"), ("eve", "bob")]
    with StubBackend("vllm") as stub:
        start_worker("stub", project="salts", backend="vllm", url=stub.url, **SERVING)
        for number, (user, client) in enumerate(askers):
            with asker(broker, "salts", user) as replies:
                replies.ask(f"salt {number}", clientId=client, session="s1")
        bodies = {one.body["messages"][-1]["content"]: one.body for one in stub.requests if one.body}
        alice, bob, again, *stranger = (bodies[f"salt {number}"]["cache_salt"] for number in range(5))
    assert alice == again
    assert stranger[0] == stranger[1]
    assert len({alice, bob, stranger[0]}) == 3
