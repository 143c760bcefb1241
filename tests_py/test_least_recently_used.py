"""A full node evicts the entry that was used least recently: exactly that one, and no more than it must."""

import random
from collections import OrderedDict
from dataclasses import dataclass, field

import pytest

from distributed_consistent_cache import Cache, ValueTooLargeError


@dataclass
class Shelf:
    """A cache of one node beside its model: a dictionary in the order of use, oldest first."""

    cache: Cache
    model: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    evicted: list[str] = field(default_factory=list)

    def put(self, key: str, value: bytes) -> None:
        assert self.cache.put(key, value) is True
        self.used(key, value)
        self.settle()

    def put_many(self, items: dict[str, bytes]) -> None:
        """Only new keys: the model must not need to know which of them was evicted before it was put."""
        items = {key: value for key, value in items.items() if key not in self.model}
        assert self.cache.put_many(items) == []
        for key, value in items.items():
            self.used(key, value)
        self.settle()

    def used(self, key: str, value: bytes) -> None:
        self.model[key] = value
        self.model.move_to_end(key)

    def get(self, key: str) -> None:
        value, timestamp = self.cache.get(key)
        assert (value, timestamp >= 0) == (self.model.get(key), key in self.model)
        if key in self.model:
            self.model.move_to_end(key)

    def get_many(self, keys: list[str]) -> None:
        found = self.cache.get_many(keys)
        assert {key: value for key, (value, _) in found.items()} == {k: self.model[k] for k in keys if k in self.model}
        for key in found:
            self.model.move_to_end(key)

    def remove(self, key: str) -> None:
        """A use of no entry, but what is remembered of it may need room."""
        assert self.cache.remove(key) is (key in self.model)
        self.model.pop(key, None)
        self.settle()

    def look(self, key: str) -> None:
        """What is no use."""
        assert (key in self.cache) == (key in self.model)
        assert self.cache.node(0).get(key)[0] == self.model.get(key)
        assert len(self.cache) == len(self.model)
        self.cache.owners(key)
        self.cache.gossip()

    def settle(self) -> None:
        """Let the model evict as many as the node counts: which ones is for the model to say."""
        (node,) = self.cache.nodes()
        for _ in range(node.evictions - len(self.evicted)):
            self.evicted.append(self.model.popitem(last=False)[0])

    def check(self) -> None:
        (node,) = self.cache.nodes()
        assert set(self.cache) == set(self.model)
        assert node.entries == len(self.model)
        assert node.bytes_used <= node.bytes_max
        # Nothing is counted twice or not at all: the bytes are those of the entries and some overhead.
        content = sum(len(key) + len(value) for key, value in self.model.items())
        assert content <= node.bytes_used <= content + 100 * len(self.model) + 6_000 + node.marker_bytes


def new_shelf(capacity: str = "32KiB") -> Shelf:
    return Shelf(Cache(1, node_capacity=capacity, gossip_interval=None, compression=None))


def test_entries_leave_in_the_order_in_which_they_came() -> None:
    shelf = new_shelf()
    keys = [f"key {number:04}" for number in range(1000)]
    for key in keys:
        shelf.put(key, b"x" * 100)
    assert shelf.evicted == keys[: len(shelf.evicted)]
    assert list(shelf.model) == keys[len(shelf.evicted) :]
    assert 100 < len(shelf.model) < 900
    shelf.check()


@pytest.mark.parametrize(
    ("use", "counts"),
    [
        ("get", True),
        ("get with a default", True),
        ("get of all", True),
        ("get_many", True),
        ("put", True),
        ("put_many", True),
        ("in", False),
        ("node.get", False),
        ("iteration", False),
        ("len", False),
        ("owners", False),
        ("gossip", False),
    ],
)
def test_what_counts_as_a_use(use: str, counts: bool) -> None:
    cache = Cache(1, node_capacity="16KiB", gossip_interval=None, compression=None)
    cache.put("old", b"x" * 100)
    cache.put("next", b"x" * 100)
    number = 0
    while cache.nodes()[0].evictions == 0:
        match use:
            case "get":
                cache.get("old")
            case "get with a default":
                cache.get("old", 1)
            case "get of all":
                cache.get("old", read_quorum="all")
            case "get_many":
                cache.get_many(["old"])
            case "put":
                cache.put("old", number)
            case "put_many":
                cache.put_many({"old": number})
            case "in":
                assert "old" in cache
            case "node.get":
                cache.node(0).get("old")
            case "iteration":
                assert "old" in list(cache)
            case "len":
                len(cache)
            case "owners":
                cache.owners("old")
            case "gossip":
                cache.sync()
        number += 1
        cache.put(f"key {number}", b"x" * 100)
    assert ("old" in cache, "next" in cache) == ((True, False) if counts else (False, True))


