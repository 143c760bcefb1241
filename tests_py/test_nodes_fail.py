"""Up to R - 1 nodes may fail, and no acknowledged key is lost: others stand in, and who returns catches up first."""

from itertools import combinations, permutations
from typing import Any

import pytest

from distributed_consistent_cache import Cache, NodeDownError, NoLiveNodeError
from helpers import copies, owners_hold

KEYS = [f"key {number}" for number in range(60)]


def filled(nodes: int, replicas: int) -> Cache:
    """A cache with a value for every key, and the memory of a few removes."""
    cache = Cache(nodes, replicas, gossip_interval=None)
    for number, key in enumerate(KEYS):
        cache.put(key, {"number": number}, 10)
    for number in range(20):
        cache.put(f"gone {number}", 1, 10)
        cache.remove(f"gone {number}", 20)
    return cache


def check_nothing_is_lost(cache: Cache) -> None:
    for number, key in enumerate(KEYS):
        assert cache.get(key) == ({"number": number}, 10), key
        assert key in cache
    for number in range(20):
        assert cache.get(f"gone {number}") == (None, -1)
        assert cache.put(f"gone {number}", "late", 15) is False
        assert cache.put(f"gone {number}", "late", 20) is False
    assert sorted(cache) == sorted(KEYS)
    assert len(cache) == len(KEYS)
    assert set(cache.get_many(KEYS)) == set(KEYS)


def check_copies(cache: Cache, count: int) -> None:
    """So many live nodes hold each key, and the owners are among them."""
    for number, key in enumerate(KEYS):
        assert copies(cache, key) == count, key
        assert owners_hold(cache, key) == [({"number": number}, 10)] * count, key


def states(cache: Cache) -> dict[int, str]:
    return {node.id: node.state for node in cache.nodes()}


# (nodes, replicas): every choice of R - 1 of N is tried.
SHAPES = [(2, 2), (3, 2), (3, 3), (4, 2), (5, 3), (6, 4)]
FAILURES = [(*shape, chosen) for shape in SHAPES for chosen in combinations(range(shape[0]), shape[1] - 1)]


@pytest.mark.parametrize(("nodes", "replicas", "chosen"), FAILURES)
@pytest.mark.parametrize("lose_memory", [True, False], ids=["crash", "cut off"])
def test_every_choice_of_r_minus_1_nodes_may_fail(
    nodes: int, replicas: int, chosen: tuple[int, ...], lose_memory: bool
) -> None:
    cache = filled(nodes, replicas)
    for node in chosen:
        cache.fail_node(node, lose_memory)
        check_nothing_is_lost(cache)
    down = "failed" if lose_memory else "cut off"
    assert states(cache) == {node: down if node in chosen else "live" for node in range(nodes)}
    assert all(not set(chosen) & set(cache.owners(key)) for key in KEYS)
    # The others stand in: as many copies as there can be.
    assert cache.sync().converged
    check_copies(cache, min(replicas, nodes - len(chosen)))
    for node in chosen:
        cache.recover_node(node)
        check_nothing_is_lost(cache)
    assert cache.sync().converged
    check_copies(cache, replicas)
    check_nothing_is_lost(cache)


@pytest.mark.parametrize(("nodes", "replicas"), [(3, 2), (4, 3), (5, 2)])
def test_all_nodes_may_fail_one_after_the_other_when_each_returns_first(nodes: int, replicas: int) -> None:
    cache = filled(nodes, replicas)
    for lose_memory in (True, False, True):
        for node in range(nodes):
            cache.fail_node(node, lose_memory)
            check_nothing_is_lost(cache)
            cache.recover_node(node)
    check_nothing_is_lost(cache)


def test_all_but_one_node_may_fail_one_after_the_other_with_a_sync_between() -> None:
    for order in permutations(range(4), 3):
        cache = filled(4, 2)
        for node in order:
            cache.fail_node(node)
            check_nothing_is_lost(cache)
            assert cache.sync().converged
        check_copies(cache, 1)
        for node in order:
            cache.recover_node(node)
        assert cache.sync().converged
        check_copies(cache, 2)


def test_rounds_of_gossip_bring_the_copies_back_without_a_sync() -> None:
    cache = filled(5, 3)
    cache.fail_node(1)
    for _ in range(30):
        cache.gossip()
    check_copies(cache, 3)


