"""`len`, iteration and the gauges count the same keys, also while copies differ: no room, cut off, late, expired."""

import contextlib
import math
import random
from collections.abc import Callable

import pytest

from distributed_consistent_cache import Cache, CacheError, ManualClock

STEPS = 120
KEYS = 400

Move = Callable[[Cache, ManualClock, random.Random], object]


def key(chance: random.Random) -> str:
    return f"key {chance.randrange(KEYS)}"


def write(cache: Cache, _: ManualClock, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 1, 30])):
        value, ttl = "x" * chance.choice([1, 10, 200]), chance.choice([None, None, chance.uniform(0.1, 20)])
        cache.put(key(chance), value, chance.randrange(1000), ttl=ttl)


def write_at_one(cache: Cache, _: ManualClock, chance: random.Random) -> None:
    node = chance.choice(cache.nodes()).id
    cache.node(node).put(key(chance), "there", chance.randrange(1000))


def cut(cache: Cache, _: ManualClock, chance: random.Random) -> None:
    nodes = [node.id for node in cache.nodes()]
    side = chance.randrange(len(nodes))
    cache.cut(nodes[:side], nodes[side:])


def fail(cache: Cache, _: ManualClock, chance: random.Random) -> None:
    live = [node.id for node in cache.nodes() if node.state == "live"]
    if len(live) > 1:
        cache.fail_node(chance.choice(live), lose_memory=chance.random() < 0.5)


def recover(cache: Cache, _: ManualClock, chance: random.Random) -> None:
    down = [node.id for node in cache.nodes() if node.state != "live"]
    if down:
        cache.recover_node(chance.choice(down))


MOVES: dict[Move, int] = {
    write: 12,
    write_at_one: 2,
    cut: 1,
    fail: 1,
    recover: 1,
    lambda cache, _, chance: cache.remove(key(chance), chance.randrange(1000)): 2,
    lambda cache, _, chance: cache.touch(key(chance), chance.choice([math.inf, 5])): 1,
    lambda _, clock, chance: clock.advance(chance.uniform(0, 10)): 1,
    lambda cache, _, chance: cache.heal(): 1,
    lambda cache, _, chance: cache.gossip(): 1,
    lambda cache, _, chance: cache.sync(): 1,
}


@pytest.mark.parametrize("seed", range(40))
def test_all_count_the_same_keys(seed: int) -> None:
    chance, clock = random.Random(seed), ManualClock()
    nodes = chance.randint(1, 5)
    replicas, capacity = chance.randint(1, nodes), chance.choice(["16KiB", "32KiB", "1MiB"])
    quorum = chance.choice(["one", "all"])
    with Cache(nodes, replicas, capacity, write_quorum=quorum, gossip_interval=None, clock=clock) as cache:
        for step in range(STEPS):
            move = chance.choices(list(MOVES), list(MOVES.values()))[0]
            # Where too few can be reached, whoever can has it.
            with contextlib.suppress(CacheError):
                move(cache, clock, chance)
            counted = len(cache), len(list(cache)), len(set(cache)), cache.gauges().keys, cache.stats().keys
            assert len(set(counted)) == 1, f"seed {seed}, step {step}: {counted}"


def test_len_is_what_is_left_when_all_that_ends_has_ended() -> None:
    clock = ManualClock()
    with Cache(3, 2, "8MiB", gossip_interval=None, clock=clock) as cache:
        cache.put_many((f"stays {number}", number) for number in range(500))
        # More than anybody looks through for one partition, and fewer.
        for batch, ttl in ((3000, 10), (100, 20)):
            cache.put_many(((f"ends {ttl} {number}", number) for number in range(batch)), ttl=ttl)
        assert len(cache) == len(list(cache)) == 3600
        clock.advance(11)
        assert len(cache) == len(list(cache)) == cache.gauges().keys == 600
        cache.gossip()
        clock.advance(11)
        assert len(cache) == len(list(cache)) == cache.gauges().keys == 500
