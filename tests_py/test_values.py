"""Any picklable value comes back as it was: the same value, of the same type, and nobody else's."""

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pathlib
import random
import re
import struct
import sys
import uuid
import weakref
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_consistent_cache import Cache

# Two nodes, so that a value is also copied from one to the other.
CACHE = Cache(2, 2, node_capacity="64MiB", gossip_interval=None)


def round_trip(value: Any) -> Any:
    """Put and get; all the ways to read say the same."""
    assert CACHE.put("key", value) is True
    found, timestamp = CACHE.get("key")
    assert timestamp > 0
    for same in (CACHE.get_many(["key"])["key"][0], CACHE.node(0).get("key")[0], CACHE.node(1).get("key")[0]):
        assert is_same(same, found)
    return found


def is_same(one: Any, other: Any) -> bool:
    """Equal and of one type all the way down; floats by their bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict):
        return is_same(list(one.items()), list(other.items()))
    return bool(one == other)


# Lengths around which the form of a pickle changes.
LENGTHS = [0, 1, 2, 3, 4, 127, 128, 187, 188, 189, 254, 255, 256, 257, *range(65525, 65551), 131_072]
# Lengths around which the way through the cache changes.
LONG_LENGTHS = [16 * 1024 + near for near in (-20, -16, -11, -5, -1, 0, 1, 5)] + [2**20 - 1, 2**20, 2**20 + 1, 2**22]

ALPHABETS = ["a", "é", "€", "\U0001f980", "\0", "\x7f", "\x80", "a€"]


@pytest.mark.parametrize("length", LENGTHS + LONG_LENGTHS)
def test_bytes_and_text_of_every_length_come_back(length: int) -> None:
    some = random.Random(length).randbytes(length)
    assert is_same(round_trip(some), some)
    for alphabet in ALPHABETS if length < 10**6 else ALPHABETS[:1]:
        text = (alphabet * length)[:length]
        assert is_same(round_trip(text), text)
        # As many bytes in UTF-8 as the length, or a few less.
        text = alphabet * (length // len(alphabet.encode()))
        assert is_same(round_trip(text), text)


@pytest.mark.parametrize(
    "text",
    ["\ud800", "a\udfff", "a\ud83db", "\ud83d\ude00", "\udc80" * 300, "x" * 70_000 + "\ud800"],
    ids=["high", "low", "between", "pair", "many", "long"],
)
def test_text_with_surrogates_comes_back(text: str) -> None:
    assert is_same(round_trip(text), text)


@pytest.mark.parametrize("bits", [*range(66), 127, 128, 255, 256, 2039, 2040, 2041, 100_000])
def test_integers_of_every_length_come_back(bits: int) -> None:
    for near in range(-2, 3):
        for sign in (1, -1):
            integer = sign * (2**bits + near)
            assert is_same(round_trip(integer), integer)


FLOATS = [0.0, -0.0, 1.5, -1.5, math.inf, -math.inf, math.nan, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]


@pytest.mark.parametrize("value", FLOATS, ids=repr)
def test_floats_come_back_bit_by_bit(value: float) -> None:
    assert is_same(round_trip(value), value)


@pytest.mark.parametrize("bits", [0x7FF8000000000001, 0xFFF8000000000000, 0x7FF80000ABCDEF00])
def test_a_nan_keeps_its_bits(bits: int) -> None:
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    assert struct.pack("<d", round_trip(value)) == struct.pack("<Q", bits)


@pytest.mark.parametrize("value", [None, True, False])
def test_there_is_only_one_of(value: Any) -> None:
    assert round_trip(value) is value


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    # All code points, also surrogates.
    st.text(st.characters(), max_size=300),
    st.binary(max_size=300),
)
nested = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=10), st.integers()), inner, max_size=5),
    ),
    max_leaves=20,
)


@given(nested)
def test_any_value_comes_back(value: Any) -> None:
    assert is_same(round_trip(value), value)


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass
class Person:
    name: str
    friends: list["Person"] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 4


class OwnText(str):
    __slots__ = ("note",)


class OwnInt(int):
    pass


class OwnBytes(bytes):
    pass


class OwnFloat(float):
    pass


class OwnList(list[Any]):
    pass


class OwnDict(dict[str, Any]):
    pass


OBJECTS: list[Any] = [
    Point(1, 2.5),
    Person("Ada", [Person("Grace")]),
    Frozen("Ada"),
    Colour.RED,
    Level.LOW,
    OwnText("text"),
    OwnInt(5),
    OwnInt(2**80),
    OwnBytes(b"bytes"),
    OwnFloat(2.5),
    OwnList([1, 2]),
    OwnDict(a=1),
    [],
    (),
    {},
    set(),
    frozenset(),
    {1, "a", (2, 3)},
    frozenset({1, 2}),
    bytearray(b"changing"),
    bytearray(100_000),
    [1, [2, [3, [4]]]],
    {"a": {"b": {"c": None}}},
    {(1, 2): "tuple", None: "none", 1.5: "float", b"b": "bytes"},
    range(5),
    slice(1, 2, 3),
    complex(1, -0.0),
    Ellipsis,
    int,
    len,
    Person,
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    datetime.datetime(2024, 2, 29, 12, 30, 15, 123456),  # noqa: DTZ001 - without a zone on purpose
    datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
    datetime.timedelta(days=-1, microseconds=1),
    uuid.UUID(int=7),
    pathlib.PurePosixPath("/a/b"),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.defaultdict(list, {"a": [1]}),
    collections.Counter("hello"),
    collections.deque([1, 2], maxlen=3),
    ValueError("wrong", 1),
]


@pytest.mark.parametrize("number", range(len(OBJECTS)))
def test_an_object_comes_back_as_its_equal_of_the_same_type(number: int) -> None:
    value = OBJECTS[number]
    found = round_trip_of_any(value)
    assert type(found) is type(value)
    if isinstance(value, Exception):
        assert found.args == value.args
    else:
        assert found == value


def round_trip_of_any(value: Any) -> Any:
    assert CACHE.put("key", value) is True
    return CACHE.get("key")[0]


def test_a_subclass_keeps_what_it_adds() -> None:
    text = OwnText("text")
    text.note = "kept"
    assert round_trip_of_any(text).note == "kept"
    found = round_trip_of_any(collections.defaultdict(list, {"a": [1]}))
    assert found["new"] == []


def test_a_compiled_pattern_comes_back() -> None:
    assert round_trip_of_any(re.compile("a+", re.IGNORECASE)).fullmatch("AAA")


def test_a_value_that_contains_itself_comes_back() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    found = round_trip_of_any(loop)
    assert found[0] == 1
    assert found[1] is found
    ada = Person("Ada")
    ada.friends.append(ada)
    found = round_trip_of_any(ada)
    assert found.friends[0] is found


def test_what_is_shared_within_a_value_stays_shared() -> None:
    shared = [1]
    one, other, different = round_trip_of_any((shared, shared, [1]))
    assert one is other
    assert one is not different


def test_a_value_as_deep_as_pickle_can_comes_back() -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    found = round_trip_of_any(deep)
    depth = 0
    while found:
        (found,) = found
        depth += 1
    assert depth == 300


def test_a_value_of_64_mb_comes_back() -> None:
    large = Cache(2, 2, node_capacity="160MiB", gossip_interval=None)
    value = random.Random(1).randbytes(1 << 20) * 64
    assert large.put("bytes", value, 1) is True
    assert large.put("text", "é" * (1 << 24), 1) is True
    assert large.put("list", [value[:1000]] * 100_000, 1) is True
    assert large.get("bytes") == (value, 1)
    assert large.get("text") == ("é" * (1 << 24), 1)
    assert large.get("list") == ([value[:1000]] * 100_000, 1)


def test_each_get_gives_an_object_of_its_own() -> None:
    value = {"list": [1, 2]}
    CACHE.put("each", value)
    first, second = CACHE.get("each")[0], CACHE.get("each")[0]
    assert first is not value
    assert first is not second
    assert first["list"] is not second["list"]


MUTABLE: list[Any] = [
    [1, 2],
    {"a": [1]},
    {1, 2},
    bytearray(b"abc"),
    bytearray(50_000),
    Person("Ada"),
    [["long"] * 30_000],
]


def change(value: Any) -> None:
    match value:
        case list():
            value.append("changed")
            value[0] = "changed"
        case dict():
            value["a"].append("changed")
        case set():
            value.clear()
        case bytearray():
            value[:] = b"changed"
        case Person():
            value.name = "changed"
            value.friends.append(value)


@pytest.mark.parametrize("number", range(len(MUTABLE)))
@pytest.mark.parametrize("bulk", [False, True], ids=["one", "bulk"])
def test_changing_an_object_after_put_or_get_never_changes_the_cache(number: int, bulk: bool) -> None:
    cache = Cache(2, 2, gossip_interval=None)
    value = copy.deepcopy(MUTABLE[number])
    before = copy.deepcopy(value)
    if bulk:
        cache.put_many({"key": value}, 1)
    else:
        cache.put("key", value, 1)
    change(value)
    assert cache.get("key") == (before, 1)
    for found in (cache.get("key")[0], cache.get_many(["key"])["key"][0], cache.node(1).get("key")[0]):
        change(found)
    assert cache.get("key") == (before, 1)
    assert cache.node(0).get("key") == cache.node(1).get("key") == (before, 1)


def test_the_cache_keeps_no_reference_to_what_was_put_or_got() -> None:
    value = Person("Ada")
    CACHE.put("kept", value)
    CACHE.put_many({"kept": value})
    found = CACHE.get("kept")[0]
    references = weakref.ref(value), weakref.ref(found)
    del value, found
    assert [reference() for reference in references] == [None, None]


def test_calls_leave_no_reference_behind() -> None:
    cache = Cache(2, 2, gossip_interval=None)
    key, value, default, timestamp = "a key of its own", ["a value"], object(), 2**50 + 7
    watched: list[Any] = [key, value, default, timestamp]

    def work() -> None:
        for _ in range(200):
            cache.put(key, value, timestamp)
            cache.get(key, default)
            cache.get("missing", default)
            cache.put_many([(key, value, timestamp)])
            cache.put_many({key: value}, timestamp)
            cache.get_many([key, "missing"])
            cache.remove_many([key], timestamp - 1)
            cache.remove(key, timestamp - 1)
            cache.node(0).get(key, default)
            assert key in cache

    work()
    before = [sys.getrefcount(one) for one in watched]
    work()
    assert [sys.getrefcount(one) for one in watched] == before
