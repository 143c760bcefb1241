"""The newest write wins: on every node, in every order of arrival. A remove is a write, and is remembered."""

import math
import time
from itertools import permutations
from typing import Any, Literal, TypeAlias

import pytest

from distributed_consistent_cache import Cache, TimestampWarning

Write: TypeAlias = tuple[Literal["put"], Any, int] | tuple[Literal["remove"], int]

NODES = 3


def new_cache(nodes: int = NODES, replicas: int = NODES) -> Cache:
    return Cache(nodes, replicas, gossip_interval=None)


def do(cache: Cache, write: Write) -> bool:
    if write[0] == "put":
        return cache.put("key", write[1], write[2])
    return cache.remove("key", write[1])


def held(cache: Cache) -> tuple[Any, int]:
    """What every node says of the key; they must agree, with each other and with the cache."""
    answer = cache.get("key")
    for node in range(NODES):
        assert cache.node(node).get("key") == answer, f"node {node}"
    assert ("key" in cache) == (answer[1] >= 0) == (list(cache) == ["key"]) == bool(len(cache))
    return answer


# What is written, and what each answers; then what is held. A miss is (None, -1).
STORIES: dict[str, tuple[list[tuple[Write, bool]], tuple[Any, int]]] = {
    "nothing": ([], (None, -1)),
    "a first put": ([(("put", "a", 0), True)], ("a", 0)),
    "a newer put": ([(("put", "a", 1), True), (("put", "b", 2), True)], ("b", 2)),
    "an older put": ([(("put", "a", 2), True), (("put", "b", 1), False)], ("a", 2)),
    "the same put again": ([(("put", "a", 2), True), (("put", "a", 2), True)], ("a", 2)),
    "the same value at a later time": ([(("put", "a", 2), True), (("put", "a", 3), True)], ("a", 3)),
    "the same value at an earlier time": ([(("put", "a", 3), True), (("put", "a", 2), False)], ("a", 3)),
    "a newer remove": ([(("put", "a", 1), True), (("remove", 2), True)], (None, -1)),
    "a remove at the same time": ([(("put", "a", 1), True), (("remove", 1), True)], (None, -1)),
    "an older remove": ([(("put", "a", 2), True), (("remove", 1), False)], ("a", 2)),
    "a second remove": ([(("put", "a", 1), True), (("remove", 2), True), (("remove", 2), False)], (None, -1)),
    "a second, newer remove": ([(("put", "a", 1), True), (("remove", 2), True), (("remove", 3), False)], (None, -1)),
    "a put older than a remove": ([(("remove", 2), False), (("put", "a", 1), False)], (None, -1)),
    "a put as old as a remove": ([(("remove", 2), False), (("put", "a", 2), False)], (None, -1)),
    "a put newer than a remove": ([(("remove", 2), False), (("put", "a", 3), True)], ("a", 3)),
    "an older remove does not take the memory of a newer": (
        [(("remove", 5), False), (("remove", 2), False), (("put", "a", 4), False)],
        (None, -1),
    ),
    "an old put after a remove of a newer": (
        [(("put", "a", 5), True), (("remove", 6), True), (("put", "a", 5), False), (("put", "b", 6), False)],
        (None, -1),
    ),
    "None is a value": ([(("put", None, 1), True)], (None, 1)),
    "None replaces a value": ([(("put", "a", 1), True), (("put", None, 2), True)], (None, 2)),
    "the first and the last timestamp": ([(("put", "a", 0), True), (("put", "b", 2**63 - 1), True)], ("b", 2**63 - 1)),
    "a remove at the last timestamp is final": (
        [(("remove", 2**63 - 1), False), (("put", "a", 2**63 - 1), False)],
        (None, -1),
    ),
    "a remove at timestamp 0": ([(("put", "a", 0), True), (("remove", 0), True), (("put", "a", 0), False)], (None, -1)),
}


@pytest.mark.parametrize("story", STORIES)
def test_each_write_answers_whether_it_is_the_newest_and_all_nodes_agree(story: str) -> None:
    cache = new_cache()
    writes, expected = STORIES[story]
    for number, (write, answer) in enumerate(writes):
        assert do(cache, write) is answer, f"write {number}: {write}"
        held(cache)
    assert held(cache) == expected


# The newest of each bunch is named, or found out when it is a put among puts of the same time.
BUNCHES: list[list[Write]] = [
    [("put", "a", 1), ("put", "b", 2), ("put", "c", 3), ("remove", 2)],
    [("put", "a", 1), ("put", "b", 1), ("put", 3, 1), ("put", None, 1)],
    [("put", "a", 1), ("put", "b", 1), ("remove", 1), ("remove", 0)],
    [("remove", 1), ("remove", 2), ("put", "a", 1), ("put", "b", 2), ("put", "c", 2)],
    [("put", "x" * 300, 7), ("put", b"x" * 300, 7), ("put", {"x": 300}, 7), ("put", 300.0, 7)],
]


@pytest.mark.parametrize("bunch", BUNCHES)
def test_every_order_of_arrival_ends_the_same(bunch: list[Write]) -> None:
    ends = set()
    for order in permutations(bunch):
        cache = new_cache()
        for write in order:
            do(cache, write)
        ends.add(repr(held(cache)))
    assert len(ends) == 1


