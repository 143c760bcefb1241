"""An error that only met a value while it was pickled comes through as it is: a time limit, Ctrl-C, no memory.

What says something about the value is a SerializationError: see test_serialization_errors.
"""

import json
import pickle
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_consistent_cache import Cache, SerializationError

if not hasattr(signal, "setitimer"):
    pytest.skip("an alarm is what raises here", allow_module_level=True)


class TimeLimit(Exception):  # noqa: N818
    """As celery's SoftTimeLimitExceeded."""


class Quota(RuntimeError):  # noqa: N818
    """Of a kind that pickle raises, but nothing that pickle raises."""


KINDS: list[type[BaseException]] = [
    *(TimeLimit, Quota, RuntimeError, TimeoutError, OSError, AssertionError, MemoryError, StopIteration, SystemError),
    *(Exception, ZeroDivisionError, NameError, KeyboardInterrupt, SystemExit, GeneratorExit),
]


def spin() -> int:
    """Python code that goes on until a signal handler raises, which it will in a moment."""
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        # A signal that another thread was interrupted by is seen when the GIL is taken again.
        time.sleep(0.0005)
    return 5


class SlowToWrite:
    def __reduce__(self) -> Any:
        return int, (spin(),)


class SlowToRead:
    def __reduce__(self) -> Any:
        return spin, ()


class Slow:
    """A serializer that is slow in both ways."""

    @staticmethod
    def dumps(value: Any) -> str:
        return json.dumps(value if value != "slow" else spin())

    @staticmethod
    def loads(text: str) -> Any:
        return spin() if text == '"slow to read"' else json.loads(text)


def raising(error: BaseException) -> Callable[..., None]:
    def ring(*_: object) -> None:
        raise error

    return ring


@pytest.fixture
def alarm() -> Iterator[Callable[[BaseException], None]]:
    """What is raised when the alarm rings."""
    before = signal.getsignal(signal.SIGALRM)

    def arm(error: BaseException) -> None:
        signal.signal(signal.SIGALRM, raising(error))

    yield arm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


CALLS: dict[str, Callable[[Cache], Any]] = {
    "put": lambda cache: cache.put("key", SlowToWrite(), 9),
    "put within others": lambda cache: cache.put("key", [1, {"deep": (SlowToWrite(),)}], 9),
    "put_many": lambda cache: cache.put_many({"key": SlowToWrite()}, 9),
    "node.put": lambda cache: cache.node(0).put("key", SlowToWrite(), 9),
    "get": lambda cache: cache.get("slow"),
    "get, another quorum": lambda cache: cache.get("slow", read_quorum="all"),
    "get_many": lambda cache: cache.get_many(["other", "slow"]),
    "node.get": lambda cache: cache.node(cache.owners("slow")[0]).get("slow"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS)
def test_what_a_signal_handler_raises_comes_through_as_it_is(call: str, kind: Any, alarm: Any) -> None:
    cache = Cache(3, 2, gossip_interval=None)
    cache.put_many({"key": "old", "other": 1, "slow": SlowToRead()}, 5)
    error = kind("not this value")
    alarm(error)
    with pytest.raises(kind) as raised:
        CALLS[call](cache)
    assert raised.value is error
    assert cache.get_many(["key", "other"]) == {"key": ("old", 5), "other": (1, 5)}
    assert sorted(cache) == ["key", "other", "slow"]


@pytest.mark.parametrize("kind", [TimeLimit, MemoryError, KeyboardInterrupt])
def test_so_it_does_while_a_serializer_works(kind: Any, alarm: Any) -> None:
    cache = Cache(3, 2, gossip_interval=None, serializer=Slow)
    cache.put("key", "slow to read", 5)
    calls: list[Callable[[], Any]] = [
        lambda: cache.put("other", "slow"),
        lambda: cache.put_many({"other": "slow"}),
        lambda: cache.get("key"),
        lambda: cache.get_many(["key"]),
    ]
    for call in calls:
        error = kind("not this value")
        alarm(error)
        with pytest.raises(kind) as raised:
            call()
        assert raised.value is error
    assert list(cache) == ["key"]


def test_so_it_does_with_values_of_a_snapshot(tmp_path: Path, alarm: Any) -> None:
    with Cache(1, gossip_interval=None, signing_key=b"a secret of 16 bytes") as cache:
        cache.put("key", SlowToRead(), 5)
        cache.save(tmp_path / "saved")
    with Cache.load(tmp_path / "saved", gossip_interval=None, signing_key=b"a secret of 16 bytes") as cache:
        alarm(TimeLimit())
        with pytest.raises(TimeLimit):
            cache.get("key")


def test_what_another_thread_raises_in_this_one_comes_through() -> None:
    import ctypes

    cache, raised = Cache(1, gossip_interval=None), list[str]()
    begun = threading.Event()

    class Begins:
        def __reduce__(self) -> Any:
            begun.set()
            end = time.monotonic() + 30
            while time.monotonic() < end:
                time.sleep(0.0005)
            return int, (5,)

    def work() -> None:
        try:
            cache.put("key", Begins())
        except BaseException as error:  # noqa: BLE001 - its kind is looked at below
            raised.append(type(error).__name__)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(10)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeLimit))
    thread.join(30)
    assert raised == ["TimeLimit"]


