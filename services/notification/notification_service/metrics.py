"""What the service counts beside the gRPC metrics of every server: once a page, a round or an event, never a record."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

CONNECTIONS = Gauge("signpost_notification_connections", "Connect streams that have said hello")
SUBSCRIPTIONS = Gauge("signpost_notification_subscriptions", "Subscriptions of all streams")
LANES = Gauge("signpost_notification_lanes", "Filters with a subscriber at the live tail")
RECORDS = Counter("signpost_notification_records_total", "Records taken from the log")
HEAD = Gauge("signpost_notification_hub_sequence", "Sequence up to which the log is handed out")
BATCH_RECORDS = Histogram(
    "signpost_notification_batch_records",
    "Records a page of the log's tail",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
DELIVER_SECONDS = Histogram(
    "signpost_notification_publish_to_deliver_seconds",
    "From the append of a page's first record until the hub hands it out",
    buckets=_SECONDS,
)
FALLEN_BEHIND = Counter("signpost_notification_fallen_behind_total", "Subscriptions that left the live tail")
CAUGHT_UP = Counter("signpost_notification_caught_up_total", "Subscriptions that came to the live tail")
GAPS = Counter("signpost_notification_gaps_total", "Gap frames sent")
FENCED = Counter("signpost_notification_fenced_total", "Streams ended because another session took their client id")
DEAD_PEERS = Counter("signpost_notification_dead_peers_total", "Streams ended because their peer stayed silent")
RATE_LIMITED = Counter("signpost_notification_rate_limited_total", "Publishes refused for their rate")
SEED_SKIPPED = Counter(
    "signpost_notification_seed_skipped_total", "Broadcasts the seed contract cannot carry: not UTF-8"
)
GROUP_MEMBERS = Gauge("signpost_notification_group_members", "Subscriptions that are members of a queue group")
GROUP_IN_FLIGHT = Gauge("signpost_notification_group_in_flight", "Records that members hold unacknowledged")
GROUP_REDELIVERED = Counter(
    "signpost_notification_group_redelivered_total", "Records of queue groups delivered after a first try"
)
GROUP_DEAD = Counter("signpost_notification_group_dead_total", "Records that queue groups gave up, under _dead")
PRESENT = Gauge("signpost_notification_present_clients", "Client ids that are connected, on any replica")
PRESENCE_DROPPED = Counter(
    "signpost_notification_presence_dropped_total", "Presence events that a slow subscriber did not get"
)
