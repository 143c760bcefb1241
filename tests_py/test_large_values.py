"""Large buffers go in and out beside the pickle: what comes out is equal, its memory its own and writable if it was."""

import gc
import pickle
import random
import struct
import weakref
from pathlib import Path
from typing import Any

import pytest

from conftest import RunThreads
from distributed_consistent_cache import Cache, SerializationError

# Around the size from which buffers are beside the pickle.
SIZES = [0, 1, 1000, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 70_000, 2**20]


@pytest.fixture
def cache() -> Cache:
    return Cache(3, 2, "64MiB", gossip_interval=None)


class Framed:
    """An object of the user's own that offers its buffers."""

    def __init__(self, *buffers: Any) -> None:
        self.buffers = list(buffers)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Framed, tuple(map(pickle.PickleBuffer, self.buffers))


def reads(cache: Cache) -> list[Any]:
    return [cache.get("key")[0], cache.get_many(["key"])["key"][0], cache.node(cache.owners("key")[0]).get("key")[0]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_and_bytearray(kind: Any, size: int, cache: Cache) -> None:
    value = kind(bytes(range(256)) * (size // 256 + 1))[:size]
    cache.put("key", value)
    for back in reads(cache):
        assert type(back) is kind
        assert back == value
        if kind is bytearray:
            back.extend(b"more")
    assert reads(cache)[0] == value


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("read_only", [False, True])
def test_memoryview(size: int, read_only: bool, cache: Cache) -> None:
    memory = bytes(size) if read_only else bytearray(size)
    cache.put("key", memoryview(memory))
    for back in reads(cache):
        assert type(back) is memoryview
        assert (back.readonly, back.format, back.shape) == (read_only, "B", (size,))
        assert back == memory
        if size and not read_only:
            back[0] = 7
    assert reads(cache)[0] == memory


def test_a_memoryview_keeps_format_and_shape_and_loses_its_strides(cache: Cache) -> None:
    numbers = memoryview(bytearray(struct.pack("6i", *range(6))))
    for view in (
        numbers.cast("i"),
        numbers.cast("B").cast("i", (2, 3)),
        numbers.cast("i")[::-2],
        numbers[::3],
        numbers.cast("i")[:0],
    ):
        cache.put("key", view)
        for back in reads(cache):
            assert (back.format, back.shape, back.tolist()) == (view.format, view.shape, view.tolist())
            assert back.c_contiguous
            assert not back.readonly


def test_a_memoryview_that_cannot_be_given_back_is_refused(cache: Cache) -> None:
    np = pytest.importorskip("numpy")
    cache.put("key", "before", 1)
    for view in (memoryview(np.zeros(3, "i4,f8")), memoryview(np.zeros(3, ">i4")), memoryview(np.zeros((2, 0)))):
        with pytest.raises(SerializationError, match="memoryview"):
            cache.put("key", view, 2)
    assert cache.get("key") == ("before", 1)


@pytest.mark.parametrize("size", SIZES)
def test_buffers_of_any_object(size: int, cache: Cache) -> None:
    value = Framed(bytearray(b"w" * size), b"r" * size, bytearray(b"small"))
    cache.put("key", [value, value, "tail"])
    for first, second, tail in reads(cache):
        assert first is second
        assert tail == "tail"
        assert list(map(bytes, first.buffers)) == [b"w" * size, b"r" * size, b"small"]
        assert [memoryview(one).readonly for one in first.buffers] == [False, True, False]
        if size:
            memoryview(first.buffers[0])[0] = 0
    assert bytes(reads(cache)[0][0].buffers[0]) == b"w" * size


def test_numpy_arrays(cache: Cache) -> None:
    np = pytest.importorskip("numpy")
    plain = np.arange(100_000, dtype="f8")
    fixed = plain.copy()
    fixed.flags.writeable = False
    for array in (
        plain,
        fixed,
        plain.reshape(100, 10, 100),
        np.asfortranarray(plain.reshape(100, 1000)),
        plain[::3],
        plain.astype(">i4"),
        plain.astype("c16"),
        np.zeros(3000, "i4,U3"),
        np.zeros((0, 5)),
        np.array(5.0),
        plain[:3],
        np.array([{"object": 1}, None]),
    ):
        cache.put("key", {"array": array, "again": array, "tail": 1})
        for back in reads(cache):
            assert back["array"] is back["again"]
            got = back["array"]
            assert (got.dtype, got.shape, got.flags.writeable) == (array.dtype, array.shape, array.flags.writeable)
            assert got.flags.f_contiguous == array.flags.f_contiguous or not array.flags.forc
            np.testing.assert_array_equal(got, array)
            if got.flags.writeable and got.dtype == plain.dtype:
                got[...] = -1
        np.testing.assert_array_equal(reads(cache)[0]["array"], array)


@pytest.mark.parametrize("compression", ["lz4", "zstd", None])
def test_buffers_are_compressed_and_saved_as_other_values_are(compression: str | None, tmp_path: Path) -> None:
    random_bytes, zeros = random.Random(1).randbytes(200_000), bytearray(2**20)
    values = {
        "random": Framed(bytearray(random_bytes)),
        "zeros": Framed(zeros, bytes(zeros)),
        "view": memoryview(zeros),
        "array": zeros,
    }
    with Cache(3, 2, "4MiB", gossip_interval=None, compression=compression) as cache:
        cache.put_many(values, 1)
        used = max(node.bytes_used for node in cache.nodes())
        assert (used < 1_000_000) == (compression is not None)
        cache.save(tmp_path / "saved")
    with Cache.load(tmp_path / "saved") as cache:
        for _ in range(2):
            framed, twice, view, array = (cache.get(key)[0] for key in values)
            assert bytes(framed.buffers[0]) == random_bytes
            assert [bytes(one) for one in twice.buffers] == [bytes(zeros)] * 2
            assert [memoryview(one).readonly for one in twice.buffers] == [False, True]
            assert (view, view.readonly, array) == (zeros, False, zeros)
            # What one get gave is not what the next one gives.
            for one in (framed.buffers[0], twice.buffers[0], view, array):
                memoryview(one)[0] = 9
        assert cache.get("array")[0] == zeros


class LooksAtReads:
    """Says when it is read."""

    read = 0

    def __init__(self, size: int) -> None:
        self.buffer = bytearray(size)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return read_a_look, (pickle.PickleBuffer(self.buffer),)


def read_a_look(_: Any) -> int:
    LooksAtReads.read += 1
    return LooksAtReads.read


@pytest.mark.parametrize("size", [10, 100_000])
def test_saving_and_loading_reads_no_pickle(size: int, tmp_path: Path) -> None:
    with Cache(3, 2, gossip_interval=None) as cache:
        cache.put("key", LooksAtReads(size), 1)
        LooksAtReads.read = 0
        cache.save(tmp_path / "saved")
    with Cache.load(tmp_path / "saved") as cache:
        cache.restore(tmp_path / "saved")
        assert cache.sync().converged
        assert LooksAtReads.read == 0
        assert cache.get("key")[0] == 1


def test_a_buffer_that_is_not_contiguous_is_refused_as_pickle_refuses_it(cache: Cache) -> None:
    np = pytest.importorskip("numpy")
    with pytest.raises(SerializationError, match="contiguous"):
        cache.put("key", pickle.PickleBuffer(np.zeros(100_000)[::2]))
    assert "key" not in cache


def test_a_plain_cache_refuses_arrays(cache: Cache) -> None:
    np = pytest.importorskip("numpy")
    plain = Cache(decode="plain")
    plain.put("key", np.zeros(10_000))
    with pytest.raises(SerializationError, match="would import numpy"):
        plain.get("key")


class PutsWhileItIsPickled:
    """Pickling it puts others, with buffers of their own."""

    def __init__(self, cache: Cache, depth: int) -> None:
        self.cache, self.depth = cache, depth

    def __reduce__(self) -> Any:
        if self.depth:
            inner = [PutsWhileItIsPickled(self.cache, self.depth - 1), Framed(bytearray([self.depth] * 20_000))]
            self.cache.put(f"depth {self.depth}", inner)
        return str, (f"was at {self.depth}",)


def test_pickling_within_pickling_mixes_nothing_up(cache: Cache) -> None:
    cache.put("outer", [Framed(bytearray(b"o" * 20_000)), PutsWhileItIsPickled(cache, 12), Framed(b"e" * 20_000)])
    first, text, last = cache.get("outer")[0]
    assert (bytes(first.buffers[0]), text, bytes(last.buffers[0])) == (b"o" * 20_000, "was at 12", b"e" * 20_000)
    for depth in range(1, 13):
        text, framed = cache.get(f"depth {depth}")[0]
        assert (text, bytes(framed.buffers[0])) == (f"was at {depth - 1}", bytes([depth] * 20_000))


class Fails:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise LookupError("not today")


def test_what_failed_leaves_nothing_behind_for_the_next(cache: Cache) -> None:
    for _ in range(5):
        with pytest.raises(SerializationError, match="not today"):
            cache.put("key", [Framed(bytearray(20_000)), [1, 2], Fails()])
        shared = [1, 2]
        cache.put("key", [shared, shared, "text"])
        assert cache.get("key")[0] == [[1, 2], [1, 2], "text"]


def test_the_cache_keeps_no_value_alive_and_no_buffer_locked(cache: Cache) -> None:
    value, array = Framed(bytearray(20_000)), bytearray(20_000)
    cache.put("key", [value, Framed(array)])
    gone = weakref.ref(value)
    del value
    assert gone() is None
    array.extend(b"not locked")
    cache.put("array", array)
    array.extend(b"not locked")
    cache.put("view", memoryview(array))
    array.extend(b"not locked")


def test_many_threads(run_threads: RunThreads, cache: Cache) -> None:
    def work(thread: int) -> None:
        for number in range(60):
            cache.put(f"{thread}", [thread, Framed(bytearray([thread] * 20_000))])
            key = str((thread + number) % 16)
            value, timestamp = cache.get(key)
            if timestamp >= 0:
                assert bytes(value[1].buffers[0]) == bytes([value[0]] * 20_000)
                assert str(value[0]) == key

    run_threads(16, work)


class Meddler:
    """Replaces what is being read, and closes the cache, while it is read."""

    cache: Cache

    def __reduce__(self) -> Any:
        return Meddler._again, ()

    @staticmethod
    def _again() -> int:
        Meddler.cache.put("key", b"another" * 100_000)
        Meddler.cache.put("other", b"another" * 100_000)
        Meddler.cache.close()
        gc.collect()
        return 1


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_a_value_that_is_being_unpickled_stays_as_it_was(compression: Any) -> None:
    Meddler.cache = cache = Cache(nodes=1, node_capacity="4MiB", gossip_interval=None, compression=compression)
    large = bytearray(range(256)) * 4000
    cache.put("key", [Meddler(), large, bytes(large)])
    assert cache.get("key")[0] == [1, large, bytes(large)]
