"""What is put with a ttl is found until then and a miss from then on, on every node; its space is given back first.

Ends are waited for: a deadline may be passed late by any amount on a slow machine, never early.
"""

import math
import time
from typing import Any

import pytest

from distributed_consistent_cache import Cache
from helpers import wait_until

CENTURY = 100 * 365 * 24 * 3600
SHORT = 0.05


@pytest.fixture
def cache() -> Cache:
    return Cache(nodes=3, replicas=3, gossip_interval=None)


def test_it_is_found_until_its_end_and_a_miss_from_then_on(cache: Cache) -> None:
    began = time.monotonic()
    assert cache.put("key", "value", timestamp=1, ttl=SHORT)
    found, taken = cache.get("key"), time.monotonic() - began
    assert found == ("value", 1) or taken >= SHORT, f"gone after {taken:.3f} s"
    assert cache.put("stays", "value", timestamp=1)
    wait_until(lambda: cache.get("key") == (None, -1))
    assert time.monotonic() - began >= SHORT - 0.002, "clocks count whole milliseconds, and it was gone before"
    assert "key" not in cache
    assert (len(cache), list(cache)) == (1, ["stays"])
    assert cache.get_many(["key", "stays"]) == {"stays": ("value", 1)}
    assert cache.get("key", read_quorum="all") == (None, -1)
    assert [cache.node(node).get("key") for node in range(3)] == [(None, -1)] * 3
    assert cache.ttl("key") == -1.0
    assert (cache.gauges().keys, cache.gauges().copies) == (1, 3)
    assert not cache.remove("key", timestamp=2), "there was nothing to remove any more"


def test_an_older_value_does_not_come_back_when_the_newest_expires(cache: Cache) -> None:
    cache.put("key", "older", timestamp=1)
    cache.put("key", "newer", timestamp=2, ttl=0.001)
    wait_until(lambda: cache.get("key") != ("newer", 2))
    assert cache.get("key") == (None, -1)
    assert not cache.put("key", "late", timestamp=1)
    assert cache.get("key") == (None, -1)


def test_ttl_says_how_long_it_goes_on(cache: Cache) -> None:
    cache.put("ends", 1, ttl=100)
    cache.put("goes on", 1)
    left = cache.ttl("ends")
    assert left is not None
    assert 90 < left <= 100
    assert cache.ttl("goes on") is None
    assert cache.ttl("nobody") == -1.0


def test_touch_gives_another_end_and_changes_nothing_else(cache: Cache) -> None:
    cache.put("key", ["value"], timestamp=7, ttl=100)
    for ttl, expected in [(1000, 1000), (10, 10), (math.inf, None), (CENTURY, CENTURY), (None, None), (50.5, 50.5)]:
        assert cache.touch("key", ttl)
        left = cache.ttl("key")
        if expected is None or left is None:
            assert left is expected, ttl
        else:
            assert expected - 9 < left <= expected
        assert cache.get("key") == (["value"], 7)
    assert not cache.touch("nobody", 10)
    cache.put("large", bytes(100_000), timestamp=1)
    assert cache.touch("large", 0.001)
    wait_until(lambda: "large" not in cache)
    assert not cache.touch("large", 10), "what has expired does not come back"
    assert cache.touch("key", 0.001)
    wait_until(lambda: "key" not in cache)


def test_the_same_value_put_again_has_its_new_ttl(cache: Cache) -> None:
    for ttl, expected in [(100, 100), (10, 10), (None, None), (10, 10), (math.inf, None)]:
        assert cache.put("key", "value", timestamp=1, ttl=ttl)
        left = cache.ttl("key")
        assert left is expected or (left is not None and expected is not None and expected - 9 < left <= expected)
    cache.put("key", "value", timestamp=1, ttl=0.001)
    wait_until(lambda: "key" not in cache)
    assert cache.put("key", "value", timestamp=1)
    assert cache.get("key") == ("value", 1)


def test_a_default_counts_where_nothing_else_is_said() -> None:
    with Cache(nodes=3, default_ttl=100, gossip_interval=None) as cache:
        cache.put("default", 1)
        cache.put("own", 1, ttl=10)
        cache.put("none", 1, ttl=math.inf)
        cache.put_many({"many": 1})
        cache.put_many({"many for ever": 1}, ttl=math.inf)
        cache.node(0).put("through a node", 1)
        cache.node(0).put("through a node, own", 1, ttl=10)
        left = {key: cache.ttl(key) for key in cache}
    assert left.pop("none") is None
    assert left.pop("many for ever") is None
    rounded = {key: None if seconds is None else round(seconds, -1) for key, seconds in left.items()}
    assert rounded == {"default": 100, "own": 10, "many": 100, "through a node": 100, "through a node, own": 10}


