"""What both services share: bootstrap, settings, errors to statuses, health, metrics, traces, logs."""

from signpost.server.bootstrap import run
from signpost.server.errors import ErrorParts, parts_of, status_of
from signpost.server.service import Service, handlers_of
from signpost.server.settings import ServerSettings, load_settings, refuse
from signpost.server.tracing import Tracing, current_trace_id, current_traceparent

__all__ = [
    "ErrorParts",
    "ServerSettings",
    "Service",
    "Tracing",
    "current_trace_id",
    "current_traceparent",
    "handlers_of",
    "load_settings",
    "parts_of",
    "refuse",
    "run",
    "status_of",
]
