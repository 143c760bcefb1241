"""How fast the cache is beside a plain dict that holds pickles: ratios, measured in one interleaved run.

    round 1   cache | dict        Both sides do the same work in turns, so that whatever else the machine
    round 2   dict | cache        is doing slows both. Only their ratio means something elsewhere.
    ...

Single calls: the fastest of many short rounds counts, on both sides. Threads and latencies: the median of the rounds.
Loops call bound methods directly and cycle over 1,000 keys that are equal to the stored ones but other objects; their
own cost is part of both sides. The garbage collector is off. Nothing is left behind, except for a file on request.
"""

import argparse
import gc
import importlib
import importlib.util
import json
import os
import pickle
import platform
import random
import statistics
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from time import perf_counter, perf_counter_ns, process_time_ns
from typing import Any, Final, Literal, TypeAlias, TypeVar

import capacity
from distributed_consistent_cache import Cache
from distributed_consistent_cache._text import duration, table
from distributed_consistent_cache.progress import Progress

numpy: Any
try:
    numpy = importlib.import_module("numpy")
except ImportError:
    numpy = None

NODES: Final = 3
REPLICAS: Final = 2
# Nothing is evicted, so both sides answer every get.
ROOMY: Final = "64MiB"
PROTOCOL: Final = 5

KEYS: Final = 1_000
# A get that gives the GIL away would take 5 ms each time; it shall be seen, not waited for.
LATENCY_ROUND_NS_MAX: Final = 1_000_000_000
MIX_KEYS: Final = 100_000
# After so many rounds nodes that nothing happens to have nothing to tell.
ROUNDS_TO_SILENCE: Final = 10
MIX_PUTS: Final = 0.05
MIX_THREADS: Final = (8, 64, 1_000)
ZIPF_EXPONENT: Final = 0.99
# Threads look at the clock after so many operations: often enough for 1,000 threads, too rarely to be measured.
CHUNK: Final = 50

T = TypeVar("T")
# One round of one side; returns nanoseconds an operation, or whatever else is measured.
Side: TypeAlias = Callable[[], float]
# A get is (key, None), a put (key, value).
Operation: TypeAlias = tuple[str, dict[str, Any] | None]


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int
    latency_rounds: int
    latency_samples: int
    mix_rounds: int
    mix_seconds: float
    lives: int
    # How many puts there were before it is silent.
    puts: tuple[int, ...]


FULL: Final = Effort(
    rounds=400,
    latency_rounds=7,
    latency_samples=100_000,
    mix_rounds=7,
    mix_seconds=0.5,
    lives=10_000,
    puts=(1_000, 10_000, 100_000, 1_000_000),
)
QUICK: Final = Effort(
    rounds=40,
    latency_rounds=3,
    latency_samples=20_000,
    mix_rounds=3,
    mix_seconds=0.15,
    lives=500,
    puts=(1_000, 10_000),
)


@dataclass(frozen=True)
class Figure:
    """One line of the first table: a target and what was measured."""

    what: str
    limit: Literal["<=", ">="]
    target: float
    measured: float
    unit: Literal["ratio", "us", "entries", "ms", "bytes", "MiB"]
    # What one operation took on each side; nothing where there is no other side.
    cache_ns: float | None = None
    dict_ns: float | None = None

    @property
    def met(self) -> bool:
        return self.measured <= self.target if self.limit == "<=" else self.measured >= self.target


@dataclass
class Results:
    """Everything that was measured."""

    figures: list[Figure] = field(default_factory=list)
    # Beside a busy thread: which side -> percentile -> nanoseconds.
    latencies_ns: dict[str, dict[str, float]] = field(default_factory=dict)
    # Threads -> which side -> operations a second, and how many times those of the dict.
    mix_rates: dict[int, dict[str, float]] = field(default_factory=dict)
    mix_ratios: dict[int, dict[str, float]] = field(default_factory=dict)
    # Kind of data -> compression -> bytes of pickles held for a byte of the node, and the median get in nanoseconds.
    capacities: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)


