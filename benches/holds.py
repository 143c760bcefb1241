"""How long each call over a whole cache holds the GIL, and how long Ctrl-C waits for it.

    a second thread notes the time, again and again   ->   the longest gap between two notes is how long it stood still
    how much of it the caller worked meanwhile        ->   how long it held the GIL, however busy the machine is
    another sends this process SIGINT in the middle   ->   how long until KeyboardInterrupt

Linux counts how long threads wait for a core, and how long they work; elsewhere gaps are what they are. What a call
waits for with the GIL held is in the gap, and not in what it worked. Of a few runs the shortest counts. The garbage
collector of Python, which stops everybody to look at all objects of the process, is off. Nothing is left behind.
"""

import argparse
import ctypes
import gc
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
    # .. and for so long because the call worked with the GIL.
    held: float


class Note(NamedTuple):
    """When a thread noted the time; how long it had waited for a core, and the caller worked, by then; in seconds."""

    at: float
    waited: float
    worked: float

    def to(self, later: "Note") -> tuple[float, float]:
        """A gap between two notes, and how much of it the caller worked while this thread could have."""
        gap = later.at - self.at
        return gap, min(gap - (later.waited - self.waited), later.worked - self.worked)


class Watch:
    """What a thread looks at to note the time."""

    def __init__(self, caller: threading.Thread) -> None:
        path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self.file = os.open(path, os.O_RDONLY) if path.exists() else None
        # A call of this library keeps the GIL: one that lets go of it would wait for it in the middle of a note.
        self.pread = ctypes.PyDLL(None).pread
        self.text = ctypes.create_string_buffer(100)
        counts = hasattr(time, "pthread_getcpuclockid") and caller.ident is not None
        self.clock = time.pthread_getcpuclockid(caller.ident or 0) if counts else time.CLOCK_MONOTONIC

    def waited(self) -> float:
        """For how many seconds this thread has waited for a core; 0 where nobody counts it."""
        if self.file is None:
            return 0
        self.pread(self.file, self.text, len(self.text), 0)
        return int(self.text.value.split()[1]) / 1e9

    def note(self) -> Note:
        """Notes the time; again if this thread had to wait meanwhile, of which nobody could tell before or after."""
        while True:
            before, worked, now = self.waited(), time.clock_gettime(self.clock), time.perf_counter()
            if self.waited() == before:
                return Note(now, before, worked)

    def close(self) -> None:
        """Closes the kernel's file."""
        if self.file is not None:
            os.close(self.file)


def longest_hold(call: Callable[[], Any]) -> Run:
    """How long a call took, and how long another thread stood still meanwhile."""
    notes: list[Note] = []
    ended, running = threading.Event(), threading.Event()
    caller = threading.current_thread()

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


def fail_and_recover(cache: Cache) -> None:
    """A node loses its memory and pulls all of it again."""
    cache.fail_node(0)
    cache.recover_node(0)


def calls(keys: int, path: Path) -> dict[str, Callable[[Cache], Any]]:
    """What looks at all keys, or might."""
    many = [f"key {number}" for number in range(keys)]
    mapping = dict.fromkeys(many, 1)
    return {
        # What any call that returns so much has in it: a list, or a dict, of Python's own grows in one piece.
        "(a list alone)": lambda _: [key for key in many if key],
        "(a dict alone)": lambda _: {key: 1 for key in many if key},
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
        "put_many(dict)": lambda cache: cache.put_many(mapping),
        "remove_many(keys)": lambda cache: cache.remove_many(many),
        "save(path)": lambda cache: cache.save(path),
        "restore(path)": lambda cache: cache.restore(path),
        "Cache.load(path)": lambda _: Cache.load(path, gossip_interval=None).close(),
        "clear()": lambda cache: cache.clear(),
        "fail, recover": fail_and_recover,
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
    gc.disable()
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
