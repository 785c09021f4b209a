"""Islands joined by slow links: a network namespace each, a veth pair to a bridge in a namespace of its own, a token bucket at
both ends. The machine's own network is not touched, and removing the namespaces removes everything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sapper.mix.emulate.limits import Link

DEVICE = "eth0"
"""Name of each island's only link."""
_HUB = "hub"


@dataclass(frozen=True)
class Island:
    """One side of the links."""

    name: str
    namespace: str
    address: str

    def command(self, command: Sequence[str]) -> list[str]:
        """``command`` inside the island."""
        return ["ip", "netns", "exec", self.namespace, *command]


def run(*words: str) -> None:
    """One command of iproute2.

    Raises:
        OSError: It is missing or refuses, with what it said.
    """
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.returncode, done.stderr.strip().splitlines()[0] if done.stderr.strip() else " ".join(words))


def shape(link: Link, *, namespace: str, device: str) -> None:
    """Hold what leaves ``device`` to the link's rate, and delay it where the kernel has netem.

    Raises:
        OSError: The kernel has no token bucket, or no netem where a latency is asked for.
    """
    bits = round(link.rate_bytes_per_s * 8)
    # A bucket below one tick's worth of bytes cannot reach the rate (tc-tbf(8)); 64 KiB is the largest segment handed down.
    burst = max(2**16, round(link.rate_bytes_per_s / 250))
    tc = ("ip", "netns", "exec", namespace, "tc", "qdisc", "add", "dev", device)
    run(*tc, "root", "handle", "1:", "tbf", "rate", f"{bits}bit", "burst", str(burst), "latency", "50ms")
    if link.latency_s:
        run(*tc, "parent", "1:1", "handle", "10:", "netem", "delay", f"{link.latency_s * 1e6:.0f}us")


def lay(names: Sequence[str], link: Link, *, made: Callable[[str], None]) -> list[Island]:
    """Islands of these names, each reaching each.

    Args:
        names: At most 250.
        link: Rate and latency of each island's link, both ways.
        made: Told of each namespace before it exists, so that it is removed whatever follows.

    Raises:
        OSError: The system refuses.
    """
    stem = f"sapper-{os.getpid()}"
    hub = f"{stem}-{_HUB}"
    made(hub)
    run("ip", "netns", "add", hub)
    inside = ("ip", "-n", hub)
    run(*inside, "link", "add", "bridge0", "type", "bridge")
    run(*inside, "link", "set", "bridge0", "up")
    found = []
    for index, name in enumerate(names):
        one = Island(name=name, namespace=f"{stem}-{index}", address=f"10.213.0.{index + 1}")
        made(one.namespace)
        run("ip", "netns", "add", one.namespace)
        own = ("ip", "-n", one.namespace)
        run(*inside, "link", "add", f"port{index}", "type", "veth", "peer", "name", DEVICE, "netns", one.namespace)
        run(*inside, "link", "set", f"port{index}", "master", "bridge0", "up")
        run(*own, "addr", "add", f"{one.address}/24", "dev", DEVICE)
        run(*own, "link", "set", DEVICE, "up")
        run(*own, "link", "set", "lo", "up")
        shape(link, namespace=one.namespace, device=DEVICE)
        shape(Link(rate_bytes_per_s=link.rate_bytes_per_s), namespace=hub, device=f"port{index}")
        found.append(one)
    return found


def allows(*, latency: bool) -> str | None:
    """What the system says against islands; None where it lets us lay them."""
    if not (shutil.which("ip") and shutil.which("tc")):
        return "iproute2"
    laid: list[str] = []
    try:
        lay(["probe"], Link(rate_bytes_per_s=25e6, latency_s=0.001 if latency else 0.0), made=laid.append)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for name in laid:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    return None
