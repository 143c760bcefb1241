"""A bad argument is refused by name, with what was given and what it must be, and nothing was done."""

import enum
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from distributed_consistent_cache import Cache, CacheError, KeyTooLargeError, ValueTooLargeError
from helpers import state

LAST = 2**63 - 1
SIZE = r'text such as "64KiB", "1MiB" or "2GB"'
INTERVALS = "from 0.001.* to 3600.*, or None"
CAPACITIES = r"from 16384 bytes \(16KiB\) to 1099511627776 \(1TiB\)"


@pytest.fixture
def cache() -> Cache:
    """Three nodes, two copies, two entries and the memory of a third."""
    cache = Cache(3, 2, gossip_interval=None)
    cache.put_many({"a": 1, "b": "two"}, 10)
    cache.remove("gone", 10)
    return cache


class Number(int):
    """An int of the user's own."""


class Text(str):
    """A str of the user's own."""

    __slots__ = ()


class Like:
    """Can be turned into an int and is none."""

    def __int__(self) -> int:
        return 1


# Arguments of `Cache(...)`, the error's type, and a pattern of its whole message without the end that all have.
BAD_CACHES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"nodes": 0}, ValueError, "nodes is 0, but must be from 1 to 100"),
    ({"nodes": 101}, ValueError, "nodes is 101, but must be from 1 to 100"),
    ({"nodes": -1}, ValueError, "nodes is -1, but must be from 1 to 100"),
    ({"nodes": 2**70}, ValueError, f"nodes is {2**70}, but must be from 1 to 100"),
    ({"nodes": True}, TypeError, "nodes must be int, not bool"),
    ({"nodes": 3.0}, TypeError, "nodes must be int, not float"),
    ({"nodes": "3"}, TypeError, "nodes must be int, not str"),
    ({"nodes": Like()}, TypeError, "nodes must be int, not Like"),
    ({"replicas": 0}, ValueError, "replicas is 0, but must be from 1 to 3"),
    ({"replicas": 4}, ValueError, "replicas is 4, but must be from 1 to 3"),
    ({"nodes": 7, "replicas": 8}, ValueError, "replicas is 8, but must be from 1 to 7"),
    ({"replicas": -1}, ValueError, "replicas is -1, but must be from 1 to 3"),
    ({"replicas": False}, TypeError, "replicas must be int.*, not bool"),
    ({"replicas": "all"}, TypeError, "replicas must be int.*, not str"),
    ({"node_capacity": 0}, ValueError, f"node_capacity is 0 bytes, but must be {CAPACITIES}"),
    ({"node_capacity": 16383}, ValueError, f"node_capacity is 16383 bytes, but must be {CAPACITIES}"),
    ({"node_capacity": "15.9KiB"}, ValueError, f"node_capacity is 16281 bytes, but must be {CAPACITIES}"),
    ({"node_capacity": 2**40 + 1}, ValueError, f"node_capacity is {2**40 + 1} bytes, but must be {CAPACITIES}"),
    ({"node_capacity": "1.1TiB"}, ValueError, f"node_capacity is {int(1.1 * 2**40)} bytes, but must be {CAPACITIES}"),
    ({"node_capacity": -1}, ValueError, f"node_capacity is -1.*, but must be .*({CAPACITIES}|{SIZE})"),
    ({"node_capacity": 2**70}, ValueError, f"node_capacity is {2**70}.*, but must be .*{CAPACITIES}"),
    *(
        ({"node_capacity": text}, ValueError, f"node_capacity is {text!r}, but must be .*{SIZE}")
        for text in ("", "MiB", "1 mibs", "m", "-1MiB", "1e6", "1..5MiB", "0x10KiB", "1MiB1", "nan", "1_000KiB")
    ),
    ({"node_capacity": 1e6}, TypeError, "node_capacity must be int or str, not float"),
    ({"node_capacity": True}, TypeError, "node_capacity must be int or str, not bool"),
    ({"node_capacity": b"1MiB"}, TypeError, "node_capacity must be int or str, not bytes"),
    *(
        (given, error, message.replace("QUORUM", name))
        for name in ("write_quorum", "read_quorum")
        for given, error, message in (
            ({name: 0}, ValueError, "QUORUM is 0, but must be from 1 to 3"),
            ({name: 4}, ValueError, "QUORUM is 4, but must be from 1 to 3"),
            ({name: 2**70}, ValueError, f"QUORUM is {2**70}, but must be from 1 to 3"),
            ({name: 256}, ValueError, "QUORUM is 256, but must be from 1 to 3"),
            ({name: -1}, ValueError, "QUORUM is -1, but must be from 1 to 3"),
            ({name: 2, "replicas": 1}, ValueError, "QUORUM is 2, but must be from 1 to 1"),
            ({name: "two"}, ValueError, "QUORUM is 'two', but must be \"one\", \"majority\", \"all\" or an int"),
            ({name: "ALL"}, ValueError, "QUORUM is 'ALL', but must be \"one\", \"majority\", \"all\" or an int"),
            ({name: True}, TypeError, "QUORUM must be int.*, not bool"),
            ({name: 1.0}, TypeError, "QUORUM must be int.*, not float"),
        )
    ),
    ({"gossip_interval": 0}, ValueError, f"gossip_interval is 0.*, but must be {INTERVALS}"),
    ({"gossip_interval": 0.0009}, ValueError, f"gossip_interval is 0.0009.*, but must be {INTERVALS}"),
    ({"gossip_interval": 3601}, ValueError, f"gossip_interval is 3601.*, but must be {INTERVALS}"),
    ({"gossip_interval": -1}, ValueError, f"gossip_interval is -1.*, but must be {INTERVALS}"),
    ({"gossip_interval": float("nan")}, ValueError, f"gossip_interval is nan.*, but must be {INTERVALS}"),
    ({"gossip_interval": float("inf")}, ValueError, f"gossip_interval is inf.*, but must be {INTERVALS}"),
    ({"gossip_interval": "1s"}, TypeError, "gossip_interval must be .*, not str"),
    ({"gossip_interval": True}, TypeError, "gossip_interval must be .*, not bool"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_CACHES, ids=lambda given: repr(given)[:50])
