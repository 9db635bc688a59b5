"""A client of Inferbus for a board: MQTT 3.1.1 over umqtt.simple, one request at a time, in a few kilobytes."""

import json
import random
import time

from umqtt.simple import MQTTClient

KEEPALIVE = 60  # seconds
REPEAT_AFTER = 20000  # milliseconds without a reply: it may be lost


class AskError(Exception):
    """There is no answer; `code` is one of docs/contract.md's failures, or `timeout`."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Inferbus:
    def __init__(self, client_id, server, port=1883, project="general", user=None, password=None, ssl=None):
        self._id = client_id
        self._requests = f"{project}/user_input/{client_id}"
        self._replies = f"{project}/assistant_response/{client_id}"
        self._number = 0
        self._boot = f"{random.getrandbits(32):08x}"  # numbers begin anew when the board does, ids must not
        self._reply = None
        self._waits_for = None
        self._mqtt = MQTTClient(client_id, server, port, user, password, KEEPALIVE, ssl=ssl)
        self._mqtt.set_callback(self._received)
        self._mqtt.set_last_will(f"boards/{client_id}", b"offline", retain=True)

    def connect(self):
        self._mqtt.connect()  # a clean session: what was said while we were away is asked for again
        self._mqtt.publish(f"boards/{self._id}", b"online", retain=True)
        self._mqtt.subscribe(self._replies, 1)

    def ask(self, message, timeout_ms=60000):
        """The answer's text."""
        self._number += 1
        request_id = f"{self._boot}-{self._number}"
        deadline = time.ticks_add(time.ticks_ms(), timeout_ms)
        refusal = AskError("timeout", "nobody has answered in time")
        pause = 500
        while True:
            left = time.ticks_diff(deadline, time.ticks_ms())
            if left <= 0:
                raise refusal
            request = {"message": message, "requestId": request_id, "clientId": self._id, "reply": "json"}
            request["deadlineMs"] = left
            try:
                # A repeat under the same id is not run again, only answered: so it may be sent whenever in doubt.
                reply = self._once(request, min(left, REPEAT_AFTER))
            except OSError:
                self._connect_again(deadline)
                continue
            if reply is None:
                continue
            if reply["type"] == "done":
                return reply["text"]
            refusal = AskError(reply["code"], reply["message"])
            if not reply["retryable"]:
                raise refusal
            self._idle(min(reply["retryAfterMs"] or pause, left) + random.randrange(250))
            pause = min(2 * pause, 30000)

    def _once(self, request, wait_ms):
        """The last reply to a request; None: there came none."""
        self._reply, self._waits_for = None, request["requestId"]
        self._mqtt.publish(self._requests, json.dumps(request), qos=1)
        self._idle(wait_ms, until_reply=True)
        return self._reply

    def _idle(self, wait_ms, until_reply=False):
        """Wait, and keep the connection alive."""
        started = pinged = time.ticks_ms()
        while time.ticks_diff(time.ticks_ms(), started) < wait_ms and not (until_reply and self._reply):
            self._mqtt.check_msg()
            if time.ticks_diff(time.ticks_ms(), pinged) > KEEPALIVE * 500:
                self._mqtt.ping()
                pinged = time.ticks_ms()
            time.sleep_ms(20)

    def _connect_again(self, deadline):
        pause = 1000
        while time.ticks_diff(deadline, time.ticks_ms()) > 0:
            # A whole house of boards comes back after a power cut: not at the same moment.
            time.sleep_ms(pause + random.randrange(pause))
            try:
                self.connect()
            except OSError:
                pause = min(2 * pause, 30000)
            else:
                return

    def _received(self, _topic, payload):
        try:
            reply = json.loads(payload)
            if reply["requestId"] == self._waits_for and reply["type"] in ("done", "error"):
                self._reply = reply
        except (ValueError, KeyError, TypeError):
            pass  # no reply of a worker's