def test_a_value_that_raises_for_a_reason_of_its_own_raises_that() -> None:
    class Full:
        def __init__(self, kind: Any) -> None:
            self.kind = kind

        def __reduce__(self) -> Any:
            raise self.kind("its own reason")

    cache = Cache(1, gossip_interval=None)
    for kind in KINDS:
        with pytest.raises(kind, match="its own reason"):
            cache.put("key", Full(kind))
    for kind in (TypeError, ValueError, KeyError, AttributeError, pickle.PicklingError, RecursionError):
        with pytest.raises(SerializationError, match="its own reason") as raised:
            cache.put("key", Full(kind))
        assert type(raised.value.__cause__) is kind
    assert len(cache) == 0


def test_a_value_that_changes_while_it_is_pickled_is_no_value() -> None:
    # Pickle itself says so, by a RuntimeError.
    class Grows:
        def __reduce__(self) -> Any:
            value[f"more {len(value)}"] = 1
            return int, (1,)

    value: dict[str, Any] = {f"key {number}": Grows() for number in range(10)}
    cache = Cache(1, gossip_interval=None)
    with pytest.raises(SerializationError, match="changed size") as raised:
        cache.put("key", value)
    assert type(raised.value.__cause__) is RuntimeError
    assert len(cache) == 0


def test_control_characters_of_a_class_or_a_key_are_not_printed_raw() -> None:
    evil = type("Evil\x1b[31m\nname", (), {"__reduce__": lambda self: 5})
    cache = Cache(1, gossip_interval=None, serializer=types.SimpleNamespace(dumps=bytes, loads=json.loads))
    cache.put("key\x1b[31m\r\n\u202e", b"{\x1b[31m", 1)
    texts = list[str]()
    for call in (lambda: Cache(1, gossip_interval=None).put("key", evil()), lambda: cache.get("key\x1b[31m\r\n\u202e")):
        with pytest.raises(SerializationError) as raised:
            call()
        texts.append(str(raised.value))
    assert all(text.isprintable() for text in texts), texts
    assert "Evil" in texts[0]


def test_an_error_keeps_its_own_notes_and_cause() -> None:
    class Noted:
        def __reduce__(self) -> Any:
            error = TimeLimit("late")
            error.add_note("a note")
            raise error from KeyError("why")

    with pytest.raises(TimeLimit) as raised:
        Cache(1, gossip_interval=None).put("key", Noted())
    assert raised.value.__notes__ == ["a note"]
    assert type(raised.value.__cause__) is KeyError
    assert sys.exc_info() == (None, None, None)
