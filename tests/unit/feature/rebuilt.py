"""A client's set, rebuilt from the frames of a watch, that checks that every event makes sense for it."""

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st
from signpost.client import Box, Circle, Filter
from signpost.client.geo import Area

from protos.feature.v1 import feature_pb2 as pb

ids = st.sampled_from("abcdef")
PLACES = ((0, 0), (1, 1), (0, 1_799_999_999), (0, -1_800_000_000), (900_000_000, 5), (50, 60))
"""In E7; at the edges of what is watched, beside them, and far away."""
places = st.sampled_from(PLACES)
kinds = st.sampled_from(["bus", "tram", None])


class Rebuilt:
    """What a client in any language holds. `last` is the highest sequence that it was told of."""

    def __init__(self) -> None:
        self.held: dict[str, pb.Feature] = {}
        self.position = b""
        self.live = False
        self.last = 0
        self.resets = 0

    def take(self, frame: pb.WatchFeaturesResponse) -> None:
        """The next frame of the stream; set `live` to False before the first of a new one."""
        match frame.WhichOneof("frame"):
            case "reset":
                self.held, self.live, self.last = {}, False, 0
                self.resets += 1
            case "caught_up":
                assert frame.caught_up.count in (0, len(self.held))
                self.live = True
            case "events":
                for kind, each, sequence in zip(
                    frame.events.kinds, frame.events.features, frame.events.sequences, strict=True
                ):
                    self._event(kind, each)
                    assert sequence > self.last or not self.live
                    self.last = max(self.last, sequence)
        if frame.position.token:
            self.position = frame.position.token

    def _event(self, kind: int, each: pb.Feature) -> None:
        known = each.id in self.held
        match kind:
            case pb.EVENT_KIND_PRESENT:
                assert not self.live
            case pb.EVENT_KIND_ENTERED:
                assert self.live
                assert not known
            case pb.EVENT_KIND_MOVED:
                assert self.live
                assert known
            case pb.EVENT_KIND_LEFT:
                assert known or not self.live
        if kind == pb.EVENT_KIND_LEFT:
            self.held.pop(each.id, None)
        else:
            self.held[each.id] = each


class Watched(NamedTuple):
    """What is watched, and the list that must show the same."""

    area: Area | None
    filters: Sequence[Filter]

    def request(self, collection: str = "") -> pb.WatchFeaturesRequest:
        """The watch."""
        made = pb.WatchFeaturesRequest(collection=collection, progress_interval_ms=100)
        if self.area is not None:
            made.area.CopyFrom(self.area.to_area())
        made.filters.extend(each.to_proto() for each in self.filters)
        return made

    @property
    def listed_area(self) -> Area:
        """The area of the list, which needs one."""
        return self.area or Circle((0.0, 0.0), 3e7)

    def listing(self, collection: str = "") -> pb.ListFeaturesRequest:
        """The list."""
        request = self.request(collection)
        return pb.ListFeaturesRequest(collection=collection, area=self.listed_area.to_area(), filters=request.filters)


over_the_date_line = Box(-1e-6, 179.9999, 1e-6, 1e-6)
watched = st.builds(
    Watched,
    st.sampled_from([over_the_date_line, Circle((0.0, 0.0), 1.0), None]),
    st.sampled_from([(), (Filter("kind", "!=", "bus"),)]),
)
