r"""The `demo` command: the cache's main job on real input, with every claim checked before it is printed.

It keeps an index of Python's standard library, path -> what the module defines, with the time at which the file was
modified as timestamp:

    file changed at 10:00 --stat--> 10:00 --get--> nothing, or older ---> parse, put(path, index, 10:00)
                                              \--> from 10:00       ---> a hit: nothing to parse

It never writes to the standard library: what it modifies are copies in a temporary folder.
"""

import argparse
import ast
import os
import pickle
import platform
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from . import _text
from ._core import Cache, NodeStatus
from .progress import Progress

HELP: Final = "index Python's standard library in a cache of 5 nodes, fail one, bring it back"

NODES: Final = 5
REPLICAS: Final = 3
# Some three times what a node needs here, also while one of the others is down: nothing has to be evicted.
NODE_CAPACITY: Final = "4MiB"
FAILING_NODE: Final = 2
TOUCHED_FILES: Final = 100
TOUCHED_FUNCTION: Final = "touched_by_the_demo"
# Packages that were installed later are not part of the standard library.
FOREIGN_FOLDERS: Final = {"site-packages", "dist-packages"}

# What a module defines, and what the cache answers for it: that and its timestamp.
Index: TypeAlias = dict[str, Any]
Known: TypeAlias = Mapping[str, tuple[Index, int]]


class ClaimError(Exception):
    """Something that the demo says about the cache is not true."""