def test_a_cache_cannot_be_made_with(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^(?i:{message}); nothing was done$") as raised:
        Cache(**{"gossip_interval": None} | arguments)
    assert type(raised.value) is error


@pytest.mark.parametrize("arguments", [{"capacity": 3}, {"Nodes": 3}])
def test_an_unknown_argument_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        Cache(**arguments)
    with pytest.raises(TypeError):
        Cache(3, 2, "1MiB", "all")  # type: ignore[misc]


Call = Callable[[Cache, Any], Any]

# Every call that takes such an argument.
WITH_A_KEY: dict[str, Call] = {
    "put": lambda cache, key: cache.put(key, 1),
    "get": lambda cache, key: cache.get(key),
    "remove": lambda cache, key: cache.remove(key),
    "in": lambda cache, key: key in cache,
    "owners": lambda cache, key: cache.owners(key),
    "put_many": lambda cache, key: cache.put_many([(key, 1)]),
    "get_many": lambda cache, key: cache.get_many([key]),
    "remove_many": lambda cache, key: cache.remove_many([key]),
    "node.put": lambda cache, key: cache.node(0).put(key, 1),
    "node.get": lambda cache, key: cache.node(0).get(key),
    "node.remove": lambda cache, key: cache.node(0).remove(key),
}
WITH_A_TIMESTAMP: dict[str, Call] = {
    "put": lambda cache, timestamp: cache.put("a", 2, timestamp),
    "remove": lambda cache, timestamp: cache.remove("a", timestamp),
    "put_many": lambda cache, timestamp: cache.put_many({"a": 2}, timestamp),
    "put_many, of nothing": lambda cache, timestamp: cache.put_many([], timestamp),
    "put_many, of an item": lambda cache, timestamp: cache.put_many([("a", 2, timestamp)]),
    "remove_many": lambda cache, timestamp: cache.remove_many(["a"], timestamp),
    "clear": lambda cache, timestamp: cache.clear(timestamp),
    "node.put": lambda cache, timestamp: cache.node(0).put("a", 2, timestamp),
    "node.remove": lambda cache, timestamp: cache.node(0).remove("a", timestamp),
}
WITH_A_NODE: dict[str, Call] = {
    "fail_node": lambda cache, node: cache.fail_node(node),
    "recover_node": lambda cache, node: cache.recover_node(node),
    "remove_node": lambda cache, node: cache.remove_node(node),
    "node": lambda cache, node: cache.node(node),
    "cut, first side": lambda cache, node: cache.cut([node], [0]),
    "cut, second side": lambda cache, node: cache.cut([0], [node]),
}
WITH_A_QUORUM: dict[str, Call] = {
    "put": lambda cache, quorum: cache.put("a", 2, write_quorum=quorum),
    "remove": lambda cache, quorum: cache.remove("a", write_quorum=quorum),
    "put_many": lambda cache, quorum: cache.put_many({"a": 2}, write_quorum=quorum),
    "remove_many": lambda cache, quorum: cache.remove_many(["a"], write_quorum=quorum),
    "get": lambda cache, quorum: cache.get("a", read_quorum=quorum),
    "get_many": lambda cache, quorum: cache.get_many(["a"], read_quorum=quorum),
}


def check_refused(cache: Cache, calls: dict[str, Call], given: Any, error: type[Exception], message: str) -> None:
    """Each of these calls raises just this and leaves everything as it was."""
    before = state(cache)
    for name, call in calls.items():
        with pytest.raises(error) as raised:
            call(cache, given)
        # A call of many says first how far it came.
        said = re.sub(
            r"; \w+_many stopped at \w+ 0, .*: 0 \w+ are \w+, it and those after it are not", "", str(raised.value)
        )
        assert re.search(message, said), f"{name}: {raised.value}"
        assert not isinstance(raised.value, CacheError), name
        assert state(cache) == before, name


@pytest.mark.parametrize("key", [b"a", 1, None, ["a"], ("a", 1), Like()], ids=lambda key: type(key).__name__)
def test_what_is_no_str_is_no_key(key: Any, cache: Cache) -> None:
    message = f"^key must be str, not {type(key).__name__}; nothing was done$"
    check_refused(cache, WITH_A_KEY, key, TypeError, message)


@pytest.mark.parametrize("key", ["\ud800", "a\udfffb"], ids=ascii)
def test_a_str_with_a_lone_surrogate_is_no_key(key: str, cache: Cache) -> None:
    check_refused(cache, WITH_A_KEY, key, ValueError, "surrogates not allowed")


@pytest.mark.parametrize("timestamp", [-1, -(2**63), -(2**70), Number(-2)])
def test_a_negative_timestamp_is_a_value_error(timestamp: int, cache: Cache) -> None:
    message = rf"^timestamp is {int(timestamp)}, but must be from 0 to 2\*\*63-1; nothing was done$"
    check_refused(cache, WITH_A_TIMESTAMP, timestamp, ValueError, message)


@pytest.mark.parametrize("timestamp", [2**63, 2**64 - 1, 2**64, 2**200, Number(2**63 + 1)])
def test_a_timestamp_above_2_to_63_is_an_overflow_error(timestamp: int, cache: Cache) -> None:
    message = rf"^timestamp is {int(timestamp)}, but must be from 0 to 2\*\*63-1; nothing was done$"
    check_refused(cache, WITH_A_TIMESTAMP, timestamp, OverflowError, message)


@pytest.mark.parametrize("timestamp", [True, 1.0, "1", Fraction(1), Like()], ids=lambda given: type(given).__name__)
def test_a_timestamp_of_another_type_is_a_type_error(timestamp: Any, cache: Cache) -> None:
    message = f"^timestamp must be int or None, not {type(timestamp).__name__}; nothing was done$"
    check_refused(cache, WITH_A_TIMESTAMP, timestamp, TypeError, message)


@pytest.mark.parametrize("node", [3, -1, 100, 256, 2**32, 2**70])
def test_a_node_that_is_not_there_is_a_value_error(node: int, cache: Cache) -> None:
    message = rf"^there is no node {node}, only \[0, 1, 2\]; nothing was done$"
    check_refused(cache, WITH_A_NODE, node, ValueError, message)


@pytest.mark.parametrize("node", [True, "0", 0.0, None, Like()], ids=lambda given: type(given).__name__)
def test_a_node_of_another_type_is_a_type_error(node: Any, cache: Cache) -> None:
    message = f"^node must be int, not {type(node).__name__}; nothing was done$"
    check_refused(cache, WITH_A_NODE, node, TypeError, message)


@pytest.mark.parametrize("quorum", [0, 3, 256, 2**70, -1])
def test_a_quorum_beyond_the_replicas_is_a_value_error(quorum: int, cache: Cache) -> None:
    message = rf"^(read|write)_quorum is {quorum}, but must be from 1 to 2; nothing was done$"
    check_refused(cache, WITH_A_QUORUM, quorum, ValueError, message)


@pytest.mark.parametrize("quorum", ["most", "", "One"])
def test_an_unknown_word_for_a_quorum_is_a_value_error(quorum: str, cache: Cache) -> None:
    message = f'^(read|write)_quorum is {quorum!r}, but must be "one", "majority", "all" or an int; nothing was done$'
    check_refused(cache, WITH_A_QUORUM, quorum, ValueError, message)


@pytest.mark.parametrize("quorum", [True, 1.0, b"one"], ids=repr)
def test_a_quorum_of_another_type_is_a_type_error(quorum: Any, cache: Cache) -> None:
    message = f"^(read|write)_quorum must be int or str, not {type(quorum).__name__}; nothing was done$"
    check_refused(cache, WITH_A_QUORUM, quorum, TypeError, message)


@pytest.mark.parametrize("item", ["ab", ("a",), ("a", 1, 1, 1), None, 5, ()], ids=repr)
def test_what_is_no_pair_and_no_triple_is_no_item(item: Any, cache: Cache) -> None:
    message = r"^an item must be \(key, value\) or \(key, value, timestamp\)"
    check_refused(cache, {"put_many": lambda cache, item: cache.put_many([item])}, item, TypeError, message)


ODD: Any = type("\x1b[31m", (), {})


OTHERS: dict[str, tuple[Callable[[Cache], Any], type[Exception], str]] = {
    "a node on both sides": (lambda cache: cache.cut([0, 1], [1, 2]), ValueError, "node.* 1,.* on one side only"),
    "a side that is no list": (lambda cache: cache.cut(0, [1]), TypeError, "^side_a must be an iterable of int,"),
    "a small new node": (
        lambda cache: cache.add_node(16383),
        ValueError,
        f"^capacity is 16383 bytes, but must be {CAPACITIES}; nothing was done$",
    ),
    "a big new node": (lambda cache: cache.add_node("big"), ValueError, f"^capacity is 'big', but must be .*{SIZE}"),
    "a half new node": (lambda cache: cache.add_node(1.5), TypeError, "^capacity must be int or str, not float"),
    "no items": (lambda cache: cache.put_many(5), TypeError, "^items must be .* iterable .*, not int; nothing was"),
    "no keys": (lambda cache: cache.get_many(5), TypeError, "^keys must be an iterable of str, not int; nothing"),
    "no keys to remove": (lambda cache: cache.remove_many(ODD()), TypeError, r"^keys must be .*, not \\u{1b}\[31m;"),
    "odd items": (lambda cache: cache.put_many(ODD()), TypeError, r"^items must be .*, not \\u{1b}\[31m; nothing was"),
    "letters for keys": (lambda cache: cache.get_many("abc"), TypeError, "^keys must be an iterable of str, not str;"),
    "letters to remove": (lambda cache: cache.remove_many("abc"), TypeError, "^keys must be an iterable of str, not"),
    "no value": (lambda cache: cache.put("a"), TypeError, "value"),
    "a quorum without its name": (lambda cache: cache.put("a", 1, 1, "one"), TypeError, "positional"),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_a_call_is_refused_for(what: str, cache: Cache) -> None:
    call, error, message = OTHERS[what]
    check_refused(cache, {what: lambda cache, _: call(cache)}, None, error, message)


@pytest.mark.parametrize(
    "key",
    ["k" * 65536, "é" * 32768, "\U0001f980" * 16384, "\0" * 65536],
    ids=["one byte", "two bytes", "four bytes", "zeros"],
)
def test_a_key_of_64_kib_is_the_longest(key: str) -> None:
    cache = Cache(2, 2, gossip_interval=None)
    assert cache.put(key, 1, 1) is True
    assert cache.get(key) == (1, 1)
    assert key in cache
    assert list(cache) == [key]
    longer = key + "x"
    before = state(cache)
    calls: list[Callable[[], Any]] = [
        lambda: cache.put(longer, 1),
        lambda: cache.get(longer),
        lambda: cache.remove(longer),
        lambda: longer in cache,
        lambda: cache.owners(longer),
        lambda: cache.put_many({longer: 1}),
        lambda: cache.get_many([longer]),
    ]
    for call in calls:
        with pytest.raises(
            KeyTooLargeError,
            match=r"^the key has 65537 bytes in UTF-8, the most is 65536;( \w+ stopped at \w+ 0, .*;)? nothing was ",
        ):
            call()
    assert state(cache) == before
    assert cache.remove(key, 2) is True
    assert len(cache) == 0


def test_errors_of_size_are_value_errors_and_cache_errors() -> None:
    for error in (KeyTooLargeError, ValueTooLargeError):
        assert issubclass(error, CacheError)
        assert issubclass(error, ValueError)


class Level(enum.IntEnum):
    LOW = 4


@pytest.mark.parametrize("timestamp", [0, 1, LAST, Number(7), Level.LOW])
def test_every_int_in_the_range_is_a_timestamp(timestamp: int, cache: Cache) -> None:
    assert cache.put("new", "value", timestamp) is True
    found = cache.get("new")
    assert found == ("value", int(timestamp))
    assert type(found[1]) is int


def test_a_str_of_the_users_own_is_a_key(cache: Cache) -> None:
    cache.put(Text("mine"), 1, 1)
    assert cache.get("mine") == cache.get(Text("mine")) == (1, 1)
    assert [type(key) for key in cache] == [str] * 3


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16384", 16384),
        ("16KiB", 16384),
        ("16 KiB", 16384),
        (" 1MiB ", 2**20),
        ("20000B", 20000),
        ("20kB", 20_000),
        ("20KB", 20_000),
        ("2MB", 2_000_000),
        ("1.5MiB", 3 * 2**19),
        ("0.5 MB", 500_000),
        ("1 mib", 2**20),
        ("512m", 512 * 2**20),
        ("64kb", 64_000),
        ("64k", 65536),
        ("1G", 2**30),
        ("1.5gib", 3 * 2**29),
        ("2 Mi", 2 * 2**20),
        ("3mb", 3_000_000),
        (17000, 17000),
        (Number(18000), 18000),
        (Text("3MiB"), 3 * 2**20),
    ],
)
def test_a_capacity_is_bytes_or_text(text: int | str, size: int) -> None:
    cache = Cache(2, node_capacity=text, gossip_interval=None)
    assert [node.bytes_max for node in cache.nodes()] == [size, size]
    assert cache.add_node(text) == 2
    assert cache.nodes()[2].bytes_max == size


