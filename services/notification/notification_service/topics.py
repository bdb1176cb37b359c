"""Topics and filters: which are legal, and which filters match a topic.

A topic is at most 256 bytes and 16 tokens (`signpost.log.subjects` has the tokens). Topics that
begin with `_` are the system's: clients may read but not publish them, and no wildcard in the first
place matches them.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Generic, TypeVar

from signpost.errors import InvalidArgument, PermissionDenied, Violation
from signpost.log.subjects import is_filter, is_subject

MAX_TOPIC_BYTES = 256
MAX_TOPIC_TOKENS = 16
MAX_CACHED_TOPICS = 131_072
MAX_SHOWN = 128

T = TypeVar("T")


def is_topic(text: str) -> bool:
    """Whether it is a legal topic, the system's or not. The size first: of 4 MiB the tokens take a second."""
    return _fits(text) and is_subject(text)


@lru_cache(65_536)
def check_topic(topic: str) -> str:
    """The topic, if a client may publish to it.

    Raises InvalidArgument for what is no topic, PermissionDenied (SYSTEM_TOPIC) for the system's.
    """
    if not is_topic(topic):
        raise _refused("topic", topic, "1 to 16 tokens of letters, digits, '-', '_', '~' and %XX, no wildcard")
    if topic.startswith("_"):
        raise PermissionDenied(
            f"{topic!r} is the system's: clients do not publish to it",
            reason="SYSTEM_TOPIC",
            metadata={"topic": topic},
        )
    return topic


@lru_cache(65_536)
def check_filter(pattern: str) -> str:
    """The filter, if it is one; raises InvalidArgument."""
    if not _fits(pattern) or not is_filter(pattern):
        raise _refused("filter", pattern, "a topic, in which '*' stands for one token and a last '>' for the rest")
    return pattern


def matches(pattern: str, topic: str) -> bool:
    """Whether a legal filter matches a topic; where either is asked about once, so that preparing does not pay."""
    if topic.startswith("_") and pattern[0] in "*>":
        return False
    wanted, tokens = pattern.split("."), topic.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
    elif len(tokens) != len(wanted):
        return False
    return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))


def shown(text: str) -> str:
    """A client's text as errors show it: quoted, the beginning of a long one."""
    return repr(text) if len(text) <= MAX_SHOWN else repr(text[:MAX_SHOWN]) + "..."


def _fits(text: str) -> bool:
    return len(text) <= MAX_TOPIC_BYTES and text.count(".") < MAX_TOPIC_TOKENS


def _refused(field: str, value: str, rule: str) -> InvalidArgument:
    description = f"must be {rule}, at most {MAX_TOPIC_BYTES} bytes"
    return InvalidArgument(f"{shown(value)} is no {field}", violations=[Violation(field, description)])


_NONE: dict[str, Any] = {}
"""The children of a leaf, which most nodes are; nothing is ever put into it."""


class _Node(Generic[T]):
    """A token's place: what ends here, what ends in `>` here, and where it goes on."""

    __slots__ = ("children", "rest", "value")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = _NONE
        self.value: T | None = None
        self.rest: T | None = None

    def child(self, token: str) -> "_Node[T]":
        """Where it goes on with a token, made where it is missing."""
        if self.children is _NONE:
            self.children = {}
        return self.children.setdefault(token, _Node())


class FilterTrie(Generic[T]):
    """One value a filter; `match` finds the values whose filters match a topic.

    A match walks the topic's tokens, whatever the number of filters, and is remembered for the next
    record of that topic, so that a publish costs only what matches it.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._matched: dict[str, tuple[T, ...]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, pattern: str, value: T) -> None:
        """Put a value under a filter that has none."""
        node = self._root
        *tokens, last = pattern.split(".")
        for token in tokens:
            node = node.child(token)
        if last == ">":
            node.rest = value
        else:
            node.child(last).value = value
        self._size += 1
        self._forget(pattern)

    def remove(self, pattern: str) -> None:
        """Take a filter's value out."""
        path = [self._root]
        *tokens, last = pattern.split(".")
        for token in tokens:
            path.append(path[-1].children[token])
        if last == ">":
            path[-1].rest = None
        else:
            path.append(path[-1].children[last])
            path[-1].value = None
            tokens.append(last)
        while tokens:
            node = path.pop()
            if node.children or node.value is not None or node.rest is not None:
                break
            del path[-1].children[tokens.pop()]
        self._size -= 1
        self._forget(pattern)

    def match(self, topic: str) -> tuple[T, ...]:
        """The values of all filters that match."""
        found = self._matched.get(topic)
        if found is None:
            if len(self._matched) >= MAX_CACHED_TOPICS:
                self._matched.clear()
            found = self._matched[topic] = tuple(self._find(topic))
        return found

    def _find(self, topic: str) -> Iterator[T]:
        system = topic.startswith("_")
        tokens = topic.split(".")
        nodes = [self._root]
        for depth, token in enumerate(tokens):
            wildcards = depth > 0 or not system
            following = []
            for node in nodes:
                if wildcards and node.rest is not None:
                    yield node.rest
                if (child := node.children.get(token)) is not None:
                    following.append(child)
                if wildcards and (child := node.children.get("*")) is not None:
                    following.append(child)
            nodes = following
        for node in nodes:
            if node.value is not None:
                yield node.value

    def _forget(self, pattern: str) -> None:
        if "*" in pattern or ">" in pattern:
            self._matched.clear()
        else:
            self._matched.pop(pattern, None)
