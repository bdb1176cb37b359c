"""The message ids of a log within its dedupe window."""

import sqlite3
from collections import deque
from collections.abc import Sequence

_OFFSET_BYTES = 4
_ENTRY_BYTES = _OFFSET_BYTES + 16
_FORGET_ROWS = 200


class Remembered:
    """Keys (`signpost.log.admission.dedupe_key`) to sequences: looked up in memory, kept in the file.

    In the file they are one row for each commit, appended: a table ordered by key would write a page
    for each key (docs/decisions/0011). In memory a key costs about 150 bytes until its window is over.
    """

    def __init__(self, connection: sqlite3.Connection, log_id: int, window_s: float) -> None:
        self._connection = connection
        self._table = f"dedupe_{log_id}"
        self._window_ns = int(window_s * 1e9)
        self.sequences: dict[bytes, int] = {}
        self._commits: deque[tuple[int, int, list[bytes]]] = deque()  # time, highest sequence, keys; the oldest first

    def load(self, now_ns: int) -> None:
        """Bring what the file has within the window into memory."""
        rows = self._connection.execute(
            f"SELECT base, time_ns, keys FROM {self._table} WHERE time_ns > ? ORDER BY base",  # noqa: S608
            (now_ns - self._window_ns,),
        )
        for base, time_ns, packed in rows:
            fresh = {
                packed[at + _OFFSET_BYTES : at + _ENTRY_BYTES]: base
                + int.from_bytes(packed[at : at + _OFFSET_BYTES], "big")
                for at in range(0, len(packed), _ENTRY_BYTES)
            }
            self.commit(fresh, time_ns)

    def forget(self, now_ns: int) -> None:
        """Forget in memory what is older than the window."""
        oldest = now_ns - self._window_ns
        while self._commits and self._commits[0][0] <= oldest:
            _, last, keys = self._commits.popleft()
            for key in keys:
                # A later commit may have it too: the window was shorter when that was stored.
                if self.sequences[key] <= last:
                    del self.sequences[key]

    def are_new(self, keys: Sequence[bytes]) -> bool:
        """Whether no key is remembered, nor there twice; empty ones stand for nothing."""
        distinct = set(keys)
        distinct.discard(b"")
        return len(distinct) + keys.count(b"") == len(keys) and self.sequences.keys().isdisjoint(distinct)

    def write(self, fresh: dict[bytes, int], base: int, time_ns: int) -> None:
        """Add what is new within the caller's transaction, whose first sequence is base + 1."""
        packed = b"".join([(sequence - base).to_bytes(_OFFSET_BYTES, "big") + key for key, sequence in fresh.items()])
        self._connection.execute(f"INSERT INTO {self._table} VALUES (?, ?, ?)", (base, time_ns, packed))  # noqa: S608

    def commit(self, fresh: dict[bytes, int], time_ns: int) -> None:
        """Take over what `write` wrote, once it is committed."""
        self.sequences.update(fresh)
        self._commits.append((time_ns, next(reversed(fresh.values())), list(fresh)))

    def trim(self, now_ns: int) -> bool:
        """Remove some rows that are older than the window, in a transaction of their own; whether there may be more."""
        cursor = self._connection.execute(
            f"DELETE FROM {self._table} WHERE base IN "  # noqa: S608
            f"(SELECT base FROM {self._table} ORDER BY base LIMIT {_FORGET_ROWS}) AND time_ns <= ?",
            (now_ns - self._window_ns,),
        )
        return cursor.rowcount == _FORGET_ROWS
