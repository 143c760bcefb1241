"""Containers of plain values come back exactly as `pickle.loads` gives them, shared references included."""

import datetime
import gc
import pickle
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed_consistent_cache import Cache

CACHE = Cache(3, 2, "8MiB", gossip_interval=None)

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec=None), max_size=40),
    st.binary(max_size=40),
)
hashable = st.recursive(
    atoms, lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=4)), max_leaves=6
)
trees = st.recursive(
    st.one_of(hashable, st.sets(hashable, max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(hashable, inner, max_size=6),
    ),
    max_leaves=20,
)


def through(value: Any) -> Any:
    assert CACHE.put("key", value)
    return CACHE.get("key")[0]


def shape(value: Any) -> str:
    """All that tells a value from another: types, contents, the order of what has one."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return kind + "{" + ",".join(shape(key) + ":" + shape(one) for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return kind + "[" + ",".join(map(shape, value)) + "]"
    if isinstance(value, set | frozenset):
        return kind + "<" + ",".join(sorted(map(shape, value))) + ">"
    return kind + repr(value)


@settings(max_examples=300, deadline=None)
@given(trees)
def test_any_tree_comes_back_as_pickle_gives_it(value: Any) -> None:
    assert shape(through(value)) == shape(pickle.loads(pickle.dumps(value, 5)))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 255, 256, 999, 1000, 1001, 2500])
def test_containers_of_every_length(count: int) -> None:
    for value in (list(range(count)), tuple(range(count)), {str(n): n for n in range(count)}, set(range(count))):
        assert shape(through(value)) == shape(value)
        assert shape(through([value, {"key": value}])) == shape([value, {"key": value}])


def test_what_is_shared_stays_shared_and_what_is_not_does_not() -> None:
    inner: list[int] = [1]
    first, second, third = through([inner, inner, [1]])
    assert first is second
    assert first is not third
    first.append(2)
    assert (second, third) == ([1, 2], [1])
    text = "a text of some length"
    one, two = through((text, text))
    assert one is two


def test_what_holds_itself_holds_itself() -> None:
    endless: list[Any] = [1]
    endless.append(endless)
    back = through(endless)
    assert back[1] is back
    knot: dict[str, Any] = {"list": []}
    knot["list"].append(knot)
    back = through(knot)
    assert back["list"][0] is back


@dataclass
class Point:
    x: int
    y: list[int]


class Named(dict[str, int]):
    """A subclass is not plain."""


def test_what_is_not_plain_is_left_to_pickle() -> None:
    shared = [1]
    for value in (
        {"when": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)},
        [shared, Point(1, shared), shared],
        {"deep": [{"deeper": (Named(a=1), {2**70})}]},
        [1.5, complex(1, 2), bytearray(b"bytes")],
        {"int": 2**200, "sign": -(2**63), "edge": [2**63, -(2**63) - 1]},
    ):
        back = through(value)
        assert back == value
        assert type(back) is type(value)
    back = through([shared, Point(1, shared), shared])
    assert back[0] is back[1].y is back[2]


def test_equal_keys_of_different_types_and_nan_keep_pickle_s_order_and_number() -> None:
    nan = float("nan")
    back = through({1: "int", "1": "text", nan: "nan", b"1": "bytes", (1, 2): "pair", None: "none"})
    assert list(map(repr, back)) == ["1", "'1'", "nan", "b'1'", "(1, 2)", "None"]


def test_reading_leaks_nothing() -> None:
    text, marker = "a text that nobody else has", object()
    values: list[Any] = [
        {"id": 1, "name": text, "list": [1, 2, {"a": (1, 2)}]},
        [text, text, {"x": [text]}],
        {"bails out": [1, 2, [3, datetime.date(2026, 1, 1)]]},
    ]
    for number, value in enumerate(values):
        CACHE.put(f"leak {number}", value)

    def read() -> int:
        for _ in range(2000):
            for number in range(len(values)):
                CACHE.get(f"leak {number}")
        gc.collect()
        return sys.getallocatedblocks()

    read()
    assert abs(read() - read()) < 100
    assert sys.getrefcount(marker) == 2
