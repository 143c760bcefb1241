"""Nodes join and leave while the cache is used: data is handed over first, and nothing is lost."""

import pytest

from distributed_consistent_cache import Cache
from helpers import copies, owners_hold

KEYS = [f"key {number}" for number in range(200)]


def filled(nodes: int, replicas: int, capacity: str = "1MiB") -> Cache:
    cache = Cache(nodes, replicas, capacity, gossip_interval=None)
    cache.put_many((key, number, 10) for number, key in enumerate(KEYS))
    cache.remove("gone", 20)
    return cache


def check(cache: Cache) -> None:
    """Every key is read, and every owner is ready to speak with authority."""
    assert cache.get_many(KEYS) == {key: (number, 10) for number, key in enumerate(KEYS)}
    assert len(cache) == len(KEYS)
    assert cache.put("gone", "late", 15) is False
    assert [node.unsynced_partitions for node in cache.nodes() if node.state == "live"] == [0] * len(cache.nodes())
    assert all(node.bytes_used <= node.bytes_max for node in cache.nodes())
    for number, key in enumerate(KEYS):
        assert owners_hold(cache, key) == [(number, 10)] * len(cache.owners(key)), key


@pytest.mark.parametrize(("nodes", "replicas"), [(1, 1), (2, 1), (2, 2), (3, 2), (4, 3), (7, 3)])
def test_a_new_node_takes_its_share(nodes: int, replicas: int) -> None:
    cache = filled(nodes, replicas)
    assert cache.add_node() == nodes
    check(cache)
    share = len(KEYS) * replicas / (nodes + 1)
    assert 0.5 * share <= cache.nodes()[nodes].entries <= 1.6 * share
    assert cache.sync().converged
    # Who is no owner any more has given it up.
    assert all(copies(cache, key) == replicas for key in KEYS)


@pytest.mark.parametrize(("nodes", "replicas"), [(2, 1), (2, 2), (3, 2), (4, 3), (7, 3)])
def test_every_node_may_leave_and_hands_over_first(nodes: int, replicas: int) -> None:
    for node in range(nodes):
        cache = filled(nodes, replicas)
        cache.remove_node(node)
        assert [status.id for status in cache.nodes()] == [other for other in range(nodes) if other != node]
        check(cache)
        assert cache.sync().converged
        assert all(copies(cache, key) == min(replicas, nodes - 1) for key in KEYS)


def test_all_nodes_may_be_replaced_one_by_one() -> None:
    cache = filled(3, 2)
    # The lowest number that is free is given out.
    for node, number in enumerate([3, 0, 1]):
        assert cache.add_node() == number
        check(cache)
        cache.remove_node(node)
        check(cache)
    assert cache.sync().converged
    check(cache)


def test_a_cache_may_shrink_to_one_node_and_grow_again() -> None:
    cache = filled(6, 3)
    for node in range(5):
        cache.remove_node(node)
        check(cache)
    with pytest.raises(ValueError, match="at least 1 after one is removed; nothing was done"):
        cache.remove_node(5)
    check(cache)
    for _ in range(5):
        cache.add_node()
        check(cache)
    assert cache.sync().converged
    assert all(copies(cache, key) == 3 for key in KEYS)


@pytest.mark.parametrize(
    "history", [["add", "add", 5, "add"], ["add", 1, 0, 3, "add", "add"], [0, 4, "add"], ["add"] * 5]
)
@pytest.mark.parametrize("lose_memory", [True, False], ids=["crash", "cut off"])
def test_after_any_change_each_node_may_fail(history: list[str | int], lose_memory: bool) -> None:
    def changed() -> Cache:
        cache = Cache(5, 2, gossip_interval=None)
        for change in history[:-1]:
            cache.add_node() if change == "add" else cache.remove_node(int(change))
        cache.put_many((key, number, 10) for number, key in enumerate(KEYS))
        cache.remove_many((f"gone {number}" for number in range(100)), 20)
        change = history[-1]
        cache.add_node() if change == "add" else cache.remove_node(int(change))
        return cache

    for node in [node.id for node in changed().nodes()]:
        cache = changed()
        cache.fail_node(node, lose_memory)
        assert cache.get_many(KEYS) == {key: (number, 10) for number, key in enumerate(KEYS)}
        assert [number for number in range(100) if cache.put(f"gone {number}", "late", 15)] == []
        assert cache.sync().converged


def test_a_node_that_is_down_may_be_removed_for_good() -> None:
    for lose_memory in (True, False):
        cache = filled(4, 2)
        cache.fail_node(1, lose_memory)
        cache.remove_node(1)
        assert [node.id for node in cache.nodes()] == [0, 2, 3]
        assert cache.sync().converged
        check(cache)
        assert cache.add_node() == 1
        check(cache)
        assert cache.nodes()[1].state == "live"


def test_nodes_may_join_and_leave_while_another_is_down() -> None:
    cache = filled(4, 3)
    cache.fail_node(0)
    added = cache.add_node()
    assert cache.get_many(KEYS) == {key: (number, 10) for number, key in enumerate(KEYS)}
    cache.remove_node(2)
    assert cache.get_many(KEYS) == {key: (number, 10) for number, key in enumerate(KEYS)}
    cache.recover_node(0)
    cache.remove_node(added)
    assert cache.sync().converged
    check(cache)


def test_the_number_of_a_node_that_left_is_given_to_the_next() -> None:
    cache = filled(3, 2)
    old = cache.node(1)
    cache.remove_node(1)
    with pytest.raises(ValueError, match=r"there is no node 1, only \[0, 2\]"):
        old.get(KEYS[0])
    assert cache.add_node() == 1
    assert cache.node(1).id == 1
    check(cache)


def test_what_does_not_fit_is_dropped_by_the_newcomer_and_no_one_else() -> None:
    cache = filled(2, 2, "64KiB")
    before = [node.entries for node in cache.nodes()]
    small = cache.add_node("16KiB")
    nodes = cache.nodes()
    assert nodes[small].bytes_used <= 16384
    assert [node.evictions for node in nodes] == [0, 0, 0]
    # Nothing is lost: where the newcomer has no room, another owner has the value.
    assert set(cache.get_many(KEYS)) == set(KEYS)
    assert [node.entries for node in nodes][:2] <= before


def test_adding_one_of_n_moves_few_copies() -> None:
    for nodes in (2, 3, 5, 10):
        cache = Cache(nodes, 2, gossip_interval=None)
        keys = [f"{number}" for number in range(2000)]
        before = {key: set(cache.owners(key)) for key in keys}
        cache.add_node()
        moved = sum(len(set(cache.owners(key)) - before[key]) for key in keys)
        # Of 2 copies each; a fair share of the newcomer is 1 / (N + 1) of them.
        assert moved <= 1.6 / (nodes + 1) * 2 * len(keys), nodes