def main() -> int:
    """Measure and print. Missing a target is not an error: a machine is not a test."""
    parser = argparse.ArgumentParser(description="Measure the cache beside a plain dict that holds pickles.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds: to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL

    results = Results()
    parts: list[Callable[[Effort, Results], None]] = [
        measure_gets,
        measure_miss,
        measure_put,
        measure_statistics,
        measure_large,
        measure_get_many,
        measure_put_many,
        measure_latency,
        *(lambda effort, results, threads=threads: measure_mix(effort, results, threads) for threads in MIX_THREADS),
        measure_room,
        measure_capacity,
        measure_recovery,
        measure_silence,
        measure_orders,
        measure_snapshot,
        measure_lives,
    ]
    try:
        with Progress("measuring", len(parts), sys.stderr) as progress:
            for part in parts:
                gc.collect()
                gc.disable()
                part(effort, results)
                gc.enable()
                progress.step()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(report(results))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(machine() | as_json(results), indent=2) + "\n", encoding="utf-8")
    return 0


# ---- single calls


def measure_gets(effort: Effort, results: Results) -> None:
    """A hit, by what the value is."""
    for what, target, values in (
        ("get hit, int", 0.60, [index * 7919 for index in range(KEYS)]),
        ("get hit, 100-byte str", 0.60, [f"{index:0100d}" for index in range(KEYS)]),
        ("get hit, 100-byte bytes", 0.60, [f"{index:0100d}".encode() for index in range(KEYS)]),
        ("get hit, dict of 5 fields", 0.80, [record(index) for index in range(KEYS)]),
    ):
        results.figures.append(ratio(what, "<=", target, *compare_gets(effort, values)))


def compare_gets(effort: Effort, values: Sequence[object]) -> list[float]:
    with Cache(NODES, REPLICAS, ROOMY) as cache:
        data = fill(cache, values)
        sought = shuffled(names(KEYS))
        assert all(cache.get(key)[0] == pickle.loads(data[key]) for key in sought)
        return interleaved(effort.rounds, lambda: time_calls(cache.get, sought), lambda: time_loads(data, sought))


def measure_miss(effort: Effort, results: Results) -> None:
    """A get of a key that is not there."""
    with Cache(NODES, REPLICAS, ROOMY) as cache:
        data = fill(cache, [record(index) for index in range(KEYS)])
        sought = [f"absent:{name}" for name in names(KEYS)]
        cache_ns, dict_ns = interleaved(
            effort.rounds, lambda: time_calls(cache.get, sought), lambda: time_calls(data.get, sought)
        )
    results.figures.append(ratio("get miss, beside dict.get", "<=", 3.0, cache_ns, dict_ns))


def measure_put(effort: Effort, results: Results) -> None:
    """A put that replaces a value, on both owners; the cache gives it its timestamp."""
    values = [f"{index:0100d}".encode() for index in range(KEYS)]
    with Cache(NODES, REPLICAS, ROOMY) as cache:
        data = fill(cache, values)
        pairs = shuffled(list(zip(names(KEYS), values, strict=True)))
        cache_ns, dict_ns = interleaved(
            effort.rounds, lambda: time_puts(cache.put, pairs), lambda: time_dumps(data, pairs)
        )
    results.figures.append(ratio("put, 100 bytes", "<=", 2.5, cache_ns, dict_ns))


