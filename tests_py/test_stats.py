"""Statistics add up: each get is one hit or one miss for one reason, whatever happens to nodes meanwhile."""

import json
import random
import time
from typing import Any

import pytest

from conftest import RunThreads
from distributed_consistent_cache import Cache, ClosedError, Latency, NodeStats, QuorumError, Stats

REASONS = ["never_seen", "removed", "expired", "evicted", "superseded", "owner_down", "not_synced"]
KINDS = ["values", "keys", "overhead", "markers", "clocks"]


def check_sums(stats: Stats) -> None:
    """What must hold of any report of a cache that nobody uses at the moment."""
    assert list(stats.misses_by_reason) == REASONS
    assert sum(stats.misses_by_reason.values()) == stats.misses
    assert list(stats.bytes_by_kind) == KINDS
    assert sum(stats.bytes_by_kind.values()) == stats.bytes_used <= stats.bytes_max
    for node in stats.nodes:
        assert sum(node.misses_by_reason.values()) == node.misses
        assert sum(node.bytes_by_kind.values()) == node.bytes_used <= node.bytes_max
    for name in ("entries", "markers", "bytes_used", "bytes_max", "unsynced_partitions"):
        assert getattr(stats, name) == sum(getattr(node, name) for node in stats.nodes), name


def reasons(cache: Cache) -> dict[str, int]:
    return {reason: count for reason, count in cache.stats().misses_by_reason.items() if count}


def test_a_new_cache_has_done_nothing() -> None:
    stats = Cache(3, gossip_interval=None).stats()
    check_sums(stats)
    assert (stats.hits, stats.misses, stats.puts, stats.removes, stats.evictions, stats.keys) == (0, 0, 0, 0, 0, 0)
    assert (stats.hit_rate, stats.effective_copies, stats.oldest_unseen, stats.unseen_writes) == (0.0, 0.0, None, 0)
    assert [node.id for node in stats.nodes] == [0, 1, 2]
    assert all(node.live for node in stats.nodes)


def test_each_call_counts_once() -> None:
    cache = Cache(5, 3, gossip_interval=None)
    assert cache.put("key", 1, 5)
    assert not cache.put("key", 0, 4)
    assert cache.get("key") == (1, 5)
    assert cache.get("other") == (None, -1)
    assert cache.get_many(["key", "other", "third"]) == {"key": (1, 5)}
    assert not cache.remove("key", 4)
    assert cache.remove("key", 6)
    assert not cache.remove("other", 1)
    # These are no reads of a user.
    assert "key" not in cache
    assert cache.node(0).get("key") == (None, -1)
    cache.explain("key")
    assert len(cache) == 0
    stats = cache.stats()
    check_sums(stats)
    assert (stats.hits, stats.misses) == (2, 3)
    assert (stats.puts, stats.puts_refused, stats.removes, stats.removes_refused) == (1, 1, 2, 1)
    for name in ("hits", "misses", "puts", "puts_refused", "removes", "removes_refused"):
        assert sum(getattr(node, name) for node in stats.nodes) == getattr(stats, name), name


def test_bulk_calls_count_each_item() -> None:
    cache = Cache(3, 2, gossip_interval=None)
    cache.put_many({f"key {number}": number for number in range(1000)}, timestamp=2)
    cache.put_many({f"key {number}": number for number in range(10)}, timestamp=1)
    cache.get_many(f"key {number}" for number in range(500, 1500))
    cache.remove_many([f"key {number}" for number in range(100)], 3)
    stats = cache.stats()
    check_sums(stats)
    assert (stats.puts, stats.puts_refused, stats.removes) == (1000, 10, 100)
    assert (stats.hits, stats.misses) == (500, 500)


@pytest.mark.parametrize("read_quorum", ["one", "majority", "all"])
def test_a_hit_counts_once_however_many_are_asked(read_quorum: Any) -> None:
    cache = Cache(5, 3, read_quorum=read_quorum, gossip_interval=None)
    for number in range(100):
        cache.put(f"key {number}", number, 1, ttl=1000 if number % 2 else None)
    for number in range(150):
        cache.get(f"key {number}")
    stats = cache.stats()
    check_sums(stats)
    assert (stats.hits, stats.misses, stats.unanswered) == (100, 50, 0)
    assert sum(node.hits for node in stats.nodes) == 100


