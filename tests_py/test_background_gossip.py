"""Gossip in the background makes the nodes agree by itself; without it they agree when they are told to."""

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distributed_consistent_cache import Cache
from helpers import copies

KEYS = [f"key {number}" for number in range(50)]


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether it comes true in this time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def all_copies(cache: Cache) -> int:
    return sum(copies(cache, key) for key in KEYS)


def test_what_one_owner_has_reaches_the_others_by_itself() -> None:
    with Cache(4, 3, write_quorum="one", gossip_interval=0.02) as cache:
        cache.put_many((key, 1) for key in KEYS)
        assert wait_for(lambda: all_copies(cache) == 3 * len(KEYS))
        cache.remove_many(KEYS)
        assert wait_for(lambda: all_copies(cache) == 0)


def test_without_an_interval_nothing_travels_until_it_is_asked_for() -> None:
    cache = Cache(4, 3, write_quorum="one", gossip_interval=None)
    cache.put_many((key, 1) for key in KEYS)
    assert not wait_for(lambda: all_copies(cache) > len(KEYS), seconds=0.3)
    before = all_copies(cache)
    cache.gossip()
    assert all_copies(cache) > before
    for _ in range(10):
        cache.gossip()
    assert all_copies(cache) == 3 * len(KEYS)


def test_the_copies_of_a_failed_node_come_back_by_themselves() -> None:
    with Cache(4, 2, gossip_interval=0.02) as cache:
        cache.put_many((key, 1) for key in KEYS)
        for node in range(3):
            cache.fail_node(node)
            assert wait_for(lambda: all_copies(cache) == 2 * len(KEYS)), f"after node {node}"
            cache.recover_node(node)


def test_sides_of_a_healed_network_agree_by_themselves() -> None:
    with Cache(4, 4, gossip_interval=0.02) as cache:
        cache.cut([0, 1], [2, 3])
        cache.node(0).put("key", "left", 1)
        cache.node(2).put("key", "right", 2)
        assert not wait_for(lambda: cache.node(0).get("key") == ("right", 2), seconds=0.2)
        cache.heal()
        assert wait_for(lambda: all(cache.node(node).get("key") == ("right", 2) for node in range(4)))


def test_gossip_goes_on_while_the_gil_is_held() -> None:
    with Cache(4, 3, write_quorum="one", gossip_interval=0.01) as cache:
        cache.put_many((key, 1) for key in KEYS)
        # A sum over a range is one long call that never lets go of the GIL.
        deadline = time.monotonic() + 20
        while all_copies(cache) < 3 * len(KEYS):
            assert time.monotonic() < deadline
            sum(range(1_000_000))


def test_a_round_of_gossip_tells_what_it_moved() -> None:
    cache = Cache(2, 2, write_quorum="one", gossip_interval=None)
    cache.put_many((key, 1) for key in KEYS)
    report = cache.gossip()
    assert (report.rounds, report.items, report.converged) == (1, len(KEYS), True)
    assert report.bytes > 0
    assert report.seconds >= 0
    assert cache.gossip().items == 0
    assert repr(report).startswith(f"SyncReport(rounds=1, items={len(KEYS)}, bytes={report.bytes}, converged=True, ")


@pytest.mark.skipif(sys.platform != "linux", reason="threads of the process are counted in /proc")
def test_closing_or_dropping_a_cache_ends_its_thread() -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    warm_up = Cache(gossip_interval=0.01)
    warm_up.put_many((key, 1) for key in [*KEYS, *map(str, range(1000))])
    warm_up.sync()
    warm_up.close()
    del warm_up
    # Caches of other tests that are garbage are gone before threads are counted.
    gc.collect()
    before = threads()
    caches = [Cache(gossip_interval=interval) for interval in (0.001, 0.1, 3600) for _ in range(5)]
    assert threads() == before + 15
    for cache in caches[::2]:
        cache.close()
    del cache
    assert wait_for(lambda: threads() == before + 7)
    caches.clear()
    assert wait_for(lambda: threads() == before)
