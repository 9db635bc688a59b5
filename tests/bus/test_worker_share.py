"""A worker of a group on the bus: it sees whether the broker can share, joins late, leaves with all it was dealt."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, decode_announcement
from inferbus_client.errors import BrokerError, NoSharesError
from inferbus_client.exits import Exit, exit_of
from support.listener import Listener
from support.members import Member, member
from support.mosquitto import Mosquitto, mosquitto_pub
from support.needs import needs_module
from support.other_brokers import Nats, RabbitMq
from support.waiting import until


def amqtt() -> AbstractContextManager[Any]:
    needs_module("amqtt")
    from inferbus_worker.demo.embedded_broker import EmbeddedBroker  # noqa: PLC0415 - may be missing

    return EmbeddedBroker()


def ask(broker: Mosquitto, count: int, topic: str = "shop/user_input/s1") -> list[str]:
    """Publish so many requests, each with a text of its own."""
    texts = [f"{number}-{uuid.uuid4().hex}" for number in range(count)]
    with Listener(broker) as listener:
        for text in texts:
            listener.publish(topic, text)
    return texts


LIARS: Final[dict[str, Callable[[], AbstractContextManager[Any]]]] = {
    "NATS": Nats,
    "RabbitMQ": RabbitMq,
    "amqtt": amqtt,
}


class TestABrokerThatCannotShare:
    @pytest.mark.parametrize("name", LIARS)
    def test_is_found_out_though_it_grants_the_subscription(self, name: str) -> None:
        with LIARS[name]() as broker:
            one = Member(broker.url, "w1")
            try:
                with pytest.raises(NoSharesError) as refused:
                    one.start()
            finally:
                one.bus.close(2)
            assert exit_of(refused.value) == Exit.BROKER
            assert f"the broker at {broker.url} cannot deal requests to a group of workers" in str(refused.value)
            assert "without --state" in str(refused.value)
            assert refused.value.share == "$share/fleet.w1/inferbus/workers/w1/probe"

    def test_is_believed_where_it_says_so(self, own_broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
        one = Member(own_broker.url, "w1")
        monkeypatch.setattr(type(one.bus.link), "shares", property(lambda _link: False))
        try:
            with pytest.raises(NoSharesError, match="says that it has no shared"):
                one.start()
        finally:
            one.bus.close(2)

    @pytest.mark.parametrize("rule", ["deny", "readwrite inferbus/workers/+/nothing"])
    def test_is_one_whose_access_rules_forbid_it(self, rule: str) -> None:
        """A file of access rules grants every subscription, and filters at delivery."""
        with Mosquitto() as broker:
            rules = ["topic readwrite shop/#", "topic readwrite inferbus/workers/+/status"]
            rules.append(f"topic {rule}" + (" inferbus/workers/+/probe" if rule == "deny" else ""))
            (broker.folder / "acl").write_text("\n".join(rules) + "\n")
            broker._config = (f"acl_file {broker.folder / 'acl'}",)
            broker.restart()
            one = Member(broker.url, "w1")
            try:
                with pytest.raises(NoSharesError, match="access rules allow"):
                    one.start()
            finally:
                one.bus.close(2)

    def test_leaves_no_word_of_the_worker(self) -> None:
        with Mosquitto("allow_duplicate_messages true") as broker, Listener(broker, topics.presence("+")) as listener:
            one = Member(broker.url, "w1")
            original = one.bus.link.send
            one.bus.link.send = lambda topic, *args, **more: (  # type: ignore[method-assign]
                original("elsewhere" if topic.endswith("/probe") else topic, *args, **more)
            )
            with pytest.raises(NoSharesError):
                one.start()
            one.bus.announce("offline")
            until(lambda: listener.heard and not listener.heard[-1].payload)
            one.bus.close(2)


class TestJoining:
    def test_nothing_is_dealt_to_who_has_not_joined(self, own_broker: Mosquitto) -> None:
        with member(own_broker, "w1") as first, member(own_broker, "w2", joins=False) as second:
            texts = ask(own_broker, 10)
            until(lambda: first.texts == texts)
            assert second.dealt == []

    @pytest.mark.parametrize("version", ["5", "3.1.1"])
    def test_each_request_goes_to_one_member_and_each_cancel_to_all(self, own_broker: Mosquitto, version: str) -> None:
        with (
            member(own_broker, "w1", mqtt_version=version) as first,
            member(own_broker, "w2", mqtt_version=version) as second,
        ):
            texts = ask(own_broker, 10) + ask(own_broker, 4, "shop/session")
            until(lambda: len(first.dealt) + len(second.dealt) >= len(texts))
            mosquitto_pub(own_broker, "shop/cancel/s1", "stop")
            until(lambda: "stop" in first.texts and "stop" in second.texts)
            assert sorted(first.texts + second.texts) == sorted([*texts, "stop", "stop"])
            assert len(first.dealt) > 1
            assert len(second.dealt) > 1

    def test_a_lost_connection_is_joined_again(self, own_broker: Mosquitto) -> None:
        with member(own_broker, "w1") as one:
            one.cut_off()
            texts = ask(own_broker, 3)
            until(lambda: one.texts == texts)

    def test_and_not_where_the_worker_has_not_joined_or_has_left(self, own_broker: Mosquitto) -> None:
        with member(own_broker, "w1") as first, member(own_broker, "w2", joins=False) as second:
            second.cut_off()
            first_texts = ask(own_broker, 6)
            until(lambda: first.texts == first_texts)
            second.bus.join()
            assert first.bus.leave(20)
            first.cut_off()
            second_texts = ask(own_broker, 6)
            until(lambda: second.texts == second_texts)
            assert first.texts == first_texts

    def test_presence_says_the_group(self, own_broker: Mosquitto) -> None:
        with Listener(own_broker, topics.presence("w1")) as listener, member(own_broker, "w1"):
            said = decode_announcement(Presence, listener.wait(1)[0].payload)
            assert said is not None
            assert said.group == "fleet"

    def test_what_an_earlier_run_outside_of_the_group_left_in_the_session_is_let_go(
        self, own_broker: Mosquitto
    ) -> None:
        """Else every request would come to it, besides those that it is dealt."""
        kept: dict[str, Any] = {"ack": "after-reply"}
        alone = Member(own_broker.url, "w1", state=None, **kept)
        alone.start()
        alone.die()
        with member(own_broker, "w1", **kept) as first, member(own_broker, "w2", **kept) as second:
            texts = ask(own_broker, 10)
            until(lambda: len(first.dealt) + len(second.dealt) >= len(texts))
            assert sorted(first.texts + second.texts) == sorted(texts)

    def test_a_backlog_that_nobody_acknowledges_yet_does_not_look_like_a_broker_that_cannot_share(self) -> None:
        """What is beyond our Receive Maximum the broker holds back, and our probe behind it."""
        kept: dict[str, Any] = {"ack": "after-reply", "queue_size": 10}
        with Mosquitto() as broker:
            one = Member(broker.url, "w1", **kept)
            one.start()
            one.bus.join()
            one.die()
            texts = ask(broker, 100)
            back = Member(broker.url, "w1", **kept)
            back.holds = True
            try:
                back.start()
                assert 0 < len(back.dealt) < 100
                back.acknowledges_again()
                back.bus.join()
                until(lambda: set(back.texts) == set(texts))
            finally:
                back.bus.close(2)


class TestLeaving:
    @pytest.mark.parametrize("version", ["5", "3.1.1"])
    @pytest.mark.parametrize("ack", ["on-receipt", "after-reply"])
    def test_under_load_loses_nothing(self, own_broker: Mosquitto, version: str, ack: str) -> None:
        options: dict[str, Any] = {"mqtt_version": version, "ack": ack}
        with member(own_broker, "w1", **options) as first, Listener(own_broker) as asker:
            leaving, texts = Member(own_broker.url, "w2", **options), []
            leaving.start()
            leaving.bus.join()
            for number in range(400):
                texts.append(str(number))
                asker._paho.publish("shop/user_input/s1", str(number), 1)
                if number == 200:
                    until(lambda: leaving.dealt)
                    assert leaving.bus.leave(20)
                    had = len(leaving.dealt)
                    leaving.bus.close(2)
            until(lambda: len(first.dealt) + len(leaving.dealt) >= len(texts))
            assert sorted(first.texts + leaving.texts) == sorted(texts)
            assert len(leaving.dealt) == had

    @pytest.mark.parametrize("version", ["5", "3.1.1"])
    def test_makes_the_broker_forget_the_worker(self, own_broker: Mosquitto, version: str) -> None:
        """Else it would go on to keep requests for it."""
        options: dict[str, Any] = {"mqtt_version": version, "ack": "after-reply"}
        with member(own_broker, "w1", **options) as one:
            assert one.bus.leave(20)
        with member(own_broker, "w1", joins=False, **options) as again:
            assert not again.bus.link.session_present

    def test_who_is_only_closed_is_remembered(self, own_broker: Mosquitto) -> None:
        with member(own_broker, "w1", ack="after-reply"):
            pass
        texts = ask(own_broker, 3)
        with member(own_broker, "w1", joins=False, ack="after-reply") as again:
            until(lambda: again.texts == texts)

    def test_takes_as_long_as_the_broker_has_something_for_us(self, own_broker: Mosquitto) -> None:
        with member(own_broker, "w1", ack="after-reply", queue_size=10) as one:
            one.holds = True
            texts = ask(own_broker, 60)
            until(lambda: one.dealt)
            assert not one.bus.leave(1)
            one.acknowledges_again()
            assert one.bus.leave(20)
            assert one.texts == texts

    def test_begins_anew_where_the_connection_is_lost_meanwhile(self, own_broker: Mosquitto) -> None:
        with member(own_broker, "w1") as one:
            own_broker.pause()
            began = time.monotonic()
            assert not one.bus.leave(0.5)
            assert time.monotonic() - began < 10
            own_broker.resume()
            one.cut_off()
            assert one.bus.leave(20)

    def test_is_over_at_once_where_the_link_has_given_up(self, own_broker: Mosquitto) -> None:
        with member(own_broker, "w1") as one:
            one.bus.link.give_up(BrokerError("enough"))
            assert not one.bus.leave(60)

    def test_and_joining_again_is_possible(self, own_broker: Mosquitto) -> None:
        with member(own_broker, "w1") as one:
            assert one.bus.leave(20)
            one.bus.join()
            texts = ask(own_broker, 2)
            until(lambda: one.texts == texts)


class TestDraining:
    def test_is_asked_for_over_the_bus_and_not_by_what_was_asked_of_an_earlier_run(self, own_broker: Mosquitto) -> None:
        mosquitto_pub(own_broker, topics.drain("w1"), "old", "-r")
        with member(own_broker, "w1") as one:
            mosquitto_pub(own_broker, topics.drain("w1"), "now")
            until(lambda: one.drains)
            assert one.drains == 1
