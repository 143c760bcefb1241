"""Timestamps of the cache's clock and of the user's own: what is refused for a reason that is hard to see is told, a
remove without a timestamp shuts out no later version, and what was computed from old data loses to newer writes."""

import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from conftest import RunProgram
from distributed_consistent_cache import Cache, ManualClock, TimestampWarning

SECONDS = 1_700_000_000
DAYS = 86_400 * 1_000_000


@pytest.fixture
def cache() -> Cache:
    return Cache(gossip_interval=None)


@pytest.mark.parametrize("later", [6, 5_000, SECONDS, SECONDS * 1000, SECONDS * 10**9])
def test_a_remove_without_a_timestamp_shuts_out_no_later_version(cache: Cache, later: int) -> None:
    removes: list[Callable[[str], object]] = [
        cache.remove,
        cache.node(0).remove,
        lambda key: cache.remove_many([key]),
        lambda _: cache.clear(),
    ]
    for number, remove in enumerate(removes):
        key = f"row {number}"
        assert cache.put(key, "before", timestamp=later - 1)
        assert remove(key)
        assert cache.get(key) == (None, -1)
        assert cache.put(key, "late", timestamp=later - 1) is False
        assert cache.put(key, "the next", timestamp=later)
        assert cache.get(key) == ("the next", later)


@pytest.mark.parametrize("was_there", [True, False])
@pytest.mark.parametrize("meanwhile", ["remove", "put"])
def test_a_late_fill_loses_to_who_wrote_or_removed_while_it_was_computed(
    cache: Cache, meanwhile: str, was_there: bool
) -> None:
    computing, go_on = threading.Event(), threading.Event()
    accepted = []

    def fill() -> None:
        as_of = cache.now()
        value = "computed from the old row"
        computing.set()
        assert go_on.wait(60)
        accepted.append(cache.put("row", value, as_of))

    if was_there:
        cache.put("row", "old")
        cache.remove("row")
    thread = threading.Thread(target=fill)
    thread.start()
    assert computing.wait(60)
    if meanwhile == "remove":
        assert cache.remove("row") is False, "nothing is there, and that is remembered"
    else:
        cache.put("row", "the new row")
    go_on.set()
    thread.join()
    assert accepted == [False]
    assert cache.get("row")[0] == (None if meanwhile == "remove" else "the new row")


def test_timestamps_of_two_units_are_told_once(cache: Cache) -> None:
    cache.put("by the clock", "old")
    with pytest.warns(TimestampWarning, match=r'"by the clock" with timestamp 1700000000 was refused'):
        assert cache.put("by the clock", "new", timestamp=SECONDS) is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.put("by the clock", "new", timestamp=SECONDS) is False
        assert cache.put_many({"by the clock": "new"}, timestamp=SECONDS) == ["by the clock"]
    cache.put("in nanoseconds", "old", timestamp=SECONDS * 10**9)
    with pytest.warns(TimestampWarning, match="another unit"):
        assert cache.put_many({"in nanoseconds": "new"}) == ["in nanoseconds"]
    other = Cache(gossip_interval=None)
    other.remove("never there")
    with pytest.warns(TimestampWarning, match="the remove before it"):
        assert other.put("never there", "v6", timestamp=6) is False


