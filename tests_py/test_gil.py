"""The GIL is out of your way: other Python threads run on while one is inside a call that takes long.

A second thread does nothing but note the time, again and again (`benches/holds.py`). While a call holds the GIL it
cannot: the largest gap between two of its notes is as long as that, without what threads waited for a core in it. Both
are measured in one run, so that a slow machine is slow for both.
"""

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from distributed_consistent_cache import Cache
from holds import longest_hold

MEGABYTE = 1 << 20

# The longest piece for which the GIL may be held, as a part of the call. One that holds it throughout shows 1; what
# only Python can do, as making the list of a mapping's items, is well below.
PART_MAX = 0.4

# Another process may take the machine at the wrong moment; one good run of so many shows that the GIL was free.
ATTEMPTS = 12


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """A thread that wants the GIL has it after a moment, so that gaps are those of the call."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


def others_run_on(
    prepare: Callable[[], Any], call: Callable[[Any], Any], part_max: float = PART_MAX, seconds_min: float = 0
) -> None:
    """In one attempt of a few, the other thread never stands still for a large part of the call. A call that took less
    than `seconds_min` did not meet what it is made to wait for, and counts for nothing."""
    seen = []
    deadline = time.perf_counter() + 30
    while len(seen) < ATTEMPTS and time.perf_counter() < deadline:
        prepared = prepare()
        run = longest_hold(lambda prepared=prepared: call(prepared))
        if run.took < seconds_min:
            continue
        seen.append(f"{run.held * 1000:.1f} of {run.took * 1000:.1f} ms")
        if run.held < part_max * run.took:
            return
    pytest.fail(f"another thread stood still for {'; '.join(seen) or 'an unknown time: no call had to wait'}")


LARGE_BYTES = random.Random(1).randbytes(MEGABYTE) * 64
LARGE_TEXT = "text" * (16 * MEGABYTE)
MANY = {f"key {number}": number for number in range(60_000)}


def large() -> Cache:
    return Cache(3, 2, "160MiB", gossip_interval=None)


def with_large_bytes() -> Cache:
    cache = large()
    cache.put("large", LARGE_BYTES)
    return cache


def with_many() -> Cache:
    cache = Cache(3, 2, "32MiB", gossip_interval=None)
    cache.put_many(MANY)
    return cache


def with_many_and_one_down() -> Cache:
    cache = with_many()
    cache.fail_node(0)
    return cache


def with_many_missed() -> Cache:
    """One node knows much that the others do not."""
    cache = Cache(3, 3, "32MiB", write_quorum="one", gossip_interval=None)
    cache.put_many(MANY)
    return cache


CALLS: dict[str, tuple[Callable[[], Cache], Callable[[Cache], Any]]] = {
    "put of 64 MB of bytes": (large, lambda cache: cache.put("large", LARGE_BYTES)),
    "put of 64 MB of text": (large, lambda cache: cache.put("large", LARGE_TEXT)),
    "get of 64 MB": (with_large_bytes, lambda cache: cache.get("large")),
    "node.get of 64 MB": (with_large_bytes, lambda cache: cache.node(cache.owners("large")[0]).get("large")),
    "put_many": (lambda: Cache(3, 2, "32MiB", gossip_interval=None), lambda cache: cache.put_many(MANY)),
    "put_many of a generator": (
        lambda: Cache(3, 2, "32MiB", gossip_interval=None),
        lambda cache: cache.put_many(item for item in MANY.items()),
    ),
    "get_many": (with_many, lambda cache: cache.get_many(MANY)),
    "remove_many": (with_many, lambda cache: cache.remove_many(MANY)),
    "clear": (with_many, lambda cache: cache.clear()),
    "len where owners differ": (with_many_missed, lambda cache: [len(cache) for _ in range(5)]),
    "gauges where owners differ": (with_many_missed, lambda cache: cache.gauges()),
    "sync": (with_many_missed, lambda cache: cache.sync()),
    "gossip": (with_many_missed, lambda cache: [cache.gossip() for _ in range(3)]),
    "sync after a failure": (with_many_and_one_down, lambda cache: cache.sync()),
    "recover_node": (with_many_and_one_down, lambda cache: cache.recover_node(0)),
    "add_node": (with_many, lambda cache: cache.add_node()),
    "remove_node": (with_many, lambda cache: cache.remove_node(0)),
    "fail_node": (with_many, lambda cache: [cache.fail_node(node) for node in range(3)]),
}


@pytest.mark.parametrize("name", CALLS)
def test_other_threads_run_on_during(name: str) -> None:
    prepare, call = CALLS[name]
    others_run_on(prepare, call)


def test_other_threads_run_on_while_a_large_cache_is_dropped() -> None:
    def filled() -> list[Cache]:
        cache = large()
        cache.put_many((f"key {number}", LARGE_BYTES[:5000]) for number in range(30_000))
        return [cache]

    others_run_on(filled, lambda caches: caches.clear())


def test_the_method_finds_a_call_that_keeps_the_gil() -> None:
    runs = [longest_hold(lambda: sum(range(3_000_000))) for _ in range(3)]
    assert max(run.gap / run.took for run in runs) > 0.8
    # Of which the machine takes a part.
    assert max(run.held for run in runs) > 0.01


def test_other_threads_run_on_while_one_waits_for_a_busy_node() -> None:
    # One thread keeps the nodes busy with large values; another waits for its turn with small ones; a third runs on.
    cache = large()
    ended = threading.Event()

    def keep_busy() -> None:
        while not ended.is_set():
            cache.put("large", LARGE_BYTES)

    busy = threading.Thread(target=keep_busy, daemon=True)
    busy.start()
    try:
        puts = [f"key {number}" for number in range(1000)]
        others_run_on(lambda: None, lambda _: [cache.put(key, key) for key in puts], seconds_min=0.005)
    finally:
        ended.set()
        busy.join()


@pytest.mark.parametrize("quick", ["get", "put", "in"])
def test_a_quick_call_beside_a_thread_that_computes_does_not_wait_for_its_turn(quick: str) -> None:
    # A call that lets go of the GIL gets it back only after the switch interval. Here that is an age.
    sys.setswitchinterval(0.05)
    cache = Cache(3, 2, gossip_interval=None)
    cache.put("key", 1)
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: cache.get("key"),
        "put": lambda: cache.put("key", 1),
        "in": lambda: "key" in cache,
    }
    call = calls[quick]
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(range(100))

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    try:
        calls_in_time = 0
        start = time.perf_counter()
        while time.perf_counter() - start < 0.5:
            call()
            calls_in_time += 1
    finally:
        ended.set()
        thread.join()
    # With a turn waited for at each, there would be 10.
    assert calls_in_time > 500
