"""Queue groups: members share a log's records, each record to one of them.

Guarantees, on every engine: at least once, no promise of order. A record goes to one member at a
time; it goes to another when it is rejected, when its member goes, or when it is not acknowledged in
time. What is acknowledged does not come back, but for acknowledgements of the last moment before a
process is killed. How often a record was tried is kept across restarts.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

from signpost.log.base import Record

MAX_FETCH_BYTES = 1024 * 1024


class Delivered(NamedTuple):
    """A record for one member; `tries` counts the deliveries before this one."""

    record: Record
    tries: int


@dataclasses.dataclass(frozen=True, slots=True)
class GroupSettings:
    """Which group.

    `name` and `subjects` (a legal filter) together name it; `start_after` is the sequence where a group
    that is new begins. `ack_wait_s`: how long a member may keep a record; short means that slow
    handlers see records twice, long that the records of a hung member wait.
    """

    name: str
    subjects: str
    start_after: int
    ack_wait_s: float = 30.0


class Group(ABC):
    """One group, shared by the members of this process. `member` is any hashable of the caller's."""

    @abstractmethod
    async def fetch(self, member: object, limit: int, max_bytes: int = MAX_FETCH_BYTES) -> list[Delivered]:
        """1 to `limit` records for this member, as soon as there are any. Cancelling it takes none.

        Payloads together are at most `max_bytes`, but for the first record. Raises LogUnavailable once
        the group is closed, also for those who wait then.
        """

    @abstractmethod
    def ack(self, member: object, sequences: Iterable[int]) -> None:
        """These are done. Sequences that the member does not hold are passed over."""

    @abstractmethod
    def reject(self, member: object, sequences: Iterable[int]) -> None:
        """These go to another try at once."""

    @abstractmethod
    def release(self, member: object) -> None:
        """The member is gone: what it holds goes to others at once."""

    @abstractmethod
    async def close(self) -> None:
        """Keep what is known, then stop. What members hold comes again when the group is reopened."""
