"""With "zstd-dict", values of 100 bytes become smaller, too; nobody has to wait for it, and none is lost."""

import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distributed_consistent_cache import Cache, SnapshotError
from distributed_consistent_cache._core import verify_snapshot


def user(number: int) -> dict[str, Any]:
    """A record of some 130 bytes."""
    name = random.Random(number).choice(["Ada", "Grace", "Edsger", "Barbara", "Donald", "Radia"])
    return {"id": number, "name": name, "mail": f"{name}{number}@example.org", "active": True, "tags": ["staff"]}


def reading(number: int) -> dict[str, Any]:
    """A record of another kind."""
    sensor = random.Random(number).randrange(10**6)
    return {"sensor": f"sensor-{sensor:06}", "unit": "degrees celsius", "value": number / 7, "at": [sensor % 90, 7]}


def taught(cache: Cache, make: Callable[[int], Any] = user, prefix: str = "sample") -> int:
    """Put values until another dictionary was trained; how many it took."""
    trainings = cache.value_stats().trainings
    for number in range(200_000):
        cache.put(f"{prefix} {number % 5_000}", make(number))
        if number % 500 == 0:
            cache.gossip()
        if cache.value_stats().trainings > trainings:
            return number
    pytest.fail(f"no training: {cache.value_stats()}")


@pytest.fixture
def cache() -> Cache:
    return Cache(3, 2, "1MiB", gossip_interval=None, compression="zstd-dict")


def test_a_dictionary_is_trained_by_calls_of_gossip_when_there_is_no_interval(cache: Cache) -> None:
    assert cache.value_stats().dictionary == "collecting 0 %"
    seen = set()
    for number in range(100_000):
        cache.put(f"key {number % 3_000}", user(number))
        if number % 500 == 0:
            seen.add(cache.value_stats().dictionary)
            if cache.value_stats().dictionary == "collecting 100 %":
                break
    assert len(seen) > 5
    assert all(re.fullmatch(r"collecting \d+ %", state) for state in seen)
    assert cache.value_stats().trainings == 0, "nothing is trained in a put"
    before = [node.bytes_used for node in cache.nodes()]
    cache.gossip()
    stats = cache.value_stats()
    assert (stats.dictionary, stats.dictionaries, stats.trainings) == ("in use", 1, 1)
    # Dictionaries count in the bytes of the nodes.
    assert all(after.bytes_used <= after.bytes_max for after in cache.nodes())
    assert sum(node.bytes_used for node in cache.nodes()) != sum(before)
    for number in range(1_000):
        cache.put(f"key {number}", user(number))
        assert cache.get(f"key {number}")[0] == user(number)
    stats = cache.value_stats()
    assert stats.packed >= 1_000
    assert stats.ratio > 1.8
    assert repr(stats).startswith("ValueStats(compression='zstd-dict', tried=")


def test_a_dictionary_is_trained_in_the_background() -> None:
    with Cache(3, 2, "1MiB", gossip_interval=0.01, compression="zstd-dict") as cache:
        give_up = time.monotonic() + 60
        number = 0
        while cache.value_stats().dictionary != "in use":
            number += 1
            cache.put(f"key {number % 3_000}", user(number))
            assert time.monotonic() < give_up, cache.value_stats()
        cache.put("key", user(1))
        assert cache.value_stats().packed > 0
        assert cache.get("key")[0] == user(1)


def test_closing_ends_the_training() -> None:
    for pause in (0, 0.1, 0.12):
        cache = Cache(3, 2, "1MiB", gossip_interval=0.01, compression="zstd-dict")
        for number in range(25_000):
            cache.put(f"key {number % 3_000}", user(number))
        time.sleep(pause)
        cache.close()
        stats = cache.value_stats()
        time.sleep(0.15)
        assert cache.value_stats().trainings == stats.trainings


def test_a_node_holds_more_small_values() -> None:
    def held(compression: Any) -> int:
        cache = Cache(1, node_capacity="1MiB", gossip_interval=None, compression=compression)
        for number in range(40_000):
            cache.put(str(number), user(number))
            if number % 500 == 0:
                cache.gossip()
        return len(cache)

    assert held("zstd-dict") > 1.35 * held("lz4")


