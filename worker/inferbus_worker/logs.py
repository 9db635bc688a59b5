"""One log, structured: ours, vLLM's and paho's records all pass the same formatter."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from inferbus_worker.stats_line import in_a_line

# Chatty at INFO about every packet; their warnings are worth having.
_QUIET = ("inferbus.paho", "asyncio", "urllib3", "filelock")


def configure(style: Literal["auto", "console", "json"], level: str) -> None:
    """Send every logger to standard error, for people (`console`) or for machines (`json`, one object a line).

    Control characters and line breaks in values are escaped by both renderers, so that no request can forge a line.
    """
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
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
        [_stats_in_a_line, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
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