@pytest.mark.parametrize("lose_memory", [True, False], ids=["crash", "cut off"])
def test_a_node_that_returns_never_serves_what_it_missed(lose_memory: bool) -> None:
    cache = filled(3, 3)
    cache.fail_node(0, lose_memory)
    cache.put(KEYS[0], "newer", 30)
    cache.remove(KEYS[1], 30)
    cache.put("born meanwhile", 1, 30)
    cache.remove("gone 0", 40)
    cache.recover_node(0)
    # Without a sync: it has pulled what it missed before it answers.
    for ask in (cache, cache.node(0)):
        assert ask.get(KEYS[0]) == ("newer", 30)
        assert ask.get(KEYS[1]) == (None, -1)
        assert ask.get("born meanwhile") == (1, 30)
        assert ask.get(KEYS[2]) == ({"number": 2}, 10)
    # Alone, it refuses what is older than what it missed.
    cache.fail_node(1)
    cache.fail_node(2)
    assert cache.put(KEYS[0], "late", 29) is False
    assert cache.put(KEYS[1], "late", 30) is False
    assert cache.put("gone 0", "late", 39) is False
    assert cache.get(KEYS[0]) == ("newer", 30)


def test_a_node_that_was_cut_off_brings_along_what_only_it_has() -> None:
    cache = Cache(3, 3, gossip_interval=None)
    cache.fail_node(1)
    cache.fail_node(2)
    cache.put("key", "on node 0 alone", 5)
    cache.fail_node(0, lose_memory=False)
    cache.recover_node(1)
    cache.recover_node(2)
    assert cache.get("key") == (None, -1)
    cache.recover_node(0)
    assert cache.get("key") == ("on node 0 alone", 5)
    assert cache.sync().converged
    assert [cache.node(node).get("key") for node in range(3)] == [("on node 0 alone", 5)] * 3


def test_what_a_node_took_while_the_others_were_down_wins_or_loses_by_its_time() -> None:
    for time_of_zero, time_of_others in ((5, 6), (6, 5)):
        cache = Cache(3, 3, gossip_interval=None)
        cache.fail_node(1, lose_memory=False)
        cache.fail_node(2, lose_memory=False)
        cache.put("key", "zero", time_of_zero)
        cache.fail_node(0, lose_memory=False)
        cache.recover_node(1)
        cache.recover_node(2)
        cache.put("key", "others", time_of_others)
        cache.recover_node(0)
        newest = ("zero", 6) if time_of_zero == 6 else ("others", 6)
        assert cache.get("key") == newest
        assert cache.sync().converged
        assert [cache.node(node).get("key") for node in range(3)] == [newest] * 3


def test_writes_go_to_those_who_stand_in() -> None:
    cache = Cache(5, 3, gossip_interval=None)
    for node in (0, 1):
        cache.fail_node(node)
    for key in KEYS:
        assert cache.put(key, "while two are down", 5) is True
        assert len(cache.owners(key)) == copies(cache, key) == 3
    cache.recover_node(0)
    cache.recover_node(1)
    assert all(cache.get(key) == ("while two are down", 5) for key in KEYS)


def test_when_every_node_is_down_a_put_is_an_error_and_a_get_a_miss() -> None:
    cache = filled(3, 2)
    for node in range(3):
        cache.fail_node(node, lose_memory=False)
    calls: list[Any] = [
        lambda: cache.put("key", 1),
        lambda: cache.remove("key"),
        lambda: cache.put_many({"key": 1}),
        lambda: cache.remove_many(["key"]),
        lambda: cache.put("key", 1, write_quorum="one"),
    ]
    for call in calls:
        with pytest.raises(NoLiveNodeError, match=r"^every node is down; (.*; )?nothing was written"):
            call()
    assert cache.get(KEYS[0]) == (None, -1)
    assert cache.get(KEYS[0], "default") == ("default", -1)
    assert cache.get_many(KEYS) == {}
    assert KEYS[0] not in cache
    assert (len(cache), list(cache), cache.owners(KEYS[0])) == (0, [], [])
    cache.gossip()
    cache.sync()
    assert cache.clear(100) == 0
    for node in range(3):
        cache.recover_node(node)
    check_nothing_is_lost(cache)


def test_when_every_node_has_crashed_the_cache_begins_anew() -> None:
    cache = filled(3, 2)
    for node in range(3):
        cache.fail_node(node)
    for node in range(3):
        cache.recover_node(node)
    assert cache.sync().converged
    assert len(cache) == 0
    # Nobody knows of the old writes any more: an older one is a new write.
    assert cache.put(KEYS[0], "anew", 1) is True
    assert cache.get(KEYS[0]) == ("anew", 1)
    assert owners_hold(cache, KEYS[0]) == [("anew", 1)] * 2


