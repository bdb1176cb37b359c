"""Which filters match a topic: the trie says what the plain matcher says."""

import contextlib
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notification_service.topics import FilterTrie, check_filter, check_topic, is_topic
from signpost.errors import InvalidArgument, PermissionDenied
from signpost.log.subjects import matcher

_token = st.sampled_from(["a", "b", "c", "_s", "d%20e"])
_topics = st.lists(_token, min_size=1, max_size=5).map(".".join)
_filters = st.tuples(
    st.lists(st.sampled_from(["a", "b", "c", "_s", "*"]), min_size=0, max_size=4), st.sampled_from(["a", "*", ">"])
).map(lambda parts: ".".join([*parts[0], parts[1]]))


@given(st.sets(_filters, max_size=30), st.lists(_topics, max_size=20), st.data())
def test_the_trie_matches_what_the_plain_matcher_matches(
    filters: set[str], topics: list[str], data: st.DataObject
) -> None:
    trie: FilterTrie[str] = FilterTrie()
    standing: set[str] = set()
    for pattern in filters:
        trie.add(pattern, pattern)
        standing.add(pattern)
        for topic in topics:  # also what is remembered of a topic must follow every change
            assert sorted(trie.match(topic)) == sorted(p for p in standing if matcher(p)(topic))
    for pattern in data.draw(st.permutations(sorted(filters))):
        trie.remove(pattern)
        standing.discard(pattern)
        for topic in topics:
            assert sorted(trie.match(topic)) == sorted(p for p in standing if matcher(p)(topic))
    assert len(trie) == 0


def test_a_removed_filter_leaves_no_nodes_behind() -> None:
    trie: FilterTrie[int] = FilterTrie()
    for number in range(1000):
        trie.add(f"a.{number}.>", number)
    for number in range(1000):
        trie.remove(f"a.{number}.>")
    assert not trie._root.children


@pytest.mark.parametrize("topic", ["a", "a.b", "a-b.c_d.~", "a%20b", ".".join("a" * 16), "x" * 256])
def test_legal_topics(topic: str) -> None:
    assert check_topic(topic) == topic


@pytest.mark.parametrize(
    "topic", ["", ".", "a.", ".a", "a..b", "a.*", "a.>", "a b", "ä", "x" * 257, ".".join("a" * 17)]
)
def test_what_is_no_topic_is_refused_by_its_field(topic: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_topic(topic)
    assert [violation.field for violation in caught.value.violations] == ["topic"]


def test_clients_do_not_publish_to_the_system() -> None:
    with pytest.raises(PermissionDenied) as caught:
        check_topic("_dead.letters")
    assert caught.value.reason == "SYSTEM_TOPIC"


@pytest.mark.parametrize("pattern", ["a", "*", ">", "a.*.b", "a.>", "_dead.>", "_presence.*"])
def test_legal_filters(pattern: str) -> None:
    assert check_filter(pattern) == pattern


@pytest.mark.parametrize("pattern", ["", ">.a", "a.>.b", "a*", "a.**", "x" * 257])
def test_what_is_no_filter_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        check_filter(pattern)


@pytest.mark.parametrize("refused", [check_topic, check_filter, is_topic])
def test_a_text_of_any_size_is_refused_at_once(refused: Callable[[str], object]) -> None:
    text = "a." * 2_000_000 + "a"
    began = time.thread_time()
    with contextlib.suppress(InvalidArgument):
        assert refused(text) is False
    assert time.thread_time() - began < 0.1
