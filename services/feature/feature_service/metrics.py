"""What the feature service counts: once a page, a batch or a search, never a record."""

from prometheus_client import Counter, Gauge, Histogram

FEATURES = Gauge("signpost_feature_index_features", "Features in the index", ["collection"])
APPLIED = Gauge("signpost_feature_applied_sequence", "Sequence up to which the features log is in the index")
QUERY_SECONDS = Histogram(
    "signpost_feature_query_seconds",
    "Time of a search, or of a part of a long one, waiting for a thread included",
    ["kind"],
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
)
REBUILD_SECONDS = Histogram("signpost_feature_index_rebuild_seconds", "Time of a rebuild of the index, in its thread")
WATCHES = Gauge("signpost_feature_watches", "Open watches")
WATCH_EVENTS = Counter("signpost_feature_watch_events_total", "Events sent to watches, snapshots included")
FALLEN_BEHIND = Counter("signpost_feature_watches_fallen_behind_total", "Watches whose reader went back to the log")
RESETS = Counter("signpost_feature_watch_resets_total", "Reset frames sent")
IMPORTED = Counter("signpost_feature_imported_items_total", "Items of imports, by what became of them", ["outcome"])
EXPIRED = Counter("signpost_feature_expired_total", "Features that this replica was about to expire")

LISTING, ANSWERING, SELECTING = (QUERY_SECONDS.labels(kind) for kind in ("list", "nearest", "watch"))
WRITTEN, UNCHANGED, REFUSED = (IMPORTED.labels(outcome) for outcome in ("written", "unchanged", "refused"))