def test_every_value_survives_failures_recoveries_and_newcomers(cache: Cache) -> None:
    taught(cache)
    values = {f"key {number}": user(number) for number in range(500)}
    cache.put_many(values)
    cache.fail_node(0)
    cache.recover_node(0)
    cache.fail_node(1, lose_memory=False)
    cache.put("meanwhile", user(7))
    cache.recover_node(1)
    newcomer = cache.add_node()
    assert cache.sync().converged
    cache.remove_node(2)
    assert {key: value for key, (value, _) in cache.get_many(values).items()} == values
    assert any(newcomer in cache.owners(key) and cache.node(newcomer).get(key)[0] == values[key] for key in values)
    assert cache.value_stats().corrupt == 0


def test_when_values_change_another_dictionary_is_trained_and_old_values_stay_readable(cache: Cache) -> None:
    taught(cache)
    cache.put("old", user(1))
    trainings = cache.value_stats().trainings
    states = set()
    for number in range(200_000):
        cache.put(f"reading {number % 5_000}", reading(number))
        if number % 500 == 0:
            assert cache.get("old")[0] == user(1)
            cache.gossip()
            states.add(re.sub(r"\d+", "n", cache.value_stats().dictionary))
        if cache.value_stats().trainings > trainings:
            break
    assert states == {"in use", "in use, collecting n % for the next"}
    assert cache.value_stats().dictionaries == 2
    assert cache.get("old")[0] == user(1)
    cache.put("new", reading(3))
    assert cache.get("new")[0] == reading(3)


def test_a_snapshot_carries_its_dictionaries(cache: Cache, tmp_path: Path) -> None:
    taught(cache)
    values = {f"key {number}": user(number) for number in range(500)}
    cache.put_many(values)
    cache.save(tmp_path / "snapshot")
    assert verify_snapshot(tmp_path / "snapshot").compression == "zstd-dict"
    for overrides in ({}, {"compression": None}, {"nodes": 5, "node_capacity": "2MiB"}):
        with Cache.load(tmp_path / "snapshot", gossip_interval=None, **overrides) as again:
            assert {key: value for key, (value, _) in again.get_many(values).items()} == values
            again.gossip()
            stats = again.value_stats()
            assert stats.trainings == 0
            assert stats.dictionary == ("off" if overrides.get("compression", "") is None else "in use")
    damaged = bytearray((tmp_path / "snapshot").read_bytes())
    damaged[200] ^= 1  # in the first block, which is the dictionary
    (tmp_path / "snapshot").write_bytes(damaged)
    with pytest.raises(SnapshotError, match="checksum of a block"):
        verify_snapshot(tmp_path / "snapshot")


def test_values_of_which_none_is_like_another_are_left_as_they_are(cache: Cache) -> None:
    noise = random.Random(3)
    taught(cache, lambda _: noise.randbytes(200))
    stats = cache.value_stats()
    assert (stats.dictionaries, stats.packed) == (0, 0)
    assert cache.put("key", b"value")
    assert cache.get("key")[0] == b"value"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_use_a_cache_of_its_own() -> None:
    with Cache(3, 2, "1MiB", gossip_interval=0.01, compression="zstd-dict") as cache:
        for number in range(5_000):
            cache.put(str(number), user(number))
        child = os.fork()
        if child == 0:
            own = Cache(3, 2, "1MiB", gossip_interval=None, compression="zstd-dict")
            taught(own)
            own.put("key", user(5))
            os._exit(0 if own.get("key")[0] == user(5) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert cache.get("4999")[0] == user(4999)


def test_small_nodes_have_no_room_for_a_dictionary() -> None:
    cache = Cache(3, 2, "16KiB", gossip_interval=None, compression="zstd-dict")
    assert (cache.value_stats().compression, cache.value_stats().dictionary) == ("zstd", "off")
    cache.put("key", "text " * 500)
    assert cache.get("key")[0] == "text " * 500
