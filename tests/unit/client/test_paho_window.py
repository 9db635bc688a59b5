"""What paho holds back for us, and lets go again."""

from __future__ import annotations

import pytest
from paho.mqtt.enums import MessageState

from support.ear import Ear


@pytest.mark.parametrize("own_window", [False, True], ids=["paho's window", "our own"])
def test_what_was_held_is_sent_one_at_a_time_and_then_all_at_once(own_window: bool) -> None:  # noqa: FBT001
    ear = Ear(own_window=own_window)
    paho = ear.paho
    try:
        for number in range(5):
            paho.publish("t", b"%d" % number, 1)
        paho.hold = True
        paho._messages_reconnect_reset_out()
        assert not paho.unacknowledged
        paho.send_held(one_at_a_time=True)
        assert [message.payload for message in paho.unacknowledged] == [b"0"]
        paho.send_held(one_at_a_time=False)
        assert [message.payload for message in paho.unacknowledged] == [b"0", b"1", b"2", b"3", b"4"]
        paho.publish("t", b"5", 1)
        assert paho.outstanding[-1].state == MessageState.MQTT_MS_WAIT_FOR_PUBACK
    finally:
        ear.close()
