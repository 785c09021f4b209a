"""The start: every member comes to the host of rank 0, shows its card, and learns where the others are, or why they may not start.

A card is what the member is (versions, digests). Fields named in ``must`` have to be equal on all members; the verdict is made
once, by the host, and sent to all, so that all stop with the same message before anything is computed.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sapper.mix.wire import frame
from sapper.mix.wire.faults import BadFrame, Disagreement, WireError
from sapper.mix.wire.frame import Kind
from sapper.mix.wire.link import Limits

Card = Mapping[str, str]
WIRE, WORLD = "wire protocol", "number of processes"
"""Fields of every card, which must agree."""

_RETRY_S = 0.1
_HELLO_S = 5.0
"""For the first message of a connection; whoever sends none is no member."""


@dataclass(frozen=True)
class Member:
    """One process of the job, as the others know it."""

    rank: int
    host: str
    port: int
    card: Card


@dataclass(frozen=True)
class Meeting:
    """What a member knows after the start."""

    job: str
    """Names this run; a connection that does not know it is of another."""
    rank: int
    members: Sequence[Member]
    """By rank."""
    listener: socket.socket
    """Where the others connect to."""


@dataclass(frozen=True)
class Difference:
    """A field in which members differ."""

    field: str
    ranks: Mapping[str, Sequence[int]]
    """Value -> who has it, the value of most members first."""


def listen(host: str, port: int = 0) -> socket.socket:
    """A socket that listens at ``host``.

    Raises:
        WireError: The address is not to be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise WireError("SP-MIX-152", where=f"{host}:{port}", problem=error.strerror or str(error)) from error


def meet(rank: int, world: int, *, at: tuple[str, int], card: Card, must: Sequence[str], limits: Limits) -> Meeting:
    """Come together.

    Args:
        rank: Of this member.
        world: Number of members.
        at: Host and port of rank 0, which listens there.
        card: What this member is.
        must: Fields of the card that have to be equal on all members.
        limits: ``meet_s`` is the time for all to come.

    Raises:
        Disagreement: Members differ in a field that must agree, or two claim one rank.
        WireError: The host is out of reach, or members did not come in time.
    """
    card = {**card, WIRE: str(frame.VERSION), WORLD: str(world)}
    due = time.monotonic() + limits.meet_s
    if rank == 0:
        with listen(*at) as server:
            listener = listen(at[0])
            me = _member(0, listener, card)
            verdict = _receive_all(me, server, world=world, must=[WIRE, WORLD, *must], due=due)
    else:
        with _reach(at, due=due) as sock:
            listener = listen(sock.getsockname()[0])
            me = _member(rank, listener, card)
            verdict = _ask(sock, me, due=due, at=at)
    try:
        _refuse(verdict, at=at)
    except WireError:
        listener.close()
        raise
    members = [Member(**one) for one in verdict["members"]]
    return Meeting(verdict["job"], rank, members, listener)


