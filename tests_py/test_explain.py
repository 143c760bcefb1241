"""One call says why a key is found or not."""

import json
import time
from typing import Any

import pytest

from distributed_consistent_cache import Cache, KeyTooLargeError, OwnerView


def knows(cache: Cache, key: str) -> list[str]:
    return [owner.knows for owner in cache.explain(key).owners]


def test_a_hit() -> None:
    cache = Cache(5, 3, gossip_interval=None)
    cache.put("key", b"x" * 100, 7)
    explained = cache.explain("key")
    assert (explained.key, explained.hit, explained.timestamp, explained.reason) == ("key", True, 7, None)
    assert [owner.node for owner in explained.owners] == cache.owners("key")
    for owner in explained.owners:
        assert isinstance(owner, OwnerView)
        assert (owner.state, owner.synced, owner.knows, owner.timestamp) == ("live", True, "live", 7)
        assert owner.value_bytes is not None
        assert owner.bytes is not None
        assert 100 < owner.value_bytes < owner.bytes < 250
        # A timestamp of 7 is none of the cache's own clock.
        assert (owner.age, owner.ttl, owner.used_since) == (None, None, 0)


def test_age_and_ttl_and_how_much_was_used_since() -> None:
    cache = Cache(1, gossip_interval=None)
    cache.put("key", 1, ttl=100)
    for number in range(30):
        cache.put(f"other {number}", number)
    [owner] = cache.explain("key").owners
    assert owner.age is not None
    assert owner.ttl is not None
    assert 0 <= owner.age < 60
    assert 40 < owner.ttl <= 100
    assert owner.used_since == 30
    cache.get("key")
    [owner] = cache.explain("key").owners
    assert owner.used_since == 0


@pytest.mark.parametrize("interval", [0.1, 3600, None], ids=str)
def test_idle_is_the_time_since_the_last_get_or_put(interval: float | None) -> None:
    with Cache(3, 2, gossip_interval=interval) as cache:
        cache.put("key", 1)
        cache.put("other", 1)
        began = time.monotonic()
        # The time is told ten times a second.
        time.sleep(0.5)
        for owner in cache.explain("key").owners:
            assert owner.idle is not None
            assert 0.39 < owner.idle < time.monotonic() - began + 0.11
        used = time.monotonic()
        assert cache.get("key") == (1, cache.explain("key").timestamp)
        # The second owner learns of uses by gossip.
        owner, *_ = cache.explain("key").owners
        assert owner.idle is not None
        assert owner.idle < time.monotonic() - used + 0.11
        owner, *_ = cache.explain("other").owners
        assert owner.idle is not None
        assert owner.idle > 0.39
        cache.remove("key")
        assert [owner.idle for owner in cache.explain("key").owners] == [None, None]
        assert "idle" in str(cache.explain("other"))


def test_it_is_no_use_and_changes_nothing() -> None:
    cache = Cache(1, gossip_interval=None)
    cache.put("key", 1)
    cache.put("other", 1)
    before = cache.stats().as_dict()
    cache.explain("key")
    cache.explain("nobody")
    [owner] = cache.explain("key").owners
    assert owner.used_since == 1
    assert cache.stats().as_dict() == before


def test_reasons() -> None:
    cache = Cache(3, 2, "64KiB", gossip_interval=None)
    assert (cache.explain("nobody").reason, knows(cache, "nobody")) == ("never_seen", ["nothing", "nothing"])
    cache.put("removed", 1, 3)
    cache.remove("removed", 5)
    explained = cache.explain("removed")
    assert (explained.hit, explained.timestamp, explained.reason) == (False, None, "removed")
    assert [(owner.knows, owner.timestamp, owner.value_bytes) for owner in explained.owners] == [
        ("removed", 5, None)
    ] * 2
    cache.put("expired", 1, ttl=0.001)
    while "expired" in cache:
        time.sleep(0.001)
    assert (cache.explain("expired").reason, knows(cache, "expired")) == ("expired", ["expired", "expired"])
    cache.put("evicted", 1)
    for number in range(2000):
        cache.put(f"other {number}", b"x" * 100)
    assert cache.explain("evicted").reason == "evicted"


def test_nodes_that_are_down_are_named() -> None:
    cache = Cache(3, 1, gossip_interval=None)
    cache.put("key", 1)
    [owner] = cache.owners("key")
    cache.fail_node(owner)
    explained = cache.explain("key")
    assert explained.reason == "owner_down"
    assert [(view.node, view.state, view.knows) for view in explained.owners[1:]] == [(owner, "failed", "no answer")]
    assert explained.owners[0].state == "live"
    assert explained.owners[0].node in cache.owners("key")
    cache.recover_node(owner)
    cache.fail_node(owner, lose_memory=False)
    assert cache.explain("key").owners[-1].state == "cut off"
    for node in range(3):
        cache.fail_node(node)
    explained = cache.explain("key")
    assert (explained.reason, {view.knows for view in explained.owners}) == ("owner_down", {"no answer"})


def test_what_it_says_is_what_a_get_answers() -> None:
    cache = Cache(5, 2, "64KiB", gossip_interval=None)
    for number in range(2000):
        cache.put(f"key {number}", b"x" * 50, number, ttl=None if number % 3 else 1000)
        if number % 5 == 0:
            cache.remove(f"key {number // 2}", number)
    cache.fail_node(1)
    for number in range(0, 2500, 7):
        key = f"key {number}"
        explained = cache.explain(key)
        before = cache.stats().misses_by_reason
        timestamp = cache.get(key)[1]
        assert (explained.timestamp if explained.hit else -1) == timestamp
        if not explained.hit:
            assert explained.reason is not None
            after = cache.stats().misses_by_reason
            assert after == before | {explained.reason: before[explained.reason] + 1}


def test_it_prints_as_a_table_and_converts_to_plain_types() -> None:
    cache = Cache(3, 3, gossip_interval=None)
    cache.put("user:1", {"name": "Ada"})
    explained = cache.explain("user:1")
    text = str(explained)
    assert text.startswith(f'"user:1", partition {explained.partition}: a get finds the value of timestamp ')
    assert all(len(line) <= 80 for line in text.splitlines()[2:])
    assert len(text.splitlines()) == 2 + 1 + 3
    assert json.loads(json.dumps(explained.as_dict())) == explained.as_dict()
    assert explained.as_dict()["owners"][0] == explained.owners[0].as_dict()
    assert "a get misses: no live node knows of it" in str(cache.explain("nobody"))
    assert repr(cache.explain("nobody")).endswith("hit=False, timestamp=None, reason='never_seen')")
    assert len(str(cache.explain("k" * 60_000))) < 1000


@pytest.mark.parametrize(
    ("key", "error"), [(7, TypeError), (None, TypeError), ("k" * 70_000, KeyTooLargeError)], ids=str
)
def test_a_bad_key_is_refused(key: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Cache(gossip_interval=None).explain(key)
