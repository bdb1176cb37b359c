"""The answer of `FeatureClient.watch`: every change of a set of features, as true events.

The server does not know what a client held before a cut: until `caught_up` it says `present` or
`left` for whatever changed since. This side holds the set, and turns that into what happened:
entered, moved, left, each change once, however often the stream breaks.
"""

from collections import deque
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType

from protos.feature.v1 import feature_pb2 as fpb
from signpost.client.features import EventKind, Feature, LeftReason, WatchEvent, left_reason
from signpost.client.resume import ResumableStream
from signpost.client.states import Status


class WatchedSet:
    """The set, and the arithmetic of events. Pure: frames in, events out."""

    def __init__(self) -> None:
        self._features: dict[str, Feature] = {}
        self._unseen: dict[str, None] | None = None  # while a snapshot is sent: held, not seen in it yet
        self.features: Mapping[str, Feature] = MappingProxyType(self._features)

    def snapshot_begins(self) -> None:
        """What comes until `caught_up` is the whole set, whatever is held."""
        self._unseen = dict.fromkeys(self._features)

    def apply(self, frame: fpb.WatchFeaturesResponse) -> list[WatchEvent]:
        """The true events of a frame."""
        kind = frame.WhichOneof("frame")
        if kind == "events":
            return self._events(frame.events)
        if kind == "caught_up":
            return [*self._sweep(), WatchEvent(EventKind.CAUGHT_UP, None)]
        if kind == "reset":
            self.snapshot_begins()
        return []

    def _events(self, frame: fpb.FeatureEvents) -> list[WatchEvent]:
        events = []
        for kind, message, sequence, time_ns, reason in zip(
            frame.kinds,
            frame.features,
            frame.sequences,
            frame.change_times_ns or [0] * len(frame.kinds),
            frame.left_reasons or [fpb.LEFT_REASON_UNSPECIFIED] * len(frame.kinds),
            strict=True,
        ):
            held = self._features.get(message.id)
            if self._unseen is not None:
                self._unseen.pop(message.id, None)
            if kind == fpb.EVENT_KIND_LEFT:
                if held is not None:
                    del self._features[message.id]
                    events.append(WatchEvent(EventKind.LEFT, held, sequence, time_ns, left_reason(reason)))
                continue
            # Known already: sent again after a cut.
            if held is not None and sequence <= held.sequence:
                continue
            feature = Feature.from_message(message, sequence, time_ns)
            self._features[message.id] = feature
            events.append(
                WatchEvent(EventKind.ENTERED if held is None else EventKind.MOVED, feature, sequence, time_ns)
            )
        return events

    def _sweep(self) -> list[WatchEvent]:
        gone, self._unseen = self._unseen or {}, None
        return [
            WatchEvent(EventKind.LEFT, self._features.pop(id), reason=LeftReason.UNKNOWN)
            for id in gone
            if id in self._features
        ]


WatchStream = ResumableStream[fpb.WatchFeaturesRequest, fpb.WatchFeaturesResponse, fpb.Position]


class Watch:
    """An async iterator over the events of a watched set; never ends by itself.

    First ENTERED for every feature of the set, then CAUGHT_UP, then ENTERED, MOVED and LEFT as
    they happen. After a cut the same goes on: what changed meanwhile comes as its true event, once,
    and another CAUGHT_UP. Where the cut was longer than the server's history, features that
    went meanwhile come as LEFT with the reason UNKNOWN. `features` is the set, by id, read-only: it is as new as
    the last frame read.
    """

    def __init__(self, stream: WatchStream, watched: WatchedSet) -> None:
        self._stream = stream
        self._set = watched
        self._waiting: deque[WatchEvent] = deque()

    @property
    def features(self) -> Mapping[str, Feature]:
        """The set as it is now, by id."""
        return self._set.features

    @property
    def position(self) -> bytes | None:
        """The last position reached; to be handed to a read as `min_position`."""
        return None if self._stream.position is None else self._stream.position.token

    @property
    def status(self) -> Status:
        """The state of the stream."""
        return self._stream.status

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> WatchEvent:
        while not self._waiting:
            self._waiting.extend(self._set.apply(await self._stream.__anext__()))
        return self._waiting.popleft()

    async def batches(self) -> AsyncIterator[list[WatchEvent]]:
        """The events frame by frame; a frame without an event is left out."""
        async for frame in self._stream:
            if events := self._set.apply(frame):
                yield events

    async def aclose(self) -> None:
        """End the watch. Safe to repeat."""
        await self._stream.aclose()

    async def __aenter__(self) -> "Watch":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
