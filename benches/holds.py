"""How long each call over a whole cache holds the GIL, and how long Ctrl-C waits for it.

    a second thread notes the time, again and again   ->   the longest gap between two notes is how long it stood still
    less what either thread waited for a core in it   ->   how long it waited for the GIL, however busy the machine is
    another sends this process SIGINT in the middle   ->   how long until KeyboardInterrupt

Linux counts how long threads wait for a core; elsewhere gaps are what they are. Of a few runs the shortest counts.
Nothing is left behind.
"""

import argparse
import ctypes
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from distributed_consistent_cache import Cache

RUNS: Final = 3
INTERRUPTED_AFTER: Final = 0.03

# More than this, in seconds, is told by an exclamation mark, as long as there are no more than a million keys.
HELD_MAX: Final = 0.005


class Run(NamedTuple):
    """One call, in seconds."""

    took: float
    # Another thread stood still for so long at a time ..
    gap: float
    # .. and for so long because of the GIL.
    held: float


class Note(NamedTuple):
    """When a thread noted the time, in seconds, and how long threads had waited for a core until then."""

    at: float
    waited: tuple[float, ...]

    def to(self, later: "Note") -> tuple[float, float]:
        """A gap between two notes, and what of it was not the machine's: waits of two threads may have been at once."""
        gap = later.at - self.at
        waits = [after - before for before, after in zip(self.waited, later.waited, strict=True)]
        return gap, gap - min(max(waits, default=0), gap)


class Watch:
    """What a thread looks at to note the time: how long it and another thread have waited for a core until then."""

    def __init__(self, other: int) -> None:
        threads = (threading.get_native_id(), other)
        paths = [Path(f"/proc/self/task/{thread}/schedstat") for thread in threads]
        self.files = [os.open(path, os.O_RDONLY) for path in paths if path.exists()]
        # Of this library a call keeps the GIL: what else lets go of it would wait for it in the middle of a note.
        self.read = ctypes.PyDLL(None).pread if self.files else None
        self.text = ctypes.create_string_buffer(100)

    def waited(self) -> tuple[float, ...]:
        """Seconds, of each thread."""
        if self.read is None:
            return ()
        times = []
        for file in self.files:
            self.read(file, self.text, len(self.text), 0)
            times.append(int(self.text.value.split()[1]) / 1e9)
        return tuple(times)

    def note(self) -> Note:
        """Notes the time; again if this thread had to wait meanwhile, of which nobody could tell before or after."""
        while True:
            before, now, after = self.waited(), time.perf_counter(), self.waited()
            if before[:1] == after[:1]:
                return Note(now, after)

    def close(self) -> None:
        """Closes the kernel's files."""
        for file in self.files:
            os.close(file)


def longest_hold(call: Callable[[], Any]) -> Run:
    """How long a call took, and how long another thread stood still meanwhile."""
    notes: list[Note] = []
    ended, running = threading.Event(), threading.Event()
    caller = threading.get_native_id()

    def note() -> None:
        watch = Watch(caller)
        while not ended.is_set():
            notes.append(watch.note())
            running.set()
        notes.append(watch.note())
        watch.close()

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    running.wait()
    start = time.perf_counter()
    call()
    end = time.perf_counter()
    ended.set()
    thread.join()
    # The gap in which it began and the one in which it ended are the call's, too.
    during = [(earlier, later) for earlier, later in pairwise(notes) if later.at > start and earlier.at < end]
    gaps = [earlier.to(later) for earlier, later in during]
    return Run(end - start, max(gap for gap, _ in gaps), max(held for _, held in gaps))


def heard_after(call: Callable[[], Any]) -> float | None:
    """How long after Ctrl-C the call ended with it, in seconds; None when the call was over before."""
    pressed: list[float] = []

    def press() -> None:
        time.sleep(INTERRUPTED_AFTER)
        pressed.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    heard = None
    try:
        thread.start()
        call()
        ended = time.perf_counter()
        thread.join()
        time.sleep(0.01)
    except KeyboardInterrupt:
        ended = heard = time.perf_counter()
    thread.join()
    return heard - pressed[0] if heard is not None and heard == ended and pressed[0] < ended else None


def calls(keys: int, path: Path) -> dict[str, Callable[[Cache], Any]]:
    """What looks at all keys, or might."""
    many = [f"key {number}" for number in range(keys)]
    return {
        "len(cache)": len,
        "bool(cache)": bool,
        "list(cache)": list,
        "gauges()": lambda cache: cache.gauges(),
        "stats()": lambda cache: cache.stats(),
        "advise()": lambda cache: cache.advise(),
        "metrics()": lambda cache: cache.metrics(),
        "value_stats()": lambda cache: cache.value_stats(),
        "nodes()": lambda cache: cache.nodes(),
        "explain(key)": lambda cache: cache.explain("key 1"),
        "gossip()": lambda cache: cache.gossip(),
        "sync()": lambda cache: cache.sync(),
        "get_many(keys)": lambda cache: cache.get_many(many),
        "put_many(pairs)": lambda cache: cache.put_many((key, 1) for key in many),
        "put_many(dict)": lambda cache: cache.put_many(dict.fromkeys(many, 1)),
        "remove_many(keys)": lambda cache: cache.remove_many(many),
        "save(path)": lambda cache: cache.save(path),
        "restore(path)": lambda cache: cache.restore(path),
        "Cache.load(path)": lambda _: Cache.load(path, gossip_interval=None).close(),
        "clear()": lambda cache: cache.clear(),
        "fail_node(0)": lambda cache: cache.fail_node(0),
        "recover_node(0)": lambda cache: cache.recover_node(0),
        "close()": lambda cache: cache.close(),
    }


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000, help="how many keys there are")
    parser.add_argument("--runs", type=int, default=RUNS, help="how often each is called; the shortest hold counts")
    parser.add_argument(
        "--full", action="store_true", help="nodes that have no room for all keys, and differ in what they keep"
    )
    parser.add_argument("calls", nargs="*", help="only these, by how their names begin")
    arguments = parser.parse_args()
    keys, runs = arguments.keys, arguments.runs
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.setswitchinterval(1e-4)
    capacity = max(keys * (60 if arguments.full else 400) >> 20, 16)

    def filled(cache: Cache | None = None) -> Cache:
        if cache is None or cache.closed:
            cache = Cache(3, 2, f"{capacity}MiB", gossip_interval=None)
        if len(cache) < keys:
            cache.put_many((f"key {number}", number) for number in range(keys))
        return cache

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "snapshot"
        cache = filled()
        cache.save(path)
        size = f"at {keys:,} keys"
        print(f"{size:<18} {'call':>10} {'stood still':>12} {'GIL held':>10} {'Ctrl-C':>10}")
        for name, call in calls(keys, path).items():
            if arguments.calls and not name.startswith(tuple(arguments.calls)):
                continue
            done = []
            for _ in range(runs):
                cache = filled(cache)
                done.append(longest_hold(partial(call, cache)))
            cache = filled(cache)
            heard = heard_after(partial(call, cache))
            run = min(done, key=lambda run: run.held)
            told = "-" if heard is None else f"{heard * 1000:.1f} ms"
            times = f"{run.took * 1000:>7.1f} ms {run.gap * 1000:>9.1f} ms {run.held * 1000:>7.1f} ms {told:>10}"
            print(f"{name:<18} {times}{'  !' if run.held > HELD_MAX else ''}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
