"""How long each call over a whole cache holds the GIL, and how long Ctrl-C waits for it.

    a second thread notes the time, again and again   ->   the longest gap between two notes is how long it stood still
    another sends this process SIGINT in the middle   ->   how long until KeyboardInterrupt

The thread that stands still may wait for a core, too: of a few runs the shortest gap counts. Nothing is left behind.
"""

import argparse
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
from typing import Any, Final

from distributed_consistent_cache import Cache

RUNS: Final = 3
INTERRUPTED_AFTER: Final = 0.03


def calls(keys: int, path: Path) -> dict[str, Callable[[Cache], Any]]:
    """What looks at all keys."""
    many = [f"key {number}" for number in range(keys)]
    return {
        "len(cache)": len,
        "list(cache)": list,
        "gauges()": lambda cache: cache.gauges(),
        "stats()": lambda cache: cache.stats(),
        "advise()": lambda cache: cache.advise(),
        "metrics()": lambda cache: cache.metrics(),
        "nodes()": lambda cache: cache.nodes(),
        "explain(key)": lambda cache: cache.explain("key 1"),
        "get_many(keys)": lambda cache: cache.get_many(many),
        "put_many(pairs)": lambda cache: cache.put_many((key, 1) for key in many),
        "save(path)": lambda cache: cache.save(path),
        "restore(path)": lambda cache: cache.restore(path),
        "clear()": lambda cache: cache.clear(),
    }


def largest_gap(call: Callable[[], Any]) -> tuple[float, float]:
    """How long the call took, and how long another thread stood still meanwhile, in seconds."""
    notes: list[float] = []
    ended, running = threading.Event(), threading.Event()

    def note() -> None:
        running.set()
        while not ended.is_set():
            notes.append(time.perf_counter())

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    running.wait()
    start = time.perf_counter()
    call()
    end = time.perf_counter()
    ended.set()
    thread.join()
    during = [start, *(note for note in notes if start < note < end), end]
    return end - start, max(later - earlier for earlier, later in pairwise(during))


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


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000, help="how many keys there are")
    keys = parser.parse_args().keys
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.setswitchinterval(1e-4)
    cache = Cache(3, 2, f"{max(keys * 400 // (1 << 20), 16)}MiB", gossip_interval=None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "snapshot"
        print(f"{'at ' + format(keys, ',') + ' keys':<18} {'call':>10} {'GIL held':>10} {'Ctrl-C':>10}")
        for name, call in calls(keys, path).items():
            runs, heard = [], None
            for run in range(RUNS + 1):
                cache.put_many((f"key {number}", number) for number in range(keys))
                if name == "restore(path)":
                    cache.save(path)
                if run < RUNS:
                    runs.append(largest_gap(partial(call, cache)))
                else:
                    heard = heard_after(partial(call, cache))
            seconds, gap = min(runs, key=lambda run: run[1])
            told = "-" if heard is None else f"{heard * 1000:.1f} ms"
            print(f"{name:<18} {seconds * 1000:>7.1f} ms {gap * 1000:>7.1f} ms {told:>10}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
