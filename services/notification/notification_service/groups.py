"""Queue groups: the groups that have a member here, one of each in the process.

Promises: each record that matches goes to one member of its group, wherever the members are connected,
at least once and in no promised order. A record that is rejected, not acknowledged in time, or whose
member goes, is tried again; after `max_deliveries` tries a copy stands under `_dead.<topic>`, once, and
the group has done with it. The engine deals out (`Log.open_group`); `member` has a member's side.
"""

import asyncio
import hashlib
from typing import NamedTuple

from signpost.errors import InvalidArgument, Violation
from signpost.log.base import Append, Log, Record
from signpost.log.group import Group, GroupSettings
from signpost.log.subjects import is_subject

from notification_service.codec import published_of, stored
from protos.notification.v1 import notification_pb2 as pb

DEAD = "_dead"
MAX_GROUP_BYTES = 128


class MemberSettings(NamedTuple):
    """A member's part of a `SubscribeFrame`, with the defaults filled in."""

    group: str
    ack_wait_s: float
    max_deliveries: int
    max_in_flight: int


def member_settings(frame: pb.SubscribeFrame) -> MemberSettings:
    """The group settings of a frame; raises InvalidArgument with every bad field."""
    bad = []
    if len(frame.group) > MAX_GROUP_BYTES or not is_subject(frame.group):
        bad.append(Violation("group", f"must be at most {MAX_GROUP_BYTES} bytes of the topic alphabet"))
    if frame.durable:
        bad.append(Violation("durable", "does not go with a group, which keeps its own place"))
    if frame.start.WhichOneof("start") in ("cursor", "last_of_each"):
        bad.append(Violation("start", "a group starts new, earliest, after a position or at a time"))
    if frame.ack_wait_ms and not 100 <= frame.ack_wait_ms <= 3_600_000:
        bad.append(Violation("ack_wait_ms", "must be 100 to 3600000, or 0"))
    if frame.max_deliveries > 1000:
        bad.append(Violation("max_deliveries", "must be 1 to 1000, or 0"))
    if frame.max_in_flight > 10_000:
        bad.append(Violation("max_in_flight", "must be 1 to 10000, or 0"))
    if bad:
        raise InvalidArgument("the group is wrong", violations=bad)
    return MemberSettings(
        frame.group, (frame.ack_wait_ms or 30_000) / 1000, frame.max_deliveries or 5, frame.max_in_flight or 256
    )


def dead_entry(record: Record, tries: int, *, group: str, pattern: str, epoch: bytes, whole: bool) -> Append:
    """The copy of a record that nobody could handle; its message id lets it stand there once."""
    published = pb.Notification.FromString(published_of(record.payload))
    place = f"{group}\n{pattern}\n{epoch.hex()}\n{record.sequence}"
    published.topic = f"{DEAD}.{record.subject}"
    published.message_id = hashlib.sha256(place.encode()).hexdigest()[:32]
    published.ClearField("expire_time_ns")
    if not whole:
        published.ClearField("payload")
        published.attributes.clear()
        published.attributes["dead-payload"] = "omitted"
    published.attributes.update(
        {
            "dead-group": group,
            "dead-filter": pattern,
            "dead-tries": str(tries),
            "dead-sequence": str(record.sequence),
            "dead-topic": record.subject,
        }
    )
    return Append(published.topic, stored(published.SerializeToString(), ""), published.message_id)


class _Open:
    """A group that is open here, and by how many members."""

    __slots__ = ("group", "lock", "members")

    def __init__(self) -> None:
        self.group: Group | None = None
        self.lock = asyncio.Lock()
        self.members = 0


class Groups:
    """The groups of this process: opened for the first member, closed after the last."""

    def __init__(self, log: Log, state: Log) -> None:
        self._log = log
        self._state = state
        self._open: dict[tuple[str, str], _Open] = {}

    async def join(self, name: str, pattern: str, start_after: int, ack_wait_s: float) -> Group:
        """A group, for one member more. A group that is new starts after the given sequence; the waiting
        time is that of the member who opens it here. Raises LogUnavailable."""
        key = (name, pattern)
        entry = self._open.setdefault(key, _Open())
        entry.members += 1
        try:
            async with entry.lock:
                if entry.group is None:
                    settings = GroupSettings(name, pattern, start_after, ack_wait_s)
                    entry.group = await self._log.open_group(settings, self._state)
                return entry.group
        except BaseException:
            entry.members -= 1
            self._tidy(key, entry)
            raise

    async def leave(self, name: str, pattern: str, member: object) -> None:
        """One member less: what it holds goes to others at once."""
        key = (name, pattern)
        entry = self._open[key]
        entry.members -= 1
        async with entry.lock:
            if entry.group is not None:
                if entry.members:
                    entry.group.release(member)
                else:  # closing gives back too, without dealing it out here again first
                    group, entry.group = entry.group, None
                    await group.close()
        self._tidy(key, entry)

    def _tidy(self, key: tuple[str, str], entry: _Open) -> None:
        if not entry.members and entry.group is None and self._open.get(key) is entry:
            del self._open[key]
