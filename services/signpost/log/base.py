"""The log: what every stream in Signpost is a cursor over.

Guarantees, on every engine:

- **Order.** Each record of a log has a sequence, from 1, rising, never used twice, even after
  deletions and restarts. Every reader sees the records in that order.
- **Durability.** An append is answered only once it is as durable as the engine promises:
  SQLite, fsynced; JetStream with 3 replicas, on a majority; with 1 replica, in the server's
  process. docs/durability.md has the table.
- **Idempotence.** Within the dedupe window, a second append with the same principal, subject and
  message id stores nothing and answers the first one's sequence with `duplicate`; this is looked
  at before anything else about the append.
- **Contiguity.** `read` and `follow` never skip a record that matches: they hand on every one
  after the position, once, or raise a PositionError.
- **Optimistic concurrency.** An append with an expected sequence is stored only if that is the
  sequence of the subject's last record (0: none, or a tombstone), decided atomically.

Payloads are opaque bytes. Subjects are tokens joined by dots (`signpost.log.subjects`).
"""

import asyncio
import dataclasses
import enum
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from signpost.errors import SignpostError

if TYPE_CHECKING:
    from signpost.log.group import Group, GroupSettings

MAX_RECORD_BYTES = 512 * 1024


class Record(NamedTuple):
    """One change. `time_ns` is Unix nanoseconds, assigned by the log with the sequence."""

    sequence: int
    subject: str
    message_id: str
    time_ns: int
    payload: bytes
    tombstone: bool = False


class Append(NamedTuple):
    """What to append.

    `message_id` empty: not recognised again. `expected_sequence` None: in any case; 0: only if the
    subject has no record or its last is a tombstone. `tombstone` marks the subject as deleted:
    where the log keeps the last record of each subject, the mark dies at the horizon.
    """

    subject: str
    payload: bytes
    message_id: str = ""
    principal: str = ""
    expected_sequence: int | None = None
    tombstone: bool = False


class Appended(NamedTuple):
    """Where it stands. `duplicate`: it was there already, at this sequence."""

    sequence: int
    duplicate: bool


class Page(NamedTuple):
    """Part of a log: `records` are all that match in the interval (after, through].

    `position` is the token of `through`. A page may be empty and still move `through`.
    """

    after: int
    through: int
    position: bytes
    records: Sequence[Record]


class Bounds(NamedTuple):
    """`first` is the lowest sequence still there (last + 1 in an empty log), `last` the highest
    ever given (0 in a new log). Reading after any sequence >= `horizon` is contiguous; below it
    records are missing (horizon is first - 1 but for logs that keep the last of each subject)."""

    first: int
    last: int
    horizon: int


class SubjectInfo(NamedTuple):
    """What a log holds of one subject."""

    subject: str
    first_sequence: int
    last_sequence: int
    records: int


class Statistics(NamedTuple):
    """What a log holds, in records, payload bytes and subjects."""

    records: int
    bytes: int
    subjects: int
    first: int
    last: int


class LogState(enum.Enum):
    """What a log can do at this moment; health is read from it."""

    WRITABLE = "writable"
    FULL = "full"  # reads go on, appends raise StorageFull
    RECONNECTING = "reconnecting"  # the engine does not answer
    CLOSED = "closed"


@dataclasses.dataclass(frozen=True, slots=True)
class Retention:
    """How long records stay. None means no bound; several bounds all apply (on JetStream, beside `keep_last`, none but
    `max_age_s`: others are refused).

    `keep_last`: beyond `max_age_s` (the full history) the last record of each subject stays and
    the others go; tombstones die there. Without it, records go altogether. `max_age_s` is then
    the history that resumes can reach: more costs disk, less makes more readers start afresh.
    """

    max_age_s: float | None = None
    max_bytes: int | None = None
    max_records: int | None = None
    keep_last: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class LogSettings:
    """One log's settings.

    `name` is one subject token. `dedupe_window_s`: how long message ids are remembered; longer
    costs, on SQLite, about 150 bytes of memory and 20 of disk for each. `tail_bytes`: the newest
    records kept in memory for followers that are close to the head.
    """

    name: str
    retention: Retention = Retention()
    dedupe_window_s: float = 3600.0
    tail_bytes: int = 64 * 1024 * 1024


