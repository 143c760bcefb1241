"""Calls with many entries do what as many single calls would, in their order, and say where they stopped."""

import collections
import random
import time
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from distributed_consistent_cache import (
    Cache,
    ClosedError,
    KeyTooLargeError,
    NoLiveNodeError,
    QuorumError,
    SerializationError,
    ValueTooLargeError,
)

# Around the sizes at which work is shared among threads and batches end.
COUNTS = [0, 1, 2, 63, 64, 65, 255, 256, 257, 511, 512, 513, 2000]


@pytest.fixture
def cache() -> Cache:
    return Cache(4, 2, gossip_interval=None)


def contents(cache: Cache) -> dict[str, tuple[Any, int]]:
    return {key: cache.get(key) for key in cache}


SHAPES: dict[str, Callable[[list[str]], Any]] = {
    "dict": lambda keys: {key: [key] for key in keys},
    "mapping": lambda keys: types.MappingProxyType({key: [key] for key in keys}),
    "user dict": lambda keys: collections.UserDict({key: [key] for key in keys}),
    "list of pairs": lambda keys: [(key, [key]) for key in keys],
    "tuple of triples": lambda keys: tuple((key, [key], 7) for key in keys),
    "generator": lambda keys: ((key, [key]) for key in keys),
    "zip": lambda keys: zip(keys, ([key] for key in keys), strict=True),
    "items": lambda keys: {key: [key] for key in keys}.items(),
    "set": lambda keys: {(key, "value") for key in keys},
    "named tuples": lambda keys: [collections.namedtuple("Row", "key value")(key, [key]) for key in keys],  # noqa: PYI024
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [0, 1, 3, 300])
def test_items_come_in_any_shape(shape: str, count: int, cache: Cache) -> None:
    keys = [f"key {number}" for number in range(count)]
    assert cache.put_many(SHAPES[shape](keys), 7) == []
    assert contents(cache) == {key: ("value" if shape == "set" else [key], 7) for key in keys}


@pytest.mark.parametrize("count", COUNTS)
def test_bulk_calls_do_what_single_calls_do(count: int, cache: Cache) -> None:
    keys = [f"key {number}" for number in range(count)]
    one_by_one = Cache(4, 2, gossip_interval=None)
    for number, key in enumerate(keys):
        one_by_one.put(key, {"number": number}, number)
    assert cache.put_many((key, {"number": number}, number) for number, key in enumerate(keys)) == []
    assert contents(cache) == contents(one_by_one)
    found = cache.get_many([*keys, "missing"])
    assert found == {key: ({"number": number}, number) for number, key in enumerate(keys)}
    assert list(found) == keys
    assert cache.get_many(iter(keys)) == found
    # All have their copies.
    assert cache.sync().items == 0
    removed = [key for number, key in enumerate(keys) if number % 3 == 0]
    assert cache.remove_many([*removed, "missing"], 5000) == len(removed)
    assert cache.remove_many(iter(removed), 6000) == 0
    assert sorted(cache) == sorted(set(keys) - set(removed))


def test_keys_that_are_refused_are_returned_in_order(cache: Cache) -> None:
    newer = [f"key {number}" for number in range(0, 1000, 7)]
    cache.put_many(((key, "newer") for key in newer), 10)
    cache.remove("removed", 10)
    items = [(f"key {number}", "older") for number in range(1000)] + [("removed", 1)]
    assert cache.put_many(items, 5) == [*newer, "removed"]
    assert all(cache.get(key) == ("newer", 10) for key in newer)
    assert cache.get("key 1") == ("older", 5)
    # The same again is the newest, and refused is what was refused.
    assert cache.put_many(items, 5) == [*newer, "removed"]


def test_each_item_has_its_own_time_or_that_of_the_call(cache: Cache) -> None:
    assert cache.put_many([("own", 1, 3), ("of the call", 2), ("None", 3, None)], 9) == []
    assert cache.get("own") == (1, 3)
    assert cache.get("of the call") == (2, 9)
    assert cache.get("None")[0] == 3
    assert cache.put_many([("by the clock", 1), ("later", 2)]) == []
    assert 10**15 < cache.get("by the clock")[1] < cache.get("later")[1]


@pytest.mark.parametrize("count", [3, 100, 3000])
def test_of_items_with_one_key_the_later_is_the_newer(count: int, cache: Cache) -> None:
    for _ in range(20):
        # By the clock: none is refused, as none would be one by one.
        assert cache.put_many(("key", number) for number in range(count)) == []
        assert cache.get("key")[0] == count - 1
    cache.clear()
    # By falling times: all but the first are refused.
    now = 2**60
    assert cache.put_many(("falling", number, now - number) for number in range(count)) == ["falling"] * (count - 1)
    assert cache.get("falling") == (0, now)


