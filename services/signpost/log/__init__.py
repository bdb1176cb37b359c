"""The log: one interface, and the engines behind it."""

from signpost.log.base import (
    MAX_RECORD_BYTES,
    Append,
    Appended,
    Bounds,
    Log,
    LogSettings,
    LogState,
    Page,
    Record,
    Retention,
    Statistics,
    Store,
    SubjectInfo,
)
from signpost.log.opening import open_store
from signpost.log.subjects import decode_token, encode_token, is_exact, is_filter, is_subject, matcher

__all__ = [
    "MAX_RECORD_BYTES",
    "Append",
    "Appended",
    "Bounds",
    "Log",
    "LogSettings",
    "LogState",
    "Page",
    "Record",
    "Retention",
    "Statistics",
    "Store",
    "SubjectInfo",
    "decode_token",
    "encode_token",
    "is_exact",
    "is_filter",
    "is_subject",
    "matcher",
    "open_store",
]