class TestWhyItWasAMiss:
    def test_it_was_never_put(self) -> None:
        cache = Cache(3, 2, gossip_interval=None)
        cache.get("key")
        assert reasons(cache) == {"never_seen": 1}

    def test_it_was_removed(self) -> None:
        cache = Cache(3, 2, gossip_interval=None)
        cache.put("key", 1)
        cache.remove("key")
        cache.get("key")
        assert reasons(cache) == {"removed": 1}

    def test_it_expired(self) -> None:
        cache = Cache(3, 2, gossip_interval=None)
        cache.put("key", 1, ttl=0.001)
        while "key" in cache:
            time.sleep(0.001)
        cache.get("key")
        assert reasons(cache) == {"expired": 1}
        # Also when its space was given back.
        for _ in range(3):
            cache.gossip()
        cache.sync()
        assert cache.stats().expired > 0
        cache.get("key")
        assert reasons(cache) == {"expired": 2}

    def test_it_was_evicted(self) -> None:
        cache = Cache(1, node_capacity="64KiB", gossip_interval=None)
        cache.put("key", 1)
        for number in range(1000):
            cache.put(f"other {number}", b"x" * 100)
        cache.get("key")
        assert reasons(cache) == {"evicted": 1}
        assert cache.stats().evictions > 0
        assert cache.stats().evicted_bytes > 100 * cache.stats().evictions

    def test_only_what_is_older_is_left(self) -> None:
        cache = Cache(2, 2, "64KiB", gossip_interval=None, write_quorum="one")
        cache.put("key", "older", 1, write_quorum="all")
        cache.cut([0], [1])
        owner = cache.owners("key")[0]
        cache.node(owner).put("key", "newer", 2)
        # The owner that has the newer value lets it fall off; the other still has the older one.
        number = 0
        while cache.node(owner).get("key") != (None, -1):
            cache.node(owner).put(f"other {number}", b"x" * 1000)
            number += 1
        assert cache.node(1 - owner).get("key") == ("older", 1)
        assert cache.get("key") == (None, -1)
        assert reasons(cache) == {"superseded": 1}

    def test_its_nodes_are_down(self) -> None:
        cache = Cache(3, 1, gossip_interval=None)
        cache.put("key", 1)
        cache.fail_node(cache.owners("key")[0])
        cache.get("key")
        assert reasons(cache) == {"owner_down": 1}
        for node in range(3):
            cache.fail_node(node)
        cache.get("another")
        assert reasons(cache) == {"owner_down": 2}

    def test_an_owner_has_yet_to_pull(self) -> None:
        cache = Cache(4, 2, gossip_interval=None)
        cache.put("key", 1)
        for node in cache.owners("key"):
            cache.fail_node(node, lose_memory=False)
        cache.get("key")
        assert set(reasons(cache)) <= {"not_synced", "owner_down"}
        assert sum(reasons(cache).values()) == 1


def test_counters_add_up_under_64_threads_with_failures(run_threads: RunThreads) -> None:
    cache = Cache(5, 3, "64KiB", gossip_interval=0.01)
    rounds = 300

    def work(index: int) -> tuple[int, int, int]:
        rng = random.Random(index)
        gets = puts = removes = 0
        for step in range(rounds):
            key = f"key {rng.randrange(2000)}"
            match rng.randrange(8):
                case 0:
                    cache.put(key, b"x" * rng.randrange(200), ttl=rng.choice([None, 0.01, 10]))
                    puts += 1
                case 1:
                    cache.remove(key)
                    removes += 1
                case 2:
                    keys = [f"key {number}" for number in rng.sample(range(2000), rng.randrange(50))]
                    cache.get_many(keys)
                    gets += len(keys)
                case 3 if index == 0 and step % 10 == 0:
                    node = rng.randrange(5)
                    cache.fail_node(node, lose_memory=rng.random() < 0.5)
                    cache.recover_node(node)
                case 4 if index == 1 and step % 50 == 0:
                    cache.remove_node(cache.add_node())
                case _:
                    cache.get(key)
                    gets += 1
        return gets, puts, removes

    done = run_threads(64, work)
    stats = cache.stats()
    check_sums(stats)
    gets, puts, removes = (sum(column) for column in zip(*done, strict=True))
    assert stats.hits + stats.misses == gets
    assert stats.puts + stats.puts_refused == puts
    assert stats.removes + stats.removes_refused == removes
    assert stats.unanswered == 0
    assert stats.hits > 0 < stats.misses


