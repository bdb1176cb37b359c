"""What the fences count: once a page or an event, never a record."""

from prometheus_client import Counter, Gauge

FENCES = Gauge("signpost_fences", "Fences in force, on the replica that relays them")
LEADER = Gauge("signpost_fence_relay_leader", "1 on the replica that relays the fences' events, otherwise 0")
EVENTS = Counter("signpost_fence_events_total", "Events published, by kind", ["event"])
REFUSED = Counter("signpost_fence_events_refused_total", "Events that the notification service refused for good")
FAILURES = Counter("signpost_fence_relay_failures_total", "Times the relay had to start again")
RESYNCS = Counter("signpost_fence_resyncs_total", "Times the fences' place was lost and their sets were compared anew")
LAG_RECORDS = Gauge("signpost_fence_lag_records", "Records of the features log that the fences have not seen")
LAG_SECONDS = Gauge(
    "signpost_fence_lag_seconds", "Age of the last change that the fences have seen, while behind; or 0"
)
