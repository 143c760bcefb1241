"""The error that ends a call with many entries says in its own text how many were done, which stopped it, and that the
rest was not; one value that cannot be read does not hide the others."""

import json
import pickle
import random
import re
import signal
import sqlite3
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_consistent_cache import (
    Cache,
    ClosedError,
    KeyTooLargeError,
    NoLiveNodeError,
    QuorumError,
    SerializationError,
    TimestampWarning,
    ValueTooLargeError,
)

# Around the ends of batches, and of what is shared among threads.
PLACES = [0, 1, 2, 63, 64, 255, 256, 257, 600]


@pytest.fixture
def cache() -> Cache:
    return Cache(4, 2, gossip_interval=None)


def names(count: int) -> list[str]:
    return [f"key {number}" for number in range(count)]


def put_many(cache: Cache, keys: Iterable[Any]) -> Any:
    return cache.put_many((key, 1, 5) for key in keys)


def remove_many(cache: Cache, keys: Iterable[Any]) -> Any:
    return cache.remove_many(keys, 9)


def get_many(cache: Cache, keys: Iterable[Any]) -> Any:
    return cache.get_many(keys)


VERBS: dict[str, tuple[Callable[[Cache, Iterable[Any]], Any], str, str]] = {
    "put_many": (put_many, "item", "written"),
    "remove_many": (remove_many, "key", "done"),
    "get_many": (get_many, "key", "read"),
}
WRONG_KEYS: dict[str, tuple[Any, type[Exception], str]] = {
    "an int": (5, TypeError, "5"),
    "bytes": (b"key", TypeError, "b'key'"),
    "None": (None, TypeError, "None"),
    "an object": (object(), TypeError, "a object"),
    "a surrogate": ("\ud800", ValueError, r"'\ud800'"),
    "a long key": ("k" * 65537, KeyTooLargeError, "'kkkk"),
}


