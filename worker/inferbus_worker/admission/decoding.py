"""From bytes to a request: what a project allows, whose session it is, what a repeat is known by, until when."""

from __future__ import annotations

from inferbus_client.contract.topics import Address, is_session, new_session_id
from inferbus_client.contract.wire import (
    Control,
    Envelope,
    Failure,
    InvalidPayloadError,
    Request,
    decode_fields,
    decode_object,
)
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.keys import RetryKey, SessionKey


class Decoding:
    """Reads messages on `user_input` topics, and says whose they are."""

    def __init__(self, settings: Settings) -> None:
        self._projects = settings.projects
        self._gateways = frozenset(settings.gateways)
        self._max_tokens_caps = {name: settings.max_tokens_cap_of(name) for name in settings.projects}
        self._max_message_bytes = settings.max_message_bytes
        self._max_conversation_bytes = settings.conversation_bytes
        self._largest = settings.largest_request_bytes
        self._readable_bytes = settings.readable_bytes

    def decode(self, address: Address, message: Incoming) -> Request | Control:
        """A request, or the word that resets its session.

        Raises:
            InvalidPayloadError: with the refusal, and as much of its envelope as could be read.
        """
        if message.cut or len(message.payload) > self._largest:
            raise InvalidPayloadError(Failure("message_too_large"), self._envelope_of_large(message.payload))
        resets = not message.payload and address.session is not None
        request = Control(reset=True) if resets else self._decode(message.payload)
        if address.session is not None and not is_session(address.session):
            detail = "The topic's session must match [A-Za-z0-9_.:-]{1,128}."
            raise InvalidPayloadError(Failure("invalid_request", detail), request)
        if isinstance(request, Request):
            self._check_allowed(address.project, request)
        return request

    def envelope(self, address: Address, message: Incoming) -> Envelope:
        """As much as can be read of where to answer."""
        try:
            return self.decode(address, message)
        except InvalidPayloadError as refusal:
            return refusal.envelope

    def session_key(self, address: Address, envelope: Envelope) -> SessionKey:
        """The topic's session, else the payload's, else a fresh one; never one that is not allowed."""
        named = address.session if address.session is not None else envelope.session_id
        legal = named if named is not None and is_session(named) else new_session_id()
        # Of anybody else the name is a word, and changes nothing.
        client = envelope.client_id if address.user in self._gateways else None
        return SessionKey(address.project, legal, address.user, client)

    def _decode(self, payload: bytes) -> Request | Control:
        """What a payload asks for that is not too large for everything."""
        fields = decode_object(payload)
        is_conversation = not isinstance(fields, str) and fields.get("messages") is not None
        if len(payload) > (self._max_conversation_bytes if is_conversation else self._max_message_bytes):
            envelope = Envelope() if isinstance(fields, str) else Envelope.salvage(fields)
            raise InvalidPayloadError(Failure("message_too_large"), envelope)
        return decode_fields(fields)

    def _check_allowed(self, project: str, request: Request) -> None:
        wants_format = request.params is not None and request.params.response_format is not None
        if wants_format and not self._projects[project].response_format:
            detail = "params.response_format is not allowed in this project."
            raise InvalidPayloadError(Failure("invalid_request", detail), request)
        if request.has_tools and not self._projects[project].tools:
            raise InvalidPayloadError(Failure("invalid_request", "tools are not allowed in this project."), request)
        cap = self._max_tokens_caps[project]
        if cap is not None and request.max_tokens is not None and request.max_tokens > cap:
            detail = f"maxTokens: at most {cap} are allowed in this project."
            raise InvalidPayloadError(Failure("invalid_request", detail), request)

    def _envelope_of_large(self, payload: bytes) -> Envelope:
        if len(payload) > self._readable_bytes:
            return Envelope()
        try:
            fields = decode_object(payload)
        except InvalidPayloadError:
            return Envelope()
        return Envelope() if isinstance(fields, str) else Envelope.salvage(fields)


def retry_key(address: Address, request: Request) -> RetryKey | None:
    """What a repeat of the request is known by; None where it does not say who asks, or which request it is."""
    if request.client_id is None or request.request_id is None:
        return None
    session = address.session if address.session is not None else request.session_id
    return RetryKey(address.scope, session, request.client_id, request.request_id)


def deadline_of(request: Request, expiry: int | None, since: float) -> float | None:
    """The sooner of the payload's deadline and MQTT 5's Message Expiry, on the monotonic clock."""
    limits = [request.deadline_ms / 1000] if request.deadline_ms is not None else []
    limits += [float(expiry)] if expiry is not None else []
    return since + min(limits) if limits else None
