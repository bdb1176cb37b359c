"""A lane: what every live watch of one selection gets.

Guarantees: a lane holds no queue for anybody. Its parts form a chain, and a watch is a pointer to where the
next ones will be or the first that it has not taken is; what all have taken is freed by that alone. Who has the
same before it gets the same bytes. What is added is taken once it is shown, so that a message carries all that came
between two rounds; watches that fall behind take theirs up to where they stop.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from feature_service.events import FRAME_BYTES, FRAME_EVENTS, events_frame
from feature_service.outcomes import Part
from feature_service.selections import Selection

if TYPE_CHECKING:
    from feature_service.watch import Watch


class Frames(NamedTuple):
    """Frames that are ready, how many events they hold, and the position after them where it is known."""

    frames: Sequence[bytes]
    events: int
    position: bytes


class Link:
    """A place in the chain: `then` is the part after it and the place after that, or None yet."""

    __slots__ = ("_frames", "bytes", "count", "then")

    def __init__(self, count: int, size: int) -> None:
        """`count` events of `size` bytes lie before it."""
        self.count, self.bytes = count, size
        self.then: tuple[Part, Link] | None = None
        self._frames: tuple[Link, Frames] | None = None

    def frames(self, end: "Link") -> Frames:
        """All from here up to another place; made once for all who ask for the same."""
        if self._frames is None or self._frames[0] is not end:
            self._frames = end, _joined(self, end)
        return self._frames[1]

    def upto(self, sequence: int) -> "Link":
        """The place after all parts that go up to a sequence at most."""
        link = self
        while link.then is not None and link.then[0].through <= sequence:
            link = link.then[1]
        return link


class Lane:
    """One selection's chain, and those who follow it: `waiting` to be woken, or `busy`."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.waiting: dict[Watch, None] = {}
        self.busy: dict[Watch, None] = {}
        self.end = self.shown = Link(0, 0)

    def add(self, part: Part) -> None:
        """What comes next."""
        last = self.end
        self.end = Link(last.count + part.events, last.bytes + len(part.content))
        last.then = part, self.end

    def show(self) -> None:
        """Let everything be taken."""
        self.shown = self.end


def _joined(begin: Link, end: Link) -> Frames:
    frames: list[bytes] = []
    contents: list[bytes] = []
    count = size = 0
    position = last = b""
    link = begin
    while link is not end and link.then is not None:
        part, link = link.then
        if contents and (count + part.events > FRAME_EVENTS or size + len(part.content) > FRAME_BYTES):
            frames.append(events_frame(b"".join(contents), last))
            contents, count, size = [], 0, 0
        contents.append(part.content)
        count += part.events
        size += len(part.content)
        last = part.position
        position = last or position
    frames.append(events_frame(b"".join(contents), last))
    return Frames(frames, end.count - begin.count, position)