def test_many_are_put_with_one_ttl(cache: Cache) -> None:
    assert cache.put_many(((f"key {n}", n) for n in range(600)), ttl=SHORT) == []
    assert cache.put_many({"stays": 1}) == []
    wait_until(lambda: len(cache) == 1)
    assert list(cache.get_many([f"key {n}" for n in range(600)])) == []


@pytest.mark.parametrize("ttl", [0, 0.0, -1, -0.5, math.nan, -math.inf, CENTURY + 1, 1e300, 10**400])
def test_a_ttl_that_is_out_of_range_is_refused(cache: Cache, ttl: float) -> None:
    match = "^ttl is .+, but must be above 0 and at most 3153600000 seconds .+ nothing was done$"
    with pytest.raises(ValueError, match=match):
        cache.put("key", "value", ttl=ttl)
    with pytest.raises(ValueError, match=match):
        cache.put_many({"key": "value"}, ttl=ttl)
    assert "key" not in cache
    cache.put("key", "value", timestamp=1)
    with pytest.raises(ValueError, match=match):
        cache.touch("key", ttl)
    assert cache.ttl("key") is None
    with pytest.raises(ValueError, match=r"^default_ttl is "):
        Cache(default_ttl=ttl)


@pytest.mark.parametrize("ttl", [True, "60", b"1", [1], 1 + 0j])
def test_a_ttl_that_is_no_number_is_refused(cache: Cache, ttl: Any) -> None:
    match = "^ttl must be float, int or None, not .+; nothing was done$"
    with pytest.raises(TypeError, match=match):
        cache.put("key", "value", ttl=ttl)
    with pytest.raises(TypeError, match=match):
        cache.node(0).put("key", "value", ttl=ttl)
    with pytest.raises(TypeError, match=match):
        cache.touch("key", ttl)
    with pytest.raises(TypeError, match=r"^default_ttl must be "):
        Cache(default_ttl=ttl)
    assert "key" not in cache


@pytest.mark.parametrize("ttl", [5e-324, 1e-9, 0.0004])
def test_less_than_a_millisecond_is_a_millisecond(cache: Cache, ttl: float) -> None:
    assert cache.put("key", "value", ttl=ttl)
    wait_until(lambda: "key" not in cache)


def test_expired_entries_make_room_before_anything_live_is_evicted() -> None:
    with Cache(nodes=1, node_capacity="64KiB", gossip_interval=None) as cache:
        live = [f"live {n}" for n in range(100)]
        cache.put_many(dict.fromkeys(live, b"x" * 100))
        cache.put_many({f"ends {n}": b"x" * 100 for n in range(150)}, ttl=0.5)
        wait_until(lambda: len(cache) == 100)
        cache.put_many({f"new {n}": b"x" * 100 for n in range(150)})
        status = cache.nodes()[0]
        assert status.evictions == 0
        assert 0 < status.expired <= 150
        assert all(key in cache for key in live)
        assert f"expired={status.expired}" in repr(status)


def test_gossip_gives_back_what_has_expired() -> None:
    with Cache(nodes=3, replicas=2, gossip_interval=0.01) as cache:
        empty = sum(node.bytes_used for node in cache.nodes())
        cache.put_many({f"ends {n}": b"x" * 1000 for n in range(300)}, ttl=SHORT)
        wait_until(lambda: sum(node.expired for node in cache.nodes()) == 600)
        wait_until(lambda: sum(node.bytes_used for node in cache.nodes()) < empty + 30_000)
        assert sum(node.entries for node in cache.nodes()) == 0
        assert sum(node.evictions for node in cache.nodes()) == 0


def test_a_node_that_comes_back_has_the_same_ends(cache: Cache) -> None:
    cache.put("ends", 1, timestamp=1, ttl=100)
    cache.fail_node(0)
    cache.recover_node(0)
    assert cache.node(0).get("ends") == (1, 1)
    for node in (1, 2):
        cache.fail_node(node)
    left = cache.ttl("ends")
    assert left is not None
    assert 0 < left <= 100


def test_a_scenario_has_ends_in_virtual_time() -> None:
    from distributed_consistent_cache.simulation import Scenario

    report = (
        Scenario(nodes=3, replicas=3)
        .put(0.0, "ends", b"value", timestamp=1, ttl=3600)
        .put(0.0, "ends soon", b"value", timestamp=1, ttl=0.5)
        .put(0.0, "is touched", b"value", timestamp=1, ttl=1)
        .touch(0.5, "is touched", ttl=7200)
        .put(0.0, "stays", b"value", timestamp=1, ttl=1)
        .touch(0.5, "stays", ttl=None)
        .get(4000.0, "ends")
        .get(4000.0, "is touched")
        .run()
    )
    assert report.violation is None
    assert report.values == {"is touched": (b"value", 1), "stays": (b"value", 1)}
    assert report.expired == 6
