"""What is a number to Python is a number here; what is refused is told in a short message, whatever it is."""

import datetime
import math
import sys
import unicodedata
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import pytest

from distributed_consistent_cache import Cache
from distributed_consistent_cache._core import key_hash, run_scenario, shrink, simulate, snapshot_info, verify_snapshot
from helpers import state


class Index:
    """Has `__index__`, and a text that cannot be had."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Float:
    """Has `__float__` only."""

    def __init__(self, number: float) -> None:
        self.number = number

    def __float__(self) -> float:
        return self.number


@pytest.fixture
def cache() -> Cache:
    return Cache(3, 2, gossip_interval=None)


INTS: list[Callable[[int], Any]] = [Index, numpy.int64, numpy.uint64, numpy.int8, numpy.array]


@pytest.mark.parametrize("kind", INTS, ids=lambda kind: kind.__name__)
def test_what_has_index_is_an_int(kind: Callable[[int], Any], cache: Cache) -> None:
    assert cache.put("key", 1, kind(5))
    assert cache.get("key") == (1, 5)
    assert type(cache.get("key")[1]) is int
    assert cache.put_many({"a": 1}, kind(6)) == []
    assert cache.put_many([("b", 1, kind(7))]) == []
    assert cache.get_many(["a", "b"]) == {"a": (1, 6), "b": (1, 7)}
    assert cache.remove("key", kind(6)) is True
    assert cache.remove_many(["a"], kind(7)) == 1
    assert cache.clear(kind(8)) == 1
    cache.fail_node(kind(1))
    cache.recover_node(kind(1))
    cache.cut([kind(0)], [kind(1), kind(2)])
    cache.heal()
    assert cache.node(kind(2)).put("key", 1, kind(9))
    assert cache.get("key", read_quorum=kind(2)) == (1, 9)
    cache.remove_node(kind(2))
    with Cache(kind(2), kind(1), gossip_interval=kind(1), default_ttl=kind(60)) as other:
        assert (other.replicas, len(other.nodes())) == (1, 2)
        with other.serve(port=kind(0)) as server:
            assert server.port > 0
    assert simulate(kind(1), kind(2)).seeds == 2


def test_an_index_is_asked_for_once_in_a_call(cache: Cache) -> None:
    asked = []

    class Counts:
        def __index__(self) -> int:
            asked.append(1)
            return len(asked)

    cache.put_many({"a": 1, "b": 2}, Counts())
    assert {timestamp for _, timestamp in cache.get_many(["a", "b"]).values()} == {1}


LIVES: list[Any] = [
    60,
    60.0,
    Index(60),
    Float(60.0),
    Fraction(60),
    Decimal(60),
    datetime.timedelta(minutes=1),
    numpy.int64(60),
    numpy.float32(60),
    numpy.float64(60),
    numpy.float16(60),
    numpy.timedelta64(1, "m"),
    numpy.timedelta64(60_000, "ms"),
]


@pytest.mark.parametrize("ttl", LIVES, ids=range(len(LIVES)))
def test_a_ttl_is_a_number_or_a_timedelta(ttl: Any, cache: Cache) -> None:
    assert cache.put("put", 1, ttl=ttl)
    assert cache.put_many({"many": 1}, ttl=ttl) == []
    assert cache.node(0).put("node", 1, ttl=ttl)
    cache.put("touched", 1)
    assert cache.touch("touched", ttl)
    with Cache(default_ttl=ttl, gossip_interval=None) as other:
        other.put("default", 1)
        lives = [*map(cache.ttl, ("put", "many", "node", "touched")), other.ttl("default")]
    assert all(left is not None and 30 < left <= 60.001 for left in lives), lives


def test_a_gossip_interval_may_be_a_timedelta() -> None:
    with Cache(gossip_interval=datetime.timedelta(milliseconds=50)) as cache:
        assert cache.closed is False
    with pytest.raises(ValueError, match="gossip_interval is"):
        Cache(gossip_interval=datetime.timedelta(hours=2))


def test_infinity_of_any_kind_is_for_ever_and_what_is_beyond_floats_is_not(cache: Cache) -> None:
    for ttl in (math.inf, numpy.float32("inf"), Float(math.inf)):
        assert cache.put("key", 1, ttl=ttl)
        assert cache.ttl("key") is None
    assert cache.put("key", 1, ttl=Decimal("Infinity"))
    for beyond in (10**400, Index(10**400), Fraction(10**400), Decimal("1e400"), Decimal("-1e400")):
        with pytest.raises(ValueError, match=r"^ttl is .*, but must be above 0"):
            cache.put("key", 1, ttl=beyond)


def test_a_number_that_is_no_float_is_refused_by_name(cache: Cache) -> None:
    before = state(cache)
    for given in (Decimal("NaN"), Decimal("sNaN")):
        with pytest.raises(ValueError, match=r"^ttl is .*, but must be above 0 .*; nothing was done$"):
            cache.put("key", 1, ttl=given)
        with pytest.raises(ValueError, match=r"^gossip_interval is .*, but must be from .*; nothing was done$"):
            Cache(gossip_interval=given)
    assert state(cache) == before


NO_NUMBERS: list[Any] = [
    True,
    False,
    numpy.bool_(True),
    "5",
    b"5",
    numpy.str_("5"),
    numpy.str_("all"),
    numpy.bytes_(b"5"),
    None.__class__,
    1j,
    numpy.complex64(5),
    numpy.datetime64("2026-01-01"),
    [5],
    numpy.array([1, 2]),
    object(),
    datetime.date(2026, 1, 1),
    numpy.timedelta64("NaT"),
    numpy.timedelta64(5),  # of what?
]


@pytest.mark.parametrize("given", NO_NUMBERS, ids=range(len(NO_NUMBERS)))
def test_what_only_looks_like_a_number_is_none(given: Any, cache: Cache) -> None:
    before = state(cache)
    with pytest.raises(TypeError, match=r"^timestamp must be int or None, not .*; nothing was done$"):
        cache.put("key", 1, given)
    with pytest.raises(TypeError, match=r"^ttl must be float, int or None, not .*; nothing was done$"):
        cache.put("key", 1, ttl=given)
    with pytest.raises(TypeError, match=r"^nodes must be int, not .*; nothing was done$"):
        Cache(given)
    assert state(cache) == before


def test_a_timedelta_is_no_timestamp(cache: Cache) -> None:
    for given in (datetime.timedelta(1), numpy.timedelta64(1, "s"), 5.0, Float(5.0), Decimal(5)):
        with pytest.raises(TypeError, match=r"^timestamp must be int or None"):
            cache.put("key", 1, given)


class BrokenError(Exception):
    """What the objects below raise."""


def test_what_an_index_raises_comes_through(cache: Cache) -> None:
    class Broken:
        def __index__(self) -> int:
            raise BrokenError

        __float__ = __index__  # type: ignore[assignment]

    before = state(cache)
    for call in (
        lambda: cache.put("key", 1, Broken()),
        lambda: cache.put("key", 1, ttl=Broken()),
        lambda: Cache(Broken()),
    ):
        with pytest.raises(BrokenError):
            call()  # type: ignore[no-untyped-call]
    assert state(cache) == before


# Nothing of these is to be found in a message as it is.
CONTROL = "\x1b[31mred\r\n\x07\x9b\u202e"


class Unprintable:
    """Has a long name, and no text."""

    def __repr__(self) -> str:
        raise BrokenError

    __str__ = __repr__


class Endless:
    def __repr__(self) -> str:
        return "e" * 10**6

    __str__ = __repr__


class Raw:
    def __repr__(self) -> str:
        return CONTROL

    __str__ = __repr__


class Loud(int):
    """An int with a text of its own."""

    def __repr__(self) -> str:
        return CONTROL * 1000

    __str__ = __repr__


NASTY: dict[str, Any] = {
    "huge int": 10**5000,
    "huge negative int": -(10**5000),
    "huge int of the user's own": Loud(10**5000),
    "loud int": Loud(-7),
    "huge str": "x" * 10**6,
    "huge bytes": b"x" * 10**6,
    "control characters": CONTROL,
    "huge control characters": CONTROL * 10**5,
    "surrogates": "\ud800" * 10**5,
    "unprintable": Unprintable(),
    "endless": Endless(),
    "raw": Raw(),
    "a long type": type("T" * 10**5, (), {})(),
    "a raw type": type(CONTROL, (), {})(),
    "huge index": Index(10**5000),
    "huge list": ["x" * 10**6] * 10**5,
    "huge tuple": (10**5000,) * 10,
    "nested": [[[[[[]]]]]],
    "unprintable key": {Unprintable(): 1},
    "nan": math.nan,
    "huge decimal": Decimal(10) ** 5000,
}
ITSELF: list[Any] = []
ITSELF.append(ITSELF)
NASTY["a list in itself"] = ITSELF

CALLS: dict[str, Callable[[Cache, Any], Any]] = {
    **{
        f"Cache({name})": lambda _, given, name=name: Cache(**{"gossip_interval": None} | {name: given})
        for name in (
            "nodes",
            "replicas",
            "node_capacity",
            "write_quorum",
            "read_quorum",
            "gossip_interval",
            "serializer",
            "decode",
            "compression",
            "signing_key",
            "default_ttl",
        )
    },
    "put timestamp": lambda cache, given: cache.put("key", 1, given),
    "put ttl": lambda cache, given: cache.put("key", 1, ttl=given),
    "put quorum": lambda cache, given: cache.put("key", 1, write_quorum=given),
    "put key": lambda cache, given: cache.put(given, 1),
    "get key": lambda cache, given: cache.get(given),
    "get quorum": lambda cache, given: cache.get("key", read_quorum=given),
    "in": lambda cache, given: given in cache,
    "touch key": lambda cache, given: cache.touch(given, 1),
    "touch": lambda cache, given: cache.touch("key", given),
    "ttl": lambda cache, given: cache.ttl(given),
    "remove": lambda cache, given: cache.remove("key", given),
    "remove key": lambda cache, given: cache.remove(given),
    "put_many": lambda cache, given: cache.put_many({"key": 1}, given),
    "put_many items": lambda cache, given: cache.put_many([("key", 1), given]),
    "put_many key": lambda cache, given: cache.put_many([("key", 1), (given, 1)]),
    "put_many own timestamp": lambda cache, given: cache.put_many([("key", 1), ("key", 1, given)]),
    "get_many key": lambda cache, given: cache.get_many(["key", given]),
    "get_many on_error": lambda cache, given: cache.get_many(["key"], on_error=given),
    "remove_many key": lambda cache, given: cache.remove_many(["key", given]),
    "remove_many": lambda cache, given: cache.remove_many(["key"], given),
    "clear": lambda cache, given: cache.clear(given),
    "fail_node": lambda cache, given: cache.fail_node(given),
    "lose_memory": lambda cache, given: cache.fail_node(0, given),
    "recover_node": lambda cache, given: cache.recover_node(given),
    "add_node": lambda cache, given: cache.add_node(given),
    "remove_node": lambda cache, given: cache.remove_node(given),
    "cut": lambda cache, given: cache.cut([given], [0]),
    "node": lambda cache, given: cache.node(given),
    "node.put": lambda cache, given: cache.node(0).put("key", 1, given),
    "owners": lambda cache, given: cache.owners(given),
    "explain": lambda cache, given: cache.explain(given),
    "serve host": lambda cache, given: cache.serve(given),
    "serve port": lambda cache, given: cache.serve(port=given),
    "allow_remote": lambda cache, given: cache.serve(allow_remote=given),
    "on_event": lambda cache, given: cache.on_event(given),
    "save": lambda cache, given: cache.save(given),
    "save below": lambda cache, given: cache.save(f"/nowhere/{given}" if isinstance(given, str) else given),
    "restore": lambda cache, given: cache.restore(given),
    "load": lambda _, given: Cache.load(given),
    "snapshot_info": lambda _, given: snapshot_info(given),
    "verify_snapshot": lambda _, given: verify_snapshot(given),
    "key_hash": lambda _, given: key_hash(given),
    "simulate seed": lambda _, given: simulate(given, 1),
    "simulate seeds": lambda _, given: simulate(0, given),
    "simulate progress": lambda _, given: simulate(0, 1, progress=given),
    "shrink": lambda _, given: shrink(given),
    "scenario step": lambda _, given: run_scenario([given]),
    "scenario at": lambda _, given: run_scenario([(given, "heal")]),
    "scenario kind": lambda _, given: run_scenario([(0, given)]),
    "scenario sides": lambda _, given: run_scenario([(0, "cut", [0], given)]),
    "scenario loss": lambda _, given: run_scenario([], loss=given),
}


@pytest.fixture
def ignored(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was raised where nobody could hear it."""
    heard: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: heard.append(what.exc_type))
    yield heard
    assert heard == []


