"""What several files of tests need: the whole visible state of a cache, for "nothing was done" and "all agree"; and
to wait for what comes to pass by itself."""

import time
from collections.abc import Callable
from typing import Any

from distributed_consistent_cache import Cache


def state(cache: Cache) -> tuple[Any, ...]:
    """All that can be seen of a cache without using an entry: what each node holds of each key, and what it counts."""
    keys = sorted(cache)
    nodes = cache.nodes()
    held = {(node.id, key): cache.node(node.id).get(key) for node in nodes if node.state == "live" for key in keys}
    return len(cache), held, [repr(node) for node in nodes], {key: cache.owners(key) for key in keys}


def copies(cache: Cache, key: str) -> int:
    """How many live nodes hold the key now."""
    live = [node.id for node in cache.nodes() if node.state == "live"]
    return sum(cache.node(node).get(key)[1] >= 0 for node in live)


def owners_hold(cache: Cache, key: str) -> list[tuple[Any, int]]:
    """What each owner of the key says it is."""
    return [cache.node(owner).get(key) for owner in cache.owners(key)]


def wait_until(is_so: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Wait, a few milliseconds at a time, until it is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)
