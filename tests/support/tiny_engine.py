"""An engine for `tiny_server` and its like: a thread and a connection for each answer."""

from __future__ import annotations

import http.client
import json
import threading
from urllib.parse import urlsplit

from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import BackendError, ChatCall, EngineDeadError, OnDelta
from inferbus_worker.engines.pending import PendingGeneration


class TinyEngine:
    """See `engines.base.Engine`."""

    capacity = 4
    context_tokens = 4096
    death: EngineDeadError | None = None
    headroom: float | None = None
    leaked = 0
    counts_exactly = False
    memory_bytes: int | None = None

    def __init__(self, url: str, model: str = "tiny") -> None:
        self.url = url
        self.model = model
        self._under_way: set[TinyGeneration] = set()

    def start(self) -> None: ...

    def stop(self, timeout: float) -> None:
        for generation in list(self._under_way):
            generation.fail(EngineDeadError("the engine has stopped"))
            generation.hang_up()
            generation.thread.join(timeout)

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def generate(self, call: ChatCall, on_delta: OnDelta | None = None) -> TinyGeneration:
        generation = TinyGeneration(self, call, on_delta)
        self._under_way.add(generation)
        generation.thread.start()
        return generation

    def ended(self, generation: TinyGeneration) -> None:
        self._under_way.discard(generation)


class TinyGeneration(PendingGeneration):
    def __init__(self, engine: TinyEngine, call: ChatCall, on_delta: OnDelta | None) -> None:
        super().__init__(on_delta, call.first_token_within, self.hang_up)
        self._engine = engine
        self._call = call
        self._connection = http.client.HTTPConnection(urlsplit(engine.url).netloc)
        self.thread = threading.Thread(target=self._run, name="tiny-generation", daemon=True)

    def hang_up(self) -> None:
        """Wake the thread, which closes the connection."""
        if self._connection.sock is not None:
            self._connection.sock.shutdown(2)

    def _run(self) -> None:
        try:
            self._read()
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            self.fail(BackendError(type(error).__name__, "connection"))
        finally:
            self.fail(BackendError("cut", "cut"))
            self._connection.close()
            self._engine.ended(self)

    def _read(self) -> None:
        sampling = self._call.sampling
        asked = {"model": self._engine.model, "messages": list(self._call.messages), "stream": True}
        asked |= {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
        asked |= {"stream_options": {"include_usage": True}}
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
        with self._connection.getresponse() as answer:
            if answer.status != 200:
                self.fail(BackendError(f"status {answer.status}", "5xx"))
            for line in answer:
                if line.startswith(b"data: {"):
                    self._take(json.loads(line[6:]))

    def _take(self, chunk: dict[str, object]) -> None:
        for choice in chunk.get("choices", ()):  # type: ignore[attr-defined]
            self.grow(choice["delta"].get("content") or "")
        if isinstance(usage := chunk.get("usage"), dict):
            self.complete("stop", Usage(usage["prompt_tokens"], usage["completion_tokens"]))
