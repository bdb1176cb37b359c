"""Appends with an expected sequence, where the stream alone cannot tell: tombstones, and what has aged out."""

import time
from collections.abc import Callable

from signpost.errors import SignpostError, StaleSequence
from signpost.log.base import Append, Appended
from signpost.log.jetstream import lookup
from signpost.log.jetstream.connection import Link
from signpost.log.jetstream.streams import Names


class Expecting:
    """Decides what an entry is to expect on the wire, or that it is stale. Raises LogUnavailable.

    `window_s`: the dedupe window of a stream in a cluster, whose leader may look at what is expected before it looks
    for a duplicate; 0 where it looks for that first.
    """

    def __init__(self, link: Callable[[], Link], names: Names, *, window_s: float) -> None:
        self._link, self._names, self._window_ns = link, names, int(window_s * 1e9)

    async def prepare(self, entry: Append) -> int | SignpostError:
        """What to expect on the wire where the entry expects nothing: the stream may have aged out what is there."""
        link = self._link()
        in_stream = await lookup.last_in_stream(link, self._names, entry.subject)
        if in_stream is not None:
            # A live record makes the stream refuse the entry, but it looks for a duplicate first.
            return in_stream.sequence if in_stream.tombstone else 0
        kept = await lookup.last_in_mirror(link, self._names, entry.subject)
        return 0 if kept is None or kept.tombstone else _stale(entry, kept.sequence)

    async def settle(self, entry: Append, key: str) -> int | Appended | SignpostError:
        """What to expect on the wire where the stream's last record of the subject was not what it said; or where it
        stands, if it is a duplicate."""
        link = self._link()
        expected = entry.expected_sequence or 0
        in_stream = await lookup.last_in_stream(link, self._names, entry.subject)
        last = in_stream or await lookup.last_in_mirror(link, self._names, entry.subject)
        actual = 0 if last is None or last.tombstone else last.sequence
        if actual != expected:
            if in_stream is not None and self._window_ns:
                # Stored as expected, it is the next of its subject; where it expected nothing, its last.
                after = expected or in_stream.sequence - 1
                own = await lookup.published(link, self._names, entry.subject, after, key)
                if own is not None and own.time_ns > time.time_ns() - self._window_ns:
                    return Appended(own.sequence, True)
            return _stale(entry, actual)
        # As expected after all: by its tombstone, or because it stands only in the mirror.
        return in_stream.sequence if in_stream is not None else 0


def _stale(entry: Append, actual: int) -> StaleSequence:
    return StaleSequence(entry.subject, entry.expected_sequence or 0, actual)
