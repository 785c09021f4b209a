"""Waits beside a process that runs a user's code, and says what ended it where it could not say so itself.

Run as ``python -S -I _watcher.py FILE TEXT SILENT OUTSIDE``; the process holds the other end of stdin. Whatever Python's fault handler
writes there comes before the end of the process; ``DONE`` comes where the code was left alive. TEXT has places for where and how it
ended; SILENT is what to say of an end without a fault, OUTSIDE of one by a signal that others send, which leaves a traceback alone.
"""

from __future__ import annotations

import os
import re
import sys

DONE = b"\0done"
HOW = "@how@"
WHERE = "@where@"


def main(path: str, text: str, *, silent: str, outside: str) -> None:
    """Read to the end and say what is to be said."""
    said = b""
    while not said.endswith(DONE):
        more = os.read(0, 65536)
        if not more:
            break
        said += more
    else:
        return
    dump = said.decode("utf-8", "replace")
    fault = re.search(r"^(?:Fatal Python error|Windows fatal exception): (.+)$", dump, re.MULTILINE)
    if not fault and "(most recent call first)" in dump:
        sys.stderr.write(outside + "\n")
        return
    frames = [(file, f"{file}:{line} in {name}") for file, line, name in re.findall(r'File "(.+)", line (\d+) in (.+)', dump)]
    own = [shown for file, shown in frames if file == path]
    where = (own or [shown for _, shown in frames] or [path])[0]
    sys.stderr.write(text.replace(HOW, fault[1] if fault else silent).replace(WHERE, where) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:3], silent=sys.argv[3], outside=sys.argv[4])
