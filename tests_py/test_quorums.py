"""A quorum says how many owners must have a write, or are asked by a read. The rest follows by gossip."""

from typing import Any

import pytest

from distributed_consistent_cache import Cache, CacheError, QuorumError
from helpers import copies, owners_hold

# The quorum and how many of five owners have the write when the call returns.
QUORUMS: list[tuple[Any, int]] = [("one", 1), ("majority", 3), ("all", 5), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]


@pytest.mark.parametrize(("quorum", "count"), QUORUMS)
@pytest.mark.parametrize("where", ["of the cache", "of the call"])
def test_so_many_owners_have_a_write_when_it_returns(quorum: Any, count: int, where: str) -> None:
    of_the_cache, of_the_call = (quorum, None) if where == "of the cache" else ("all" if count < 5 else "one", quorum)
    cache = Cache(6, 5, write_quorum=of_the_cache, gossip_interval=None)
    assert cache.put("key", 1, 1, write_quorum=of_the_call) is True
    assert copies(cache, "key") == count
    assert cache.put_many({f"many {number}": number for number in range(100)}, 1, write_quorum=of_the_call) == []
    assert all(copies(cache, f"many {number}") == count for number in range(100))
    assert cache.sync().converged
    assert copies(cache, "key") == 5
    assert cache.remove("key", 2, write_quorum=of_the_call) is True
    assert copies(cache, "key") == 5 - count
    assert cache.remove_many(["many 1", "many 2"], 2, write_quorum=of_the_call) == 2
    assert copies(cache, "many 1") == 5 - count
    assert cache.sync().converged
    assert copies(cache, "key") == copies(cache, "many 1") == 0


