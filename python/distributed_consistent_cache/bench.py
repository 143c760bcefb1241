"""The `bench` command: how fast is it here, in a few seconds.

the cache, a dict that holds pickles  --in turns-->  nanoseconds a call, and how many times the dict's
"""

import argparse
import json
import pickle
import random
import threading
from collections.abc import Callable, Sequence
from time import perf_counter, perf_counter_ns
from typing import Any, Final

from . import Cache
from ._text import table
from .progress import Progress

HELP: Final = "measure how fast it is here, beside a dict that holds pickles"

KEYS: Final = 1_000
PROTOCOL: Final = 5
THREADS: Final = 8
SECONDS: Final = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=SECONDS,
        metavar="S",
        help=f"about so long, 0.5 to 600; {SECONDS:g} if not given",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.epilog = (
        "The fastest of many rounds that take turns. `make bench` in a clone measures more. "
        "Exit code: 0, 2 for wrong usage, 130 if interrupted."
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.5 <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.5 to 600")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Measure and report."""
    parts = measurements()
    results: list[dict[str, Any]] = []
    each = arguments.seconds / (len(parts) + 1)

    def measure(step: Callable[[], object]) -> tuple[float, float]:
        for what, sides in parts.items():
            cache_ns, dict_ns = _in_turns(each, *sides)
            results.append({"what": what, "cache_ns": cache_ns, "dict_ns": dict_ns, "ratio": cache_ns / dict_ns})
            step()
        rates = threads_rates(each)
        step()
        return rates

    if arguments.json:
        rates = measure(lambda: None)
    else:
        with Progress("measuring", len(parts) + 1) as progress:
            rates = measure(progress.step)
    if arguments.json:
        mix = {"threads": THREADS, "cache_a_second": rates[0], "dict_a_second": rates[1]}
        print(json.dumps({"calls": results, "mix": mix}))
        return 0
    rows = [
        [one["what"], f"{one['cache_ns']:,.0f} ns", f"{one['dict_ns']:,.0f} ns", f"{one['ratio']:.2f} x"]
        for one in results
    ]
    print()
    print(table(["a call", "cache", "dict + pickle", "ratio"], rows))
    print(
        f"\n{THREADS} threads, 95 gets to 5 puts of a small record: {rates[0]:,.0f} a second,\n"
        f"{rates[0] / rates[1]:.2f} x those of the dict. Three nodes, two copies; "
        "the dict has one\nand forgets nothing."
    )
    return 0


Side = Callable[[], float]


def measurements() -> dict[str, tuple[Side, Side]]:
    """What is measured: the cache's side and the dict's, each giving nanoseconds a call."""
    values: dict[str, list[Any]] = {
        "get, int": list(range(KEYS)),
        "get, 100 bytes": [f"{index:0100d}".encode() for index in range(KEYS)],
        "get, dict of 5 fields": [record(index) for index in range(KEYS)],
    }
    parts: dict[str, tuple[Side, Side]] = {}
    for what, held in values.items():
        cache, data = filled(held)
        parts[what] = (_gets(cache.get), _loads(data))
    cache, data = filled(values["get, int"])
    absent = [f"absent:{index}" for index in range(KEYS)]
    parts["get, a miss (beside dict.get)"] = (_calls(cache.get, absent), _calls(data.get, absent))
    pairs = list(zip(names(), values["get, 100 bytes"], strict=True))
    parts["put, 100 bytes"] = (_puts(cache, pairs), _dumps(data, pairs))
    return parts


def names() -> list[str]:
    """The keys."""
    return [f"key:{index}" for index in range(KEYS)]


def record(index: int) -> dict[str, Any]:
    """A small record."""
    return {"id": index, "name": f"user {index}", "mail": f"user{index}@example.org", "age": index % 90, "active": True}


def filled(values: Sequence[Any]) -> tuple[Cache, dict[str, bytes]]:
    """A cache and a dict that hold these values."""
    cache = Cache(3, 2, "64MiB", gossip_interval=None)
    cache.put_many(zip(names(), values, strict=True))
    return cache, {key: pickle.dumps(value, PROTOCOL) for key, value in zip(names(), values, strict=True)}


def _calls(get: Callable[[str], object], keys: Sequence[str]) -> Side:
    def side() -> float:
        started = perf_counter_ns()
        for key in keys:
            get(key)
        return (perf_counter_ns() - started) / len(keys)

    return side


def _gets(get: Callable[[str], object]) -> Side:
    return _calls(get, names())


def _loads(data: dict[str, bytes]) -> Side:
    keys, loads = names(), pickle.loads

    def side() -> float:
        started = perf_counter_ns()
        for key in keys:
            loads(data[key])
        return (perf_counter_ns() - started) / len(keys)

    return side


def _puts(cache: Cache, pairs: Sequence[tuple[str, bytes]]) -> Side:
    def side() -> float:
        put = cache.put
        started = perf_counter_ns()
        for key, value in pairs:
            put(key, value)
        return (perf_counter_ns() - started) / len(pairs)

    return side


def _dumps(data: dict[str, bytes], pairs: Sequence[tuple[str, bytes]]) -> Side:
    dumps = pickle.dumps

    def side() -> float:
        started = perf_counter_ns()
        for key, value in pairs:
            data[key] = dumps(value, PROTOCOL)
        return (perf_counter_ns() - started) / len(pairs)

    return side


def _in_turns(seconds: float, *sides: Side) -> list[float]:
    """The fastest round of each side."""
    fastest = [float("inf")] * len(sides)
    ends = perf_counter() + seconds
    while True:
        for index, side in enumerate(sides):
            fastest[index] = min(fastest[index], side())
        if perf_counter() >= ends:
            return fastest


def threads_rates(seconds: float) -> tuple[float, float]:
    """Calls a second of some threads on the cache, and on the dict."""
    cache, data = filled([record(index) for index in range(KEYS)])
    keys, dumps, loads = names(), pickle.dumps, pickle.loads
    order = random.Random(1).choices(keys, k=KEYS)

    def on_cache() -> int:
        for at, key in enumerate(order):
            if at % 20 == 0:
                cache.put(key, record(at))
            else:
                cache.get(key)
        return len(order)

    def on_dict() -> int:
        for at, key in enumerate(order):
            if at % 20 == 0:
                data[key] = dumps(record(at), PROTOCOL)
            else:
                loads(data[key])
        return len(order)

    return _rate(on_cache, seconds / 2), _rate(on_dict, seconds / 2)


def _rate(work: Callable[[], int], seconds: float) -> float:
    ends = perf_counter() + seconds
    done = [0] * THREADS

    def run(index: int) -> None:
        while perf_counter() < ends:
            done[index] += work()

    started = perf_counter()
    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (perf_counter() - started)
