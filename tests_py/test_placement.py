"""A key lives in the same place in every process, on every machine and in every release."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import RunProgram
from distributed_consistent_cache import Cache
from distributed_consistent_cache._core import key_hash

# SipHash-1-3 of the UTF-8 bytes under the library's fixed key.
HASHES = {
    "": 0x0EDC4D47C626A3B4,
    "a": 0x7C61320120711C88,
    "user:1": 0x7095F6DB98207F16,
    "0123456789abcdef": 0x6BDBF44A44EFD2B9,
    "grüße, 世界 🦀": 0x00A7BE5618D8EDB9,
    "user:2": 0x3FA6A45ED722ACA8,
    "session:9f8e": 0xFC7152373E833FD1,
    "the quick brown fox": 0x5A67C9BE74A0C988,
}

# Of 5 nodes of 1 MiB with 3 replicas, in the order in which they are asked.
OWNERS = {
    "": [2, 3, 4],
    "a": [0, 2, 3],
    "user:1": [0, 2, 4],
    "0123456789abcdef": [0, 4, 2],
    "grüße, 世界 🦀": [4, 1, 2],
    "user:2": [0, 3, 4],
    "session:9f8e": [3, 4, 2],
    "the quick brown fox": [1, 0, 2],
}

PARTITIONS = {"": 4, "a": 38, "user:1": 35, "0123456789abcdef": 33, "session:9f8e": 78}


@pytest.mark.parametrize("key", HASHES)
def test_a_key_has_its_known_hash(key: str) -> None:
    assert key_hash(key) == HASHES[key]


@pytest.mark.parametrize("key", OWNERS)
def test_a_key_has_its_known_owners(key: str) -> None:
    cache = Cache(5, 3, "1MiB", gossip_interval=None)
    assert cache.partitions == 80
    assert cache.owners(key) == OWNERS[key]


@pytest.mark.parametrize("key", PARTITIONS)
def test_partitions_are_equal_slices_of_the_hashes(key: str) -> None:
    # Keys of one slice have the same owners.
    assert key_hash(key) * 80 >> 64 == PARTITIONS[key]
    cache = Cache(5, 3, "1MiB", gossip_interval=None)
    of_slice = [other for other in map(str, range(3000)) if key_hash(other) * 80 >> 64 == PARTITIONS[key]]
    assert of_slice
    assert all(cache.owners(other) == cache.owners(key) for other in of_slice)


def siphash_1_3(text: bytes, key: tuple[int, int]) -> int:
    """SipHash with one round a word and three at the end, as Aumasson and Bernstein describe it."""
    mask = 2**64 - 1

    def rotate(number: int, bits: int) -> int:
        return (number << bits | number >> (64 - bits)) & mask

    def one_round(a: int, b: int, c: int, d: int) -> tuple[int, int, int, int]:
        a, c = (a + b) & mask, (c + d) & mask
        b, d = rotate(b, 13) ^ a, rotate(d, 16) ^ c
        a = rotate(a, 32)
        c, a = (c + b) & mask, (a + d) & mask
        b, d = rotate(b, 17) ^ c, rotate(d, 21) ^ a
        return a, b, rotate(c, 32), d

    words = text + bytes(7 - len(text) % 8) + bytes([len(text) & 0xFF])
    state = (
        key[0] ^ 0x736F6D6570736575,
        key[1] ^ 0x646F72616E646F6D,
        key[0] ^ 0x6C7967656E657261,
        key[1] ^ 0x7465646279746573,
    )
    for (word,) in struct.iter_unpack("<Q", words):
        a, b, c, d = one_round(*state[:3], state[3] ^ word)
        state = (a ^ word, b, c, d)
    state = (state[0], state[1], state[2] ^ 0xFF, state[3])
    for _ in range(3):
        state = one_round(*state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


# "distributed_cach" as two big-endian words.
KEY = (int.from_bytes(b"distribu", "big"), int.from_bytes(b"ted_cach", "big"))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_every_key_has_the_hash_that_siphash_gives_it(key: str) -> None:
    assert key_hash(key) == siphash_1_3(key.encode(), KEY)


@pytest.mark.parametrize("length", [255, 256, 257, 1000, 65536])
def test_long_keys_are_hashed_to_their_end(length: int) -> None:
    key = "x" * (length - 1) + "y"
    assert key_hash(key) == siphash_1_3(key.encode(), KEY)
    assert key_hash(key) != key_hash("x" * length)


def test_placement_does_not_depend_on_the_process_or_on_what_happened(run_program: RunProgram) -> None:
    keys = [f"key {number}" for number in range(200)]
    cache = Cache(7, 3, gossip_interval=None)
    cache.put_many((key, 1) for key in keys)
    here = [cache.owners(key) for key in keys]
    cache.fail_node(3)
    cache.recover_node(3)
    assert [cache.owners(key) for key in keys] == here
    program = """
        from distributed_consistent_cache import Cache
        cache = Cache(7, 3, gossip_interval=None)
        print([cache.owners(f"key {number}") for number in range(200)])
    """
    assert run_program(program) == f"{here}\n"


@pytest.mark.parametrize(("nodes", "replicas"), [(1, 1), (2, 2), (3, 2), (10, 3), (100, 3)])
def test_owners_are_distinct_and_every_node_has_its_share(nodes: int, replicas: int) -> None:
    cache = Cache(nodes, replicas, gossip_interval=None)
    primaries, copies = [0] * nodes, [0] * nodes
    for number in range(20_000):
        owners = cache.owners(f"key {number}")
        assert len(set(owners)) == len(owners) == replicas
        primaries[owners[0]] += 1
        for owner in owners:
            copies[owner] += 1
    # Partitions are bounded to 1.15 times the mean; keys fall into them by chance.
    assert max(copies) <= 1.3 * sum(copies) / nodes
    assert max(primaries) <= 1.5 * sum(primaries) / nodes
    assert min(copies) > 0


def test_a_failed_node_leaves_the_order_of_the_others() -> None:
    cache = Cache(6, 3, gossip_interval=None)
    keys = [f"key {number}" for number in range(300)]
    before = {key: cache.owners(key) for key in keys}
    for node in range(6):
        cache.fail_node(node)
        for key in keys:
            others = [owner for owner in before[key] if owner != node]
            assert cache.owners(key)[: len(others)] == others
            assert len(cache.owners(key)) == 3
        cache.recover_node(node)