@pytest.mark.parametrize(("replicas", "majority"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_a_majority_is_more_than_half_of_the_replicas(replicas: int, majority: int) -> None:
    cache = Cache(7, replicas, write_quorum="majority", gossip_interval=None)
    cache.put("key", 1, 1)
    assert copies(cache, "key") == majority


def test_what_one_owner_has_is_read_from_any_quorum() -> None:
    cache = Cache(5, 5, write_quorum="one", gossip_interval=None)
    cache.put("key", "new", 2)
    for quorum in ("one", "majority", "all", 1, 2, 3, 4, 5):
        assert cache.get("key", read_quorum=quorum) == ("new", 2)  # type: ignore[arg-type]
        assert cache.get_many(["key"], read_quorum=quorum) == {"key": ("new", 2)}  # type: ignore[arg-type]


def disagreeing(**options: Any) -> tuple[Cache, list[int]]:
    """Three owners, of which the last knows something newer than the others."""
    cache = Cache(3, 3, gossip_interval=None, **options)
    cache.put("key", "old", 1)
    cache.put("removed by the last", "old", 1)
    owners = cache.owners("key")
    cache.cut([owners[2]], owners[:2])
    cache.node(owners[2]).put("key", "new", 2)
    cache.node(owners[2]).remove("removed by the last", 2)
    return cache, owners


def test_a_read_quorum_takes_the_newest_of_so_many_answers() -> None:
    cache, _ = disagreeing()
    assert cache.get("key") == ("old", 1)
    assert cache.get("key", read_quorum="one") == ("old", 1)
    assert cache.get("key", read_quorum=2) == ("old", 1)
    assert cache.get("key", read_quorum="all") == ("new", 2)
    assert cache.get("key", read_quorum=3) == ("new", 2)
    assert cache.get_many(["key"], read_quorum="all") == {"key": ("new", 2)}
    assert cache.get("removed by the last", read_quorum="all") == (None, -1)
    assert cache.get("removed by the last", "default", read_quorum=3) == ("default", -1)


def test_the_read_quorum_of_the_cache_is_for_every_read() -> None:
    cache, _ = disagreeing(read_quorum="all")
    assert cache.get("key") == ("new", 2)
    assert cache.get_many(["key", "removed by the last"]) == {"key": ("new", 2)}
    assert cache.get("key", read_quorum="one") == ("old", 1)


def test_reads_and_writes_of_majorities_see_each_other_in_any_cut() -> None:
    cache = Cache(5, 5, write_quorum="majority", read_quorum="majority", gossip_interval=None)
    for number in range(50):
        # Any two are down, and what they missed they do not say.
        down = [number % 5, (number * 2 + 1) % 5]
        for node in set(down):
            cache.fail_node(node, lose_memory=False)
        assert cache.put("key", number, number) is True
        for node in set(down):
            cache.recover_node(node)
        assert cache.get("key") == (number, number)


# Live nodes of three, the quorum, and how many answer; None if that is enough.
UNMET: list[tuple[int, Any, int, int | None]] = [
    (1, "majority", 2, 1),
    (1, 2, 2, 1),
    (1, 3, 3, 1),
    (2, 3, 3, 2),
    (2, "majority", 2, None),
    (2, "all", 3, None),
    (1, "all", 3, None),
    (1, "one", 1, None),
    (1, 1, 1, None),
]


@pytest.mark.parametrize(("live", "quorum", "wanted", "reached"), UNMET)
def test_too_few_owners_raise_and_the_write_is_not_undone(
    live: int, quorum: Any, wanted: int, reached: int | None
) -> None:
    cache = Cache(3, 3, gossip_interval=None)
    cache.put("key", "old", 1)
    for node in range(live, 3):
        cache.fail_node(node, lose_memory=False)
    if reached is None:
        assert cache.put("key", "new", 2, write_quorum=quorum) is True
        assert cache.get("key", read_quorum=quorum) == ("new", 2)
    else:
        message = f"^{wanted} owners had to answer and {reached} did; a write they hold is not undone"
        with pytest.raises(QuorumError, match=message) as raised:
            cache.put("key", "new", 2, write_quorum=quorum)
        assert isinstance(raised.value, CacheError)
        with pytest.raises(QuorumError, match=f"^{wanted} owners had to answer and {reached} did"):
            cache.get("key", read_quorum=quorum)
        with pytest.raises(QuorumError):
            cache.get_many(["key"], read_quorum=quorum)
    # Those who have it are read, and it spreads from them.
    assert cache.get("key") == ("new", 2)
    for node in range(live, 3):
        cache.recover_node(node)
    assert cache.sync().converged
    assert owners_hold(cache, "key") == [("new", 2)] * 3


def test_a_remove_without_its_quorum_is_not_undone_either() -> None:
    cache = Cache(2, 2, write_quorum=2, gossip_interval=None)
    cache.put("key", 1, 1)
    cache.fail_node(1, lose_memory=False)
    with pytest.raises(QuorumError):
        cache.remove("key", 2)
    with pytest.raises(QuorumError):
        cache.remove_many(["key"], 2)
    assert cache.get("key") == (None, -1)
    cache.recover_node(1)
    assert cache.get("key") == (None, -1)


def test_an_older_write_is_refused_whatever_the_quorum() -> None:
    cache = Cache(3, 3, gossip_interval=None)
    cache.put("key", "new", 2)
    for quorum in ("one", "majority", "all", 3):
        assert cache.put("key", "old", 1, write_quorum=quorum) is False  # type: ignore[arg-type]


def test_a_miss_is_a_miss_for_every_quorum() -> None:
    cache = Cache(3, 3, gossip_interval=None)
    for quorum in ("one", "majority", "all", 1, 2, 3):
        assert cache.get("nobody", read_quorum=quorum) == (None, -1)  # type: ignore[arg-type]


def test_a_new_node_counts_as_an_owner_that_answers() -> None:
    cache = Cache(2, 2, write_quorum=2, read_quorum=2, gossip_interval=None)
    cache.put("key", 1, 1)
    cache.fail_node(0)
    with pytest.raises(QuorumError):
        cache.put("key", 2, 2)
    cache.add_node()
    assert cache.put("key", 3, 3) is True
    assert cache.get("key") == (3, 3)
