"""One log, structured: ours, vLLM's and paho's records all pass the same formatter, and none of them tells secrets.

Tracebacks have neither the values of local variables, which are passwords and requests, nor the exceptions' texts,
which may quote a request; and once strangers are served, whatever a library fills into its messages stays out as well.
At level debug, which is for finding faults, texts and messages are whole.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from typing import Final, Literal, TextIO

import structlog

from inferbus_client.cli.terminal import is_dumb
from inferbus_worker.stats_line import in_a_line

# Chatty at INFO about every packet; their warnings are worth having.
_QUIET = ("inferbus.paho", "asyncio", "urllib3", "filelock")

#: Ours: what their messages are filled with is known not to be what requesters say.
_OURS: Final = "inferbus"
_PLACEHOLDER: Final = re.compile(r"%(?:\(\w+\))?[-#0-9. +*]*[a-zA-Z]")


def configure(style: Literal["auto", "console", "json"], level: str) -> None:
    """Send every logger to standard error, for people (`console`) or for machines (`json`, one object a line).

    Control characters and line breaks in values are escaped by both renderers, so that no request can forge a line.
    """
    stream = _own_stderr()
    console = style == "console" or (style == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _one_line,
    ]
    renderer: list[structlog.typing.Processor] = (
        [_stats_in_a_line, structlog.dev.ConsoleRenderer(colors=_has_colors(stream), exception_formatter=_write)]
        if console
        else [structlog.processors.ExceptionRenderer(_traceback), structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(_discretion)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def be_discreet() -> None:
    """From now on strangers are served: what libraries fill into their messages may be what those say."""
    _discretion.is_on = not _is_for_finding_faults()


def take_over() -> None:
    """Let libraries that brought handlers of their own, as transformers does, log like all others."""
    for logger in list(logging.getLogger().manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.handlers:
            logger.handlers.clear()
            logger.propagate = True


class _Discretion(logging.Filter):
    """Leaves of others' messages what is the same every time."""

    is_on = False

    def filter(self, record: logging.LogRecord) -> bool:
        if self.is_on and record.name.partition(".")[0] != _OURS:
            # A message that came from another process is whole; what it was made from rides along.
            template = getattr(record.msg, "template", record.msg)
            # asyncio writes what a task has failed of in the lines that follow.
            first, *_ = str(template).splitlines() or [""]
            record.msg, record.args = _PLACEHOLDER.sub("…", first), None
        return True


_discretion: Final = _Discretion()


def _is_for_finding_faults() -> bool:
    return logging.getLogger().level <= logging.DEBUG


def _own_stderr() -> TextIO:
    """Standard error under a number of our own: number 2 is a pipe to ourselves while an engine's processes start."""
    try:
        return os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    except OSError:  # it is closed
        return sys.stderr


def _has_colors(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and not is_dumb()


def _write(stream: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    stream.write("\n" + _traceback(exc_info))


def _traceback(exc_info: structlog.typing.ExcInfo) -> str:
    if _is_for_finding_faults():
        return "".join(traceback.format_exception(*exc_info)).rstrip()
    chain: list[str] = []
    exception: BaseException | None = exc_info[1]
    while exception is not None:
        frames = "".join(traceback.format_tb(exception.__traceback__))
        chain.insert(0, f"Traceback (most recent call last):\n{frames}{type(exception).__qualname__}")
        exception = exception.__cause__ or (None if exception.__suppress_context__ else exception.__context__)
    return "\n\n".join(chain)


def _one_line(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape line breaks in the event itself, which the console renderer prints as it is."""
    text = event.get("event")
    if isinstance(text, str) and not text.isprintable():
        event["event"] = text.encode("unicode_escape").decode("ascii")
    return event


def _stats_in_a_line(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """For people: the reporter's figures, of which machines get every one, in a sentence."""
    if event.get("event") != "stats" or "latency_ms" not in event:
        return event
    kept = {name: event[name] for name in ("timestamp", "level", "logger") if name in event}
    return kept | {"event": in_a_line(event)}
