"""The wire contract, version 1: what travels between a client and a worker.

Both wings speak it, so it is said once, here: `requests` come in, `replies` go out, `failures` are the table of
everything that can go wrong on the way.
"""

from inferbus_client.contract.wire.failures import FAILURES, Code, Failure, FailureKind
from inferbus_client.contract.wire.params import Params
from inferbus_client.contract.wire.replies import (
    VERSION,
    Accepted,
    Delta,
    Done,
    ErrorReply,
    FinishReason,
    InvalidReplyError,
    Reply,
    ReplyWriter,
    Timing,
    Usage,
    decode_reply,
)
from inferbus_client.contract.wire.requests import (
    Control,
    Envelope,
    InvalidPayloadError,
    Request,
    decode_control,
    decode_fields,
    decode_object,
    decode_request,
)

__all__ = [
    "FAILURES",
    "VERSION",
    "Accepted",
    "Code",
    "Control",
    "Delta",
    "Done",
    "Envelope",
    "ErrorReply",
    "Failure",
    "FailureKind",
    "FinishReason",
    "InvalidPayloadError",
    "InvalidReplyError",
    "Params",
    "Reply",
    "ReplyWriter",
    "Request",
    "Timing",
    "Usage",
    "decode_control",
    "decode_fields",
    "decode_object",
    "decode_reply",
    "decode_request",
]
