"""The least that a bus can cost: one asyncio program between paho and vLLM's chat serving layer.

    python -m benchmarks.least_bus PORT MODEL [options of vLLM's]

It reads the requests that the worker would, and publishes the `done` and the deltas that it would. There is no
admission, no session, no queue and no thread of ours. Says `least bus ready` when it is; ends with SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import Any, Final

import paho.mqtt.client as mqtt
import uvloop
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from starlette.datastructures import State

from inferbus_client.mqtt.sockets import acknowledge_at_once, send_at_once
from inferbus_worker.engines.vllm.arguments import parse_options
from inferbus_worker.engines.vllm.chat import ChatServing

from .serving_layer import chat_request

#: As `--delta-interval` comes.
_INTERVAL: Final = 0.05


class LeastBus:
    """A task for each request; whatever one raises ends the program."""

    def __init__(self, port: int, serving: Any, tasks: asyncio.TaskGroup) -> None:
        ChatServing(serving)  # from now on streamed answers come as chunks, not as server-sent events to be read again
        self._serving = serving
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._client = client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.on_socket_open = self._opened
        client.on_socket_close = self._closed
        client.on_socket_register_write = self._write_when_possible
        client.on_socket_unregister_write = self._has_written
        client.on_connect = self._connected
        client.on_subscribe = lambda *_: print("least bus ready", flush=True)
        client.on_message = self._asked
        client.connect("127.0.0.1", port, keepalive=0)

    def close(self) -> None:
        self._client.disconnect()

    # paho on asyncio's loop, as its documentation has it.

    def _opened(self, _client: mqtt.Client, _user: Any, connection: Any) -> None:
        send_at_once(connection)
        self._loop.add_reader(connection, self._read)

    def _closed(self, _client: mqtt.Client, _user: Any, connection: Any) -> None:
        self._loop.remove_reader(connection)

    def _write_when_possible(self, client: mqtt.Client, _user: Any, connection: Any) -> None:
        self._loop.add_writer(connection, client.loop_write)

    def _has_written(self, _client: mqtt.Client, _user: Any, connection: Any) -> None:
        self._loop.remove_writer(connection)

    def _connected(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe("general/user_input/+", 1)

    def _read(self) -> None:
        self._client.loop_read()
        acknowledge_at_once(self._client.socket())

    def _asked(self, _client: mqtt.Client, _user: Any, message: mqtt.MQTTMessage) -> None:
        self._tasks.create_task(self._answer(message.topic.rpartition("/")[2], json.loads(message.payload)))

    async def _answer(self, session: str, asked: dict[str, Any]) -> None:
        request = chat_request(
            [{"role": "user", "content": asked["message"]}],
            max_tokens=asked["maxTokens"],
            salt=session,
            stream=asked["stream"],
        )
        response = await self._serving.create_chat_completion(request)
        replies = _Replies(self._client, session, asked.get("requestId", session))
        if asked["stream"]:
            await _stream(response, replies)
        else:
            choice, usage = response.choices[0], response.usage
            replies.done(choice.message.content or "", choice.finish_reason, usage)


class _Replies:
    """What is published of one request."""

    def __init__(self, client: mqtt.Client, session: str, request_id: str) -> None:
        self._client = client
        self._topic = f"general/assistant_response/{session}"
        self._head = {"v": 1, "requestId": request_id, "sessionId": session}
        self._seq = 0

    def delta(self, text: str) -> None:
        self._say(type="delta", text=text)

    def done(self, text: str, reason: str, usage: Any) -> None:
        tokens = {"promptTokens": usage.prompt_tokens, "completionTokens": usage.completion_tokens}
        self._say(type="done", text=text, finishReason=reason, usage=tokens)

    def _say(self, **fields: Any) -> None:
        self._client.publish(self._topic, json.dumps({**self._head, "seq": self._seq, **fields}))
        self._seq += 1


async def _stream(chunks: Any, replies: _Replies) -> None:
    """Deltas put together as the worker does it: the first at once, then as often as it would."""
    whole, said, last = "", 0, 0.0
    async for chunk in chunks:
        whole += chunk.text
        now = time.monotonic()
        is_over = chunk.usage is not None
        if len(whole) > said and (is_over or now - last >= _INTERVAL):
            replies.delta(whole[said:])
            said, last = len(whole), now
        if is_over:
            replies.done(whole, chunk.finish_reason, chunk.usage)


async def _serve(port: int, model: str, options: list[str]) -> None:
    arguments = parse_options(model, options)  # also sets what vLLM reads when it is imported
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state  # noqa: PLC0415
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client  # noqa: PLC0415

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with build_async_engine_client(arguments) as engine:
        state = State()
        await init_app_state(engine, state, arguments, await engine.get_supported_tasks())
        async with asyncio.TaskGroup() as tasks:
            bus = LeastBus(port, state.openai_serving_chat, tasks)
            await stopped.wait()
            bus.close()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