def test_counters_go_on_when_a_node_fails_and_leaves() -> None:
    cache = Cache(3, 2, "64KiB", gossip_interval=None)
    for number in range(2000):
        cache.put(f"key {number}", b"x" * 100)
        cache.get(f"key {number}")
    before = cache.stats()
    cache.fail_node(0)
    assert not cache.stats().nodes[0].live
    assert cache.stats().nodes[0].bytes_used == 0
    after = cache.stats()
    assert (after.hits, after.misses) == (before.hits, before.misses)
    assert after.evictions >= before.evictions
    assert after.nodes[0].hits == before.nodes[0].hits > 0
    cache.recover_node(0)
    assert cache.stats().nodes[0].hits == before.nodes[0].hits
    cache.remove_node(0)
    assert [node.id for node in cache.stats().nodes] == [1, 2]
    assert cache.stats().hits == before.hits


def test_a_read_that_too_few_answer_is_no_miss() -> None:
    cache = Cache(3, 3, read_quorum="all", gossip_interval=None)
    cache.put("key", 1)
    cache.fail_node(0)
    with pytest.raises(QuorumError):
        cache.get("key", read_quorum=3)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.unanswered) == (0, 0, 1)


def test_gossip_and_repairs_are_counted() -> None:
    cache = Cache(3, 3, gossip_interval=None, write_quorum="one")
    cache.cut([0], [1, 2])
    cache.put_many({f"key {number}": number for number in range(100)})
    assert cache.stats().unseen_writes > 0
    assert cache.stats().oldest_unseen is not None
    cache.heal()
    cache.sync()
    stats = cache.stats()
    assert stats.gossip_rounds > 0 < stats.gossip_items
    assert stats.gossip_bytes > stats.gossip_items
    assert stats.repairs > 0
    assert (stats.unseen_writes, stats.keys, stats.effective_copies) == (0, 100, 3.0)


def test_latencies_are_sampled() -> None:
    cache = Cache(3, gossip_interval=None)
    for number in range(6400):
        cache.put("key", number)
        cache.get("key")
    stats = cache.stats()
    assert list(stats.latency) == ["get", "put", "remove"]
    for call in ("get", "put"):
        latency = stats.latency[call]
        assert isinstance(latency, Latency)
        # One in 64, chosen at random.
        assert 50 < latency.count < 200
        assert 0 < latency.p50 <= latency.p90 <= latency.p99 <= latency.p999
        assert latency.p50 <= latency.max < 60
        assert latency.mean > 0
    assert stats.latency["remove"].count == 0
    assert stats.latency["get"] == cache.stats().latency["get"]


def test_waiting_for_a_node_is_counted(run_threads: RunThreads) -> None:
    cache = Cache(1, gossip_interval=None)
    values = [bytes(200_000) for _ in range(4)]
    deadline = time.monotonic() + 30

    def work(index: int) -> None:
        while cache.stats().lock_waits == 0 and time.monotonic() < deadline:
            for _ in range(50):
                cache.put("key", values[index])

    run_threads(4, work)
    assert cache.stats().lock_waits > 0


def test_it_converts_to_plain_types_and_prints_within_80_columns() -> None:
    cache = Cache(5, 3, "64KiB", gossip_interval=None)
    for number in range(3000):
        cache.put(f"key {number}", number)
        cache.get(f"key {number - 2000}")
    stats = cache.stats()
    plain = stats.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["hits"] == stats.hits
    assert plain["nodes"][2]["bytes_by_kind"] == stats.nodes[2].bytes_by_kind
    assert plain["latency"]["put"]["count"] == stats.latency["put"].count
    text = str(stats)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert f"{stats.hits:,}" in text
    assert "never seen" in text
    assert "effective" not in text
    assert text.count("live") == 5
    assert repr(stats).startswith("Stats(hits=")
    assert repr(stats.nodes[0]).startswith("NodeStats(id=0, live=True, ")
    assert repr(stats.latency["get"]).startswith("Latency(count=")
    assert isinstance(stats.nodes[0], NodeStats)
    with pytest.raises(AttributeError):
        stats.hits = 7  # type: ignore[misc]


def test_a_closed_cache_has_none() -> None:
    cache = Cache()
    cache.close()
    for call in (cache.stats, cache.advise, lambda: cache.explain("key")):
        with pytest.raises(ClosedError):
            call()