def test_a_key_that_is_asked_for_twice_is_found_once(cache: Cache) -> None:
    cache.put("key", 1, 1)
    assert cache.get_many(["key"] * 600) == {"key": (1, 1)}
    assert cache.remove_many(["key"] * 600, 2) == 1


def test_a_stored_none_is_found_and_a_miss_is_not(cache: Cache) -> None:
    cache.put("None", None, 1)
    assert cache.get_many(["None", "missing"]) == {"None": (None, 1)}


class BrokenError(ValueError):
    """What the items below raise."""


class FailsToPickle:
    def __reduce__(self) -> Any:
        raise BrokenError


BAD_ITEMS: dict[str, tuple[Any, type[Exception]]] = {
    "a key that is no str": ((5, 1), TypeError),
    "a surrogate": (("\ud800", 1), ValueError),
    "a long key": (("k" * 65537, 1), KeyTooLargeError),
    "a negative time": (("bad", 1, -1), ValueError),
    "a bool for a time": (("bad", 1, True), TypeError),
    "a time too late": (("bad", 1, 2**63), OverflowError),
    "no pair": (("bad",), TypeError),
    "no tuple": ("bad", TypeError),
    "a value that cannot be pickled": (("bad", FailsToPickle()), SerializationError),
    "a value too large": (("bad", random.Random(1).randbytes(2**20)), ValueTooLargeError),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
@pytest.mark.parametrize("at", [0, 1, 70, 255, 256, 300])
def test_a_bad_item_stops_the_call_and_those_before_it_are_written(name: str, at: int, cache: Cache) -> None:
    item, error = BAD_ITEMS[name]
    items = [(f"key {number}", number, 1) for number in range(400)]
    with pytest.raises(error) as raised:
        cache.put_many([*items[:at], item, *items[at:]])
    (note,) = raised.value.__notes__
    assert note.startswith(f"stopped at item {at}, ")
    assert note.endswith("the items before it are written, it and those after it are not")
    assert sorted(cache) == sorted(key for key, _, _ in items[:at])
    # No item after it was taken, and the very same call without it writes them all.
    assert cache.put_many(items) == []
    assert len(cache) == 400


def test_the_note_names_the_key(cache: Cache) -> None:
    with pytest.raises(SerializationError) as raised:
        cache.put_many({"good": 1, "the bad one": FailsToPickle()})
    assert raised.value.__notes__ == [
        "stopped at item 1, 'the bad one': the items before it are written, it and those after it are not"
    ]


def test_no_more_is_taken_from_a_generator_than_is_used(cache: Cache) -> None:
    taken = []

    def generate() -> Iterator[Any]:
        for number in range(10):
            taken.append(number)
            yield 5 if number == 4 else (f"key {number}", number)

    with pytest.raises(TypeError):
        cache.put_many(generate())
    assert taken == [0, 1, 2, 3, 4]
    assert sorted(cache) == [f"key {number}" for number in range(4)]


@pytest.mark.parametrize("at", [0, 10, 300])
def test_what_a_generator_raises_comes_through_and_those_before_are_written(at: int, cache: Cache) -> None:
    def generate(make: Callable[[int], Any]) -> Iterator[Any]:
        for number in range(at):
            yield make(number)
        raise BrokenError

    with pytest.raises(BrokenError):
        cache.put_many(generate(lambda number: (f"key {number}", number)))
    assert len(cache) == at
    with pytest.raises(BrokenError):
        cache.get_many(generate(lambda number: f"key {number}"))
    with pytest.raises(BrokenError):
        cache.remove_many(generate(lambda number: f"missing {number}"))
    assert len(cache) == at


def test_a_bad_key_stops_get_many_and_remove_many(cache: Cache) -> None:
    cache.put("key", 1, 1)
    for keys in (["key", 5], [b"key"], ["key", "k" * 65537]):
        with pytest.raises((TypeError, KeyTooLargeError)):
            cache.get_many(keys)  # type: ignore[arg-type]
        with pytest.raises((TypeError, KeyTooLargeError)):
            cache.remove_many(keys, 0)  # type: ignore[arg-type]
    assert cache.get("key") == (1, 1)


def test_an_error_of_the_nodes_says_what_became_of_the_items(cache: Cache) -> None:
    for node in range(1, 4):
        cache.fail_node(node)
    with pytest.raises(QuorumError) as quorum:
        cache.put_many([("key", 1), ("other", 2)], write_quorum=2)
    # The first is not undone; no note may say that it is not written.
    assert cache.get("key")[0] == 1
    assert not any("it and those after it are not" in note for note in getattr(quorum.value, "__notes__", []))
    cache.fail_node(0)
    with pytest.raises(NoLiveNodeError):
        cache.put_many({"key": 1})


def test_clear_removes_every_key_and_is_remembered(cache: Cache) -> None:
    cache.put_many((f"key {number}", number, number) for number in range(1000))
    # Those that are newer stay.
    assert cache.clear(499) == 500
    assert sorted(cache) == sorted(f"key {number}" for number in range(500, 1000))
    assert cache.put("key 3", "late", 499) is False
    assert cache.put("key 3", "newer", 500) is True
    assert cache.clear() == 501
    assert (len(cache), list(cache)) == (0, [])
    # What is there was removed, and no later version of it is shut out.
    assert cache.put("key 700", "late", 700) is False
    assert cache.put("key 700", "the next version", 701) is True
    assert cache.put("key 700", "by the clock") is True
    assert cache.sync().items == 0
    assert cache.clear(2**63 - 1) == 1
    assert cache.clear(2**63 - 1) == 0


def test_clear_reaches_nodes_that_are_down(cache: Cache) -> None:
    cache.put_many((f"key {number}", number, 1) for number in range(100))
    cache.fail_node(0, lose_memory=False)
    cache.sync()
    cache.clear(2)
    cache.recover_node(0)
    assert cache.sync().converged
    assert len(cache) == 0
    assert [node.entries for node in cache.nodes()] == [0, 0, 0, 0]


def test_iteration_gives_what_lives_throughout_once_and_comes_to_an_end(cache: Cache) -> None:
    cache.put_many((f"key {number}", number, 1) for number in range(3000))
    keys = iter(cache)
    first = next(keys)
    for number in range(0, 3000, 3):
        cache.remove(f"key {number}", 2)
        cache.put(f"new {number}", number, 1)
    rest = list(keys)
    staying = {f"key {number}" for number in range(3000) if number % 3}
    assert len({first, *rest}) == 1 + len(rest)
    assert staying <= {first, *rest} <= {*(f"key {number}" for number in range(3000)), *cache}
    assert list(keys) == []
    assert next(keys, None) is None


def test_each_key_can_be_removed_while_they_are_iterated_over(cache: Cache) -> None:
    cache.put_many((f"key {number}", number, 1) for number in range(3000))
    assert sum(cache.remove(key, 2) for key in cache) == 3000
    assert list(cache) == []


def test_keys_come_back_as_they_were_put(cache: Cache) -> None:
    keys = ["", "a", "é", "\U0001f980", "\0", "k" * 65536, "e\u0301", "line\nbreak"]
    cache.put_many(dict.fromkeys(keys))
    assert sorted(cache) == sorted(keys)
    assert sorted(cache.get_many(keys)) == sorted(keys)


def test_a_mapping_may_change_while_it_is_written(cache: Cache) -> None:
    items: dict[str, Any] = {}

    class Grows:
        def __reduce__(self) -> Any:
            items[f"more {len(items)}"] = 1
            return str, ("grown",)

    items.update({f"key {number}": Grows() for number in range(300)})
    cache.put_many(items)
    assert len(cache) == 300
    assert len(items) == 600


def test_a_result_is_a_fresh_object(cache: Cache) -> None:
    cache.put("key", [1], 1)
    one, other = cache.get_many(["key"]), cache.get_many(["key"])
    one["key"][0].append(2)
    assert other == {"key": ([1], 1)}
    refused = cache.put_many([("key", 0, 0)])
    refused.append("mine")
    assert cache.put_many([("key", 0, 0)]) == ["key"]


def as_iterables(keys: list[str]) -> list[Iterable[str]]:
    return [keys, tuple(keys), set(keys), dict.fromkeys(keys), iter(keys), (key for key in keys)]


def test_keys_come_in_any_iterable(cache: Cache) -> None:
    cache.put_many({"a": 1, "b": 2}, 1)
    for keys in as_iterables(["a", "b"]):
        assert cache.get_many(keys) == {"a": (1, 1), "b": (2, 1)}
    for timestamp, keys in enumerate(as_iterables(["a", "b"]), 2):
        cache.put_many({"a": 1, "b": 2}, timestamp)
        assert cache.remove_many(keys, timestamp) == 2


SETUPS: dict[str, tuple[Any, ...]] = {
    "one node": (1, 1),
    "every node has everything": (3, 3),
    "few of many": (7, 2),
}


def outcome(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read()
    except QuorumError as error:
        # A call with many keys goes on to say at which it stopped.
        return {"too few answered": str(error).partition("; get_many stopped at key ")[0]}


@pytest.mark.parametrize("quorum", ["one", "majority", "all"])
@pytest.mark.parametrize("name", SETUPS)
def test_get_many_finds_what_a_loop_of_get_does(name: str, quorum: Any) -> None:
    nodes, replicas = SETUPS[name]
    with Cache(nodes, replicas, "8MiB", gossip_interval=None, read_quorum=quorum) as cache:
        keys = [f"key {number}" for number in range(700)]
        cache.put_many({key: [key] * (number % 90) for number, key in enumerate(keys)}, 1)
        cache.put_many(dict.fromkeys(keys[::7], "ends"), 2, ttl=0.001)
        cache.put_many(dict.fromkeys(keys[1::7], "goes on"), 2, ttl=1000)
        for key in keys[::5]:
            cache.remove(key, 3)
        time.sleep(0.01)
        sought = [*keys, "nobody", *keys[:9]]

        def found_by_a_loop() -> dict[str, Any]:
            answers = {key: cache.get(key) for key in sought}
            return {key: answer for key, answer in answers.items() if answer[1] >= 0}

        steps: list[Callable[[], Any]] = [lambda: None]
        if replicas < nodes:
            steps += [
                lambda: cache.fail_node(0, lose_memory=False),
                lambda: cache.recover_node(0),
                lambda: cache.fail_node(1),
                lambda: cache.recover_node(1),
                cache.add_node,
                lambda: cache.remove_node(2),
            ]
        for step in steps:
            step()
            found, expected = outcome(lambda: cache.get_many(sought)), outcome(found_by_a_loop)
            assert found == expected
            assert list(found) == list(expected)


@pytest.mark.parametrize("quorum", ["one", "majority", "all"])
def test_get_many_asks_as_many_owners_as_get_does(quorum: Any) -> None:
    with Cache(4, 4, gossip_interval=None, read_quorum=quorum) as cache:
        keys = [f"key {number}" for number in range(50)]
        cache.put_many(dict.fromkeys(keys, "before"), 1)
        cache.cut([0, 1], [2, 3])
        for side, node in enumerate([0, 2]):
            for key in keys[side::2]:
                cache.node(node).put(key, "after", 2)
        found = cache.get_many(keys)
        assert found == {key: cache.get(key) for key in keys}
        if quorum == "all":
            assert set(found.values()) == {("after", 2)}


def test_a_generator_that_calls_the_cache_itself(cache: Cache) -> None:
    def rows() -> Iterator[tuple[str, Any]]:
        for number in range(5000):
            if number % 500 == 0:
                cache.put(f"inner {number}", number)
                cache.get_many(["key 0", f"inner {number}"])
                cache.put_many({f"inner many {number}": number})
                cache.fail_node(number // 500 % 4, lose_memory=False)
                cache.recover_node(number // 500 % 4)
            yield f"key {number}", number

    def keys() -> Iterator[str]:
        for number in range(5000):
            if number % 500 == 0:
                assert cache.get_many([f"key {number}"])[f"key {number}"][0] == number
                cache.put(f"key {number}", "changed")
            yield f"key {number}"

    assert cache.put_many(rows()) == []
    assert len(cache) == 5020
    found = cache.get_many(keys())
    assert [found[f"key {number}"][0] for number in range(5000)] == [
        "changed" if number % 500 == 0 else number for number in range(5000)
    ]


def test_a_generator_that_closes_the_cache_ends_the_call() -> None:
    cache = Cache(2, 2, gossip_interval=None)

    def rows() -> Iterator[tuple[str, int]]:
        yield "key", 1
        cache.close()
        yield "other", 2

    with pytest.raises(ClosedError):
        cache.put_many(rows())


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_many_packed_values_are_unpacked_and_a_reader_of_each_kind_reads_them(compression: str) -> None:
    with Cache(3, 2, "32MiB", gossip_interval=None, compression=compression) as cache:
        values: dict[str, Any] = {f"text {number}": f"{number} " * 2000 for number in range(300)}
        values |= {f"list {number}": [f"{number} {part}" for part in range(300)] for number in range(300)}
        values |= {f"object {number}": [collections.OrderedDict(a="x" * 3000, n=number)] for number in range(50)}
        values |= {f"view {number}": bytearray(30_000) for number in range(50)}
        values |= {"large": "x" * 3_000_000, "int": 1}
        cache.put_many(values, 1)
        keys = list(values)
        random.Random(1).shuffle(keys)
        assert cache.get_many(keys) == {key: (values[key], 1) for key in keys}
