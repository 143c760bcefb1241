"""What looks at every key holds nobody up: Ctrl-C is heard, others run on, and it says what it did."""

import _thread
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distributed_consistent_cache import Cache, ClosedError

KEYS = 200_000

# Two keys of one hash.
TWINS = ("jidahpcdfemohfdf", "blodlpchnanindel")


@pytest.fixture(scope="module")
def filled() -> Cache:
    # Owners that were not told of a write differ, so that keys are looked at to count them.
    cache = Cache(3, 2, "64MiB", write_quorum="one", gossip_interval=None)
    cache.put_many((f"key {number}", number, 1) for number in range(KEYS))
    return cache


CALLS: dict[str, Callable[[Cache, Path], Any]] = {
    "len": lambda cache, _: len(cache),
    "list": lambda cache, _: list(cache),
    "gauges": lambda cache, _: cache.gauges(),
    "stats": lambda cache, _: cache.stats(),
    "advise": lambda cache, _: cache.advise(),
    "metrics": lambda cache, _: cache.metrics(),
    "save": lambda cache, path: cache.save(path),
    "clear": lambda cache, _: cache.clear(),
}


def is_ended_by_ctrl_c(call: Callable[[], Any]) -> KeyboardInterrupt | None:
    """What a call raised when Ctrl-C was pressed in its middle; None when it was over before."""
    has_returned = False
    timer = threading.Timer(0.002, _thread.interrupt_main)
    try:
        timer.start()
        call()
        has_returned = True
        timer.join()
        time.sleep(0.05)
    except KeyboardInterrupt as error:
        timer.join()
        return None if has_returned else error
    return None


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_looks_at_every_key_hears_ctrl_c(filled: Cache, tmp_path: Path, name: str) -> None:
    for _ in range(20):
        filled.put_many((f"key {number}", number) for number in range(KEYS))
        before = len(filled)
        error = is_ended_by_ctrl_c(lambda: CALLS[name](filled, tmp_path / "snapshot"))
        if error is not None:
            break
    assert error is not None, "it is never heard in the middle"
    if name == "clear":
        removed = before - len(filled)
        assert removed == 0 or str(error).startswith(f"clear stopped after {removed} value")


def test_two_keys_of_one_hash_are_two_keys_everywhere(tmp_path: Path) -> None:
    cache = Cache(3, 2, gossip_interval=None)
    for number, key in enumerate(TWINS, 1):
        cache.put(key, key, timestamp=number)
    assert len(cache) == 2
    assert set(cache) == set(TWINS)
    assert cache.gauges().keys == 2
    assert cache.save(tmp_path / "snapshot").entries == 2
    with Cache.load(tmp_path / "snapshot", gossip_interval=None) as again:
        assert {key: again.get(key)[0] for key in TWINS} == {key: key for key in TWINS}
    assert cache.clear(timestamp=9) == 2
    assert [cache.get(key) for key in TWINS] == [(None, -1), (None, -1)]


def test_an_iteration_of_a_cache_that_is_closed_says_so() -> None:
    cache = Cache(3, 2, "16MiB", gossip_interval=None)
    cache.put_many((f"key {number}", number, 1) for number in range(20_000))
    keys = iter(cache)
    next(keys)
    cache.close()
    with pytest.raises(ClosedError):
        list(keys)


def test_an_iteration_keeps_its_cache_and_is_collected_with_it() -> None:
    cache = Cache(3, 2, gossip_interval=None)
    cache.put("key", 1)
    keys = iter(cache)
    del cache
    gc.collect()
    assert list(keys) == ["key"]


def test_two_threads_share_one_iteration() -> None:
    cache = Cache(3, 2, "16MiB", gossip_interval=None)
    cache.put_many((f"key {number}", number, 1) for number in range(20_000))
    keys, found = iter(cache), []
    threads = [threading.Thread(target=lambda: found.append(list(keys))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for some in found for key in some) == sorted(f"key {number}" for number in range(20_000))