def test_large_capacities_take_no_memory_before_they_are_used() -> None:
    assert Cache(1, node_capacity="1TiB", gossip_interval=None).nodes()[0].bytes_max == 2**40
    assert Cache(1, node_capacity="2GB", gossip_interval=None).nodes()[0].bytes_max == 2_000_000_000


@pytest.mark.parametrize(("nodes", "replicas"), [(1, 1), (2, 2), (3, 3), (4, 3), (100, 3)])
def test_replicas_are_three_or_as_many_as_there_are_nodes(nodes: int, replicas: int) -> None:
    cache = Cache(nodes, gossip_interval=None)
    assert cache.replicas == replicas
    assert len(cache.nodes()) == nodes
    cache.put("key", 1, 1)
    assert len(cache.owners("key")) == replicas


def test_a_hundred_nodes_with_a_hundred_copies() -> None:
    cache = Cache(100, 100, gossip_interval=None)
    cache.put("key", "value", 1)
    assert sorted(cache.owners("key")) == list(range(100))
    assert all(cache.node(node).get("key") == ("value", 1) for node in range(100))


def test_there_are_at_most_a_hundred_nodes() -> None:
    cache = Cache(99, 1, gossip_interval=None)
    assert cache.add_node() == 99
    with pytest.raises(ValueError, match=r"nodes is 101, but must be at most 100; nothing was done"):
        cache.add_node()
    cache.remove_node(50)
    assert cache.add_node() == 50


@pytest.mark.parametrize("quorum", ["one", "majority", "all", 1, 2, 3])
def test_a_quorum_is_a_word_or_a_number(quorum: Any) -> None:
    cache = Cache(3, 3, write_quorum=quorum, read_quorum=quorum, gossip_interval=None)
    cache.put("key", 1, 1)
    cache.sync()
    assert cache.get("key") == (1, 1)
    assert cache.put("key", 2, 2, write_quorum=quorum) is True
    assert cache.get("key", read_quorum=quorum)[1] in (1, 2)


@pytest.mark.parametrize("interval", [0.001, 1, 3600, None])
def test_a_gossip_interval_is_a_millisecond_to_an_hour_or_none(interval: float | None) -> None:
    Cache(gossip_interval=interval).close()
