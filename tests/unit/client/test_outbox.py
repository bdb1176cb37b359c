"""The outbox: bounded, in order, each answered once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signpost import errors
from signpost.client.notifications import Published
from signpost.client.outbox import MAX_FRAMES, Outbox
from signpost.client.settings import OutboxSettings

from protos.notification.v1 import notification_pb2 as npb

MIB = 1 << 20


def publication(number: int, size: int = 0) -> npb.Publication:
    return npb.Publication(topic="t", message_id=str(number), payload=b"x" * size)


def ids(frame: npb.PublishFrame | None) -> list[int]:
    return [int(p.message_id) for p in frame.publications] if frame is not None else []


def answer(frame: npb.PublishFrame | None, first: int = 1) -> npb.Published:
    assert frame is not None
    results = [npb.PublishResult(sequence=first + i) for i in range(len(frame.publications))]
    return npb.Published(id=frame.id, results=results)


def error(reason: str, code: int = 14, retry_ms: int = 0) -> npb.Error:
    return npb.Error(code=code, reason=reason, message="no", retry_after_ms=retry_ms)


async def test_what_waits_goes_out_as_one_frame_in_order() -> None:
    outbox, woken = Outbox(), []
    outbox.wake = lambda: woken.append(1)
    answers = [outbox.put_nowait(publication(n)) for n in range(5)]
    frame = outbox.next_frame(MIB)
    assert ids(frame) == [0, 1, 2, 3, 4]
    assert outbox.next_frame(MIB) is None
    assert outbox.unanswered
    outbox.answered(answer(frame, 7))
    assert [(await a).sequence for a in answers] == [7, 8, 9, 10, 11]
    assert (await answers[0]).message_id == "0"
    assert outbox.statistics.unanswered == 0
    assert woken
    await outbox.flush()


async def test_frames_are_bounded_in_bytes_and_in_number() -> None:
    outbox = Outbox(OutboxSettings(frame_bytes=1000))
    for n in range(40):
        outbox.put_nowait(publication(n, 300))
    frames = [outbox.next_frame(MIB) for _ in range(MAX_FRAMES)]
    assert all(f is not None and f.ByteSize() <= 1000 and len(f.publications) == 3 for f in frames)
    assert outbox.next_frame(MIB) is None
    outbox.answered(answer(frames[0]))
    assert ids(outbox.next_frame(MIB)) == [24, 25, 26]


async def test_an_ordered_outbox_has_one_frame_out_at_a_time() -> None:
    outbox = Outbox(OutboxSettings(ordered=True))
    outbox.put_nowait(publication(0))
    first = outbox.next_frame(MIB)
    assert first is not None
    assert first.ordered
    outbox.put_nowait(publication(1))
    assert outbox.next_frame(MIB) is None
    outbox.answered(answer(first))
    assert ids(outbox.next_frame(MIB)) == [1]


async def test_fault_18_a_full_outbox_raises_or_waits_as_asked() -> None:
    outbox = Outbox(OutboxSettings(max_messages=2))
    outbox.put_nowait(publication(0))
    outbox.put_nowait(publication(1))
    with pytest.raises(errors.OutboxFull):
        outbox.put_nowait(publication(2))
    waiting = [asyncio.create_task(outbox.put(publication(n))) for n in range(2, 6)]
    await asyncio.sleep(0)
    assert outbox.statistics.waiting_for_room == 4
    waiting[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    frame = outbox.next_frame(MIB)
    outbox.answered(answer(frame))
    first, third = await waiting[0], await waiting[2]
    assert not waiting[3].done()
    assert outbox.statistics.messages == 2
    with pytest.raises(errors.OutboxFull):  # there is a queue for the room
        outbox.put_nowait(publication(9))
    frame = outbox.next_frame(MIB)
    assert ids(frame) == [2, 4]
    outbox.answered(answer(frame))
    assert first.done()
    assert third.done()
    await waiting[3]
    assert outbox.statistics.messages == 1


async def test_fault_18_the_bound_holds_in_bytes_too() -> None:
    outbox = Outbox(OutboxSettings(max_bytes=1000))
    outbox.put_nowait(publication(0, 600))
    with pytest.raises(errors.OutboxFull):
        outbox.put_nowait(publication(1, 600))
    assert outbox.statistics.bytes > 600


async def test_cancelling_at_the_moment_of_being_let_in_takes_it_back() -> None:
    outbox = Outbox(OutboxSettings(max_messages=1))
    outbox.put_nowait(publication(0))
    waiting = asyncio.create_task(outbox.put(publication(1)))
    await asyncio.sleep(0)
    outbox.answered(answer(outbox.next_frame(MIB)))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert outbox.next_frame(MIB) is None
    assert outbox.statistics.messages == 0


async def test_fault_19_a_record_over_the_limit_is_refused_with_the_limit() -> None:
    outbox = Outbox()
    with pytest.raises(errors.TooLarge) as caught:
        outbox.put_nowait(publication(1, 600_000))
    assert caught.value.limit_bytes == 512 * 1024


async def test_a_cancelled_publish_is_taken_back_while_it_waits() -> None:
    outbox = Outbox()
    answers = [outbox.put_nowait(publication(n)) for n in range(3)]
    answers[1].cancel()
    frame = outbox.next_frame(MIB)
    assert ids(frame) == [0, 2]
    answers[0].cancel()  # too late: it is out
    outbox.answered(answer(frame))
    assert (await answers[2]).sequence == 2
    assert outbox.statistics.messages == 0
    outbox.put_nowait(publication(3)).cancel()
    assert outbox.next_frame(MIB) is None


async def test_fault_18_cancelled_publishes_make_room_while_nothing_can_be_sent() -> None:
    outbox = Outbox(OutboxSettings(max_messages=2))
    for number in range(4):
        outbox.put_nowait(publication(number)).cancel()
    given_up, kept = outbox.put_nowait(publication(4)), outbox.put_nowait(publication(5))
    waiting = asyncio.create_task(outbox.put(publication(6)))
    await asyncio.sleep(0)
    given_up.cancel()
    answer_of_it = await waiting
    assert outbox.statistics.messages == 2
    assert ids(outbox.next_frame(MIB)) == [5, 6]
    outbox.take_back()
    kept.cancel()  # it is out, so that it is sent again
    frame = outbox.next_frame(MIB)
    assert ids(frame) == [5, 6]
    outbox.answered(answer(frame))
    assert (await answer_of_it).sequence == 2
    assert outbox.statistics.bytes == outbox.statistics.messages == 0
    outbox.put_nowait(publication(7)).cancel()
    await outbox.flush()


async def test_fault_18_who_gives_up_waiting_for_room_lets_the_next_in() -> None:
    outbox = Outbox(OutboxSettings(max_bytes=1000))
    outbox.put_nowait(publication(0, 500))
    large, small = (asyncio.create_task(outbox.put(publication(n, size))) for n, size in ((1, 900), (2, 100)))
    await asyncio.sleep(0)
    large.cancel()
    async with asyncio.timeout(20):
        await small
    assert ids(outbox.next_frame(MIB)) == [0, 2]


async def test_fault_3_what_has_no_answer_is_sent_again_first_with_the_same_ids() -> None:
    outbox = Outbox(OutboxSettings(frame_bytes=100))
    answers = [outbox.put_nowait(publication(n, 60)) for n in range(4)]
    first, second = outbox.next_frame(MIB), outbox.next_frame(MIB)
    assert (ids(first), ids(second)) == ([0], [1])
    outbox.answered(answer(first))
    outbox.take_back()
    answers[1].cancel()  # it may be stored already: it is sent all the same, to keep the answers' order
    again = [ids(outbox.next_frame(MIB)) for _ in range(3)]
    assert again == [[1], [2], [3]]


async def test_each_publication_has_its_own_fate() -> None:
    outbox = Outbox()
    answers = [outbox.put_nowait(publication(n)) for n in range(4)]
    frame = outbox.next_frame(MIB)
    assert frame is not None
    results = [
        npb.PublishResult(sequence=1),
        npb.PublishResult(error=error("INVALID_ARGUMENT", 3)),
        npb.PublishResult(error=error("LOG_UNAVAILABLE", retry_ms=20)),
    ]
    outbox.answered(npb.Published(id=frame.id, results=results))
    assert (await answers[0]).sequence == 1
    with pytest.raises(errors.InvalidArgument):
        await answers[1]
    assert outbox.next_frame(MIB) is None  # held for as long as the server asked
    await asyncio.sleep(0.05)
    again = outbox.next_frame(MIB)
    assert ids(again) == [2, 3]  # the last had no answer at all
    outbox.answered(answer(again, 8))
    assert [(await a).sequence for a in answers[2:]] == [8, 9]


async def test_fault_20_a_refused_frame_is_sent_again_when_the_server_says() -> None:
    outbox, woken = Outbox(), asyncio.Event()
    waiting = outbox.put_nowait(publication(1))
    frame = outbox.next_frame(MIB)
    assert frame is not None
    limited = errors.RateLimited("too fast", retry_after_s=0.02)
    outbox.wake = woken.set
    outbox.refused(frame.id, limited)
    woken.clear()
    assert outbox.next_frame(MIB) is None
    await woken.wait()
    again = outbox.next_frame(MIB)
    assert again is not None
    outbox.refused(again.id, errors.InvalidArgument("never"))
    with pytest.raises(errors.InvalidArgument):
        await waiting
    outbox.refused(77, limited)  # of no frame of ours


async def test_close_says_what_it_gave_up() -> None:
    outbox = Outbox(OutboxSettings(max_messages=3))
    answers = [outbox.put_nowait(publication(n)) for n in range(2)]
    frame = outbox.next_frame(MIB)
    assert frame is not None
    outbox.refused(frame.id, errors.RateLimited("later", retry_after_s=60))
    answers.append(outbox.put_nowait(publication(2)))
    waiting = asyncio.create_task(outbox.put(publication(3)))
    cancelled = asyncio.create_task(outbox.put(publication(4)))
    await asyncio.sleep(0)
    cancelled.cancel()
    answers[0].cancel()
    left = outbox.close(errors.Unavailable("closed"))
    assert [(u.message_id, u.maybe_stored) for u in left] == [("1", True), ("2", False)]
    for one in answers[1:]:
        with pytest.raises(errors.Unavailable):
            await one
    with pytest.raises(errors.Unavailable):
        await waiting
    with pytest.raises(errors.Unavailable):
        outbox.put_nowait(publication(5))
    assert outbox.statistics.messages == 0


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["put", "send", "answer", "cut"]), max_size=60))
def test_fault_1_whatever_is_cut_each_is_stored_once_and_in_order(steps: list[str]) -> None:
    """A server that stores by message id, over connections that break at any point."""

    async def run() -> None:
        outbox, stored = Outbox(), dict[str, int]()
        answers: list[asyncio.Future[Published]] = []
        on_the_way: list[npb.PublishFrame] = []
        for step in [*steps, "cut", "send", "answer"]:
            if step == "put":
                answers.append(outbox.put_nowait(publication(len(answers))))
            elif step == "send":
                frame = outbox.next_frame(MIB)
                if frame is not None:
                    for p in frame.publications:
                        stored.setdefault(p.message_id, len(stored) + 1)
                    on_the_way.append(frame)
            elif step == "answer":
                for frame in on_the_way:
                    results = [npb.PublishResult(sequence=stored[p.message_id]) for p in frame.publications]
                    outbox.answered(npb.Published(id=frame.id, results=results))
                on_the_way.clear()
            else:
                on_the_way.clear()
                outbox.take_back()
        assert [int(id) for id in stored] == list(range(len(answers)))
        assert [(await a).sequence for a in answers] == list(range(1, len(answers) + 1))

    asyncio.run(run())
