"""A broken network splits the nodes; both sides go on, and after it is healed all agree on the newest."""

import random
from typing import Any

import pytest

from distributed_consistent_cache import Cache
from helpers import owners_hold

KEYS = [f"key {number}" for number in range(50)]


def split(nodes: int = 4, replicas: int = 4) -> tuple[Cache, list[int], list[int]]:
    cache = Cache(nodes, replicas, gossip_interval=None)
    left, right = list(range(nodes // 2)), list(range(nodes // 2, nodes))
    cache.put("before", "the cut", 1)
    cache.cut(left, right)
    return cache, left, right


def everywhere(cache: Cache, key: str, nodes: int = 4) -> list[tuple[Any, int]]:
    return [cache.node(node).get(key) for node in range(nodes)]


def test_each_side_knows_what_its_own_nodes_were_told() -> None:
    cache, left, right = split()
    assert cache.node(left[0]).put("key", "left", 5) is True
    assert cache.node(right[0]).put("key", "right", 4) is True
    assert everywhere(cache, "key") == [("left", 5)] * 2 + [("right", 4)] * 2
    assert everywhere(cache, "before") == [("the cut", 1)] * 4


@pytest.mark.parametrize(
    ("told_left", "told_right", "newest"),
    [
        (("put", "a", 5), ("put", "b", 4), ("a", 5)),
        (("put", "a", 4), ("put", "b", 5), ("b", 5)),
        (("put", "a", 5), ("remove", 4), ("a", 5)),
        (("put", "a", 4), ("remove", 5), (None, -1)),
        (("put", "a", 5), ("remove", 5), (None, -1)),
        (("remove", 4), ("remove", 5), (None, -1)),
        (("put", "a", 5), ("put", "a", 5), ("a", 5)),
        (("put", "a", 5), None, ("a", 5)),
        (None, ("remove", 5), (None, -1)),
    ],
)
@pytest.mark.parametrize("mend", ["sync", "gossip"])
def test_after_healing_the_newest_is_everywhere(told_left: Any, told_right: Any, newest: Any, mend: str) -> None:
    cache, left, right = split()
    for side, told in ((left, told_left), (right, told_right)):
        if told is not None and told[0] == "put":
            cache.node(side[0]).put("before", told[1], told[2])
        elif told is not None:
            cache.node(side[0]).remove("before", told[1])
    assert cache.sync().converged is False
    cache.heal()
    if mend == "sync":
        assert cache.sync().converged is True
    else:
        for _ in range(12):
            cache.gossip()
    assert everywhere(cache, "before") == [newest] * 4
    assert cache.get("before") == newest
    late = 4 if newest == (None, -1) else newest[1] - 1
    assert all(cache.node(node).put("before", "late", late) is False for node in range(4))


def test_two_values_of_one_time_fall_the_same_way_as_in_a_whole_network() -> None:
    whole = Cache(4, 4, gossip_interval=None)
    for number, key in enumerate(KEYS):
        whole.put(key, f"left {number}", 5)
        whole.put(key, f"right {number}", 5)
    cache, left, right = split()
    for number, key in enumerate(KEYS):
        assert cache.node(left[-1]).put(key, f"left {number}", 5) is True
        assert cache.node(right[-1]).put(key, f"right {number}", 5) is True
    cache.heal()
    assert cache.sync().converged
    for key in KEYS:
        assert everywhere(cache, key) == [whole.get(key)] * 4
    # Each side won some.
    assert len({str(cache.get(key)[0]).split()[0] for key in KEYS}) == 2


def test_a_caller_reaches_both_sides() -> None:
    cache, _, right = split()
    cache.node(right[0]).put("key", "right", 5)
    for key in KEYS:
        assert cache.put(key, 1, 1) is True
    # All are asked and the newest counts.
    assert cache.get("key", read_quorum="all") == ("right", 5)
    cache.fail_node(0)
    cache.fail_node(1)
    assert cache.get("key") == ("right", 5)
    # Of what the left side was told, nothing had got across.
    assert [cache.get(key) for key in KEYS if cache.get(key)[1] >= 0] == [(1, 1)] * len(cache.get_many(KEYS))


@pytest.mark.parametrize("seed", range(10))
def test_writes_on_both_sides_of_many_cuts_converge(seed: int) -> None:
    rng = random.Random(seed)
    nodes = rng.randint(3, 7)
    cache = Cache(nodes, rng.randint(2, nodes), gossip_interval=None)
    newest: dict[str, tuple[int, bool]] = {}
    timestamps = iter(rng.sample(range(10_000), 2_000))
    for _ in range(8):
        members = rng.sample(range(nodes), nodes)
        at = rng.randint(1, nodes - 1)
        cache.cut(members[:at], members[at:])
        for _ in range(60):
            key, timestamp = rng.choice(KEYS), next(timestamps)
            node = cache.node(rng.choice(cache.owners(key)))
            is_put = rng.random() < 0.7
            if is_put:
                node.put(key, timestamp, timestamp)
            else:
                node.remove(key, timestamp)
            newest[key] = max(newest.get(key, (-1, False)), (timestamp, is_put))
            if rng.random() < 0.1:
                cache.gossip()
        if rng.random() < 0.7:
            cache.heal()
    cache.heal()
    assert cache.sync().converged
    for key, (timestamp, is_put) in newest.items():
        expected = (timestamp, timestamp) if is_put else (None, -1)
        assert owners_hold(cache, key) == [expected] * cache.replicas, key
    assert len(cache) == sum(is_put for _, is_put in newest.values())


def test_a_write_refused_for_a_newer_one_brings_the_newer_one() -> None:
    for told_late in ("put", "remove"):
        cache = Cache(2, 2, gossip_interval=None)
        cache.cut([0], [1])
        cache.node(1).put("key", "newer", 9)
        cache.heal()
        if told_late == "put":
            assert cache.node(0).put("key", "older", 5) is False
        else:
            assert cache.node(0).remove("key", 5) is False
        assert cache.sync().converged
        assert owners_hold(cache, "key") == [("newer", 9)] * 2


def test_a_node_that_crashes_while_cut_off_from_some_catches_up_with_all_after_healing() -> None:
    cache, left, right = split()
    cache.node(right[0]).put("key", "right", 5)
    cache.fail_node(left[0])
    cache.recover_node(left[0])
    assert cache.node(left[0]).get("before") == ("the cut", 1)
    assert cache.node(left[0]).get("key") == (None, -1)
    cache.heal()
    assert cache.sync().converged
    assert everywhere(cache, "key") == [("right", 5)] * 4


def test_a_node_may_be_cut_from_one_other_only() -> None:
    cache = Cache(3, 3, gossip_interval=None)
    cache.cut([0], [1])
    cache.node(0).put("key", 1, 1)
    # Node 2 hears both, and what it has heard travels on.
    for _ in range(6):
        cache.gossip()
    assert everywhere(cache, "key", 3) == [(1, 1)] * 3


def test_cuts_add_up_and_healing_undoes_them_all() -> None:
    cache = Cache(3, 3, gossip_interval=None)
    cache.cut([0], [1])
    cache.cut([0], [2])
    cache.node(0).put("key", 1, 1)
    cache.sync()
    assert everywhere(cache, "key", 3) == [(1, 1), (None, -1), (None, -1)]
    cache.heal()
    cache.heal()
    assert cache.sync().converged
    assert everywhere(cache, "key", 3) == [(1, 1)] * 3


def test_a_cut_of_nobody_changes_nothing() -> None:
    cache = Cache(3, 3, gossip_interval=None)
    cache.cut([], [])
    cache.cut([0, 1, 2], [])
    cache.put("key", 1, 1)
    assert everywhere(cache, "key", 3) == [(1, 1)] * 3
    assert cache.sync().converged


def test_a_node_passes_on_what_it_does_not_own() -> None:
    cache = Cache(5, 2, gossip_interval=None)
    stranger = next(node for node in range(5) if node not in cache.owners("key"))
    assert cache.node(stranger).put("key", "value", 5) is True
    assert owners_hold(cache, "key") == [("value", 5)] * 2
    assert cache.node(stranger).get("key") == (None, -1)
    assert cache.node(stranger).put("key", "older", 4) is False
    assert cache.node(stranger).remove("key", 6) is True
    assert cache.get("key") == (None, -1)
