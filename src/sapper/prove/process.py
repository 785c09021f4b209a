"""One worker process as its parent sees it: pipes, time, memory, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from sapper.prove.isolate import Job

_TAIL_BYTES = 4000
"""What is kept of a worker's last output."""
_MOST_AT_ONCE_BYTES = 1 << 22
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Process:
    """A fresh interpreter that runs :mod:`sapper.prove.worker`."""

    def __init__(self, setup: str, setup_payload: dict[str, Any], *, limit_s: float) -> None:
        jobs_out, self._jobs = os.pipe()
        self._answers, answers_in = os.pipe()
        self._noise, noise_in = os.pipe()
        # The kernel can end a worker with the thread that started it: of use where that thread lasts as long as the process.
        by_kernel = threading.current_thread() is threading.main_thread()
        start = f"main({jobs_out}, {answers_in}, parent={os.getpid()}, dies_with_parent={by_kernel})"
        call = f"import sys; sys.path[:] = {sys.path!r}; from sapper.prove.worker import main; {start}"
        # With NVML asked in CUDA's place, a worker that only imported PyTorch may have children that use the GPU.
        fixed = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        env = fixed | os.environ
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-W", "ignore", "-c", call], stdin=subprocess.DEVNULL, stdout=noise_in, stderr=noise_in,
                pass_fds=(jobs_out, answers_in), start_new_session=True, env=env,
            )  # fmt: skip
        finally:
            for end in (jobs_out, answers_in, noise_in):
                os.close(end)
        for end in (self._answers, self._noise):
            os.set_blocking(end, False)
        self._oom_kills = _oom_kills()
        self._buffer, self._tail = b"", b""
        self._open = {self._answers, self._noise}
        self.job: Job | None = None
        self.parts: list[Any] = []
        self.ready = self.used = False
        self.limit_s = limit_s
        self._since_s = time.monotonic()
        self.deadline_s = self._since_s + limit_s
        self._send({"setup": setup, "payload": setup_payload})

    @property
    def streams(self) -> list[int]:
        """File descriptors that become readable when the worker has something to say."""
        return sorted(self._open)

    def give(self, job: Job, limit_s: float) -> bool:
        """Send a job; False where the worker is no longer there to take it."""
        self.limit_s = limit_s
        self._since_s = time.monotonic()
        self.deadline_s = self._since_s + limit_s
        self._tail, self.parts = b"", []
        self._oom_kills = _oom_kills()
        if not self._send({"function": job.function, "payload": job.payload}):
            return False
        self.job, self.used = job, True
        return True

    def part(self, value: Any) -> None:
        """Keep a part; the clock starts anew."""
        self.parts.append(value)
        self.deadline_s = time.monotonic() + self.limit_s

    def free(self) -> None:
        """The job is answered."""
        self.job, self.parts, self.deadline_s = None, [], float("inf")

    def messages(self) -> Iterator[dict[str, Any]]:
        """Whole messages that have arrived; what the stack prints is drained, and its end kept."""
        self._tail = (self._tail + self._read(self._noise))[-_TAIL_BYTES:]
        self._buffer += self._read(self._answers)
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            yield msgspec.json.decode(line)

    def dead(self) -> bool:
        """Whether the process has ended, or can no longer answer."""
        return self._popen.poll() is not None or self._answers not in self._open

    def wall_s(self) -> float:
        """Seconds since the job was given."""
        return time.monotonic() - self._since_s

    def rss_bytes(self) -> int:
        """Resident memory; 0 where the system does not tell."""
        try:
            return int(Path(f"/proc/{self._popen.pid}/statm").read_text("ascii").split()[1]) * _PAGE_BYTES
        except (OSError, IndexError):
            return 0

    def killed_for_memory(self) -> bool:
        """Whether the kernel ended it for want of memory: SIGKILL that was not ours, and its counter has moved."""
        return self._popen.returncode == -signal.SIGKILL and _oom_kills() > self._oom_kills

    def last_words(self) -> str:
        """Signal or exit code, and the end of what it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(1.0)
        code = self._popen.returncode
        name = f"exit {code}"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in {one.value for one in signal.Signals} else f"signal {-code}"
        self._tail = (self._tail + self._read(self._noise))[-_TAIL_BYTES:]
        tail = self._tail.decode("utf-8", "replace").strip()
        return f"{name}\n{tail}" if tail else name

    def kill(self) -> None:
        """End it, and all that it started; to be called once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._open.clear()
        for end in (self._jobs, self._answers, self._noise):
            os.close(end)

    def _send(self, message: dict[str, Any]) -> bool:
        rest = msgspec.json.encode(message) + b"\n"
        try:
            while rest:
                rest = rest[os.write(self._jobs, rest) :]
        except BrokenPipeError:
            return False
        return True

    def _read(self, stream: int) -> bytes:
        """What has arrived, and no more of it at a time than a flood of talk should cost."""
        found = b""
        with contextlib.suppress(BlockingIOError):
            while stream in self._open and len(found) < _MOST_AT_ONCE_BYTES:
                chunk = os.read(stream, 1 << 16)
                if not chunk:
                    self._open.discard(stream)
                found += chunk
        return found


def _oom_kills() -> int:
    """Processes that the kernel has ended for want of memory since it started."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text("ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