def done(cache: Cache, verb: str) -> set[str]:
    """The keys that a call of this verb, which writes, has reached."""
    return set(cache) if verb == "put_many" else set(names(700)) - set(cache)


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("wrong", WRONG_KEYS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_key_is_named_with_how_many_were_done(verb: str, wrong: str, at: int, cache: Cache) -> None:
    call, one, word = VERBS[verb]
    key, error, shown = WRONG_KEYS[wrong]
    if verb != "put_many":
        cache.put_many(dict.fromkeys(names(700), 1), 1)
    taken = []

    def keys() -> Iterator[Any]:
        for one in [*names(at), key, *names(50)]:
            taken.append(one)
            yield one

    with pytest.raises(error) as raised:
        call(cache, keys())
    text = str(raised.value)
    many, verbs = ("" if at == 1 else "s"), ("is" if at == 1 else "are")
    assert f"; {verb} stopped at {one} {at}, {shown}" in text
    said, became = f": {at} {one}{many} {verbs} {word}, it and those after it are not", "; nothing was (done|written)"
    # What a single call says became of the cache is true where nothing was done.
    assert re.search(re.escape(said) + (became if at == 0 else "") + "$", text), text
    assert len(re.findall(became, text)) == (at == 0), text
    assert len(text) < 500
    (note,) = raised.value.__notes__
    assert note.startswith(f"stopped at {one} {at}, {shown}")
    assert note.endswith(f": the {one}s before it are {word}, it and those after it are not")
    assert len(taken) == at + 1, "no more is taken than is used"
    if verb != "get_many":
        assert done(cache, verb) == set(names(at))


@pytest.mark.parametrize("at", [0, 3, 300])
def test_a_value_that_cannot_be_written_is_named(at: int, cache: Cache) -> None:
    values: list[tuple[Any, type[Exception]]] = [
        (lambda: 1, SerializationError),
        (random.Random(1).randbytes(2**20), ValueTooLargeError),
    ]
    for value, error in values:
        with pytest.raises(error) as raised:
            cache.put_many([*((key, 1) for key in names(at)), ("bad", value), ("later", 1)])
        text = str(raised.value)
        ending = rf"; put_many stopped at item {at}, 'bad': {at} items are written, it and those after it are not"
        became = "; (the cache is as it was|nothing was .*)"
        assert re.search(ending + (became if at == 0 else "") + "$", text), text
        assert len(re.findall(became, text)) == (at == 0), text
        assert "later" not in cache


class PlainError(Exception):
    """One that has nothing but its text."""


class DetailedError(Exception):
    """One that makes its text itself."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


@pytest.mark.parametrize("at", [0, 1, 2, 300])
@pytest.mark.parametrize("verb", VERBS)
def test_what_an_iterable_raises_stays_what_it_is_and_says_how_many_were_done(verb: str, at: int, cache: Cache) -> None:
    call, one, word = VERBS[verb]
    failures: dict[str, BaseException] = {
        "text": RuntimeError("the source failed"),
        "own class": PlainError("the source failed"),
        "no text": PlainError(),
        "details": DetailedError(7),
        "two parts": ValueError("a", "b"),
        "a number": RuntimeError(7),
        "an end": SystemExit("bye"),
        "a group": ExceptionGroup("two", [ValueError(1), ValueError(2)]),
        "a key that is no text": KeyError(5),
        "no key": KeyError(),
    }
    if verb != "put_many":
        cache.put_many(dict.fromkeys(names(700), 1), 1)

    def keys(failure: BaseException) -> Iterator[str]:
        yield from names(at)
        raise failure

    done_of_it = {0: f"nothing is {word}", 1: f"it is {word}, and nothing after it"}
    ones = f"{at} {one}" + ("" if at == 1 else "s")
    said = f"{verb} stopped after {ones}: " + done_of_it.get(at, f"they are {word}, and nothing after them")
    for name, failure in failures.items():
        before = str(failure)
        with pytest.raises(type(failure)) as raised:
            call(cache, keys(failure))
        assert raised.value is failure
        assert failure.__notes__ == [said]
        if name in ("text", "own class"):
            assert str(failure) == f"the source failed; {said}"
        elif name == "no text":
            assert str(failure) == said
        else:
            assert str(failure) == before
    if verb != "get_many":
        assert done(cache, verb) == set(names(at))


@pytest.mark.parametrize("verb", VERBS)
def test_the_usual_errors_of_a_source_say_it_in_their_text_and_keep_what_they_are(verb: str, cache: Cache) -> None:
    call, one, word = VERBS[verb]
    said = f"{verb} stopped after 3 {one}s: they are {word}, and nothing after them"
    failures: list[tuple[BaseException, str, dict[str, Any]]] = [
        (TimeoutError("late"), f"late; {said}", {"errno": None}),
        (OSError(), said, {"errno": None}),
        (ConnectionResetError(104, "reset"), f"[Errno 104] reset; {said}", {"errno": 104, "args": (104, "reset")}),
        (
            FileNotFoundError(2, "No such file", "rows.csv"),
            f"[Errno 2] No such file ({said}): 'rows.csv'",
            {"errno": 2, "filename": "rows.csv", "args": (2, "No such file")},
        ),
        (KeyError("row"), f"'row'; {said}", {"args": ("row",)}),
        (ImportError("nope", name="rows"), f"nope; {said}", {"name": "rows", "msg": f"nope; {said}"}),
        (SyntaxError("odd", ("rows.py", 7, 1, "x")), f"odd; {said} (rows.py, line 7)", {"lineno": 7}),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), f" in position 0: bad; {said}", {"object": b"\xff"}),
        (json.JSONDecodeError("bad", "document", 1), f" (char 1); {said}", {"msg": "bad", "pos": 1}),
        (sqlite3.OperationalError("locked"), f"locked; {said}", {}),
        (StopAsyncIteration("over"), f"over; {said}", {}),
    ]

    def keys(failure: BaseException) -> Iterator[str]:
        yield from names(3)
        raise failure

    for failure, text, kept in failures:
        with pytest.raises(type(failure)) as raised:
            call(cache, keys(failure))
        assert raised.value is failure
        assert str(failure).endswith(text), str(failure)
        assert {name: getattr(failure, name) for name in kept} == kept
        copy = pickle.loads(pickle.dumps(failure))
        assert type(copy) is type(failure)
        assert failure.__notes__ == [said]
        assert {name: getattr(copy, name) for name in kept} == kept
        assert all(type(argument).__module__ == "builtins" for argument in copy.args)


@pytest.mark.parametrize("verb", VERBS)
def test_an_error_that_is_raised_again_tells_of_the_later_call_only(verb: str, cache: Cache) -> None:
    call, one, word = VERBS[verb]
    failures: list[tuple[BaseException, str]] = [
        (RuntimeError("the source failed"), "the source failed; {}"),
        (RuntimeError("(put_many) failed"), "(put_many) failed; {}"),
        (KeyboardInterrupt(), "{}"),
        (OSError(2, "No such file", "rows.csv"), "[Errno 2] No such file ({}): 'rows.csv'"),
        (KeyError("row"), "'row'; {}"),
        (ImportError("nope"), "nope; {}"),
        (ValueError("a", 2), "('a', 2)"),
    ]

    def keys(failure: BaseException, count: int) -> Iterator[str]:
        yield from names(count)
        raise failure

    for failure, text in failures:
        failure.add_note("stopped at noon")
        for count in (2, 3, 300):
            for before in VERBS.values():
                with pytest.raises(type(failure)):
                    before[0](cache, keys(failure, 7))
            with pytest.raises(type(failure)):
                call(Cache(gossip_interval=None), keys(failure, count))
            said = f"{verb} stopped after {count} {one}s: they are {word}, and nothing after them"
            assert failure.__notes__ == ["stopped at noon", said]
            assert str(failure) == text.format(said)


def test_an_error_of_a_call_within_a_source_tells_of_both_calls(cache: Cache) -> None:
    other = Cache(gossip_interval=None)

    def keys() -> Iterator[str]:
        yield "first"
        put_many(other, ["second", "third", 5])

    with pytest.raises(TypeError) as raised:
        put_many(cache, keys())
    inner = "put_many stopped at item 2, 5: 2 items are written, it and those after it are not"
    outer = "put_many stopped after 1 item: it is written, and nothing after it"
    assert str(raised.value) == f"key must be str, not int; {inner}; {outer}"
    assert len(raised.value.__notes__) == 2


@pytest.mark.parametrize("at", [0, 1, 300])
def test_an_error_that_a_value_raises_for_a_reason_of_its_own_names_the_key(at: int, cache: Cache) -> None:
    class Fails:
        def __reduce__(self) -> Any:
            raise failure

    failures: list[Exception] = [OSError(5, "Input/output error"), TimeoutError("late"), OSError(5, "a", "b")]
    for failure in failures:
        with pytest.raises(OSError, match="stopped at item") as raised:
            cache.put_many([*((key, 1, 5) for key in names(at)), ("bad", Fails())])
        assert raised.value is failure
        assert f"put_many stopped at item {at}, 'bad': {at} item" in str(failure)
        assert failure.__notes__[0].startswith(f"stopped at item {at}, 'bad': ")


def test_items_that_were_refused_are_not_told_to_be_written(cache: Cache) -> None:
    cache.put_many(dict.fromkeys(names(200), 1), 9)
    said = "300 items are written or refused (200), it and those after it are not"
    with pytest.raises(TypeError, match=re.escape(f"stopped at item 300, 5: {said}")):
        put_many(cache, [*names(300), 5])

    def keys() -> Iterator[str]:
        yield from names(300)
        raise RuntimeError

    with pytest.raises(RuntimeError, match=r"300 items: they are written or refused \(200\), and nothing after them"):
        put_many(cache, keys())


def test_a_warning_that_is_an_error_says_what_is_written(cache: Cache) -> None:
    for old, new in ({"timestamp": 10**18}, {}), ({}, {"timestamp": 5}):
        keys = [f"{old} {key}" for key in names(5000)]
        known, others = keys[200:400], keys[:200] + keys[400:600]
        cache.put_many(dict.fromkeys(known, "old"), **old)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(TimestampWarning) as raised:
                cache.put_many(((key, "new") for key in keys), **new)
        found = re.search(
            r"; put_many stopped after (\d+) items: they are written or refused \(200\), and nothing after them$",
            str(raised.value),
        )
        assert found, str(raised.value)
        assert "nothing was written" not in str(raised.value)
        assert len(raised.value.__notes__) == 1
        done = keys[: int(found[1])]
        assert {key for key in cache if key in keys} == {*done}
        assert set(others) <= set(done)
        assert [cache.get(key)[0] for key in done] == ["old" if key in known else "new" for key in done]


def test_what_a_source_raises_is_not_lost_to_a_warning_that_is_an_error(cache: Cache) -> None:
    cache.put("known", "old")

    def keys() -> Iterator[str]:
        yield "known"
        raise KeyboardInterrupt

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyboardInterrupt, match=r"after 1 item: it is written or refused \(1\)"):
            put_many(cache, keys())


@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_says_how_many_were_done(verb: str, cache: Cache) -> None:
    call, one, word = VERBS[verb]

    def keys() -> Iterator[str]:
        for number, key in enumerate(names(100_000)):
            if number == 700:
                signal.raise_signal(signal.SIGINT)
            yield key

    with pytest.raises(KeyboardInterrupt) as raised:
        call(cache, keys())
    found = re.fullmatch(
        rf"{verb} stopped after (\d+) {one}s: they are {word}, and nothing after them", str(raised.value)
    )
    assert found, str(raised.value)
    assert raised.value.__notes__ == [str(raised.value)]
    assert int(found[1]) >= 700
    if verb == "put_many":
        assert set(cache) == set(names(int(found[1])))


@pytest.mark.parametrize("count", [2, 300])
def test_too_few_owners_are_told_with_what_became_of_the_others(count: int, cache: Cache) -> None:
    cache.put_many(dict.fromkeys(names(count), 1), 1)
    for node in range(1, 4):
        cache.fail_node(node)
    calls: list[Callable[[], Any]] = [
        lambda: cache.put_many(dict.fromkeys(names(count), 2), 2, write_quorum=2),
        lambda: cache.remove_many(names(count), 3, write_quorum=2),
        lambda: cache.get_many(names(count), read_quorum=2),
    ]
    for call, verb in zip(calls, ["put_many", "remove_many", "get_many"], strict=True):
        with pytest.raises(QuorumError) as raised:
            call()
        assert f"; {verb} stopped at {VERBS[verb][1]} 0, 'key 0': 0 " in str(raised.value)
    # Of few, none is begun after the one that failed.
    cache.fail_node(0)
    with pytest.raises(NoLiveNodeError) as down:
        cache.put_many({"key": 1, "other": 2})
    said = "put_many stopped at item 0, 'key': 0 items are written, it and those after it are not; nothing was written"
    assert str(down.value) == f"every node is down; {said}"
    assert down.value.__notes__ == [
        "stopped at item 0, 'key': the items before it are written, it and those after it are not"
    ]


def test_a_call_that_is_closed_in_the_middle_says_how_far_it_came(cache: Cache) -> None:
    def keys() -> Iterator[str]:
        yield from names(300)
        cache.close()
        yield "later"

    with pytest.raises(ClosedError) as raised:
        cache.remove_many(keys())
    assert "the cache is closed; remove_many stopped at key " in str(raised.value)
    assert "nothing was done" not in str(raised.value)


@pytest.fixture
def with_unreadable(tmp_path: Path) -> Cache:
    """A hundred values, of which number 7 and 70 are of a class that is no more."""
    module = types.ModuleType("models_of_last_week")
    module.User = type("User", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    with Cache(gossip_interval=None) as cache:
        cache.put_many({key: module.User() if key in ("key 7", "key 70") else key for key in names(100)}, 3)
        cache.save(tmp_path / "snapshot")
    del sys.modules[module.__name__]
    return Cache.load(tmp_path / "snapshot", gossip_interval=None)


def test_one_value_that_cannot_be_read_does_not_hide_the_others(with_unreadable: Cache) -> None:
    cache, keys = with_unreadable, [*names(100), "nobody"]
    readable = {key: (key, 3) for key in names(100) if key not in ("key 7", "key 70")}
    skipped = cache.get_many(keys, on_error="skip")
    assert skipped == readable
    assert list(skipped) == list(readable)
    returned = cache.get_many(iter(keys), on_error="return")
    assert list(returned) == names(100)
    for key in ("key 7", "key 70"):
        error, timestamp = returned.pop(key)
        assert type(error) is SerializationError
        assert isinstance(error.__cause__, ModuleNotFoundError)
        assert f'the value stored under "{key}" cannot be read' in str(error)
        assert str(error).endswith("; the cache is as it was")
        assert timestamp == 3
    assert returned == readable
    for arguments in ({}, {"on_error": "raise"}):
        with pytest.raises(SerializationError) as raised:
            cache.get_many(keys, **arguments)  # type: ignore[arg-type]
        said = "; get_many stopped at key 7, 'key 7': 7 keys are read, it and those after it are not"
        assert str(raised.value).endswith(said)


def test_on_error_is_for_values_and_not_for_keys(with_unreadable: Cache) -> None:
    for on_error in ("skip", "return"):
        with pytest.raises(TypeError, match="stopped at key 1, 5: 1 key is read"):
            with_unreadable.get_many(["key 7", 5], on_error=on_error)  # type: ignore[list-item,arg-type]


@pytest.mark.parametrize(("given", "error"), [("ignore", ValueError), ("", ValueError), (None, None), (1, TypeError)])
def test_another_on_error_is_refused(given: Any, error: type[Exception] | None, cache: Cache) -> None:
    if error is None:
        assert cache.get_many([], on_error=given) == {}
        return
    with pytest.raises(error, match=r"^on_error (is|must be) .*; nothing was done$"):
        cache.get_many(["key"], on_error=given)


def test_a_value_that_was_changed_is_skipped_like_one_of_a_class_that_is_gone(tmp_path: Path) -> None:
    with Cache(gossip_interval=None, signing_key=b"k" * 16) as cache:
        cache.put_many({"a": 1, "b": 2}, 1)
        cache.save(tmp_path / "snapshot")
    with Cache.load(tmp_path / "snapshot", gossip_interval=None) as unsigned:
        unsigned.put("c", 3, 1)
        assert unsigned.get_many(["a", "b", "c"], on_error="skip") == {"c": (3, 1)}
        found = unsigned.get_many(["a", "c"], on_error="return")
        assert (type(found["a"][0]), found["c"]) == (SerializationError, (3, 1))
