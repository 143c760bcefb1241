"""Gauges count what the nodes really hold and have really seen."""

import pytest

from distributed_consistent_cache import Cache, ClosedError


def test_copies_are_the_replicas_and_fall_with_a_node() -> None:
    cache = Cache(nodes=3, replicas=3, gossip_interval=None)
    assert cache.gauges().effective_copies == 0
    cache.put_many({f"key {number}": number for number in range(200)}, timestamp=1)
    gauges = cache.gauges()
    assert (gauges.keys, gauges.copies, gauges.effective_copies) == (200, 600, 3.0)
    cache.fail_node(0)
    assert cache.gauges().effective_copies == 2.0
    cache.recover_node(0)
    assert cache.gauges().effective_copies == 3.0


def test_what_an_owner_has_not_seen_is_counted_until_it_has() -> None:
    cache = Cache(nodes=3, replicas=3, gossip_interval=None)
    cache.cut([0], [1, 2])
    cache.put("key", "value", timestamp=17)
    gauges = cache.gauges()
    assert (gauges.unseen_writes, gauges.oldest_unseen) == (1, 17)
    assert "unseen_writes=1, oldest_unseen=17" in repr(gauges)
    cache.heal()
    assert cache.sync().converged
    assert (cache.gauges().unseen_writes, cache.gauges().oldest_unseen) == (0, None)


def test_a_closed_cache_has_no_gauges() -> None:
    cache = Cache()
    cache.close()
    with pytest.raises(ClosedError):
        cache.gauges()
