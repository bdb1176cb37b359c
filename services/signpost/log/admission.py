"""What every engine decides alike about an entry before it is stored."""

import re
from hashlib import blake2b as _hash

from signpost.errors import InvalidArgument, SignpostError, TooLarge, Violation
from signpost.log.base import MAX_RECORD_BYTES, Append
from signpost.log.subjects import MAX_SUBJECT_BYTES

NAMESPACE = "default"
_SUBJECT = re.compile(r"(?:[A-Za-z0-9_~-]|%[0-9A-F]{2})+(?:\.(?:[A-Za-z0-9_~-]|%[0-9A-F]{2})+)*\Z").match


def dedupe_key(principal: str, subject: str, message_id: str) -> bytes:
    """16 bytes that stand for one client's message id on one subject.

    A hash of namespace, principal, subject and message id, told apart by their lengths, so that one
    client's id swallows no other client's message, nor the same client's on another subject.
    """
    text = f"{NAMESPACE} {len(principal)} {len(subject)} {principal}{subject}{message_id}"
    return _hash(text.encode(), digest_size=16).digest()


def fault_of(entry: Append) -> SignpostError | None:
    """What is wrong with an entry whatever the log holds: its size or its subject; None where all is well."""
    if len(entry.payload) > MAX_RECORD_BYTES:
        return TooLarge("a record", len(entry.payload), MAX_RECORD_BYTES)
    return subject_fault(entry.subject)


def subject_fault(subject: str) -> SignpostError | None:
    """What is wrong with a subject; None where it is legal and short enough."""
    if len(subject) > MAX_SUBJECT_BYTES:
        return TooLarge("a subject", len(subject), MAX_SUBJECT_BYTES)
    if _SUBJECT(subject) is None:
        violation = Violation("subject", "tokens of letters, digits, '-', '_', '~' and %XX, joined by dots")
        return InvalidArgument(f"{subject!r} is no subject", violations=[violation])
    return None