def test_more_than_r_minus_1_failures_lose_only_what_had_all_its_copies_there() -> None:
    cache = filled(5, 2)
    lost = [key for key in KEYS if set(cache.owners(key)) == {1, 3}]
    assert lost
    cache.fail_node(1)
    cache.fail_node(3)
    for number, key in enumerate(KEYS):
        assert cache.get(key) == ((None, -1) if key in lost else ({"number": number}, 10))


def test_one_node_fails_and_its_memory_is_lost() -> None:
    cache = Cache(1, gossip_interval=None)
    cache.put("key", 1, 1)
    cache.fail_node(0)
    assert cache.get("key") == (None, -1)
    cache.recover_node(0)
    assert cache.get("key") == (None, -1)
    assert cache.put("key", 2, 2) is True
    cache.fail_node(0, lose_memory=False)
    assert cache.get("key") == (None, -1)
    cache.recover_node(0)
    assert cache.get("key") == (2, 2)


def test_to_fail_twice_and_to_recover_twice_is_to_do_so_once() -> None:
    cache = filled(3, 2)
    cache.fail_node(0)
    cache.fail_node(0)
    assert states(cache)[0] == "failed"
    cache.recover_node(0)
    cache.recover_node(0)
    assert states(cache)[0] == "live"
    check_nothing_is_lost(cache)
    cache.fail_node(0, lose_memory=False)
    cache.fail_node(0, lose_memory=False)
    assert states(cache)[0] == "cut off"
    # A node that is cut off can still lose its memory; one that has lost it cannot get it back.
    cache.fail_node(0)
    assert states(cache)[0] == "failed"
    cache.fail_node(0, lose_memory=False)
    assert states(cache)[0] == "failed"
    cache.recover_node(0)
    check_nothing_is_lost(cache)


def test_a_node_that_is_down_is_not_spoken_to() -> None:
    cache = filled(3, 2)
    node = cache.node(1)
    for lose_memory in (True, False):
        cache.fail_node(1, lose_memory)
        for call in (
            lambda: node.get(KEYS[0]),
            lambda: node.put(KEYS[0], 1),
            lambda: node.remove(KEYS[0]),
            lambda: cache.node(1).get(KEYS[0]),
        ):
            with pytest.raises(NodeDownError, match=r"^node 1 is down; nothing was done$"):
                call()
        cache.recover_node(1)
        assert node.id == 1
        node.get(KEYS[0])
    check_nothing_is_lost(cache)


def test_the_counts_of_a_node_say_what_it_is_and_holds() -> None:
    cache = filled(3, 3)
    live = cache.nodes()[0]
    assert (live.id, live.state, live.entries, live.bytes_max) == (0, "live", len(KEYS), 2**20)
    assert (live.markers, live.evictions, live.unsynced_partitions) == (20, 0, 0)
    assert live.partitions == cache.partitions
    cache.fail_node(0, lose_memory=False)
    assert (cache.nodes()[0].state, cache.nodes()[0].entries) == ("cut off", len(KEYS))
    cache.fail_node(0)
    failed = cache.nodes()[0]
    assert (failed.state, failed.entries, failed.bytes_used, failed.bytes_max) == ("failed", 0, 0, 2**20)
    cache.recover_node(0)
    assert (cache.nodes()[0].state, cache.nodes()[0].entries) == ("live", len(KEYS))


def test_a_sync_says_what_it_moved() -> None:
    cache = filled(4, 2)
    quiet = cache.sync()
    assert (quiet.items, quiet.converged) == (0, True)
    assert quiet.rounds >= 1
    assert quiet.seconds > 0
    cache.fail_node(2)
    moved = cache.sync()
    missing = sum(node.entries for node in cache.nodes()) - len(KEYS)
    assert moved.converged is True
    assert missing == len(KEYS)
    assert 0 < moved.items < 4 * (len(KEYS) + 20)
    assert moved.bytes > moved.items
    assert cache.sync().items == 0


def test_what_a_node_knows_of_past_lives_does_not_pile_up() -> None:
    cache = Cache(nodes=3, replicas=3, node_capacity="64KiB", gossip_interval=None)

    def live_and_die(lives: int) -> int:
        for _ in range(lives):
            cache.fail_node(0)
            cache.recover_node(0)
            for number in range(100):
                cache.put(f"key {number}", number)
        assert cache.sync().converged
        return max(node.bytes_used for node in cache.nodes())

    after_ten = live_and_die(10)
    assert live_and_die(300) <= after_ten + 2000
    assert len(cache) == 100
