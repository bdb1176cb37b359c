"""Position tokens, dedupe keys, subjects: the pure parts of the log."""

from pathlib import Path

import pytest
import signpost.log
from hypothesis import given
from hypothesis import strategies as st
from signpost.errors import InvalidArgument, LogRefused, PositionAhead, PositionCompacted, TooLarge
from signpost.log import Append, Bounds, Record, decode_token, encode_token, is_filter, is_subject, matcher
from signpost.log.admission import dedupe_key, fault_of
from signpost.log.opening import sqlite_path
from signpost.log.positions import MAX_SEQUENCE, MAX_TOKEN_BYTES, check_bounds, check_of, decode, encode

TOKENS = st.text(st.sampled_from("ab_-~9"), min_size=1, max_size=3)
SUBJECTS = st.lists(TOKENS, min_size=1, max_size=4).map(".".join)
FILTERS = st.builds(
    lambda tokens, end: ".".join([*tokens, *end]) or ">",
    st.lists(st.one_of(TOKENS, st.just("*")), max_size=4),
    st.sampled_from([[], [">"]]),
)


@given(st.binary(min_size=8, max_size=8), st.integers(0, MAX_SEQUENCE), st.integers(0, 2**32 - 1))
def test_a_token_gives_back_its_parts(epoch: bytes, sequence: int, check: int) -> None:
    token = encode(epoch, sequence, check)
    assert len(token) <= MAX_TOKEN_BYTES
    assert decode(token) == (epoch, sequence, check)


@given(st.binary(max_size=40))
def test_bytes_are_a_token_in_one_way_or_none(token: bytes) -> None:
    try:
        again = encode(*decode(token))
    except InvalidArgument:
        return
    assert again == token


def test_a_check_tells_records_apart() -> None:
    record = Record(5, "a", "", 7, b"x")
    others = [record._replace(subject="b"), record._replace(time_ns=8), record._replace(payload=b"y")]
    assert len({check_of(each) for each in [record, *others]}) == 4
    assert check_of(None) == 0
    assert check_of(record._replace(sequence=6)) == check_of(record)


def test_bounds() -> None:
    bounds = Bounds(first=6, last=9, horizon=5)
    for after in (5, 7, 9):
        check_bounds(after, bounds)
    with pytest.raises(PositionAhead):
        check_bounds(10, bounds)
    with pytest.raises(PositionCompacted) as raised:
        check_bounds(4, bounds)
    assert raised.value.first_available == 6
    check_bounds(0, bounds, allow_gaps=True)


@given(st.lists(st.tuples(st.text(max_size=4), SUBJECTS, st.text(max_size=4)), min_size=2, max_size=2, unique=True))
def test_dedupe_keys_differ_where_anything_does(parts: list[tuple[str, str, str]]) -> None:
    first, second = (dedupe_key(*each) for each in parts)
    assert len(first) == 16
    assert first != second


def test_a_dedupe_key_is_the_same_in_every_release() -> None:
    assert dedupe_key("p", "a.b", "m").hex() == "1763505bdf43b7de1c9989785d188e40"


def test_faults_of_an_entry() -> None:
    assert fault_of(Append("a", b"")) is None
    assert isinstance(fault_of(Append("a", b"x" * (512 * 1024 + 1))), TooLarge)
    assert isinstance(fault_of(Append("a" * 1025, b"")), TooLarge)
    assert isinstance(fault_of(Append("a b", b"")), InvalidArgument)


@given(st.text(min_size=1))
def test_any_text_is_one_token(text: str) -> None:
    token = encode_token(text)
    assert is_subject(token)
    assert "." not in token
    assert decode_token(token) == text


def plainly(pattern: list[str], subject: list[str]) -> bool:
    """The rules of a filter, word by word."""
    if pattern == [">"]:
        return bool(subject)
    if not pattern or not subject:
        return not pattern and not subject
    return pattern[0] in ("*", subject[0]) and plainly(pattern[1:], subject[1:])


@given(FILTERS, SUBJECTS)
def test_a_matcher_follows_the_rules(pattern: str, subject: str) -> None:
    assert is_filter(pattern)
    hidden = pattern[0] in "*>" and subject.startswith("_")
    assert matcher(pattern)(subject) == (plainly(pattern.split("."), subject.split(".")) and not hidden)


@pytest.mark.parametrize("pattern", ["", ".", "a.", "a.>.b", ">a", "a*", "a b", "é"])
def test_what_is_no_filter(pattern: str) -> None:
    assert not is_filter(pattern)


def test_the_path_in_a_url() -> None:
    assert sqlite_path("sqlite:///data/a.db") == str(Path("data/a.db").resolve())
    assert sqlite_path("sqlite:////var/lib/a.db") == "/var/lib/a.db"
    with pytest.raises(LogRefused):
        sqlite_path("sqlite://a.db")


def test_public_names() -> None:
    assert sorted(signpost.log.__all__) == sorted(set(signpost.log.__all__))
    for name in signpost.log.__all__:
        assert getattr(signpost.log, name) is not None
