"""Fence requests, checked and completed."""

from signpost.log.subjects import encode_token, is_subject

from feature_service.fences.model import Fence
from feature_service.validation import Problems, area_of, check_id, check_time, collection_of, filters_of
from protos.feature.v1 import feature_pb2 as pb

DEFAULT_EVENTS = (pb.FenceEvent.FENCE_EVENT_ENTERED, pb.FenceEvent.FENCE_EVENT_LEFT)
MAX_TOPIC_BYTES = 256
MAX_TOPIC_TOKENS = 16
MIN_DWELL_MS, MAX_DWELL_MS = 1000, 604_800_000
MAX_FENCE_BYTES = 256 * 1024


def completed(problems: Problems, given: pb.Fence) -> pb.Fence:
    """The fence with its defaults filled in; what is wrong with it is added to the problems."""
    fence = pb.Fence()
    fence.CopyFrom(given)
    check_id(problems, "fence.id", fence.id)
    fence.collection = collection_of(problems, fence.collection, "fence.collection")
    area_of(problems, "fence.area", fence.area)
    filters_of(problems, "fence.filters", fence.filters)
    if not fence.events:
        fence.events.extend(DEFAULT_EVENTS)
    known = pb.FenceEvent.values()
    for n, event in enumerate(fence.events):
        if event == pb.FenceEvent.FENCE_EVENT_UNSPECIFIED or event not in known:
            problems.add(f"fence.events[{n}]", "must be entered, left, inside or dwelled")
    if not fence.topic:
        fence.topic = f"fence.{encode_token(fence.id)}"
    if len(fence.topic.encode()) > MAX_TOPIC_BYTES or fence.topic.count(".") >= MAX_TOPIC_TOKENS:
        problems.add(
            "fence.topic", f"must be at most {MAX_TOPIC_BYTES} bytes and {MAX_TOPIC_TOKENS} tokens", "INVALID_TOPIC"
        )
    elif not is_subject(fence.topic) or fence.topic.startswith("_"):
        problems.add(
            "fence.topic", "must be tokens joined by dots, no wildcard, not one of the system's", "INVALID_TOPIC"
        )
    dwells = pb.FenceEvent.FENCE_EVENT_DWELLED in fence.events
    if (dwells or fence.dwell_time_ms) and not MIN_DWELL_MS <= fence.dwell_time_ms <= MAX_DWELL_MS:
        problems.add("fence.dwell_time_ms", f"must be from {MIN_DWELL_MS} to {MAX_DWELL_MS} with dwelled")
    if fence.HasField("expire_time"):
        check_time(problems, "fence.expire_time", fence.expire_time)
    if fence.ByteSize() > MAX_FENCE_BYTES:
        problems.add("fence", f"has {fence.ByteSize()} bytes; the limit is {MAX_FENCE_BYTES}")
    return fence


def in_force(message: pb.Fence, start: int) -> Fence:
    """A stored fence, ready to be asked. Raises InvalidArgument where it is none (a newer release's)."""
    problems = Problems()
    area = area_of(problems, "fence.area", message.area)
    filters = filters_of(problems, "fence.filters", message.filters)
    problems.check()
    assert area is not None  # noqa: S101 - without problems there is one
    return Fence(message, area, filters, start)
