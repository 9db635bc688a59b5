"""What redis-py raises, in one sentence each, and whether waiting would help."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from typing import Final, Literal

from inferbus_client.shown import shown_in_line
from inferbus_worker.settings.store_url import StoreUrl
from inferbus_worker.state.errors import StoreAnswerError, StoreAwayError, StoreError, StoreRefusedError

#: Characters of a server's own words that a sentence repeats.
_LONGEST: Final = 200

#: What is wrong with the server as a whole, by how its answer begins; it may be right again at any time.
_NOT_READY: Final = {
    "LOADING": "is loading its data",
    "BUSY": "is busy with a script that runs too long",
    "READONLY": "is a replica now, and takes no writes",
    "MASTERDOWN": "is a replica without its master",
    "CLUSTERDOWN": "belongs to a Cluster of which a part is down",
    "TRYAGAIN": "is moving these keys to another node",
    "MOVED": "has moved these keys to another node",
    "ASK": "is moving these keys to another node",
}
#: What it cannot do now, though it is there and can do other things.
_NO_ROOM: Final = {
    "OOM": "is full (its maxmemory)",
    "MISCONF": "cannot write to its disk, and so takes no writes",
    "NOREPLICAS": "has too few replicas, and so takes no writes",
}
#: Somebody has to change something, there or here.
_REFUSED: Final = {
    "NOAUTH": "asks for a password, and none was given",
    "WRONGPASS": "refuses this user or password",
    "NOPERM": "does not let this user do it",
    "DENIED": "lets nobody in from another machine without a password",
}
#: Answers with no such first word, by what stands in them.
_PHRASES: Final = (
    ("without any password configured", "asks for no password, and one was given"),
    ("db index is out of range", "has no database of that number"),
    ("invalid password", "refuses this user or password"),
    ("invalid username-password", "refuses this user or password"),
    ("unknown command 'sentinel'", "is no Sentinel; say redis://"),
    ("cluster support disabled", "is no Cluster; say redis://"),
)
_CROWDED: Final = "max number of clients"
_FIRST_WORD: Final = re.compile(r"[A-Z]+(?= |$)")


def in_words(error: Exception, place: str) -> StoreError:
    """The error as ours.

    Args:
        error: redis-py's, or the system's.
        place: whom it is about, as a sentence begins.
    """
    import redis  # noqa: PLC0415

    tls = next((one for one in _behind(error) if isinstance(one, ssl.SSLError)), None)
    if isinstance(tls, ssl.SSLEOFError | ssl.SSLZeroReturnError):  # as load balancers do before their server is there
        return StoreAwayError(f"{place} closes the connection")
    if tls is not None:
        return StoreRefusedError(f"{place} {_about_tls(tls)}")
    if isinstance(error, redis.InvalidResponse):
        return StoreRefusedError(f"{place} is no Redis: it answers something else")
    return _of_an_answer(error, place) or _of_the_connection(error, place)


def _of_an_answer(error: Exception, place: str) -> StoreError | None:
    text, word = str(error), _first_word(error)
    for rows, kind in ((_NOT_READY, StoreAwayError), (_NO_ROOM, StoreAwayError), (_REFUSED, StoreRefusedError)):
        if word in rows:
            return kind(f"{place} {rows[word]}{_in_its_words(text) if word in {'NOPERM', 'OOM'} else ''}")
    if _CROWDED in text.lower():
        return StoreAwayError(f"{place} has as many clients as it takes")
    for phrase, sentence in _PHRASES:
        if phrase in text.lower():
            return StoreRefusedError(f"{place} {sentence}")
    return None


def _of_the_connection(error: Exception, place: str) -> StoreError:
    import redis  # noqa: PLC0415

    text = str(error)
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return StoreAwayError(f"{place} does not answer in time")
    if isinstance(error, redis.ConnectionError | OSError):
        if "closed by server" in text.lower() or any(isinstance(one, ConnectionResetError) for one in _behind(error)):
            return StoreAwayError(f"{place} closes the connection")
        return StoreAwayError(f"{place} cannot be reached{_in_its_words(_system_words(error) or text)}")
    return StoreAnswerError(f"{place} answers{_in_its_words(text)}")


def verdict_on(answer: Exception) -> Literal["no script", "moved", "not ready", "no room", "wrong type", "an error"]:
    """What an answer that is an error means for what is sent besides.

    Returns:
        `not ready` where nothing would be answered otherwise now, `no room` where nothing can be written, `wrong type`
        where a key is somebody else's.
    """
    match _first_word(answer):
        case "NOSCRIPT":
            return "no script"
        case "MOVED":
            return "moved"
        case "WRONGTYPE":
            return "wrong type"
        case word if word in _NOT_READY:
            return "not ready"
        case word if word in _NO_ROOM:
            return "no room"
    return "an error"


def at_first(said: StoreError, url: StoreUrl) -> str:
    """What may be the matter where a server that never answered yet does not; empty where the words say it."""
    if said.reason.endswith("closes the connection"):
        return "it may speak no TLS, or be no Redis" if url.tls else "it may want TLS (rediss://), or be no Redis"
    return "it may speak no TLS" if url.tls and said.reason.endswith("does not answer in time") else ""


def _first_word(error: Exception) -> str:
    """The answer's own; redis-py cuts it off those that it knows."""
    if "previous master is now a slave" in str(error):  # the Sentinels' own client says it so
        return "READONLY"
    match = _FIRST_WORD.match(str(error))
    return str(getattr(error, "status_code", None) or ("" if match is None else match[0]))


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _about_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted ({error.verify_message}); ?cafile=FILE names who signed it"
    if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
        return "speaks no TLS: say redis://, without the second s"
    return f"refuses TLS ({error.reason or error.strerror})"


def _system_words(error: BaseException) -> str:
    return next((one.strerror for one in _behind(error) if isinstance(one, OSError) and one.strerror), "")


def _in_its_words(text: str) -> str:
    text = shown_in_line(text.strip())[:_LONGEST]
    return f": {text}" if text else ""
