"""While nothing is evicted, a cache is a dictionary of the newest version of each key, whatever the nodes go through.

At most R - 1 nodes are down at once: so many failures may cost no acknowledged write.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache as remember
from random import Random
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distributed_consistent_cache import Cache

KEYS = [f"key {number}" for number in range(6)]
VALUES: list[Any] = [None, 0, "a", b"a", (1, "a"), {"x": [1.5]}, "long" * 5000]

Step: TypeAlias = tuple[Any, ...]

# Timestamps of all units meet here on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::distributed_consistent_cache.TimestampWarning")

# A version as the rule orders them: timestamp, put before remove, rank of the value among values of one time.
Version: TypeAlias = tuple[int, bool, int]


@remember
def rank(index: int) -> int:
    """The place of a value among all: found out by asking a cache of one node, two values at a time."""

    def wins(one: Any, other: Any) -> bool:
        judge = Cache(1, gossip_interval=None)
        judge.put("key", other, 1)
        return judge.put("key", one, 1)

    return sum(wins(VALUES[index], other) for other in VALUES)


@dataclass
class Model:
    """What must be known, and who is down."""

    replicas: int
    nodes: set[int]
    newest: dict[str, Version] = field(default_factory=dict)
    values: dict[int, Any] = field(default_factory=lambda: {rank(index): value for index, value in enumerate(VALUES)})
    down: set[int] = field(default_factory=set)
    # Nodes that were down when they were removed: until the next sync, copies are missing for them.
    missed: int = 0

    def write(self, key: str, version: Version) -> bool:
        if version < self.newest.get(key, (-1, False, 0)):
            return False
        self.newest[key] = version
        return True

    def get(self, key: str) -> tuple[Any, int]:
        timestamp, removed, value = self.newest.get(key, (-1, True, 0))
        return (None, -1) if removed else (self.values[value], timestamp)

    def live_keys(self) -> list[str]:
        return [key for key in KEYS if self.get(key)[1] >= 0]

    def may_fail(self, node: int) -> bool:
        return node in self.down or len(self.down) + self.missed + 1 < self.replicas


keys = st.sampled_from(KEYS)
indexes = st.integers(0, len(VALUES) - 1)
timestamps = st.one_of(st.integers(0, 6), st.sampled_from([2**63 - 1, 2**53 + 1, 1_700_000_000_000_000]))
nodes = st.integers(0, 9)
step = st.one_of(
    st.tuples(st.just("put"), keys, indexes, timestamps),
    st.tuples(st.just("remove"), keys, timestamps),
    st.tuples(st.just("put_many"), st.lists(st.tuples(keys, indexes, timestamps))),
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("fail"), nodes, st.booleans()),
    st.tuples(st.just("recover"), nodes),
    st.tuples(st.just("add")),
    st.tuples(st.just("leave"), nodes),
    st.tuples(st.just("gossip")),
    st.tuples(st.just("sync")),
)
# Short stories shrink well, long ones go far.
steps = st.one_of(st.lists(step), st.lists(step, min_size=25, max_size=80))


def random_step(random: Random, timestamp: int) -> Step:
    """One step of a long life: mostly writes, around a time that goes on."""
    time = max(0, timestamp + random.randint(-20, 5))
    key, node = random.choice(KEYS), random.randrange(10)
    choices: dict[str, tuple[int, Step]] = {
        "put": (30, ("put", key, random.randrange(len(VALUES)), time)),
        "remove": (10, ("remove", key, time)),
        "get": (10, ("get", key)),
        "fail": (3, ("fail", node, random.random() < 0.5)),
        "recover": (3, ("recover", node)),
        "add": (1, ("add",)),
        "leave": (1, ("leave", node)),
        "gossip": (5, ("gossip",)),
        "sync": (1, ("sync",)),
    }
    return random.choices([step for _, step in choices.values()], [weight for weight, _ in choices.values()])[0]


def change_nodes(cache: Cache, model: Model, step: Step) -> None:
    """Let a node go or come, as far as the promise covers it."""
    match step:
        case ("fail", int(number), bool(lose_memory)):
            node = sorted(model.nodes)[number % len(model.nodes)]
            if model.may_fail(node):
                cache.fail_node(node, lose_memory)
                model.down.add(node)
        case ("recover", int(number)):
            node = sorted(model.nodes)[number % len(model.nodes)]
            cache.recover_node(node)
            model.down.discard(node)
        case ("add",) if len(model.nodes) < 10:
            node = cache.add_node()
            assert node not in model.nodes
            model.nodes.add(node)
        case ("leave", int(number)) if len(model.nodes) > max(model.replicas, 1 + len(model.down)):
            node = sorted(model.nodes)[number % len(model.nodes)]
            cache.remove_node(node)
            model.nodes.remove(node)
            if node in model.down:
                model.down.remove(node)
                model.missed += 1
        case ("gossip",):
            cache.gossip()
        case ("sync",):
            assert cache.sync().converged
            model.missed = 0


def take(cache: Cache, model: Model, step: Step) -> None:
    match step:
        case ("put", key, index, timestamp):
            assert cache.put(key, VALUES[index], timestamp) is model.write(key, (timestamp, False, rank(index)))
        case ("remove", key, timestamp):
            was_live = model.get(key)[1] >= 0
            newest = model.write(key, (timestamp, True, 0))
            assert cache.remove(key, timestamp) is (newest and was_live)
        case ("put_many", items):
            cache.put_many([(key, VALUES[index], timestamp) for key, index, timestamp in items])
            for key, index, timestamp in items:
                model.write(key, (timestamp, False, rank(index)))
        case ("get", key):
            assert cache.get(key) == model.get(key)
        case _:
            change_nodes(cache, model, step)


def compare(cache: Cache, model: Model) -> None:
    """All that can be read says the same."""
    live = model.live_keys()
    assert cache.get_many(KEYS) == {key: model.get(key) for key in live}
    assert [cache.get(key) for key in KEYS] == [model.get(key) for key in KEYS]
    assert [key for key in KEYS if key in cache] == live
    assert (sorted(cache), len(cache)) == (live, len(live))
    assert {node.id for node in cache.nodes()} == model.nodes
    assert {node.id for node in cache.nodes() if node.state != "live"} == model.down
    for node in cache.nodes():
        assert node.bytes_used <= node.bytes_max
        assert node.evictions == 0


def compare_copies(cache: Cache, model: Model) -> None:
    """After a sync each live owner has each key, and there are as many owners as there can be."""
    for key in KEYS:
        owners = cache.owners(key)
        assert len(set(owners)) == len(owners) == min(model.replicas, len(model.nodes - model.down))
        for owner in owners:
            assert cache.node(owner).get(key) == model.get(key), f"{key} on node {owner}"


def live_through(steps: Iterable[Step], start: int, replicas: int) -> None:
    """Take every step on a cache and on a dictionary, then let everyone return."""
    cache = Cache(start, replicas, node_capacity="256KiB", gossip_interval=None)
    model = Model(replicas, set(range(start)))
    for step in steps:
        take(cache, model, step)
    compare(cache, model)
    assert cache.sync().converged
    compare_copies(cache, model)
    for node in sorted(model.down):
        cache.recover_node(node)
        model.down.remove(node)
        compare(cache, model)
    assert cache.sync().converged
    compare_copies(cache, model)
    cache.close()


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), start=st.integers(1, 8), steps=steps)
def test_any_writes_and_any_failures_agree_with_a_dictionary(
    data: st.DataObject, start: int, steps: list[Step]
) -> None:
    live_through(steps, start, data.draw(st.integers(1, start), "replicas"))


@pytest.mark.parametrize("seed", [*range(25), 90, 146, 261, 309, 376, 1796])
def test_a_long_life_agrees_with_a_dictionary(seed: int) -> None:
    random = Random(seed)
    start = random.randint(2, 8)
    steps = (random_step(random, number // 10) for number in range(2000))
    live_through(steps, start, random.randint(2, start))


@settings(max_examples=100)
@given(steps=steps)
def test_a_cache_of_one_node_is_a_dictionary_after_every_step(steps: list[Step]) -> None:
    cache = Cache(1, gossip_interval=None)
    model = Model(1, {0})
    for step in steps:
        if step[0] in ("put", "remove", "put_many", "get"):
            take(cache, model, step)
            compare(cache, model)
