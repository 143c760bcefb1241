"""What is stored is what the value was when pickle met it, though it is changed before the put is over."""

import array
import contextlib
import pickle
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import pytest

from distributed_consistent_cache import Cache, SerializationError

BYTES = 100_000


class Runs:
    """Runs something while it is pickled."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run

    def __reduce__(self) -> Any:
        self.run()
        return int, (7,)


class Offers:
    """Offers its buffer beside the pickle, as numpy's arrays do."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bytearray, (pickle.PickleBuffer(self.buffer),)


class Piece(bytes):
    """A subclass of bytes."""


def overwrite(buffer: Any) -> None:
    view = memoryview(buffer).cast("B")
    view[:] = b"!" * len(view)


def puts(value: Callable[[], Any]) -> Any:
    """What comes back, by each way in."""
    cache = Cache(1, 1, "16MiB", gossip_interval=None)
    for put in (
        lambda: cache.put("key", value()),
        lambda: cache.put_many({"key": value()}),
        lambda: cache.node(0).put("key", value(), 2**60),
    ):
        assert put() in (True, [])
        yield cache.get("key")[0]


MUTATIONS: dict[str, Callable[[bytearray], Any]] = {
    "cleared": lambda buffer: buffer.clear(),
    "grown": lambda buffer: buffer.extend(b"?" * 5000),
    "cut": lambda buffer: buffer.__delitem__(slice(None, None, 2)),
    "overwritten": overwrite,
}


@pytest.mark.parametrize("size", [10, 20_000, 65_535, 65_536, BYTES, 1 << 20])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_bytearray_that_is_changed_after_pickle_met_it(mutation: str, size: int) -> None:
    def value() -> Any:
        buffer = bytearray(b"x" * size)
        return [buffer, Runs(lambda: MUTATIONS[mutation](buffer)), "end"]

    for back in puts(value):
        assert back == [bytearray(b"x" * size), 7, "end"]


@pytest.mark.parametrize("size", [10, 20_000, 65_536, BYTES, 1 << 20])
@pytest.mark.parametrize("wrap", [Offers, lambda buffer: Offers(memoryview(buffer))])
def test_a_buffer_beside_the_pickle_that_is_overwritten_after_pickle_met_it(wrap: Any, size: int) -> None:
    def value() -> Any:
        buffer = bytearray(b"x" * size)
        return [wrap(buffer), Runs(lambda: overwrite(buffer)), wrap(buffer)]

    for back in puts(value):
        assert back == [b"x" * size, 7, b"!" * size]


def test_an_array_of_numpy_is_what_it_was() -> None:
    numpy = pytest.importorskip("numpy")

    def value() -> Any:
        numbers = numpy.arange(50_000)
        return {"numbers": numbers, "changed": Runs(lambda: numbers.fill(0)), "again": numbers.copy()}

    for back in puts(value):
        assert (back["numbers"] == numpy.arange(50_000)).all()


def test_other_objects_with_buffers() -> None:
    def value() -> Any:
        numbers = array.array("q", range(20_000))
        return [numbers, Piece(b"p" * BYTES), Runs(lambda: overwrite(numbers)), "x" * BYTES]

    for back in puts(value):
        assert back[0] == array.array("q", range(20_000))
        assert (type(back[1]), back[1]) == (Piece, b"p" * BYTES)
        assert back[3] == "x" * BYTES


def test_a_serializer_may_use_its_buffer_again() -> None:
    buffer = bytearray()

    def dumps(value: str) -> bytearray:
        buffer[:] = value.encode()
        return buffer

    own = types.SimpleNamespace(dumps=dumps, loads=lambda stored: stored.decode())
    cache = Cache(3, 2, "16MiB", serializer=own)
    values = {f"key {number}": f"{number}" * 300 for number in range(1000)}
    cache.put_many(values)
    for key, value in values.items():
        cache.put(f"{key} alone", value)
    assert {key: value for key, (value, _) in cache.get_many(values).items()} == values
    assert all(cache.get(f"{key} alone")[0] == value for key, value in values.items())


def keeps_changing(change: Callable[[int], Any], call: Callable[[], Any]) -> None:
    """Calls again and again while another thread changes something."""
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            change(number)
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            call()
    finally:
        stop.set()
        thread.join()


WRAPS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda buffer: buffer,
    "in a list": lambda buffer: [buffer],
    "beside": Offers,
    "beside, in a list": lambda buffer: [Offers(buffer)],
    "a view": memoryview,
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_buffer_that_another_thread_resizes_or_fills_comes_back_whole(wrap: str) -> None:
    cache, buffer = Cache(1, 1, "16MiB", gossip_interval=None), bytearray(BYTES)

    def change(number: int) -> None:
        # In one step of Python's: any other thread sees it before or after.
        buffer[:] = bytes([number % 256]) * (BYTES + number % 7)

    def call() -> None:
        try:
            cache.put("key", WRAPS[wrap](buffer))
        except BufferError:
            return
        back = cache.get("key")[0]
        back = back[0] if isinstance(back, list) else back
        assert len(set(back)) == 1

    def change_if_free(number: int) -> None:
        with contextlib.suppress(BufferError):  # it is lent to a pickler just now
            change(number)

    keeps_changing(change_if_free, call)


@pytest.mark.parametrize("size", [3, 30, 60, 200])
def test_a_dict_or_a_list_that_another_thread_changes_is_stored_as_something_that_it_was(size: int) -> None:
    cache = Cache(1, gossip_interval=None)
    book, row = dict.fromkeys(range(size), "value"), list(range(size))
    refused: list[str] = []

    def change(number: int) -> None:
        book[size + number % 3] = "value"
        row.append(number)
        book.pop(size + (number + 1) % 3, None)
        row.pop()

    def call() -> None:
        try:
            cache.put("key", {"book": book, "row": row})
        except (RuntimeError, SerializationError) as error:
            refused.append(str(error))
        back = cache.get("key")[0]
        if back is not None:
            assert list(back["book"])[:size] == list(range(size))
            assert back["row"][:size] == list(range(size))

    keeps_changing(change, call)
    assert all("changed size" in said for said in refused)