class Log(ABC):
    """One named log. Made by a `Store`; safe for many tasks of one event loop."""

    settings: LogSettings
    exclusive: ClassVar[bool] = False
    """Whether one process at a time can have the log open; what another one wrote, it wrote before this one began."""

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    @abstractmethod
    def epoch(self) -> bytes:
        """8 bytes that are new whenever the log is recreated, restored, or loses what it keeps beyond its history."""

    @property
    @abstractmethod
    def head(self) -> int:
        """Highest sequence that this process has seen; no I/O."""

    @property
    @abstractmethod
    def state(self) -> LogState:
        """What the log can do now; no I/O."""

    @abstractmethod
    def submit(self, entries: Sequence[Append]) -> "asyncio.Future[list[Appended | SignpostError]]":
        """Queue appends; does not wait. The future answers each entry, in order, once durable.

        Entries are independent: one that fails does not stop the others. Submissions are grouped
        with whatever else waits; on SQLite they are stored in the order of the calls. An entry's
        error is in its place: StaleSequence, TooLarge, StorageFull, LogUnavailable.
        The queue is bounded: raises ResourceExhausted (reason LOG_BUSY) where it is full; `append_many`
        waits for room instead. Cancelling the future takes nothing back.
        """

    @abstractmethod
    async def append_many(self, entries: Sequence[Append]) -> list[Appended | SignpostError]:
        """`submit`, after waiting for room in the queue, and its answer."""

    async def append(self, entry: Append) -> Appended:
        """Append one record; answered once durable. Raises what `submit` puts in an entry's place."""
        (answer,) = await self.append_many((entry,))
        if isinstance(answer, SignpostError):
            raise answer
        return answer

    @abstractmethod
    async def read(
        self,
        after: int,
        *,
        subjects: str | None = None,
        limit: int = 1000,
        max_bytes: int = 1 << 20,
        allow_gaps: bool = False,
    ) -> Page:
        """The next records after a sequence that match the filter (None: every one, the system's too).

        At least one record if there is any.

        `limit` records or about `max_bytes` of payload, whichever comes first. At the head the page is
        empty and `through` is the head. Raises PositionCompacted for `after` below the horizon unless
        `allow_gaps` (for readers that want what is left), PositionAhead beyond the head, EpochChanged or LogRewound
        where the log is recreated or rewound while it is read.
        """

    @abstractmethod
    def follow(
        self, after: int, *, subjects: str | None = None, allow_gaps: bool = False
    ) -> AsyncGenerator[Page, None]:
        """Replay after a sequence, then the tail, with no gap and no repeat at the seam; never ends.

        Pages as `read` gives them; at the tail each page holds what has come since the one before. It
        is pulled: a follower that does not ask costs nothing but its place, and drops from memory back
        to reading the log by itself. When the replay reaches the head an empty page may be given so that
        the caller sees `through == head`. Raises PositionCompacted when retention overtakes it, and
        EpochChanged or LogRewound when the log is recreated or rewound under it. While the engine is
        away it waits.
        """

    @abstractmethod
    async def last(self, subject: str) -> Record | None:
        """The last record of one subject, tombstones included; None where there is none."""

    @abstractmethod
    async def last_of_each(
        self, subjects: str | None = None, *, after_subject: str = "", limit: int = 1000
    ) -> list[Record]:
        """The last record of each matching subject, by subject, tombstones included, in pages."""

    @abstractmethod
    async def subjects(
        self, subjects: str | None = None, *, after_subject: str = "", limit: int = 1000
    ) -> list[SubjectInfo]:
        """The matching subjects that have records, by subject, in pages."""

    @abstractmethod
    async def bounds(self) -> Bounds:
        """First, last and horizon, from the engine."""

    @abstractmethod
    async def before_time(self, time_ns: int) -> int:
        """The sequence after which to read to get the first record at or after this time."""

    @abstractmethod
    async def position(self, sequence: int) -> bytes:
        """The token of a sequence (0: before everything). At most 32 bytes."""

    @abstractmethod
    def position_of(self, record: Record) -> bytes:
        """The token of a record in hand; no I/O."""

    @abstractmethod
    async def resolve(self, position: bytes) -> int:
        """The sequence of a token, if it is still a place in this log.

        Raises InvalidArgument for bytes that are no token, EpochChanged, LogRewound (another record
        stands there), PositionAhead, PositionCompacted (below the horizon).
        """

    @abstractmethod
    async def statistics(self) -> Statistics:
        """What the log holds."""

    @abstractmethod
    async def wait_for(self, sequence: int) -> None:
        """Return once `head` >= sequence."""

    async def open_group(self, settings: "GroupSettings", state: "Log") -> "Group":
        """This process's part in a queue group on this log; close it before the log.

        An engine that is one process's own keeps the group's place in the log `state`; on JetStream every
        process on the same streams shares the group, and the server keeps it.
        """
        from signpost.log.local_group import LocalGroup  # noqa: PLC0415 - it is made of logs

        return await LocalGroup(self, state, settings).open()


class Store(ABC):
    """The logs of one process on one engine. Made by `signpost.log.open_store`; an async context
    manager: leaving it answers what waits, then closes."""

    @abstractmethod
    def __getitem__(self, name: str) -> Log:
        """An open log, by name."""

    @property
    @abstractmethod
    def state(self) -> LogState:
        """The worst of the logs' states."""

    @abstractmethod
    async def close(self) -> None:
        """Answer what waits, then close. Safe to repeat."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
