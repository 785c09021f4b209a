"""The wire between members: what arrives is what was sent, sums are the same bits everywhere, and whoever is gone is known at once."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from sapper.mix.emulate.job import free_port
from sapper.mix.wire import Disagreement, Hub, Limits, Link, Meeting, Overdue, PeerLost, Reducer, WireError, meet, shares
from sapper.mix.wire.dtypes import narrow, round_to, widen

LIMITS = Limits(meet_s=10.0, message_s=10.0, beat_s=0.02, silent_s=5.0)
CARD = {"plan": "p" * 8, "model": "m" * 8, "torch": "2.13"}
MUST = ("plan", "model")


def together(world: int, work: Callable[[int], Any]) -> list[Any]:
    """What ``work`` of each rank returns or raises, each in a thread of its own."""

    def one(rank: int) -> Any:
        try:
            return work(rank)
        except WireError as error:
            return error

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(one, range(world)))


def met(world: int, cards: dict[int, dict[str, str]] | None = None, *, limits: Limits = LIMITS) -> list[Any]:
    port = free_port()
    return together(
        world, lambda rank: meet(rank, world, at=("127.0.0.1", port), card=CARD | (cards or {}).get(rank, {}), must=MUST, limits=limits)
    )


@contextlib.contextmanager
def hubs(world: int, *, limits: Limits = LIMITS) -> Iterator[list[Hub]]:
    meetings: list[Meeting] = met(world)
    found: list[Hub] = together(world, lambda rank: Hub(meetings[rank], peers=range(world), limits=limits))
    try:
        yield found
    finally:
        together(world, lambda rank: found[rank].close())


@pytest.fixture
def pair() -> Iterator[tuple[Link, socket.socket]]:
    """A link, and the bare socket of its peer."""
    ours, theirs = socket.socketpair()
    link = Link(ours, 7, limits=Limits(message_s=5.0, beat_s=0.02, silent_s=0.5))
    yield link, theirs
    theirs.close()
    link.close()


def test_bf16_rounds_to_the_nearest_and_ties_to_even() -> None:
    def word(bits: int) -> float:
        return float(struct.unpack("<f", struct.pack("<I", bits))[0])

    cases = {
        0x3F808000: 0x3F80,  # half way, even below
        0x3F818000: 0x3F82,  # half way, even above
        0x3F808001: 0x3F81,
        0x3F807FFF: 0x3F80,
        0x7F7FFFFF: 0x7F80,  # the largest fp32 becomes infinite
        0x80000000: 0x8000,
        0x00008001: 0x0001,  # denormal
    }
    found = narrow(np.array([word(bits) for bits in cases], np.float32), "bf16")
    assert [hex(bits) for bits in found] == [hex(bits) for bits in cases.values()]
    nan = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(widen(narrow(nan, "bf16"), "bf16")).all()


def test_narrowing_keeps_half_a_unit_and_fp64_is_exact() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    assert np.array_equal(widen(narrow(values, "fp64"), "fp64"), values)
    for wire, unit in {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}.items():
        assert np.max(np.abs(round_to(values, wire) - values) / np.abs(values)) <= unit * (1 + 1e-6) + (2.0**-15 if wire == "fp16" else 0)
    assert np.isinf(narrow(np.array([1e5]), "fp16")).all()


def test_arrays_arrive_by_tag_in_order_with_dtype_and_shape() -> None:
    sent = [
        np.arange(12, dtype=np.int64).reshape(3, 4),
        np.ones((2, 0, 3), np.float32),
        np.array(3.5),
        np.array([True, False]),
        np.random.default_rng(0).normal(size=(300, 400)),
    ]
    with hubs(2) as (a, b):
        for index, array in enumerate(sent):
            a.send(1, f"one/{index}", array=array)
        for index in range(3):
            a.send(1, "many", array=np.array([index]))
        for index in reversed(range(len(sent))):
            got = b.receive(0, f"one/{index}")
            assert np.array_equal(got, sent[index]) and got.dtype == sent[index].dtype
        assert [int(b.receive(0, "many")[0]) for _ in range(3)] == [0, 1, 2]
        values = np.random.default_rng(1).normal(size=70000).astype(np.float32)
        b.send(0, "half", array=values, wire="bf16")
        assert np.array_equal(a.receive(1, "half"), round_to(values, "bf16"))
        (sent_bytes, received_bytes), _ = a.moved_bytes[1], b.moved_bytes
        assert sent_bytes > sent[-1].nbytes and 2 * values.size <= received_bytes < 4 * values.size


@pytest.mark.parametrize("wire", ["fp64", "fp32", "bf16"])
def test_weighted_sums_of_unlike_members_are_the_same_bits_on_all(wire: str) -> None:
    world, sizes, weights = 3, (1, 2, 1001, 5000), (9 / 16, 5 / 16, 2 / 16)
    rng = np.random.default_rng(0)
    arrays = [[rng.normal(size=size) for size in sizes] for _ in range(world)]
    with hubs(world) as all_:

        def work(rank: int) -> list[np.ndarray]:
            reducer = Reducer(all_[rank])
            waiting = [
                reducer.submit(one, range(world), wire=wire, weight=weights[rank], part=shares([1.0, 4.0, 10.0])) for one in arrays[rank]
            ]
            found = [one.result(10) for one in waiting]
            if rank != 1:  # fewer members, in the middle of others' work
                found.append(reducer.submit(arrays[rank][0], [0, 2]).result(10))
            reducer.close()
            return found

        found = together(world, work)
    for index in range(len(sizes)):
        truth = sum(weight * array[index] for weight, array in zip(weights, arrays, strict=True))
        for rank in range(1, world):
            assert np.array_equal(found[rank][index], found[0][index])
        bound = {"fp64": 1e-15, "fp32": 1e-6, "bf16": 2.0**-7}[wire]
        assert np.max(np.abs(found[0][index] - truth)) <= bound * 3
    assert np.array_equal(found[0][-1], found[2][-1])


def test_a_member_on_a_slow_link_owns_less() -> None:
    assert shares([1.0, 100.0]) == [0.5, 0.5]
    assert shares([5.0, 5.0, 5.0]) == pytest.approx([1 / 3] * 3)
    found = shares([1.0, 10.0, 10.0])
    assert found == [0.0, 0.5, 0.5]
    n, speeds = 5, [4.0, 4.0, 5.0, 6.0, 6.0]
    times = [(1 + (n - 2) * own) / speed for own, speed in zip(shares(speeds), speeds, strict=True)]
    assert times == pytest.approx([times[0]] * n) and sum(shares(speeds)) == pytest.approx(1.0)


def test_a_closed_connection_is_known_at_once_and_after_what_came_before(pair: tuple[Link, socket.socket]) -> None:
    from sapper.mix.wire import frame

    link, theirs = pair
    array = np.arange(3.0)
    theirs.sendall(frame.head(frame.Kind.ARRAY, "last", array, dtype="fp64") + array.tobytes())
    theirs.close()
    assert np.array_equal(link.receive("last").array, array)
    began = time.monotonic()
    with pytest.raises(PeerLost, match="rank 7 is lost: its connection ended without a farewell") as caught:
        link.receive("more")
    assert caught.value.rank == 7 and time.monotonic() - began < 0.3
    with pytest.raises(PeerLost):
        link.send("x", array)


def test_what_came_before_the_end_is_received_although_sending_already_fails(pair: tuple[Link, socket.socket]) -> None:
    from sapper.mix.wire import frame

    link, theirs = pair
    array = np.arange(3e5)
    theirs.shutdown(socket.SHUT_RD)  # from here on sending to them fails
    link.send("x", array)
    message = frame.head(frame.Kind.ARRAY, "last", array, dtype="fp64") + array.tobytes()
    for start in range(0, len(message), 400_000):
        theirs.sendall(message[start : start + 400_000])
        time.sleep(0.02)
    theirs.close()

    assert np.array_equal(link.receive("last").array, array)
    with pytest.raises(PeerLost):
        link.receive("more")


def test_silence_is_loss(pair: tuple[Link, socket.socket]) -> None:
    with pytest.raises(PeerLost, match=r"nothing heard of it for 0\.5 s"):
        pair[0].receive("x")


@pytest.mark.parametrize("spoil", [0, 30, 45], ids=["magic", "tag", "element"])
def test_spoilt_bytes_end_the_link(pair: tuple[Link, socket.socket], spoil: int) -> None:
    from sapper.mix.wire import frame

    array = np.arange(3.0)
    message = bytearray(frame.head(frame.Kind.ARRAY, "tag", array, dtype="fp64") + array.tobytes())
    message[spoil] ^= 1
    pair[1].sendall(message)
    with pytest.raises(PeerLost, match="no message"):
        pair[0].receive("tag")


def test_a_peer_that_lives_but_does_not_answer_is_overdue_and_one_that_fails_says_why() -> None:
    with hubs(2, limits=Limits(beat_s=0.02, silent_s=0.3)) as (a, b):
        with pytest.raises(Overdue, match=r"`x` within 0\.7 s"):
            a.receive(1, "x", timeout_s=0.7)
        with contextlib.suppress(ValueError), b:
            raise ValueError
        with pytest.raises(PeerLost, match="it stopped: ValueError"):
            a.receive(1, "x")
        assert a.lost == {1: "it stopped: ValueError"}


def test_all_learn_which_rank_differs_before_anything_is_computed() -> None:
    found = met(4, {2: {"model": "other", "torch": "2.9"}})
    assert all(isinstance(one, Disagreement) for one in found)
    assert {str(one) for one in found} == {str(found[0])}
    assert "rank 2 has model other, rank 0, 1, 3 has mmmmmmmm" in str(found[0]) and "torch" not in str(found[0])


def test_unlike_versions_that_need_not_agree_meet() -> None:
    found = met(2, {1: {"torch": "2.9"}})
    assert [one.members[1].card["torch"] for one in found] == ["2.9", "2.9"]
    assert found[0].job == found[1].job
    for one in found:
        one.listener.close()


def test_who_does_not_come_is_named_and_strangers_are_ignored() -> None:
    port = free_port()
    limits = Limits(meet_s=1.0)

    def work(rank: int) -> Any:
        if rank == 2:  # a port scanner
            time.sleep(0.2)
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 4)
            return None
        return meet(rank, 3, at=("127.0.0.1", port), card=CARD, must=MUST, limits=limits)

    first, second, _ = together(3, work)
    assert isinstance(first, WireError) and str(first) == str(second)
    assert "did not come to the start in time: 2" in str(first)


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    with hubs(3) as (a, *_):
        Reducer(a).close()
    assert threading.active_count() == before
