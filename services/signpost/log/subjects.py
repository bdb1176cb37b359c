"""Subjects and filters: tokens joined by dots.

A token holds letters, digits, `-`, `_`, `~` and `%XX`; everything else is %-encoded, so that any id
is legal on every engine. In a filter `*` stands for one token and, as the last token, `>` for one or
more. A wildcard in the first place does not match subjects that begin with `_` (the system's).
"""

import re
from collections.abc import Callable
from urllib.parse import quote, unquote

MAX_SUBJECT_BYTES = 1024
_PLAIN = re.compile(r"[A-Za-z0-9_~-]+\Z").match
_TOKEN = re.compile(r"(?:[A-Za-z0-9_~-]|%[0-9A-F]{2})+\Z")


def encode_token(text: str) -> str:
    """Any non-empty text as one token; `decode_token` gives it back."""
    return text if _PLAIN(text) else quote(text, safe="-_~").replace(".", "%2E")


def decode_token(token: str) -> str:
    """The text that `encode_token` was given."""
    return unquote(token)


def is_subject(subject: str) -> bool:
    """Whether it is a legal subject: tokens only, no wildcard."""
    return all(_TOKEN.match(token) for token in subject.split("."))


def is_filter(pattern: str) -> bool:
    """Whether it is a legal filter: tokens, `*`, and `>` at the end only."""
    *tokens, last = pattern.split(".")
    return all(t == "*" or _TOKEN.match(t) for t in tokens) and (last in ("*", ">") or bool(_TOKEN.match(last)))


def is_exact(pattern: str) -> bool:
    """Whether a legal filter has no wildcard."""
    return "*" not in pattern and ">" not in pattern


def matcher(pattern: str) -> Callable[[str], bool]:
    """A function that says whether a subject matches a legal filter."""
    if pattern == ">":
        return lambda subject: not subject.startswith("_")
    if is_exact(pattern):
        return pattern.__eq__
    if pattern.endswith(".>") and "*" not in pattern:
        prefix = pattern[:-1]
        return lambda subject: subject.startswith(prefix)
    parts = []
    for token in pattern.split("."):
        if token == "*":
            parts.append(r"[^.]+")
        elif token == ">":
            parts.append(r".+")
        else:
            parts.append(re.escape(token))
    guard = "(?!_)" if pattern[0] in "*>" else ""
    match = re.compile(guard + r"\.".join(parts) + r"\Z").match
    return lambda subject: match(subject) is not None
