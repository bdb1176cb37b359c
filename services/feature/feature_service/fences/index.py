"""Which fences a point may be inside: an R-tree over the fences' spans.

Guarantee: every fence whose area holds the point is among the candidates. The tree is immutable;
fences that came since are few and looked at one by one, until they are worth a new tree.
"""

import numpy as np
import shapely

from feature_service.fences.model import Fence
from feature_service.geometry import Int32s

UNINDEXED_MAX = 64


class FenceIndex:
    """The fences of one collection, by uid."""

    def __init__(self) -> None:
        self._fences: dict[str, Fence] = {}
        self._tree: shapely.STRtree | None = None
        self._of_box: list[Fence] = []  # the fence of each box of the tree
        self._unindexed: dict[str, Fence] = {}

    def __len__(self) -> int:
        return len(self._fences)

    def put(self, fence: Fence) -> None:
        """Add a fence, or replace the one of the same uid."""
        self._fences[fence.uid] = fence
        self._unindexed[fence.uid] = fence

    def remove(self, uid: str) -> None:
        """Take a fence away; what is not there is passed over."""
        self._fences.pop(uid, None)
        self._unindexed.pop(uid, None)

    def candidates(self, latitudes: Int32s, longitudes: Int32s) -> list[list[Fence]]:
        """For each point (E7) the fences that may hold it."""
        if len(self._unindexed) > UNINDEXED_MAX:
            self._rebuild()
        found: list[dict[str, Fence]] = [{} for _ in latitudes]
        if self._tree is not None:
            points = shapely.points(longitudes.astype(float), latitudes.astype(float))
            of_points, boxes = self._tree.query(points)
            for point, box in zip(of_points.tolist(), boxes.tolist(), strict=True):
                fence, uid = self._of_box[box], self._of_box[box].uid
                # A replaced or removed fence stays in the tree until the next one; two of its boxes may hold a point.
                if self._fences.get(uid) is fence:
                    found[point][uid] = fence
        for fence in self._unindexed.values():
            near = np.zeros(len(latitudes), bool)
            for south, west, north, east in fence.area.spans:
                near |= (latitudes >= south) & (latitudes <= north) & (longitudes >= west) & (longitudes <= east)
            for point in np.flatnonzero(near).tolist():
                found[point][fence.uid] = fence
        return [list(fences.values()) for fences in found]

    def _rebuild(self) -> None:
        boxes = [(fence, span) for fence in self._fences.values() for span in fence.area.spans]
        edges = np.array([(s.west, s.south, s.east, s.north) for _, s in boxes], float)
        self._of_box = [fence for fence, _ in boxes]
        self._tree = shapely.STRtree(shapely.box(*edges.T))
        self._unindexed = {}
