"""Clients that never lose their place.

`FeatureClient` and `NotificationClient` are what most users need; `signpost.client.sync` has the
same without asyncio. Under them, each usable alone: `backoff`, `retry`, `resume`, `exchange`.
Errors are those of `signpost.errors`.
"""

from signpost.client.backoff import Backoff
from signpost.client.feature_client import FeatureClient
from signpost.client.feature_list import FeatureList
from signpost.client.features import (
    Deleted,
    EventKind,
    Feature,
    FeatureBatch,
    Fence,
    ImportProgress,
    ItemError,
    LeftReason,
    NearestFeature,
    WatchEvent,
    Written,
)
from signpost.client.geo import Area, Box, Circle, Filter, LatLon, Polygon
from signpost.client.notification_client import NotificationClient
from signpost.client.notifications import (
    Gap,
    Notification,
    NotificationBatch,
    Presence,
    Published,
    Start,
    Topic,
    Unsent,
)
from signpost.client.positions import FilePositionStore, Position, PositionStore
from signpost.client.settings import (
    ChannelSettings,
    ClientSettings,
    OutboxSettings,
    RetrySettings,
    StreamSettings,
)
from signpost.client.states import State, StateChange, Status
from signpost.client.subscription import Subscription
from signpost.client.watch import Watch

__all__ = [
    "Area",
    "Backoff",
    "Box",
    "ChannelSettings",
    "Circle",
    "ClientSettings",
    "Deleted",
    "EventKind",
    "Feature",
    "FeatureBatch",
    "FeatureClient",
    "FeatureList",
    "Fence",
    "FilePositionStore",
    "Filter",
    "Gap",
    "ImportProgress",
    "ItemError",
    "LatLon",
    "LeftReason",
    "NearestFeature",
    "Notification",
    "NotificationBatch",
    "NotificationClient",
    "OutboxSettings",
    "Polygon",
    "Position",
    "PositionStore",
    "Presence",
    "Published",
    "RetrySettings",
    "Start",
    "State",
    "StateChange",
    "Status",
    "StreamSettings",
    "Subscription",
    "Topic",
    "Unsent",
    "Watch",
    "WatchEvent",
    "Written",
]