def say(sock: socket.socket, value: Any) -> None:
    """Send ``value`` as the JSON of a HELLO."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sock.sendall(frame.head(Kind.HELLO, "", text, dtype="uint8") + bytes(frame.raw(text)))


def hear(sock: socket.socket, *, within_s: float) -> Any:
    """The value of the next HELLO.

    Raises:
        OSError: It ended, or nothing came in time.
        BadFrame: Something else came.
    """
    due = time.monotonic() + within_s

    def fill(buffer: memoryview) -> None:
        while buffer:
            sock.settimeout(max(due - time.monotonic(), 1e-3))
            count = sock.recv_into(buffer)
            if not count:
                raise ConnectionError("the connection ended")
            buffer = buffer[count:]

    found = frame.read(fill)
    if found.kind is not Kind.HELLO:
        raise BadFrame(f"kind {found.kind} before a HELLO")
    try:
        return json.loads(bytes(frame.raw(found.array)))
    except ValueError as error:
        raise BadFrame("a HELLO that is not JSON") from error


def differences(members: Sequence[Member], must: Sequence[str]) -> Iterator[Difference]:
    """The fields of ``must`` in which ``members`` differ."""
    for field in must:
        ranks: dict[str, list[int]] = {}
        for one in members:
            ranks.setdefault(one.card.get(field, "-"), []).append(one.rank)
        if len(ranks) > 1:
            yield Difference(field, dict(sorted(ranks.items(), key=lambda item: (-len(item[1]), item[1]))))


def _member(rank: int, listener: socket.socket, card: Card) -> Member:
    host, port = listener.getsockname()[:2]
    return Member(rank, host, port, card)


def _receive_all(me: Member, server: socket.socket, *, world: int, must: Sequence[str], due: float) -> dict[str, Any]:
    """The host's part: gather, judge, answer all."""
    members, guests = [me], contextlib.ExitStack()
    waiting: list[socket.socket] = []
    with guests:
        while len(members) < world and (left_s := due - time.monotonic()) > 0:
            server.settimeout(left_s)
            with contextlib.suppress(OSError, BadFrame, TypeError, KeyError):  # whoever is no member is none of our concern
                sock = guests.enter_context(server.accept()[0])
                members.append(Member(**hear(sock, within_s=_HELLO_S)))
                waiting.append(sock)
        verdict = _judge(sorted(members, key=lambda one: one.rank), world=world, must=must)
        for sock in waiting:
            with contextlib.suppress(OSError):  # it learns by the end of the connection
                say(sock, verdict)
    return verdict


def _judge(members: Sequence[Member], *, world: int, must: Sequence[str]) -> dict[str, Any]:
    apart = [asdict(one) for one in differences(members, must)]
    if apart:
        return {"apart": apart}
    ranks = [one.rank for one in members]
    twice = sorted({rank for rank in ranks if ranks.count(rank) > 1})
    missing = sorted(set(range(world)) - set(ranks))
    if twice or missing:
        return {"twice": twice, "missing": missing}
    return {"job": secrets.token_hex(8), "members": [asdict(one) for one in members]}


def _refuse(verdict: Mapping[str, Any], *, at: tuple[str, int]) -> None:
    where = f"{at[0]}:{at[1]}"
    if apart := verdict.get("apart"):
        raise _disagreement([Difference(**one) for one in apart])
    if verdict.get("twice"):
        raise Disagreement("SP-MIX-154", where=where, rank=", ".join(map(str, verdict["twice"])))
    if verdict.get("missing"):
        raise WireError("SP-MIX-153", where=where, ranks=", ".join(map(str, verdict["missing"])))


def _disagreement(apart: Sequence[Difference]) -> Disagreement:
    """Names the first field, the value of most and the first who differ; of further fields only that they differ."""
    first = apart[0]
    (most, many), (value, few), *_ = first.ranks.items()
    return Disagreement(
        "SP-MIX-156",
        field=first.field,
        odd=", ".join(map(str, few)),
        value=value,
        others=", ".join(map(str, many)),
        most=most,
        fields=", ".join(one.field for one in apart),
    )


def _reach(at: tuple[str, int], *, due: float) -> socket.socket:
    while True:
        try:
            return socket.create_connection(at, timeout=max(due - time.monotonic(), 1e-3))
        except OSError as error:
            if time.monotonic() + _RETRY_S > due:
                raise WireError("SP-MIX-155", where=f"{at[0]}:{at[1]}", problem=error.strerror or str(error)) from error
            time.sleep(_RETRY_S)


def _ask(sock: socket.socket, me: Member, *, due: float, at: tuple[str, int]) -> dict[str, Any]:
    try:
        say(sock, asdict(me))
        # The host judges when all have come or its own time is over, which may have begun later than ours.
        found = hear(sock, within_s=2 * max(due - time.monotonic(), _HELLO_S))
    except (OSError, BadFrame) as error:
        raise WireError("SP-MIX-155", where=f"{at[0]}:{at[1]}", problem=str(error)) from error
    return dict(found)
