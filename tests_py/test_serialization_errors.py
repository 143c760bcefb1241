"""A value that cannot be pickled or unpickled raises SerializationError from the original error, and the cache is as it
was."""

import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from distributed_consistent_cache import Cache, CacheError, SerializationError
from helpers import state


class BrokenError(ValueError):
    """What the values below raise, unless they are told to raise something else."""


class FailsToPickle:
    def __init__(self, error: BaseException | type[BaseException] = BrokenError) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


def fail(kind: type[BaseException]) -> Any:
    """What a pickle of `FailsToUnpickle` calls."""
    raise kind("not today")


class FailsToUnpickle:
    def __init__(self, kind: type[BaseException] = BrokenError) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        return fail, (self.kind,)


class NotBytes:
    """Reduces to something that pickle does not take."""

    def __reduce__(self) -> Any:
        return 5


def endless() -> list[Any]:
    """Deeper than pickle goes."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.fixture
def cache() -> Cache:
    cache = Cache(3, 2, gossip_interval=None)
    cache.put("key", "old", 5)
    cache.put("other", [1], 5)
    return cache


UNPICKLABLE: dict[str, tuple[Callable[[], Any], type[BaseException]]] = {
    "a function without a name": (lambda: lambda: None, Exception),
    "a lock": (lambda: __import__("threading").Lock(), TypeError),
    "a generator": (lambda: (n for n in []), TypeError),
    "a module": (lambda: pickle, TypeError),
    "a cache": (lambda: Cache(1, gossip_interval=None), TypeError),
    "a node": (lambda: Cache(1, gossip_interval=None).node(0), TypeError),
    "deep within": (lambda: {"a": [1, (FailsToPickle(),)]}, BrokenError),
    "an error of the user's": (lambda: FailsToPickle(BrokenError("why")), BrokenError),
    "an error with a wrong message": (lambda: FailsToPickle(ValueError("\ud800")), ValueError),
    "a reduce that is wrong": (NotBytes, pickle.PicklingError),
    "too deep": (endless, RecursionError),
}  # fmt: skip


PUTS: dict[str, Callable[[Cache, Any], Any]] = {
    "put": lambda cache, value: cache.put("key", value, 9),
    "put_many": lambda cache, value: cache.put_many({"key": value}, 9),
    "node.put": lambda cache, value: cache.node(0).put("key", value, 9),
}


@pytest.mark.parametrize("name", UNPICKLABLE)
@pytest.mark.parametrize("call", PUTS)
def test_a_value_that_cannot_be_pickled_leaves_the_cache_as_it_was(name: str, call: str, cache: Cache) -> None:
    make, cause = UNPICKLABLE[name]
    value = make()
    before = state(cache)
    with pytest.raises(SerializationError) as raised:
        PUTS[call](cache, value)
    assert state(cache) == before
    assert cache.get("key") == ("old", 5)
    assert isinstance(raised.value, CacheError)
    assert isinstance(raised.value.__cause__, cause)
    assert f"a value of type {type(value).__name__} cannot be pickled" in str(raised.value)
    assert str(raised.value).endswith("the cache is as it was")


@pytest.mark.parametrize(
    "kind",
    [
        BrokenError, TypeError, RecursionError, EOFError, AttributeError, KeyError, ImportError, OverflowError,
        BufferError, NotImplementedError, UnicodeError, pickle.PicklingError, pickle.UnpicklingError,
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_unpickled_stays_in_the_cache(kind: type[Exception], cache: Cache) -> None:
    cache.put("key", FailsToUnpickle(kind), 9)
    reads: list[Callable[[], Any]] = [
        lambda: cache.get("key"),
        lambda: cache.get("key", "default"),
        lambda: cache.get("key", read_quorum="all"),
        lambda: cache.get_many(["other", "key"]),
        lambda: cache.node(cache.owners("key")[0]).get("key"),
    ]
    for read in reads:
        with pytest.raises(SerializationError) as raised:
            read()
        assert type(raised.value.__cause__) is kind
        assert 'the value stored under "key" cannot be read' in str(raised.value)
        assert "not today" in str(raised.value)
    assert "key" in cache
    assert len(cache) == 2
    # It is there, with its version: older is refused, newer replaces it.
    assert cache.put("key", "older", 8) is False
    assert cache.put("key", "newer", 10) is True
    assert cache.get("key") == ("newer", 10)


def test_memory_that_is_not_there_is_not_the_fault_of_a_value(cache: Cache) -> None:
    with pytest.raises(MemoryError, match="not today"):
        cache.put("key", FailsToPickle(MemoryError("not today")), 9)
    assert cache.get("key") == ("old", 5)
    cache.put("key", FailsToUnpickle(MemoryError), 9)
    with pytest.raises(MemoryError, match="not today"):
        cache.get("key")
    with pytest.raises(MemoryError, match="not today"):
        cache.get_many(["other", "key"])
    assert "key" in cache


def test_a_value_whose_class_is_gone_cannot_be_read(cache: Cache) -> None:
    class Temporary:
        pass

    Temporary.__qualname__ = "Temporary"
    globals()["Temporary"] = Temporary
    cache.put("key", Temporary(), 9)
    del globals()["Temporary"]
    with pytest.raises(SerializationError, match="Temporary") as raised:
        cache.get("key")
    assert isinstance(raised.value.__cause__, AttributeError)
    assert "key" in cache


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_passes_through_as_it_is(kind: type[BaseException], cache: Cache) -> None:
    before = state(cache)
    with pytest.raises(kind):
        cache.put("key", FailsToPickle(kind), 9)
    with pytest.raises(kind):
        cache.put_many({"key": FailsToPickle(kind)}, 9)
    assert state(cache) == before
    cache.put("key", FailsToUnpickle(kind), 9)
    with pytest.raises(kind):
        cache.get("key")
    with pytest.raises(kind):
        cache.get_many(["key"])
    assert "key" in cache


def test_the_value_of_a_refused_put_is_pickled_all_the_same(cache: Cache) -> None:
    # What cannot be kept is an error also when something newer is known: errors do not depend on the time.
    with pytest.raises(SerializationError):
        cache.put("key", FailsToPickle(), 1)


def test_a_traceback_shows_both_errors(cache: Cache) -> None:
    with pytest.raises(SerializationError) as raised:
        cache.put("key", FailsToPickle(BrokenError("the reason")))
    text = "".join(traceback.format_exception(raised.value))
    assert "BrokenError: the reason\n\nThe above exception was the direct cause" in text
    assert "FailsToPickle cannot be pickled: the reason; the cache is as it was" in text


def test_errors_leave_no_reference_to_the_value(cache: Cache) -> None:
    value = FailsToPickle(BrokenError)
    before = sys.getrefcount(value)
    for _ in range(100):
        with pytest.raises(SerializationError):
            cache.put("key", value)
    assert sys.getrefcount(value) == before
