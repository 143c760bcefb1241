"""Predicted hit rates are those that caches of other sizes really have, within two points."""

import bisect
import itertools
import json
import random

import pytest

from distributed_consistent_cache import Advice, Cache, SizeAdvice

CAPACITY = 512 * 1024


def zipf(keys: int, gets: int) -> list[int]:
    """Draw keys by Zipf's law with an exponent of 0.99."""
    rng = random.Random(1)
    weights = list(itertools.accumulate((rank + 1) ** -0.99 for rank in range(keys)))
    return [bisect.bisect(weights, rng.random() * weights[-1]) for _ in range(gets)]


def loop(keys: int, gets: int) -> list[int]:
    return [number % keys for number in range(gets)]


def run(trace: list[int], capacity: int) -> tuple[Cache, float]:
    """Get each key and put it when it was missed, as a program does; return the cache and its hit rate."""
    cache = Cache(3, 2, capacity, gossip_interval=None)
    hits = 0
    for number in trace:
        if cache.get(f"key {number}")[1] == -1:
            cache.put(f"key {number}", b"x" * 100)
        else:
            hits += 1
    return cache, hits / len(trace)


@pytest.mark.parametrize(
    "trace",
    [zipf(30_000, 150_000), loop(3_000, 60_000), loop(12_000, 100_000)],
    ids=["zipf", "short loop", "long loop"],
)
def test_predicted_rates_are_within_two_points_of_measured_ones(trace: list[int]) -> None:
    cache, hit_rate = run(trace, CAPACITY)
    advice = cache.advise()
    assert isinstance(advice, Advice)
    assert advice.gets == len(trace)
    assert advice.hit_rate == pytest.approx(hit_rate)
    assert [size.times for size in advice.sizes] == [0.25, 0.5, 1.0, 2.0, 4.0]
    for size in advice.sizes:
        assert isinstance(size, SizeAdvice)
        assert size.bytes == 3 * CAPACITY * size.times
        measured = run(trace, int(CAPACITY * size.times))[1]
        assert size.hit_rate == pytest.approx(measured, abs=0.02), f"{size.times} x"


def test_what_no_size_would_have_found_is_not_promised() -> None:
    cache = Cache(3, 2, gossip_interval=None)
    for number in range(20_000):
        cache.put("a", number)
        cache.remove("a")
        for key in ("a", f"never put {number}"):
            assert cache.get(key) == (None, -1)
    assert [size.hit_rate for size in cache.advise().sizes] == [0.0] * 5


def test_it_prints_as_a_table_and_says_when_the_sample_is_small() -> None:
    cache = Cache(3, 2, gossip_interval=None)
    cache.put("key", 1)
    cache.get("key")
    advice = cache.advise()
    assert "few: it may be off by more than two points" in str(advice)
    assert str(advice).splitlines()[0].split() == ["size", "bytes", "hit", "rate"]
    assert all(len(line) <= 100 for line in str(advice).splitlines())
    assert json.loads(json.dumps(advice.as_dict())) == advice.as_dict()
    assert repr(advice).startswith("Advice(hit_rate=")
    assert repr(advice.sizes[0]).startswith("SizeAdvice(times=0.25, bytes=")
