"""ListTopics and ListPresence: pages in the order of the names, each from the name where the last one ended."""

import base64
import binascii
from collections import Counter
from collections.abc import Sequence

from signpost.errors import InvalidArgument

from notification_service.registry import Registry
from notification_service.topics import FilterTrie, check_filter, is_topic
from protos.notification.v1 import notification_pb2 as pb

DEFAULT_PAGE, MAX_PAGE = 100, 1000
_TOPIC, _CLIENT = "topic/", "client/"
"""What tokens hold before the last name of their page: those of one list are none of the other's."""


async def list_topics(registry: Registry, request: pb.ListTopicsRequest) -> pb.ListTopicsResponse:
    """A page of the topics that have records; the system's only where the filter names them."""
    size, after = _page(request.page_size, request.page_token, _TOPIC)
    pattern = check_filter(request.filter or ">")
    found = await registry.hub.log.subjects(pattern, after_subject=after, limit=size + 1)
    more, found = len(found) > size, found[:size]
    subscribers = _subscribers(registry.filters, [info.subject for info in found])
    topics = [
        pb.Topic(
            name=info.subject,
            first_sequence=info.first_sequence,
            last_sequence=info.last_sequence,
            records=info.records,
            subscribers=count,
        )
        for info, count in zip(found, subscribers, strict=True)
    ]
    return pb.ListTopicsResponse(topics=topics, next_page_token=_token(_TOPIC, found[-1].subject) if more else "")


def list_presence(registry: Registry, request: pb.ListPresenceRequest) -> pb.ListPresenceResponse:
    """A page of the clients that are connected, on any replica."""
    size, after = _page(request.page_size, request.page_token, _CLIENT)
    if request.topic and not is_topic(request.topic):
        raise InvalidArgument.of("topic", "must be a topic, without wildcards")
    found, more = registry.presence.page(request.topic, after, size)
    clients = [
        pb.Presence(client_id=one.client_id, connected_time_ns=one.connected_ns, filters=one.filters) for one in found
    ]
    return pb.ListPresenceResponse(
        clients=clients, next_page_token=_token(_CLIENT, found[-1].client_id) if more else ""
    )


def _subscribers(filters: Counter[str], topics: Sequence[str]) -> list[int]:
    trie: FilterTrie[str] = FilterTrie()
    for pattern in filters:
        trie.add(pattern, pattern)
    return [sum(filters[pattern] for pattern in trie.match(topic)) for topic in topics]


def _page(size: int, token: str, kind: str) -> tuple[int, str]:
    if size > MAX_PAGE:
        raise InvalidArgument.of("page_size", f"must be 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}")
    return size or DEFAULT_PAGE, _name(kind, token) if token else ""


def _token(kind: str, name: str) -> str:
    return base64.urlsafe_b64encode(f"{kind}{name}".encode()).decode()


def _name(kind: str, token: str) -> str:
    try:
        name = base64.urlsafe_b64decode(token).decode().removeprefix(kind)
    except (binascii.Error, ValueError):
        name = ""
    if not name or _token(kind, name) != token:
        raise InvalidArgument.of("page_token", "is no token of this server's")
    return name