def measure_large(effort: Effort, results: Results) -> None:
    """A get of 1 MB that is kept beside its pickle, beside one copy of it."""
    payload = random.Random(0).randbytes(1_000_000)
    kinds: dict[str, Any] = {"bytearray": bytearray(payload), "an object with a buffer": WithBuffer(bytearray(payload))}
    if numpy is not None:
        kinds["numpy array"] = numpy.frombuffer(payload, "u1").copy()
    keys = ["key"] * 20
    with Cache(NODES, REPLICAS, ROOMY) as cache:
        for what, value in kinds.items():
            cache.put("key", value)
            cache_ns, copy_ns = interleaved(
                max(effort.rounds // 4, 10),
                lambda: time_calls(cache.get, keys),
                lambda: time_copies(payload, len(keys)),
            )
            results.figures.append(ratio(f"get 1 MB, {what}: beside a copy", "<=", 1.5, cache_ns, copy_ns))


class WithBuffer:
    """What numpy arrays and their like are for pickle."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __reduce_ex__(self, protocol: Any) -> Any:
        return WithBuffer, (pickle.PickleBuffer(self.memory),)


def time_copies(payload: bytes, count: int) -> float:
    started = perf_counter_ns()
    for _ in range(count):
        bytearray(payload)
    return (perf_counter_ns() - started) / count


def measure_get_many(effort: Effort, results: Results) -> None:
    """1,000 keys in one call, beside a loop that gathers the same dict."""
    for what, values in (
        ("int", [index * 7919 for index in range(KEYS)]),
        ("100-byte bytes", [f"{index:0100d}".encode() for index in range(KEYS)]),
        ("dict of 5 fields", [record(index) for index in range(KEYS)]),
    ):
        many_ns, loop_ns = compare_get_many(effort, values)
        results.figures.append(ratio(f"get_many, {what}: beside a loop of get", "<=", 0.70, many_ns, loop_ns))


def compare_get_many(effort: Effort, values: Sequence[object]) -> list[float]:
    with Cache(NODES, REPLICAS, ROOMY) as cache:
        fill(cache, values)
        sought = shuffled(names(KEYS))
        assert cache.get_many(sought) == {key: cache.get(key) for key in sought}
        return interleaved(effort.rounds, lambda: time_get_many(cache, sought), lambda: time_gathering(cache, sought))


def time_get_many(cache: Cache, keys: Sequence[str]) -> float:
    started = perf_counter_ns()
    found = cache.get_many(keys)
    ended = perf_counter_ns()
    assert len(found) == len(keys)
    return (ended - started) / len(keys)


def time_gathering(cache: Cache, keys: Sequence[str]) -> float:
    get = cache.get
    started = perf_counter_ns()
    found = {key: get(key) for key in keys}
    ended = perf_counter_ns()
    assert len(found) == len(keys)
    return (ended - started) / len(keys)


def measure_put_many(effort: Effort, results: Results) -> None:
    """10,000 values of 1 KB in one call: beside a loop of put, and how many cores it used."""
    values = {f"key:{index:012d}": random.Random(index).randbytes(1000) for index in range(10_000)}
    pairs = list(values.items())
    used: list[float] = []

    def many() -> float:
        started, worked = perf_counter_ns(), process_time_ns()
        cache.put_many(values)
        took = perf_counter_ns() - started
        used.append((process_time_ns() - worked) / took)
        return took / len(values)

    with Cache(NODES, REPLICAS, ROOMY) as cache:
        many_ns, loop_ns = interleaved(max(effort.rounds // 10, 5), many, lambda: time_puts(cache.put, pairs))
    results.figures.append(ratio("put_many, 1 KB: beside a loop of put", "<=", 1.0, many_ns, loop_ns))
    # Of the round that was disturbed least: what else runs on the machine takes cores away.
    results.figures.append(Figure("put_many, 1 KB: cores used", ">=", 1.5, max(used), "ratio"))


def measure_statistics(effort: Effort, results: Results) -> None:
    """What counting, sampling and timing add to a get: beside the same cache built without."""
    bare = without_statistics()
    if bare is None:
        print("left out: a get without statistics, which `make bench` builds", file=sys.stderr)
        return
    values = [f"{index:0100d}".encode() for index in range(KEYS)]
    fastest = [float("inf")] * 2
    kept: list[object] = []
    # Where objects lie decides over some nanoseconds: several caches of each kind, the quickest counts.
    for pair in range(8):
        with Cache(NODES, REPLICAS, ROOMY) as cache, bare(NODES, REPLICAS, ROOMY) as other:
            fill(cache, values)
            fill(other, values)
            sought = shuffled(names(KEYS))
            # For a quarter of a million calls the sample for `advise` is taken more often.
            for _ in range(300):
                time_calls(cache.get, sought)
            calls: list[Side] = [partial(time_calls, cache.get, sought), partial(time_calls, other.get, sought)]
            fastest = list(map(min, fastest, interleaved(max(effort.rounds // 8, 10), *calls)))
            kept.append(bytes(10_000 + 48 * pair))
    results.figures.append(ratio("get hit: beside one without statistics", "<=", 1.05, *fastest))


def without_statistics() -> type[Cache] | None:
    """The class of an extension that was built without the feature `statistics`, if there is one."""
    path = os.environ.get("WITHOUT_STATISTICS", "")
    if not Path(path).is_file():
        return None
    spec = importlib.util.spec_from_file_location("without_statistics._core", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Cache  # type: ignore[no-any-return]


def interleaved(rounds: int, *sides: Side) -> list[float]:
    """The fastest round of each side. They take turns, and take turns in who begins."""
    fastest = [float("inf")] * len(sides)
    order = list(range(len(sides)))
    for _ in range(rounds):
        for index in order:
            fastest[index] = min(fastest[index], sides[index]())
        order.reverse()
    return fastest


def time_calls(get: Callable[[str], object], keys: Sequence[str]) -> float:
    started = perf_counter_ns()
    for key in keys:
        get(key)
    return (perf_counter_ns() - started) / len(keys)


def time_loads(data: dict[str, bytes], keys: Sequence[str]) -> float:
    loads = pickle.loads
    started = perf_counter_ns()
    for key in keys:
        loads(data[key])
    return (perf_counter_ns() - started) / len(keys)


def time_puts(put: Callable[[str, bytes], bool], pairs: Sequence[tuple[str, bytes]]) -> float:
    started = perf_counter_ns()
    for key, value in pairs:
        put(key, value)
    return (perf_counter_ns() - started) / len(pairs)


def time_dumps(data: dict[str, bytes], pairs: Sequence[tuple[str, bytes]]) -> float:
    dumps = pickle.dumps
    started = perf_counter_ns()
    for key, value in pairs:
        data[key] = dumps(value, PROTOCOL)
    return (perf_counter_ns() - started) / len(pairs)


# ---- latencies beside a busy thread


def measure_latency(effort: Effort, results: Results) -> None:
    """Every get timed by itself while another thread computes in pure Python.

    The measuring thread loses its own turns every few milliseconds, whatever it calls: that is in the dict's and in the
    timer's percentiles too. A get that gives the GIL away loses its turn each time.
    """
    busy = [True]

    def spin() -> None:
        number = 0
        while busy[0]:
            number += 1

    with Cache(NODES, REPLICAS, ROOMY) as cache:
        data = fill(cache, [f"{index:0100d}".encode() for index in range(KEYS)])
        sought = (shuffled(names(KEYS)) * (effort.latency_samples // KEYS + 1))[: effort.latency_samples]
        sides: dict[str, Callable[[], list[int]]] = {
            "cache.get(key)": lambda: latencies_of_get(cache, sought),
            "pickle.loads(dict[key])": lambda: latencies_of_loads(data, sought),
            "nothing: the timer alone": lambda: latencies_of_nothing(sought),
        }
        measured: dict[str, list[list[float]]] = {name: [] for name in sides}
        spinner = threading.Thread(target=spin, daemon=True)
        spinner.start()
        try:
            for _ in range(effort.latency_rounds):
                for name, side in sides.items():
                    samples = sorted(side())
                    measured[name].append([samples[int(len(samples) * share)] for share in (0.5, 0.99, 0.999)])
        finally:
            busy[0] = False
            spinner.join()
    for name, rounds in measured.items():
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        results.latencies_ns[name] = dict(zip(("p50", "p99", "p99.9"), medians, strict=True))
    cache_ns, dict_ns, _ = (percentiles["p99"] for percentiles in results.latencies_ns.values())
    results.figures.append(Figure("get p99, a busy thread beside", "<=", 3.0, cache_ns / 1000, "us", cache_ns, dict_ns))


def latencies_of_get(cache: Cache, keys: Sequence[str]) -> list[int]:
    get, clock, samples = cache.get, perf_counter_ns, [0] * len(keys)
    deadline = clock() + LATENCY_ROUND_NS_MAX
    for index, key in enumerate(keys):
        started = clock()
        get(key)
        samples[index] = clock() - started
        if started > deadline:
            return samples[: index + 1]
    return samples


def latencies_of_loads(data: dict[str, bytes], keys: Sequence[str]) -> list[int]:
    loads, clock, samples = pickle.loads, perf_counter_ns, [0] * len(keys)
    deadline = clock() + LATENCY_ROUND_NS_MAX
    for index, key in enumerate(keys):
        started = clock()
        loads(data[key])
        samples[index] = clock() - started
        if started > deadline:
            return samples[: index + 1]
    return samples


def latencies_of_nothing(keys: Sequence[str]) -> list[int]:
    clock, samples = perf_counter_ns, [0] * len(keys)
    deadline = clock() + LATENCY_ROUND_NS_MAX
    for index, _ in enumerate(keys):
        started = clock()
        samples[index] = clock() - started
        if started > deadline:
            return samples[: index + 1]
    return samples


# ---- a mix of gets and puts from many threads


def measure_mix(effort: Effort, results: Results, threads: int) -> None:
    """95 % get and 5 % put on 100,000 keys with Zipf popularity, in so many threads."""
    with Cache(NODES, REPLICAS, ROOMY) as cache:
        data = fill(cache, [record(index) for index in range(MIX_KEYS)])
        ordered = OrderedDict(data)
        lock = threading.Lock()
        chunks = mix_chunks()
        sides: dict[str, Callable[[Sequence[Operation]], None]] = {
            "cache": lambda chunk: mix_cache(cache, chunk),
            "dict": lambda chunk: mix_dict(data, chunk),
            "OrderedDict + Lock": lambda chunk: mix_ordered(ordered, lock, chunk),
        }
        measured: dict[str, list[float]] = {name: [] for name in sides}
        order = list(sides)
        for _ in range(effort.mix_rounds):
            for name in order:
                measured[name].append(throughput(threads, effort.mix_seconds, sides[name], chunks))
            order.reverse()
    rates = {name: statistics.median(rounds) for name, rounds in measured.items()}
    ratios = {
        name: statistics.median(mine / plain for mine, plain in zip(rounds, measured["dict"], strict=True))
        for name, rounds in measured.items()
    }
    results.mix_rates[threads], results.mix_ratios[threads] = rates, ratios
    what = f"95/5 mix, {threads:,} threads"
    results.figures.append(
        Figure(what, ">=", 1.00, ratios["cache"], "ratio", 1e9 / rates["cache"], 1e9 / rates["dict"])
    )


def mix_cache(cache: Cache, chunk: Sequence[Operation]) -> None:
    get, put = cache.get, cache.put
    for key, value in chunk:
        if value is None:
            get(key)
        else:
            put(key, value)


def mix_dict(data: dict[str, bytes], chunk: Sequence[Operation]) -> None:
    loads, dumps = pickle.loads, pickle.dumps
    for key, value in chunk:
        if value is None:
            loads(data[key])
        else:
            data[key] = dumps(value, PROTOCOL)


def mix_ordered(ordered: OrderedDict[str, bytes], lock: threading.Lock, chunk: Sequence[Operation]) -> None:
    loads, dumps, move_to_end = pickle.loads, pickle.dumps, ordered.move_to_end
    for key, value in chunk:
        if value is None:
            with lock:
                pickled = ordered[key]
                move_to_end(key)
            loads(pickled)
        else:
            pickled = dumps(value, PROTOCOL)
            with lock:
                ordered[key] = pickled
                move_to_end(key)


def mix_chunks() -> list[list[Operation]]:
    """The same operations on every run, cut into chunks of which each thread begins with another one."""
    chance = random.Random(1)
    popular = shuffled(names(MIX_KEYS))
    weights = list(accumulate(rank**-ZIPF_EXPONENT for rank in range(1, MIX_KEYS + 1)))
    written = [record(index) for index in range(KEYS)]
    operations: list[Operation] = [
        (key, chance.choice(written) if chance.random() < MIX_PUTS else None)
        for key in chance.choices(popular, cum_weights=weights, k=200_000)
    ]
    return [operations[start : start + CHUNK] for start in range(0, len(operations), CHUNK)]


def throughput(
    threads: int,
    seconds: float,
    work: Callable[[Sequence[Operation]], None],
    chunks: Sequence[Sequence[Operation]],
) -> float:
    """Operations a second, from the moment the threads are let go until the last one has ended."""
    gate = threading.Event()
    deadline = 0.0
    ended: list[tuple[int, float]] = []

    def run(index: int) -> None:
        position = index * len(chunks) // threads
        operations = 0
        gate.wait()
        while perf_counter() < deadline:
            work(chunks[position])
            position = (position + 1) % len(chunks)
            operations += CHUNK
        ended.append((operations, perf_counter()))

    running = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(threads)]
    for thread in running:
        thread.start()
    started = perf_counter()
    deadline = started + seconds
    gate.set()
    for thread in running:
        thread.join()
    assert len(ended) == threads, "a thread has failed; what it raised is above"
    return sum(operations for operations, _ in ended) / (max(end for _, end in ended) - started)


# ---- room


def measure_room(_: Effort, results: Results) -> None:
    """How many entries of 16-byte keys and 100-byte values a node of 1 MiB holds when it is full."""
    with Cache(nodes=1, replicas=1, node_capacity="1MiB") as cache:
        for index in range(20_000):
            cache.put(f"key:{index:012d}", f"{index:0100d}".encode())
        entries = len(cache)
    results.figures.append(Figure("entries of 16 + 100 bytes in 1 MiB", ">=", 5_500, entries, "entries"))


def measure_capacity(effort: Effort, results: Results) -> None:
    """How many bytes of pickles a node holds of real data, however they are made smaller, and what a get takes."""
    for kind, values in capacity.kinds().items():
        found = {name: capacity.held(values, name, effort.latency_samples // 10) for name in capacity.SETTINGS}
        results.capacities[kind] = {str(name): each for name, each in found.items()}
        plain = found[None][0]
        if kind != "definitions":
            results.figures.append(Figure(f"lz4 holds more {kind}", ">=", 1.8, found["lz4"][0] / plain, "ratio"))
        dictionary = found["zstd-dict"][0] / plain
        results.figures.append(Figure(f"zstd-dict holds more {kind}", ">=", 2.5, dictionary, "ratio"))


# ---- nodes that fail, and what it costs that they may


def measure_recovery(effort: Effort, results: Results) -> None:
    """How long it takes until a full node of 1 MiB that lost its memory is synced again."""
    times = []
    with Cache(NODES, REPLICAS, "1MiB", gossip_interval=None) as cache:
        cache.put_many({f"key:{index:012d}": f"{index:0100d}".encode() for index in range(20_000)})
        for _ in range(effort.latency_rounds):
            cache.fail_node(0)
            started = perf_counter_ns()
            cache.recover_node(0)
            times.append((perf_counter_ns() - started) / 1e6)
            assert cache.nodes()[0].unsynced_partitions == 0
    results.figures.append(Figure("a full 1 MiB node recovers", "<=", 50, statistics.median(times), "ms"))


def measure_silence(_: Effort, results: Results) -> None:
    """What full nodes with different contents tell each other when nothing happens, and while they are written to."""
    with Cache(NODES, REPLICAS, "1MiB", gossip_interval=None) as cache:
        cache.put_many({f"key:{index:012d}": f"{index:0100d}".encode() for index in range(20_000)})
        assert cache.sync().converged
        idle = [cache.gossip() for _ in range(100)][20:]
        busy = []
        for index in range(2_000):
            cache.put(f"key:{index * 7:012d}", bytes(100))
            if index % 20 == 0:
                busy.append(cache.gossip())
    for name, rounds in ("idle", idle), ("20 puts a round", busy):
        assert not any(report.items for report in rounds)
        told = max(report.bytes for report in rounds) / NODES
        results.figures.append(Figure(f"{name}: bytes a node and round", "<=", 64, told, "bytes"))


def measure_orders(effort: Effort, results: Results) -> None:
    """What nodes tell each other once nothing happens any more, in whatever order the timestamps came."""
    orders: dict[str, Callable[[int], Iterable[int]]] = {
        "rising": range,
        "falling": lambda puts: range(puts - 1, -1, -1),
        "shuffled": lambda puts: random.Random(puts).sample(range(puts), puts),
    }
    for name, order in orders.items():
        told = []
        for puts in effort.puts:
            with Cache(NODES, REPLICAS, "1MiB", gossip_interval=None) as cache:
                cache.put_many((f"key:{at:012d}", f"{at:0100d}".encode(), at) for at in order(puts))
                rounds = [cache.gossip() for _ in range(ROUNDS_TO_SILENCE + 10)][ROUNDS_TO_SILENCE:]
            told.append(max(report.bytes for report in rounds) / NODES)
        what = f"idle after up to {effort.puts[-1]:,} puts, {name}"
        results.figures.append(Figure(what, "<=", 64, max(told), "bytes"))


def measure_snapshot(effort: Effort, results: Results) -> None:
    """How long it takes to save 100,000 entries, to the disk, and to make a cache of them again."""
    saves, loads = [], []
    with Cache(NODES, REPLICAS, ROOMY) as cache, tempfile.TemporaryDirectory() as folder:
        cache.put_many({f"key:{index:012d}": f"{index:0100d}".encode() for index in range(MIX_KEYS)})
        path = Path(folder) / "cache.snapshot"
        for _ in range(effort.latency_rounds):
            started = perf_counter_ns()
            cache.save(path)
            saves.append((perf_counter_ns() - started) / 1e6)
            started = perf_counter_ns()
            again = Cache.load(path)
            loads.append((perf_counter_ns() - started) / 1e6)
            assert len(again) == MIX_KEYS
            again.close()
    results.figures.append(Figure("100,000 x 100 bytes are saved", "<=", 100, statistics.median(saves), "ms"))
    results.figures.append(Figure("100,000 x 100 bytes are loaded", "<=", 150, statistics.median(loads), "ms"))


def measure_lives(effort: Effort, results: Results) -> None:
    """How much the process grows while nodes fail and recover 10,000 times under threads that write."""
    ended = False

    def write(thread: int) -> None:
        index = 0
        while not ended:
            index += 1
            cache.put(f"key:{thread}:{index % 500}", index)

    with Cache(NODES, REPLICAS, "1MiB") as cache:
        writers = [threading.Thread(target=write, args=(thread,), daemon=True) for thread in range(2)]
        for writer in writers:
            writer.start()
        sizes = []
        for cycle in range(effort.lives):
            cache.fail_node(cycle % NODES)
            cache.recover_node(cycle % NODES)
            if cycle in (effort.lives // 10, effort.lives - 1):
                sizes.append(resident_mib())
        ended = True
        for writer in writers:
            writer.join()
    what = f"{effort.lives:,} lives: the process grows"
    results.figures.append(Figure(what, "<=", 5, sizes[1] - sizes[0], "MiB"))


def resident_mib() -> float:
    """Memory of this process, where the system tells."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


# ---- what all of them use


def names(count: int) -> list[str]:
    """Keys: equal to those of the last call, but other objects, as those that a caller builds."""
    return [f"user:{index:08d}" for index in range(count)]


def record(index: int) -> dict[str, Any]:
    """A small dict of 5 fields."""
    return {"id": index, "name": f"user {index}", "mail": f"u{index}@example.org", "active": True, "score": index / 7}


def shuffled(items: list[T]) -> list[T]:
    """In another order than they were put in, the same on every run."""
    return random.Random(0).sample(items, len(items))


def fill(cache: Cache, values: Sequence[object]) -> dict[str, bytes]:
    """Put the values into the cache; return the dict that holds the same."""
    data = {}
    for key, value in zip(names(len(values)), values, strict=True):
        cache.put(key, value)
        data[key] = pickle.dumps(value, PROTOCOL)
    return data


def ratio(what: str, limit: Literal["<=", ">="], target: float, cache_ns: float, dict_ns: float) -> Figure:
    """A figure that compares the times of both sides."""
    return Figure(what, limit, target, cache_ns / dict_ns, "ratio", cache_ns, dict_ns)


# ---- what is printed


def report(results: Results) -> str:
    """The tables, 80 columns wide at most."""
    about = machine()
    return "\n".join(
        [
            f"Python {about['python']}, {about['cpus']} CPUs. A cache of {NODES} nodes and {REPLICAS} copies,",
            "beside a plain dict of pickles.",
            "",
            figures_table(results.figures),
            "",
            "One get beside a busy thread:",
            table(
                ["what is timed", "p50", "p99", "p99.9"],
                [[name, *map(nanoseconds, found.values())] for name, found in results.latencies_ns.items()],
            ),
            "",
            "95 % get, 5 % put, Zipf(0.99) over 100,000 keys, dicts of 5 fields, ops/s:",
            table(
                ["threads", "cache", "", "dict", "OrderedDict + Lock", ""],
                [
                    [
                        f"{threads:,}",
                        thousands(rates["cache"]),
                        f"{results.mix_ratios[threads]['cache']:.2f} x",
                        thousands(rates["dict"]),
                        thousands(rates["OrderedDict + Lock"]),
                        f"{results.mix_ratios[threads]['OrderedDict + Lock']:.2f} x",
                    ]
                    for threads, rates in results.mix_rates.items()
                ],
            ),
            "",
            "Bytes of pickles held for a byte of a full node of 2 MiB, and the median get:",
            table(
                ["compression", *(part for kind in results.capacities for part in (kind, "get"))],
                [
                    [
                        str(name),
                        *(
                            text
                            for found in results.capacities.values()
                            for text in (f"{found[str(name)][0]:.2f}", nanoseconds(found[str(name)][1]))
                        ),
                    ]
                    for name in capacity.SETTINGS
                ],
            ),
            "",
            f"{sum(figure.met for figure in results.figures)} of {len(results.figures)} targets met.",
        ]
    )


def figures_table(figures: Sequence[Figure]) -> str:
    """Targets, what was measured, and the times behind it."""
    shown: dict[str, Callable[[float], str]] = {
        "ratio": lambda value: f"{value:.2f} x",
        "us": lambda value: f"{value:.2f} us",
        "entries": lambda value: f"{value:,.0f}",
        "ms": lambda value: f"{value:.1f} ms",
        "bytes": lambda value: f"{value:.0f} B",
        "MiB": lambda value: f"{value:.1f} MiB",
    }
    return table(
        ["what", "target", "measured", "", "cache", "dict"],
        [
            [
                figure.what,
                f"{figure.limit} {shown[figure.unit](figure.target)}",
                shown[figure.unit](figure.measured),
                "met" if figure.met else "missed",
                nanoseconds(figure.cache_ns),
                nanoseconds(figure.dict_ns),
            ]
            for figure in figures
        ],
    )


def nanoseconds(value: float | None) -> str:
    """A time a call, or nothing."""
    return "" if value is None else duration(value * 1e-9)


def thousands(rate: float) -> str:
    """Operations a second."""
    return f"{rate / 1000:,.0f} k"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"python": platform.python_version(), "cpus": os.cpu_count(), "machine": platform.machine()}


def as_json(results: Results) -> dict[str, Any]:
    """The results as plain data."""
    figures = [asdict(figure) | {"met": figure.met} for figure in results.figures]
    return asdict(results) | {"figures": figures}


if __name__ == "__main__":
    sys.exit(main())
