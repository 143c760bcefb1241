"""How much a node holds of what people really cache, with each way of making values smaller.

    real data of three kinds -> a full cache of one node -> bytes of the pickles it holds / bytes of the node
                                                         -> the median get of what it holds

The data is on every machine that has Python: the source text of the standard library, what its definitions are, and
records of them as JSON.
"""

import ast
import json
import pickle
import random
import statistics
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final, Literal, TypeAlias

from distributed_consistent_cache import Cache

Compression: TypeAlias = Literal["lz4", "zstd", "zstd-dict"] | None
SETTINGS: Final[tuple[Compression, ...]] = (None, "lz4", "zstd", "zstd-dict")
NODE_BYTES: Final = 2 << 20
# Enough to fill a node four times over.
DATA_BYTES: Final = 4 * NODE_BYTES
PROTOCOL: Final = 5
# Definitions in one JSON record: a few KB.
RECORD_DEFINITIONS: Final = 10


def kinds() -> dict[str, list[Any]]:
    """Three kinds of values, each in an order that is the same on every run."""
    texts, definitions, records = [], [], []
    for module, text in sources():
        found = [row for row in definitions_of(module, text) if 100 <= len(pickle.dumps(row, PROTOCOL)) <= 1000]
        texts.append(text)
        definitions += found
        starts = range(0, len(found) - RECORD_DEFINITIONS + 1, RECORD_DEFINITIONS)
        records += [json.dumps(found[start : start + RECORD_DEFINITIONS]) for start in starts]
    data: dict[str, list[Any]] = {"source text": texts, "definitions": definitions, "JSON records": records}
    return {kind: random.Random(0).sample(values, len(values)) for kind, values in data.items()}


def sources() -> Iterator[tuple[str, str]]:
    """The names of the standard library's modules, without its tests, and their text."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        if not {"test", "tests", "idle_test", "site-packages"} & set(path.parts):
            try:
                yield ".".join(path.relative_to(library).with_suffix("").parts), path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue


def definitions_of(module: str, text: str) -> Iterator[dict[str, Any]]:
    """What a module defines, as an index of it would have it: functions and classes, as dicts of plain data."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if isinstance(node, ast.ClassDef):
                kind, signature = "class", ", ".join(map(ast.unparse, node.bases))
            else:
                kind, signature = "function", ast.unparse(node.args)
            yield {
                "module": module,
                "name": node.name,
                "kind": kind,
                "first_line": node.lineno,
                "last_line": node.end_lineno,
                "signature": signature,
                "decorators": [ast.unparse(decorator) for decorator in node.decorator_list],
                "calls": sorted({ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}),
                "documentation": ast.get_docstring(node),
            }


def held(values: list[Any], compression: Compression, samples: int) -> tuple[float, float]:
    """Bytes of pickles that a full node holds, as a part of its own; and the median get, in nanoseconds."""
    sizes = [len(pickle.dumps(value, PROTOCOL)) for value in values]
    rounds = 1 + DATA_BYTES // sum(sizes)
    with Cache(1, node_capacity=NODE_BYTES, gossip_interval=None, compression=compression) as cache:
        # A second time all is as it will be: what was put before there was a dictionary has been evicted.
        for number in range(2 * rounds):
            for index, value in enumerate(values):
                cache.put(f"{number % rounds}:{index}", value)
                if index % 100 == 0:
                    # A step of training, if there is something to train.
                    cache.gossip()
        assert cache.nodes()[0].evictions > 0, "the node is not full"
        keys = random.Random(1).sample(list(cache), len(cache))
        capacity = sum(sizes[int(key.partition(":")[2])] for key in keys) / NODE_BYTES
        taken = []
        for at in range(samples):
            started = perf_counter_ns()
            cache.get(keys[at % len(keys)])
            taken.append(perf_counter_ns() - started)
    return capacity, statistics.median(taken)
