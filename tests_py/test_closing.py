"""A closed cache says so, gives its memory back when it is dropped, and cannot be pickled."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from conftest import RunProgram
from distributed_consistent_cache import Cache, CacheError, ClosedError

CALLS: dict[str, Callable[[Cache], Any]] = {
    "put": lambda cache: cache.put("key", 1),
    "get": lambda cache: cache.get("key"),
    "get of a miss": lambda cache: cache.get("missing", "default"),
    "remove": lambda cache: cache.remove("key"),
    "put_many": lambda cache: cache.put_many({"key": 1}),
    "put_many of nothing": lambda cache: cache.put_many({}),
    "get_many": lambda cache: cache.get_many(["key"]),
    "get_many of nothing": lambda cache: cache.get_many([]),
    "remove_many": lambda cache: cache.remove_many(["key"]),
    "remove_many of nothing": lambda cache: cache.remove_many([]),
    "clear": lambda cache: cache.clear(),
    "in": lambda cache: "key" in cache,
    "len": len,
    "iter": iter,
    "fail_node": lambda cache: cache.fail_node(0),
    "recover_node": lambda cache: cache.recover_node(0),
    "add_node": lambda cache: cache.add_node(),
    "remove_node": lambda cache: cache.remove_node(0),
    "cut": lambda cache: cache.cut([0], [1]),
    "heal": lambda cache: cache.heal(),
    "owners": lambda cache: cache.owners("key"),
    "nodes": lambda cache: cache.nodes(),
    "node": lambda cache: cache.node(0),
    "gossip": lambda cache: cache.gossip(),
    "sync": lambda cache: cache.sync(),
    "save": lambda cache: cache.save("/nowhere/file"),
    "restore": lambda cache: cache.restore("/nowhere/file"),
    "with": lambda cache: cache.__enter__(),
}


def filled() -> Cache:
    cache = Cache(3, 2, gossip_interval=0.01)
    cache.put("key", 1, 1)
    return cache


@pytest.mark.parametrize("name", CALLS)
def test_every_call_after_closing_raises_closed_error(name: str) -> None:
    cache = filled()
    cache.close()
    with pytest.raises(ClosedError, match=r"^the cache is closed; nothing was done") as raised:
        CALLS[name](cache)
    assert isinstance(raised.value, CacheError)


def test_a_node_of_a_closed_cache_is_closed_too() -> None:
    cache = filled()
    node = cache.node(0)
    cache.close()
    for call in (lambda: node.get("key"), lambda: node.put("key", 1), lambda: node.remove("key")):
        with pytest.raises(ClosedError):
            call()
    assert node.id == 0


def test_what_a_closed_cache_still_tells() -> None:
    cache = filled()
    keys = iter(cache)
    assert cache.closed is False
    cache.close()
    assert cache.closed is True
    cache.close()
    assert cache.closed is True
    assert cache.replicas == 2
    assert cache.partitions > 0
    assert repr(cache) == "<Cache: 3 nodes, 2 replicas, closed>"
    # The memory is given back: an iteration that has begun has nothing left to look at.
    with pytest.raises(ClosedError):
        list(keys)


def test_a_with_block_closes_the_cache() -> None:
    with filled() as cache:
        assert isinstance(cache, Cache)
        assert cache.get("key") == (1, 1)
    assert cache.closed
    with pytest.raises(ClosedError), cache:
        pass


def test_an_error_in_a_with_block_comes_through_and_closes_the_cache() -> None:
    cache = filled()
    with pytest.raises(ZeroDivisionError), cache:
        raise ZeroDivisionError
    assert cache.closed


def test_a_cache_may_be_closed_within_its_block() -> None:
    with filled() as cache:
        cache.close()
    assert cache.closed


@pytest.mark.parametrize("attempt", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda attempt: attempt.__name__)
@pytest.mark.parametrize("what", ["cache", "node", "in a list"])
def test_a_cache_cannot_be_pickled_or_copied(attempt: Callable[[Any], Any], what: str) -> None:
    cache = filled()
    given: Any = {"cache": cache, "node": cache.node(0), "in a list": [cache]}[what]
    if what == "in a list" and attempt is copy.copy:
        return
    with pytest.raises(TypeError) as raised:
        attempt(given)
    if what != "node":
        assert "a Cache cannot be pickled: it lives in this process" in str(raised.value)
    assert cache.get("key") == (1, 1)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_protocol_pickles_a_cache(protocol: int) -> None:
    with pytest.raises(TypeError, match="a Cache cannot be pickled"):
        pickle.dumps(filled(), protocol)


def test_texts_of_objects_say_what_they_are() -> None:
    cache = Cache(3, 2, gossip_interval=None)
    assert repr(cache) == str(cache) == "<Cache: 3 nodes, 2 replicas>"
    cache.fail_node(1)
    cache.fail_node(2, lose_memory=False)
    assert repr(cache) == "<Cache: 3 nodes, 2 replicas, 2 down>"
    assert repr(cache.node(0)) == "<Node 0>"
    assert repr(cache.nodes()[1]).startswith(
        "NodeStatus(id=1, state='failed', entries=0, bytes_used=0, bytes_max=1048576"
    )
    assert repr(Cache(1, gossip_interval=None)) == "<Cache: 1 node, 1 replica>"


def test_a_cache_is_equal_to_itself_only_and_is_true() -> None:
    cache, other = Cache(1, gossip_interval=None), Cache(1, gossip_interval=None)
    assert cache == cache
    assert cache != other
    assert len({cache, other, cache}) == 2


def test_nothing_can_be_set_on_a_cache() -> None:
    cache = filled()
    for name in ("closed", "replicas", "partitions", "unknown"):
        with pytest.raises(AttributeError):
            setattr(cache, name, 1)


def test_a_dropped_cache_gives_its_memory_back(run_program: RunProgram) -> None:
    program = """
        import gc, sys
        from distributed_consistent_cache import Cache

        def megabytes():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * 4096 / 2**20

        def fill(how):
            cache = Cache(3, 2, "64MiB", gossip_interval=0.01, compression=None)
            cache.put_many((f"large {number}", bytes(100_000)) for number in range(600))
            cache.put_many((f"small {number}", bytes(100)) for number in range(50_000))
            if how == "closed":
                cache.close()
            if how == "cycle":
                loop = [cache]
                loop.append(loop)
            if how == "failed":
                for node in range(3):
                    cache.fail_node(node)
                    cache.recover_node(node)
            if how == "left":
                while len(nodes := cache.nodes()) > 1:
                    cache.fail_node(nodes[0].id)
                    cache.remove_node(nodes[0].id)
            return megabytes()

        if sys.platform == "linux":
            # How much of it the allocator returns to the system is its own affair; that it is used again is ours.
            before = megabytes()
            # While a node is down, stand-ins hold copies too.
            full = max(fill("dropped"), fill("failed"))
            assert full > before + 100
            for how in ("dropped", "closed", "cycle", "failed", "left", "closed", "failed"):
                gc.collect()
                assert fill(how) < full + 60, how
    """
    assert run_program(program) == ""
