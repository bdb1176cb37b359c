"""The book of fences: put, delete and list them, in the state log, by compare-and-set.

Guarantees: a fence keeps its uid through revisions, and the revision counts its puts; a fence that was
deleted and put again is another one. Any replica may write.
"""

import base64
import binascii
from secrets import token_hex
from typing import NamedTuple

from signpost.errors import InvalidArgument, StaleSequence, Violation
from signpost.log.base import Append, Log
from signpost.log.subjects import MAX_SUBJECT_BYTES, is_subject

from feature_service.fences.stored import FENCES, fence_payload, fence_subject, stored_fence
from protos.feature.v1.feature_pb2 import Fence

_AT_ONCE = 50
_PAGE_BYTES = 1 << 20
"""A page ends with the fence that reaches this: each may be a quarter of it, and a message holds four times as much."""


class Put(NamedTuple):
    """What was put. `duplicate`: the message id was seen before."""

    fence: Fence
    duplicate: bool


class FencePage(NamedTuple):
    """Some fences; `next_token` continues, empty at the end."""

    fences: list[Fence]
    next_token: str


class FenceBook:
    """The fences in a state log."""

    def __init__(self, features: Log, state: Log) -> None:
        self._features, self._state = features, state

    async def put(self, fence: Fence, message_id: str = "") -> Put:
        """Create or replace a valid fence: what changes from now on is an event of it. Raises what the log raises."""
        subject, head = fence_subject(fence.id), self._features.head
        while True:
            last = await self._state.last(subject)
            standing = stored_fence(last) if last is not None and not last.tombstone else None
            fence.uid = _new_uid(self._features.epoch) if standing is None else standing.message.uid
            fence.revision = 1 if standing is None else standing.message.revision + 1
            expected = 0 if standing is None else standing.sequence
            try:
                stored = await self._state.append(
                    Append(
                        subject, fence_payload(fence, features_sequence=head), message_id, expected_sequence=expected
                    )
                )
            except StaleSequence:
                continue
            if not stored.duplicate:
                return Put(fence, False)
            page = await self._state.read(stored.sequence - 1, subjects=subject, limit=1, allow_gaps=True)
            # The first put's record, or the one that has replaced it.
            return Put(stored_fence(page.records[0]).message if page.records else fence, True)

    async def delete(self, fence_id: str, *, notify_left: bool, only: Fence | None = None) -> bool:
        """Remove a fence; whether there was one. What changed before is an event of it, told or not yet.

        `only`: this revision of it, not one that came after it, nor another fence.
        """
        subject, head = fence_subject(fence_id), self._features.head
        while True:
            last = await self._state.last(subject)
            if last is None or last.tombstone:
                return False
            standing = stored_fence(last)
            message = standing.message
            if only is not None and (message.uid, message.revision) != (only.uid, only.revision):
                return False
            payload = fence_payload(message, features_sequence=head, notify_left=notify_left)
            try:
                await self._state.append(Append(subject, payload, expected_sequence=standing.sequence, tombstone=True))
            except StaleSequence:
                continue
            return True

    async def page(self, collection: str, size: int, token: str) -> FencePage:
        """The next fences by id, of one collection (empty: of all): as many as asked for, or as fill a message.

        Raises InvalidArgument for a foreign token.
        """
        after = _decode(token) if token else ""
        fences: list[Fence] = []
        most = min(size, _AT_ONCE)
        left = _PAGE_BYTES
        while True:
            records = await self._state.last_of_each(FENCES, after_subject=after, limit=most)
            for record in records:
                after = record.subject
                if record.tombstone:
                    continue
                fence = stored_fence(record).message
                if collection and fence.collection != collection:
                    continue
                fences.append(fence)
                left -= len(record.payload)
                if len(fences) == size or left <= 0:
                    return FencePage(fences, base64.urlsafe_b64encode(after.encode()).decode())
            if len(records) < most:
                return FencePage(fences, "")


def _new_uid(epoch: bytes) -> str:
    """A uid that begins with the epoch of the features log: later, `is_of` tells whether its sequences are the same."""
    return epoch.hex() + token_hex(8)


def is_of(uid: str, epoch: bytes) -> bool:
    """Whether a fence was first put in the features log of this epoch, and not before a restore."""
    return uid.startswith(epoch.hex())


def _decode(token: str) -> str:
    try:
        after = base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, UnicodeError):
        after = ""
    if len(after) > MAX_SUBJECT_BYTES or not after.startswith(fence_subject("")) or not is_subject(after):
        violation = Violation("page_token", "is no token of this server's")
        raise InvalidArgument("page_token: is no token of this server's", violations=[violation])
    return after
