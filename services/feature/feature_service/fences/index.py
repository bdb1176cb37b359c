"""Which fences a point may be inside: an R-tree over the fences' spans.

Guarantee: every fence whose area holds the point is among the candidates. The tree is immutable;
fences that came since are few and looked at one by one, until they are worth a new tree.
"""

from collections import defaultdict

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

    def candidates(self, latitudes: Int32s, longitudes: Int32s) -> dict[int, list[Fence]]:
        """The fences that may hold each point (E7), by its index, where there are any."""
        if len(self._unindexed) > UNINDEXED_MAX:
            self._rebuild()
        found: defaultdict[int, dict[str, Fence]] = defaultdict(dict)
        if self._tree is not None:
            points = shapely.points(longitudes.astype(float), latitudes.astype(float))
            of_points, boxes = self._tree.query(points)
            for point, box in zip(of_points.tolist(), boxes.tolist(), strict=True):
                uid = self._of_box[box].uid
                standing = self._fences.get(uid)
                # A replaced or removed fence stays in the tree until the next one; two of its boxes may hold a point.
                if standing is self._of_box[box]:
                    found[point][uid] = standing
        for fence in self._unindexed.values():
            near = np.zeros(len(latitudes), bool)
            for south, west, north, east in fence.area.spans:
                near |= (latitudes >= south) & (latitudes <= north) & (longitudes >= west) & (longitudes <= east)
            for point in np.flatnonzero(near).tolist():
                found[point][fence.uid] = fence
        return {point: list(fences.values()) for point, fences in found.items()}

    def _rebuild(self) -> None:
        boxes = [(fence, span) for fence in self._fences.values() for span in fence.area.spans]
        edges = np.array([(s.west, s.south, s.east, s.north) for _, s in boxes], float)
        self._of_box = [fence for fence, _ in boxes]
        self._tree = shapely.STRtree(shapely.box(*edges.T))
        self._unindexed = {}