@dataclass(frozen=True)
class Module:
    """A source file: its key in the cache, and where it lies."""

    key: str
    path: Path

    def timestamp(self) -> int:
        """When it was modified, in microseconds since 1970."""
        return max(0, self.path.stat().st_mtime_ns // 1000)


@dataclass(frozen=True)
class Pass:
    """What came out of looking up every module once."""

    known: dict[str, tuple[Index, int]]
    hits: int
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes no options."""
    parser.epilog = "Exit code: 0 if every claim it makes holds, 1 if one does not, 130 if interrupted."


def run(_: argparse.Namespace) -> int:
    """Show everything; 1 if a claim does not hold."""
    try:
        # The background exchange is off, so that every exchange happens where the demo shows and times it.
        with (
            Cache(NODES, REPLICAS, NODE_CAPACITY, gossip_interval=None) as cache,
            tempfile.TemporaryDirectory(prefix="dccache-demo-") as folder,
        ):
            _Demo(cache, Path(folder)).run()
    except ClaimError as error:
        sys.stdout.flush()
        print(f"NOT TRUE: {error}", file=sys.stderr)
        return 1
    return 0


class _Demo:
    """The story, chapter by chapter."""

    def __init__(self, cache: Cache, folder: Path) -> None:
        self.cache = cache
        self.folder = folder
        self.claims = 0

    def run(self) -> None:
        """Tell it from the first page to the last."""
        modules = standard_library()
        self.claim(bool(modules), "the source of Python's standard library is on this machine", quiet=True)
        print(f"An index of the standard library of Python {platform.python_version()}: {len(modules):,} source files.")
        print(f"A cache of {NODES} nodes of {NODE_CAPACITY}, with {REPLICAS} copies of every entry.")
        cold = self.fill(modules)
        self.fail(modules, cold.known)
        modules, known = self.touch(modules, cold.known)
        self.recover(modules, known)
        self.finish()

    def fill(self, modules: Sequence[Module]) -> Pass:
        """Read and parse everything once, then find everything in the cache."""
        heading("Cold pass: the cache is empty, so every file is read and parsed")
        cold = self.look_up(modules, "cold pass")
        unparsed = sum("error" in index for index, _ in cold.known.values())
        if unparsed:
            print(f"  {unparsed} files are not valid Python (test data): their index holds the error.")
        pickled = sum(len(pickle.dumps(index, protocol=5)) for index, _ in cold.known.values())
        print(f"  The indexes take {_text.size(pickled)} pickled, every one of them {REPLICAS} times.")
        self.claim(cold.hits == 0, "every module was a miss")
        self.claim(len(self.cache) == len(modules), "every module is in the cache now")

        heading("Warm pass: the same again")
        warm = self.look_up(modules, "warm pass")
        self.claim(warm.hits == len(modules), "every module was a hit")
        self.claim(warm.known == cold.known, "every index came back as it was put")
        print(f"  The warm pass was {cold.seconds / warm.seconds:,.0f} times as fast as the cold one.")
        return cold

    def fail(self, modules: Sequence[Module], known: Known) -> None:
        """Lose a node with its memory, and with it a copy of many entries."""
        heading(f"Node {FAILING_NODE} fails and loses its memory")
        held = self.status(FAILING_NODE).entries
        self.cache.fail_node(FAILING_NODE)
        print(f"  It held {held:,} entries; {self.status(FAILING_NODE).state!r} is its state now.")
        self.claim(self.status(FAILING_NODE).state == "failed", "the cache knows that the node is down")
        found = self.look_up(modules, "with a node down")
        self.claim(found.hits == len(modules) and found.known == known, "nothing is lost: every module was a hit")
        self.sync()
        self.claim_copies(known, f"the other nodes stand in: {REPLICAS} copies of everything again")

    def touch(self, modules: Sequence[Module], known: Known) -> tuple[list[Module], Known]:
        """Modify copies of some files; the newer index must win, and the older one be refused when it comes late."""
        parsed = [module for module in modules if "error" not in known[module.key][0]]
        step = max(1, len(parsed) // TOUCHED_FILES)
        touched = {module.key: self.modified_copy(module) for module in parsed[::step][:TOUCHED_FILES]}
        heading(f"{len(touched)} files are modified (copies of them, in a temporary folder)")
        modules = [touched.get(module.key, module) for module in modules]
        now = self.look_up(modules, "after the change")
        self.claim(now.hits == len(modules) - len(touched), "what has changed was parsed again, and nothing else")
        self.claim(
            all(TOUCHED_FUNCTION in now.known[key][0]["functions"] for key in touched),
            "the new indexes have the function that was added",
        )
        late = [self.cache.put(key, *known[key]) for key in touched]
        self.claim(not any(late), f"{len(late)} writers come late with the older version: all are refused")
        self.claim(
            all(self.cache.get(key) == now.known[key] for key in touched), "the newer version is still what is read"
        )
        return modules, now.known

    def recover(self, modules: Sequence[Module], known: Known) -> None:
        """Bring the node back empty, and have it learn what it missed."""
        heading(f"Node {FAILING_NODE} comes back with an empty memory")
        started = time.perf_counter()
        self.cache.recover_node(FAILING_NODE)
        seconds = time.perf_counter() - started
        print(
            f"  Back after {_text.duration(seconds)}, it has already pulled"
            f" {self.status(FAILING_NODE).entries:,} entries from the others."
        )
        self.sync()
        owned = [key for key in known if FAILING_NODE in self.cache.owners(key)]
        node = self.cache.node(FAILING_NODE)
        self.claim(bool(owned), f"it is an owner of {len(owned):,} modules")
        self.claim(
            all(node.get(key) == known[key] for key in owned),
            "asked alone, it knows the newest version of each of them",
        )
        self.claim_copies(known, f"all {REPLICAS} owners of every module agree")
        found = self.look_up(modules, "after the recovery")
        self.claim(found.hits == len(modules) and found.known == known, "every module was a hit, in its newest version")

    def finish(self) -> None:
        """The nodes as they are at the end."""
        heading("The nodes")
        nodes = self.cache.nodes()
        print(indented(nodes_table(nodes)))
        self.claim(all(node.state == "live" for node in nodes), "all nodes are live")
        self.claim(all(node.evictions == 0 for node in nodes), "nothing was evicted")
        self.claim(all(node.bytes_used <= node.bytes_max for node in nodes), "no node is above its capacity")
        print(f"\nAll {self.claims} claims hold.")

    def look_up(self, modules: Sequence[Module], label: str) -> Pass:
        """The index of every module: from the cache if the file has not changed since, else parsed and put."""
        known = {}
        hits = 0
        started = time.perf_counter()
        with Progress(f"  {label}", len(modules)) as progress:
            for module in modules:
                modified = module.timestamp()
                index, timestamp = self.cache.get(module.key)
                if timestamp >= modified:
                    hits += 1
                else:
                    index, timestamp = describe(module.path.read_bytes()), modified
                    self.cache.put(module.key, index, timestamp)
                known[module.key] = (index, timestamp)
                progress.step()
            seconds = time.perf_counter() - started
            progress.note = f"{hits:,} hits ({_text.percent(hits, len(modules))})"
        return Pass(known, hits, seconds)

    def modified_copy(self, module: Module) -> Module:
        """The same module in a newer file, with one function more."""
        path = self.folder / module.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(module.path.read_bytes() + f"\n\ndef {TOUCHED_FUNCTION}(): pass\n".encode())
        # Newer by at least a second, whatever the clocks of this machine and of the one that packed Python say.
        modified_ns = max(time.time_ns(), module.path.stat().st_mtime_ns + 1_000_000_000)
        os.utime(path, ns=(modified_ns, modified_ns))
        return replace(module, path=path)

    def sync(self) -> None:
        """Have the nodes exchange what they have not seen, and say what it took."""
        report = self.cache.sync()
        rounds = "round" if report.rounds == 1 else "rounds"
        print(
            f"  sync: {report.items:,} items, {_text.size(report.bytes)} in {report.rounds} {rounds},"
            f" {_text.duration(report.seconds)}"
        )
        self.claim(report.converged, "the nodes have converged")

    def status(self, node: int) -> NodeStatus:
        """What one node is and holds."""
        return next(status for status in self.cache.nodes() if status.id == node)

    def claim_copies(self, known: Known, text: str) -> None:
        """Ask every owner of every module by itself."""
        owners = {key: set(self.cache.owners(key)) for key in known}
        self.claim(
            all(
                len(owners[key]) == REPLICAS and all(self.cache.node(owner).get(key) == answer for owner in owners[key])
                for key, answer in known.items()
            ),
            text,
        )

    def claim(self, holds: bool, text: str, *, quiet: bool = False) -> None:
        """Print what has just been found true; end the demo if it is not."""
        if not holds:
            raise ClaimError(text)
        if not quiet:
            self.claims += 1
            print(f"  ok: {text}")


def standard_library() -> list[Module]:
    """Every source file of the standard library, its tests included, in the order of their paths."""
    root = Path(sysconfig.get_path("stdlib"))
    files = (path.relative_to(root) for path in sorted(root.rglob("*.py")))
    return [
        Module(path.as_posix(), root / path)
        for path in files
        if FOREIGN_FOLDERS.isdisjoint(path.parts) and (root / path).is_file()
    ]


def describe(source: bytes) -> Index:
    """What a module defines at its top level; of a file that is not valid Python, the error."""
    lines = source.count(b"\n")
    try:
        with warnings.catch_warnings(action="ignore"):  # the library's own business
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        return {"error": str(error), "lines": lines}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {
        "functions": _functions(tree.body),
        "classes": {node.name: _functions(node.body) for node in classes},
        "constants": [name for name in _assigned(tree.body) if name.isupper()],
        "lines": lines,
        "doc": (ast.get_docstring(tree) or "").partition("\n")[0],
    }


def _functions(body: Iterable[ast.stmt]) -> list[str]:
    return [node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _assigned(body: Iterable[ast.stmt]) -> list[str]:
    targets: list[ast.expr] = []
    for node in body:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    return [target.id for target in targets if isinstance(target, ast.Name)]


def nodes_table(nodes: Iterable[NodeStatus]) -> str:
    """One line a node: what it is, and how full."""
    headers = ["node", "state", "entries", "used", "capacity", "full", "markers", "evictions"]
    rows = [
        [
            str(node.id),
            node.state,
            f"{node.entries:,}",
            _text.size(node.bytes_used),
            _text.size(node.bytes_max),
            _text.percent(node.bytes_used, node.bytes_max),
            f"{node.markers:,}",
            f"{node.evictions:,}",
        ]
        for node in nodes
    ]
    return _text.table(headers, rows, left=2)


def indented(text: str) -> str:
    """Every line two columns further right."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def heading(text: str) -> None:
    """The title of a chapter."""
    print(f"\n{text}", flush=True)