@pytest.mark.parametrize("name", CALLS)
def test_a_message_is_short_and_harmless_whatever_was_given(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    for what, given in NASTY.items():
        with Cache(3, 2, gossip_interval=None) as cache:
            try:
                CALLS[name](cache, given)
            except (TypeError, ValueError, OverflowError, OSError) as error:
                said = [str(error), *getattr(error, "__notes__", [])]
            else:
                continue
        for text in said:
            assert len(text) < 1000, f"{what}: {len(text)}"
            assert "unprintable" not in text.replace("Unprintable", ""), what
            assert "\x1b" not in text, f"{what}: {text!r}"
            bad = [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs")]
            assert not bad, f"{what}: {text!r}"
    assert ignored == []


def test_what_somebody_elses_error_says_is_cut_and_escaped(cache: Cache, ignored: list[Any]) -> None:
    class Fails:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        def __reduce__(self) -> Any:
            raise self.error

    class WithoutTextError(ValueError):
        def __str__(self) -> str:
            raise BrokenError

    for error in (ValueError(CONTROL * 10**4), ValueError("\ud800"), WithoutTextError(), KeyError(10**5000)):
        for call in (lambda: cache.put("key", Fails(error)), lambda: cache.put_many({CONTROL * 100: Fails(error)})):  # noqa: B023
            with pytest.raises(Exception, match="cannot be pickled") as raised:
                call()
            text = str(raised.value)
            assert len(text) < 1200
            assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs")], repr(text)
            assert raised.value.__cause__ is error
    assert ignored == []


def test_a_cache_is_true_whatever_it_holds_and_whether_or_not_it_is_closed(cache: Cache) -> None:
    assert bool(cache) is True
    assert (cache or None) is cache
    cache.put("key", 1)
    assert bool(cache) is True
    cache.close()
    assert bool(cache) is True
