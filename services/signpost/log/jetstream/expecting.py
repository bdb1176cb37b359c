"""Appends with an expected sequence, where the stream alone cannot tell: tombstones, and what has aged out."""

from collections.abc import Callable

from signpost.errors import SignpostError, StaleSequence
from signpost.log.base import Append
from signpost.log.jetstream import lookup
from signpost.log.jetstream.connection import Link
from signpost.log.jetstream.streams import Names


class Expecting:
    """Decides what an entry is to expect on the wire, or that it is stale. Raises LogUnavailable."""

    def __init__(self, link: Callable[[], Link], names: Names) -> None:
        self._link, self._names = link, names

    async def prepare(self, entry: Append) -> int | SignpostError:
        """What to expect on the wire where the entry expects nothing: the stream may have aged out what is there."""
        link = self._link()
        in_stream = await lookup.last_in_stream(link, self._names, entry.subject)
        if in_stream is not None:
            # A live record makes the stream refuse the entry, but it looks for a duplicate first.
            return in_stream.sequence if in_stream.tombstone else 0
        kept = await lookup.last_in_mirror(link, self._names, entry.subject)
        return 0 if kept is None or kept.tombstone else _stale(entry, kept.sequence)

    async def settle(self, entry: Append) -> int | SignpostError:
        """What to expect on the wire where the stream's last record of the subject was not what it said."""
        link = self._link()
        expected = entry.expected_sequence or 0
        in_stream = await lookup.last_in_stream(link, self._names, entry.subject)
        last = in_stream or await lookup.last_in_mirror(link, self._names, entry.subject)
        actual = 0 if last is None or last.tombstone else last.sequence
        if actual != expected:
            return _stale(entry, actual)
        # As expected after all: by its tombstone, or because it stands only in the mirror.
        return in_stream.sequence if in_stream is not None else 0


def _stale(entry: Append, actual: int) -> StaleSequence:
    return StaleSequence(entry.subject, entry.expected_sequence or 0, actual)
