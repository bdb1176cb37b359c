"""Logs: one JSON object a line on stdout, or text for people on a terminal.

Fields: `time` (UTC, RFC 3339), `level`, `logger`, `message`, `traceId` where there is one, whatever
a record carries in `extra={"fields": {...}}`, and `exception` with the traceback, still in the one line.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from signpost.server.tracing import current_trace_id


class JSONFormatter(logging.Formatter):
    """One JSON object, keys in a fixed order."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace_id := current_trace_id():
            line["traceId"] = trace_id
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """For people: time, level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in getattr(record, "fields", {}).items())
        text = f"{_time(record)} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(level: str = "info", style: str = "auto", stream: TextIO | None = None) -> None:
    """Set the root logger up. `style`: json, text, or auto: text where `stream` (stdout) is a terminal."""
    out = sys.stdout if stream is None else stream
    handler = logging.StreamHandler(out)
    people = style == "text" or (style == "auto" and out.isatty())
    handler.setFormatter(TextFormatter() if people else JSONFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