@pytest.mark.parametrize("seed", range(16))
def test_contents_and_order_agree_with_an_ordered_dictionary(seed: int) -> None:
    rng = random.Random(seed)
    shelf = new_shelf("16KiB" if seed % 4 < 2 else "40KiB")
    # Half of the lives have entries of one size, half of any.
    sizes = [60] if seed % 2 else [0, 1, 10, 60, 61, 500, 3000]
    keys = [f"key {number:04}" for number in range(400)]
    for step in range(4000):
        key = rng.choice(keys)
        match rng.randrange(10):
            case 0:
                shelf.remove(key)
            case 1:
                shelf.look(key)
            case 2 | 3 | 4:
                shelf.get(key)
            case 5:
                shelf.get_many(rng.sample(keys, 10))
            case 6:
                shelf.put_many({key: rng.randbytes(rng.choice(sizes)) for key in rng.sample(keys, 10)})
            case _:
                shelf.put(key, rng.randbytes(rng.choice(sizes)))
        if step % 50 == 0:
            shelf.check()
    shelf.check()
    assert shelf.evicted


def test_no_more_is_evicted_than_must_be() -> None:
    shelf = new_shelf("64KiB")
    rng = random.Random(9)
    sizes: dict[str, int] = {}
    for number in range(3000):
        key = f"key {number:05}"
        sizes[key] = rng.choice([10, 100, 1000, 4000])
        before = len(shelf.evicted)
        shelf.put(key, b"x" * sizes[key])
        if len(shelf.evicted) > before:
            (node,) = shelf.cache.nodes()
            # Had the last one stayed, the node would be full but for a reserve of a part in 128, and a page of slots.
            assert node.bytes_used + sizes[shelf.evicted[-1]] + 100 > node.bytes_max - node.bytes_max / 128 - 4096


def test_a_large_entry_pushes_out_as_many_small_ones_as_it_needs() -> None:
    shelf = new_shelf("64KiB")
    for number in range(300):
        shelf.put(f"key {number:03}", b"x" * 100)
    before = len(shelf.model)
    shelf.put("large", b"x" * 20_000)
    gone = before + 1 - len(shelf.model)
    # An entry of 7 + 100 bytes takes a little less than 200.
    assert 20_000 / 200 - 30 <= gone <= 20_000 / 160 + 30
    shelf.check()


def test_what_can_never_fit_pushes_nothing_out_and_is_no_use() -> None:
    shelf = new_shelf()
    for number in range(200):
        shelf.put(f"key {number:03}", b"x" * 100)
    oldest = next(iter(shelf.model))
    before = repr(shelf.cache.nodes())
    for key in (oldest, "new"):
        with pytest.raises(ValueTooLargeError):
            shelf.cache.put(key, b"x" * 40_000)
    assert repr(shelf.cache.nodes()) == before
    shelf.check()
    shelf.put("one more", b"x" * 100)
    assert oldest not in shelf.cache


def test_an_evicted_key_can_be_put_again() -> None:
    cache = Cache(3, 2, node_capacity="16KiB", gossip_interval=None, compression=None)
    cache.put("key", "value", 5)
    cache.put_many((f"other {number}", bytes(100)) for number in range(1000))
    assert cache.get("key") == (None, -1)
    # The very same write brings it back; a newer one too.
    assert cache.put("key", "value", 5) is True
    assert cache.get("key") == ("value", 5)
    cache.put_many((f"other {number}", bytes(100)) for number in range(1000, 2000))
    assert cache.get("key") == (None, -1)
    assert cache.put("key", "newer", 6) is True
    assert cache.get("key") == ("newer", 6)


def test_evicting_on_one_node_removes_nothing_from_another() -> None:
    # Each node has its own order of use: a get counts where it was answered.
    cache = Cache(2, 2, node_capacity="64KiB", gossip_interval=None, compression=None)
    keys = [f"key {number:03}" for number in range(100)]
    cache.put_many(dict.fromkeys(keys, b"x" * 100))
    answering, other = cache.owners(keys[0])
    first = [key for key in keys if cache.owners(key) == [answering, other]]
    number = 0
    while cache.node(other).get(first[0])[1] >= 0:
        for key in first:
            cache.get(key)
        number += 1
        cache.put(f"other {number}", b"x" * 100)
    assert cache.node(answering).get(first[0])[0] == b"x" * 100
    assert cache.sync().items == 0
    assert cache.node(other).get(first[0]) == (None, -1)
    assert cache.get(first[0])[0] == b"x" * 100


def test_a_sync_brings_back_nothing_that_was_evicted() -> None:
    cache = Cache(3, 3, node_capacity="32KiB", gossip_interval=None, compression=None)
    cache.put_many((f"key {number}", bytes(100)) for number in range(2000))
    held = {
        node: {key for key in map("key {}".format, range(2000)) if cache.node(node).get(key)[1] >= 0}
        for node in range(3)
    }
    evictions = [node.evictions for node in cache.nodes()]
    for _ in range(3):
        assert cache.sync().converged
    assert [node.evictions for node in cache.nodes()] == evictions
    for node, keys in held.items():
        assert {key for key in map("key {}".format, range(2000)) if cache.node(node).get(key)[1] >= 0} == keys
