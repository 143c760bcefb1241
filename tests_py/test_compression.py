"""Values are made smaller on their way to the nodes, and come back as they were, whatever the setting."""

import json
import pickle
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from distributed_consistent_cache import Cache, ValueTooLargeError

SETTINGS = ["lz4", "zstd", None]
SOURCE = Path(json.__file__).read_text(encoding="utf-8")

VALUES: dict[str, Any] = {
    "a long text": SOURCE * 3,
    "bytes that repeat": bytes(100_000),
    "bytes of a text": SOURCE.encode() * 3,
    "random bytes": random.Random(1).randbytes(50_000),
    "a dict of lines": {"lines": SOURCE.splitlines(), "n": 1},
    "an object of a class": Path("/" + "a/" * 2_000),
    "one byte too short to be packed": "x" * 1_011,
    "just long enough": "x" * 1_020,
    "a text that is no ASCII": "\N{SNOWMAN}" * 5_000,
    "a text with lone surrogates": "\ud800" * 5_000,
    "a text above a pickle's frame": "text" * 50_000,
    "numbers": list(range(5_000)),
}


@pytest.mark.parametrize("compression", SETTINGS)
@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_as_it_was(name: str, compression: str | None) -> None:
    cache = Cache(3, 2, "4MiB", gossip_interval=None, compression=compression)
    value = VALUES[name]
    assert cache.put("key", value, 1)
    assert cache.get("key") == (value, 1)
    assert cache.get_many(["key"]) == {"key": (value, 1)}
    assert cache.node(cache.owners("key")[0]).get("key") == (value, 1)
    assert cache.put("key", value, 1), "the very same value"
    cache.put_many({f"key {number}": value for number in range(3)}, 2)
    assert cache.get("key 2") == (value, 2)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_node_holds_more_of_what_repeats(compression: str) -> None:
    def held(how: str | None) -> int:
        cache = Cache(1, node_capacity="256KiB", gossip_interval=None, compression=how)
        cache.put_many((f"key {number}", f"{number} {SOURCE}") for number in range(2_000))
        return len(cache)

    assert held(compression) > 1.8 * held(None)


@pytest.mark.parametrize("compression", SETTINGS)
def test_what_does_not_shrink_takes_no_more_room(compression: str | None) -> None:
    cache = Cache(1, node_capacity="1MiB", gossip_interval=None, compression=compression)
    cache.put("key", random.Random(2).randbytes(100_000))
    plain = Cache(1, node_capacity="1MiB", gossip_interval=None, compression=None)
    plain.put("key", random.Random(2).randbytes(100_000))
    assert cache.nodes()[0].bytes_used == plain.nodes()[0].bytes_used


def test_a_value_that_fits_only_when_it_is_packed_is_written_one_by_one_and_in_bulk() -> None:
    cache = Cache(1, node_capacity="64KiB", gossip_interval=None)
    assert cache.put("key", bytes(1 << 20), 1)
    assert cache.put_many({"other": bytes(1 << 20)}, 1) == []
    assert cache.get("key") == (bytes(1 << 20), 1)
    with pytest.raises(ValueTooLargeError):
        Cache(1, node_capacity="64KiB", gossip_interval=None, compression=None).put("key", bytes(1 << 20))


def test_a_value_that_is_too_large_before_it_is_packed_says_its_key_the_most_and_what_to_raise() -> None:
    cache = Cache(1, node_capacity="64KiB", gossip_interval=None)
    what = r'"key" takes \d+ bytes .* the most is 4194304, 64 times the largest node: raise node_capacity;'
    for call in (lambda value: cache.put("key", value), lambda value: cache.put_many({"key": value})):
        with pytest.raises(ValueTooLargeError, match=what):
            call(bytes(64 * 65536 + 1))
    assert cache.get("key") == (None, -1)


def test_threads_pack_and_unpack_side_by_side() -> None:
    caches = [Cache(3, 2, "8MiB", compression=compression) for compression in ("lz4", "zstd")]
    wrong: list[object] = []

    def work(thread: int) -> None:
        for number in range(60):
            for cache in caches:
                value = f"{thread} {number} {SOURCE}"
                cache.put(f"{thread} {number}", value, 1)
                if cache.get(f"{thread} {number}") != (value, 1):
                    wrong.append((thread, number))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_copies_are_packed_too_and_survive_a_failure() -> None:
    cache = Cache(5, 3, "1MiB", gossip_interval=None)
    cache.put_many({f"key {number}": f"{number} {SOURCE}" for number in range(50)}, 1)
    cache.fail_node(0)
    cache.fail_node(1)
    assert cache.sync().converged
    cache.recover_node(0)
    assert cache.sync().converged
    for number in range(50):
        assert cache.get(f"key {number}") == (f"{number} {SOURCE}", 1)


@pytest.mark.parametrize(
    ("compression", "error"),
    [("lz77", ValueError), ("", ValueError), ("LZ4", ValueError), (1, TypeError), (True, TypeError)],
)
def test_another_compression_is_refused_by_name(compression: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="compression"):
        Cache(compression=compression)


def test_a_pickle_of_a_packed_value_is_read_by_pickle_itself() -> None:
    # A class whose pickle is long: it is unpacked, and pickle reads it.
    cache = Cache(1, gossip_interval=None)
    value = pickle.PickleBuffer  # a class is pickled by its name, and is short
    cache.put("class", value)
    assert cache.get("class")[0] is value
    cache.put("paths", [Path(SOURCE[:200])] * 3 + [Path(f"{number}/{SOURCE[:300]}") for number in range(20)])
    assert cache.get("paths")[0][5] == Path(f"2/{SOURCE[:300]}")