def test_a_remove_beats_every_put_of_its_time() -> None:
    for value in ("a", "b", 0, None, b"", {"x": 1}):
        for order in permutations([("put", value, 1), ("remove", 1)]):
            cache = new_cache()
            for write in order:
                do(cache, write)  # type: ignore[arg-type]
            assert held(cache) == (None, -1), value


def wins(value: Any, other: Any) -> bool:
    """Whether a value replaces another one of the same time."""
    cache = new_cache(1, 1)
    cache.put("key", other, 1)
    return cache.put("key", value, 1)


def test_of_two_values_of_one_time_exactly_one_wins() -> None:
    values: list[Any] = [None, True, False, 0, 1, 1.0, -1, "", "1", b"", b"1", "x" * 1000, (1,), [1], 2**70]
    for value in values:
        for other in values:
            same = type(value) is type(other) and value == other
            assert wins(value, other) + wins(other, value) == (2 if same else 1), (value, other)


def test_which_value_wins_is_a_total_order_and_does_not_depend_on_the_key() -> None:
    values = [f"value {number}" for number in range(12)]
    ranks = [sum(wins(value, other) for other in values) for value in values]
    assert sorted(ranks) == list(range(1, 13))
    newest = values[ranks.index(12)]
    for key in ("", "another key", "k" * 500):
        cache = new_cache()
        highest = 0
        for value, rank in zip(values, ranks, strict=True):
            assert cache.put(key, value, 5) is (rank > highest)
            highest = max(highest, rank)
        assert cache.get(key) == (newest, 5)


def test_without_a_timestamp_writes_are_newer_in_the_order_of_the_calls() -> None:
    cache = new_cache()
    times = []
    for number in range(1000):
        assert cache.put("key", number)
        value, timestamp = cache.get("key")
        assert value == number
        times.append(timestamp)
    assert times == sorted(set(times))
    assert cache.remove("key") is True
    assert cache.put("key", "back") is True


def test_the_clock_of_the_cache_counts_microseconds_since_1970() -> None:
    cache = new_cache()
    before = time.time_ns() // 1000
    cache.put("key", 1)
    # The clock never gives a number twice: after many calls within a microsecond it may be a little ahead.
    assert before - 1000 <= cache.get("key")[1] <= time.time_ns() // 1000 + 100_000


def test_a_write_from_the_far_future_is_not_replaced_by_the_clock() -> None:
    cache = new_cache()
    cache.put("key", "future", 2**63 - 1)
    with pytest.warns(TimestampWarning, match="another unit"):
        assert cache.put("key", "now") is False
    assert held(cache) == ("future", 2**63 - 1)
    # A remove without a timestamp removes what is there.
    assert cache.remove("key") is True
    assert held(cache) == (None, -1)


def test_the_default_replaces_the_none_of_a_miss_and_of_nothing_else() -> None:
    cache = new_cache()
    default = object()
    assert cache.get("key", default) == (default, -1)
    assert cache.get("key", default=default)[0] is default
    assert cache.node(0).get("key", default) == (default, -1)
    cache.put("key", None, 3)
    assert cache.get("key", default) == (None, 3)
    assert cache.node(0).get("key", default) == (None, 3)
    cache.remove("key", 4)
    assert cache.get("key", default) == (default, -1)


def test_keys_that_look_alike_are_different_keys() -> None:
    cache = new_cache()
    # Two spellings of one letter, the empty key, a zero character, and a key that is as long as two of them.
    keys = ["é", "e\u0301", "", "\0", "\0\0", "a", "A", "a ", "aa", "a\0"]
    for timestamp, key in enumerate(keys):
        cache.put(key, timestamp, timestamp)
    assert {key: cache.get(key) for key in keys} == {key: (number, number) for number, key in enumerate(keys)}
    assert sorted(cache) == sorted(keys)


@pytest.mark.parametrize("ttl", [60, math.inf])
def test_what_has_expired_refuses_no_put_of_its_timestamp(ttl: float) -> None:
    cache = Cache(gossip_interval=None)
    keys = [f"page:{number}" for number in range(100)]
    for key in keys:
        assert cache.put(key, f"{key}, rendered at 12:00", timestamp=7, ttl=0.001)
    while any(cache.get(key) != (None, -1) for key in keys):
        time.sleep(0.001)
    for key in keys:
        assert cache.put(key, f"{key}, rendered at 12:05", timestamp=7, ttl=ttl)
        assert cache.get(key) == (f"{key}, rendered at 12:05", 7)
    cache.sync()
    assert all(cache.get(key)[1] == 7 for key in keys)


def test_what_was_shortened_and_has_expired_refuses_no_put_of_its_timestamp() -> None:
    cache = Cache(gossip_interval=None)
    for number in range(100):
        key = f"page:{number}"
        assert cache.put(key, "first", timestamp=7)
        assert cache.touch(key, 0.001)
        while cache.get(key) != (None, -1):
            time.sleep(0.001)
        assert cache.put(key, f"second {number}", timestamp=7, ttl=60)
        assert cache.get(key) == (f"second {number}", 7)