@pytest.mark.parametrize("verb", ["remove", "remove_many", "clear"])
@pytest.mark.parametrize("of_clock", [True, False])
def test_what_a_remove_of_another_unit_leaves_is_told_once(verb: str, of_clock: bool) -> None:
    cache = Cache(gossip_interval=None)
    kept, timestamp = (None, SECONDS) if of_clock else (SECONDS * 10**9, cache.now())
    cache.put("gone", 1, timestamp - 1)
    cache.put("kept", 2, kept)
    remove = {
        "remove": lambda: cache.remove("kept", timestamp),
        "remove_many": lambda: cache.remove_many(["gone", "kept"], timestamp),
        "clear": lambda: cache.clear(timestamp),
    }[verb]
    with pytest.warns(TimestampWarning) as told:
        assert remove() == (verb != "remove")
    assert [str(warning.message).startswith('the write of "kept" with') for warning in told] == [True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert remove() == 0
    assert "kept" in cache


def test_a_clear_of_what_is_older_tells_nothing(cache: Cache) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put("newer", 1, timestamp=9)
        assert cache.clear(8) == 0
        as_of = cache.now()
        cache.put("by the clock", 2)
        assert cache.clear(as_of) == 1
        assert cache.remove_many(["by the clock"], as_of) == 0


def test_puts_of_one_unit_are_refused_without_a_word(cache: Cache) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for newer, older in [(7, 6), (SECONDS, SECONDS - 1), (SECONDS * 1000, SECONDS)]:
            cache.put("key", "newer", timestamp=newer)
            assert cache.put("key", "older", timestamp=older) is False
        as_of = cache.now()
        cache.put("clock", "newer")
        assert cache.put("clock", "older", as_of) is False


def elsewhere(check: Callable[[], None], run_program: RunProgram) -> None:
    """The clock is the process's, and goes on from what is ahead: other tests are not to meet it."""
    run_program(f"""
        import logging, sys
        logging.getLogger().addHandler(logging.NullHandler())
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import {Path(__file__).stem} as tests
        tests.{check.__name__}()
    """)


def test_after_a_snapshot_from_the_future_writes_by_the_clock_are_newer(run_program: RunProgram) -> None:
    elsewhere(load_what_is_ahead, run_program)


def load_what_is_ahead() -> None:
    path = Path(tempfile.mkdtemp()) / "cache.snapshot"
    ahead = time.time_ns() // 1000 + 2 * DAYS
    with Cache(gossip_interval=None) as saved:
        for number in range(5):
            saved.put(f"key {number}\n", "old", timestamp=ahead + number)
        saved.save(path)
    with pytest.warns(TimestampWarning, match=r'"key \d\\n" was written 48\.0 hours from now'):
        loaded = Cache.load(path)
    assert loaded.put("key 0\n", "new")
    assert loaded.get("key 0\n")[0] == "new"
    assert loaded.remove("key 1\n")
    assert loaded.put_many({"key 2\n": "new"}) == []
    assert loaded.now() > ahead + 5
    assert loaded.clear() == 4
    assert len(loaded) == 0


def test_a_write_by_the_clock_is_newer_than_an_entry_from_the_future(run_program: RunProgram) -> None:
    elsewhere(write_over_what_is_ahead, run_program)


def write_over_what_is_ahead() -> None:
    cache = Cache(gossip_interval=None)
    ahead = cache.now() + 2000 * DAYS
    writes: list[Callable[[str, str], bool]] = [
        cache.put,
        cache.node(0).put,
        lambda key, value: cache.put_many({key: value}) == [],
    ]
    for number, write in enumerate(writes):
        ahead += DAYS
        cache.put(f"key {number}", "from the future", timestamp=ahead)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert write(f"key {number}", "new")
        assert cache.get(f"key {number}")[0] == "new"


def test_a_warning_of_a_clock_that_is_ahead_says_what_became_of_the_cache_if_it_is_an_error(
    run_program: RunProgram,
) -> None:
    elsewhere(refuse_what_is_ahead, run_program)


def refuse_what_is_ahead() -> None:
    path = Path(tempfile.mkdtemp()) / "cache.snapshot"
    cache = Cache(gossip_interval=None)
    cache.put("key", "from the future", timestamp=cache.now() + 2000 * DAYS)
    cache.save(path)
    warnings.simplefilter("error")
    with pytest.raises(TimestampWarning, match=r"go on from it; nothing was written$"):
        cache.put("key", "new")
    assert cache.get("key")[0] == "from the future"
    assert cache.put("key", "new"), "it is told once"
    cache.clear()
    with pytest.raises(TimestampWarning, match=r"all of it is restored$"):
        Cache(gossip_interval=None).restore(path)
    restored = Cache(gossip_interval=None)
    with pytest.raises(TimestampWarning):
        restored.restore(path)
    assert restored.get("key")[0] == "from the future"
    assert restored.restored is not None
    assert restored.restored.applied == 1
    with pytest.raises(TimestampWarning, match=r"; load closed the cache that it made$"):
        Cache.load(path)
    many = Cache(gossip_interval=None)
    ahead = many.now() + 100 * DAYS
    many.put("key", "from the future", timestamp=ahead)
    with pytest.raises(TimestampWarning, match="put_many stopped after 3 items: they are written, and nothing after"):
        many.put_many({"before": 1, "key": "new", "after": 2})
    assert {key: hit[0] for key, hit in many.get_many(["before", "key", "after"]).items()} == {
        "before": 1,
        "key": "new",
        "after": 2,
    }
    explicit = Cache(gossip_interval=None)
    explicit.put("key", "by the clock")
    with pytest.raises(TimestampWarning, match=r"was refused: .*; it changed nothing"):
        explicit.remove("key", 5)
    assert "key" in explicit
    explicit = Cache(gossip_interval=None)
    explicit.put("key", "by the clock")
    explicit.put("old", "version", 4)
    with pytest.raises(TimestampWarning, match="clear stopped after 1 value: it is removed, and nothing after it"):
        explicit.clear(5)
    assert list(explicit) == ["key"]
    explicit = Cache(gossip_interval=None)
    explicit.put("key", "by the clock")
    with pytest.raises(TimestampWarning, match="remove_many stopped after 2 keys: they are done, and nothing after"):
        explicit.remove_many(["key", "other"], 5)


def test_of_a_clock_that_is_ahead_by_less_than_a_minute_nobody_is_told(run_program: RunProgram) -> None:
    elsewhere(write_over_what_is_a_little_ahead, run_program)


def write_over_what_is_a_little_ahead() -> None:
    with Cache(gossip_interval=None) as cache, warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put("key", "a little ahead", timestamp=cache.now() + 30_000_000)
        assert cache.put("key", "new")
        assert cache.get("key")[0] == "new"


def test_a_manual_clock_has_values_end_without_waiting() -> None:
    clock = ManualClock()
    with Cache(clock=clock, gossip_interval=None) as cache:
        cache.put("key", "value", ttl=60)
        clock.advance(59.5)
        assert cache.get("key")[0] == "value"
        assert cache.ttl("key") == pytest.approx(0.5, abs=0.01)
        clock.advance(timedelta(seconds=1))
        assert cache.get("key") == (None, -1)
        for wrong in (-1, "1", float("nan")):
            with pytest.raises((TypeError, ValueError), match="seconds"):
                clock.advance(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="clock must be a ManualClock or None"):
        Cache(clock=time.time)  # type: ignore[arg-type]
