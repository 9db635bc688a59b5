"""umqtt.simple's MQTTClient as far as examples/micropython uses it, over the verbs of board.mjs."""

import json

import bridge


class MQTTClient:
    def __init__(self, client_id, server, port=0, user=None, password=None, keepalive=0, ssl=None):
        self._url = f"mqtt://{server}:{port}"
        self._settings = {"clientId": client_id, "username": user, "password": password, "keepalive": keepalive}

    def set_callback(self, callback):
        self._callback = callback

    def set_last_will(self, topic, msg, retain=False, qos=0):
        self._settings["will"] = {"topic": topic, "payload": msg.decode(), "retain": retain, "qos": qos}

    def connect(self, clean_session=True):
        self._call("connect", self._url, json.dumps(dict(self._settings, clean=clean_session)))

    def subscribe(self, topic, qos=0):
        self._call("subscribe", topic, qos)

    def publish(self, topic, msg, retain=False, qos=0):
        text = msg if isinstance(msg, str) else msg.decode()
        self._call("publish", topic, text, json.dumps({"retain": retain, "qos": qos}))

    def check_msg(self):
        message = bridge.poll()
        if message is not None:
            self._callback(message[0].encode(), message[1].encode())

    def ping(self):
        self._call("ping")

    def _call(self, *parts):
        if problem := bridge.call(*parts):
            raise OSError(problem)
