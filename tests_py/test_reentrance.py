"""Python code that runs inside a call may call the same cache: no deadlock, nothing torn."""

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import RunThreads
from distributed_consistent_cache import Cache, ClosedError

pytestmark = pytest.mark.filterwarnings("ignore::distributed_consistent_cache.TimestampWarning")

# The objects below cannot carry the cache they are put into, so they find it here.
CACHES: list[Cache] = []


@pytest.fixture(autouse=True)
def cache() -> Iterator[Cache]:
    cache = Cache(3, 3, node_capacity="256KiB", gossip_interval=None)
    CACHES.append(cache)
    yield cache
    CACHES.clear()


# Within the use of the cache by an object, the objects that are met are quiet.
WITHIN = threading.local()


def use(cache: Cache) -> None:
    """Everything a caller can do, on the same key and on others."""
    if getattr(WITHIN, "use", False):
        return
    WITHIN.use = True
    try:
        cache.put("key", "from within", 50)
        cache.get("key")
        cache.put("other", b"x" * 50_000)
        cache.get("other")
        cache.put_many({f"other {number}": [number] for number in range(100)})
        cache.get_many([key for key in cache if key in cache])
        cache.remove("other")
        cache.remove_many([f"other {number}" for number in range(100)])
        len(cache)
        cache.nodes()
        cache.fail_node(0)
        cache.gossip()
        cache.recover_node(0)
        cache.remove_node(cache.add_node())
        cache.sync()
        cache.clear(49)
    finally:
        WITHIN.use = False


class UsesWhenPickled:
    def __reduce__(self) -> Any:
        use(CACHES[0])
        return str, ("pickled",)


class UsesWhenUnpickled:
    def __init__(self) -> None:
        self.used = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        use(CACHES[0])
        self.used = 1


class UsesWhenDropped:
    def __init__(self) -> None:
        self.beside = "something"

    def __del__(self) -> None:
        if CACHES:
            CACHES[0].put("dropped", (CACHES[0].get("dropped", 0)[0] or 0) + 1)
            use(CACHES[0])


class Key(str):
    """A key that uses the cache whenever it is compared or hashed."""

    __slots__ = ()

    def __hash__(self) -> int:
        use(CACHES[0])
        return str.__hash__(self)

    def __eq__(self, other: object) -> bool:
        use(CACHES[0])
        return str.__eq__(self, other)


class Timestamp(int):
    """A timestamp that uses the cache when it is looked at."""

    def __lt__(self, other: int) -> bool:
        use(CACHES[0])
        return int.__lt__(self, other)

    def __index__(self) -> int:
        use(CACHES[0])
        return int.__index__(self)


def iterate(cache: Cache) -> Iterator[tuple[str, Any, int]]:
    for number in range(300):
        if number % 100 == 7:
            use(cache)
        yield f"item {number}", UsesWhenPickled() if number == 150 else number, 60


CALLS: dict[str, Callable[[Cache], Any]] = {
    "put pickles": lambda cache: cache.put("key", UsesWhenPickled(), 60),
    "put_many pickles": lambda cache: cache.put_many({"key": UsesWhenPickled()}, 60),
    "node.put pickles": lambda cache: cache.node(1).put("key", UsesWhenPickled(), 60),
    "get unpickles": lambda cache: (cache.put("value", UsesWhenUnpickled(), 60), cache.get("value")),
    "get_many unpickles": lambda cache: (cache.put("value", UsesWhenUnpickled(), 60), cache.get_many(["value"])),
    "node.get unpickles": lambda cache: (cache.put("value", UsesWhenUnpickled(), 60), cache.node(1).get("value")),
    "put_many iterates": lambda cache: cache.put_many(iterate(cache)),
    "get_many iterates": lambda cache: cache.get_many(key for key, _, _ in iterate(cache)),
    "remove_many iterates": lambda cache: cache.remove_many(key for key, _, _ in iterate(cache)),
    "a key compares": lambda cache: (cache.put(Key("own"), 1, 60), cache.get_many([Key("own"), Key("own")])),
    "a timestamp is looked at": lambda cache: cache.put("key", 1, Timestamp(60)),
    "iteration is broken off": lambda cache: [use(cache) for _ in zip(range(3), cache, strict=False)],
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_within_a_call_is_answered(name: str, cache: Cache, run_threads: RunThreads) -> None:
    cache.put_many({"a": 1, "b": 2, "c": 3}, 60)
    run_threads(1, lambda _: CALLS[name](cache), seconds=20)
    assert cache.get_many(["a", "b", "c"]) == {"a": (1, 60), "b": (2, 60), "c": (3, 60)}
    assert cache.sync().converged
    assert all(node.bytes_used <= node.bytes_max for node in cache.nodes())


@pytest.mark.parametrize("name", CALLS)
def test_calls_within_calls_of_many_threads_are_answered(name: str, cache: Cache, run_threads: RunThreads) -> None:
    run_threads(6, lambda _: [CALLS[name](cache) for _ in range(2)], seconds=30)


def test_the_put_that_pickled_last_wins_over_the_one_within(cache: Cache) -> None:
    assert cache.put("key", UsesWhenPickled(), 60) is True
    assert cache.get("key") == ("pickled", 60)
    # The one within is newer than this one.
    cache.remove("key", 60)
    assert cache.put("key", UsesWhenPickled(), 40) is False


def test_an_object_may_use_the_cache_when_it_is_dropped(cache: Cache, run_threads: RunThreads) -> None:
    def work(_: int) -> None:
        cache.put("value", UsesWhenDropped(), 60)
        for _ in range(3):
            cache.get("value")
            cache.get_many(["value"])
            cache.node(1).get("value")
        gc.collect()

    run_threads(2, work, seconds=30)
    assert cache.get("dropped")[0] > 0


def test_a_garbage_collection_at_any_moment_may_use_the_cache(cache: Cache, run_threads: RunThreads) -> None:
    class Loop:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            cache.put("collected", 1)
            cache.get("collected")

    def work(thread: int) -> None:
        for number in range(2000):
            Loop()
            cache.put(f"key {thread}", {"number": [number]})
            assert cache.get(f"key {thread}")[0] == {"number": [number]}

    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        run_threads(4, work, seconds=60)
    finally:
        gc.set_threshold(*thresholds)
    assert cache.get("collected")[0] == 1


def test_closing_the_cache_within_a_call_is_an_answer_too(cache: Cache, run_threads: RunThreads) -> None:
    class Closes:
        def __reduce__(self) -> Any:
            cache.close()
            return str, ("closed",)

    def work(_: int) -> None:
        with pytest.raises(ClosedError):
            cache.put("key", Closes())

    run_threads(1, work, seconds=20)
