"""The `status` command: how a served cache is, in one look.

/api/stats.json  -->  its nodes as a table, and what matters of it in words
"""

import argparse
from typing import Any, Final

from . import remote
from ._text import percent, size, tables, wrapped

HELP: Final = "tell how a served cache is: its nodes, what they hold, what was found"

EXIT_NODE_DOWN: Final = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    remote.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.epilog = (
        "Exit code: 0 if every node is live, 3 if one is down, 1 if no cache answers, 2 for wrong usage, "
        "130 if interrupted."
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask and report."""

    def code(stats: dict[str, Any]) -> int:
        return 0 if all(node["live"] for node in stats["nodes"]) else EXIT_NODE_DOWN

    return remote.ask(arguments, "/api/stats.json", summary, code)


def summary(stats: dict[str, Any]) -> str:
    """Its nodes, and what matters of all of them together."""
    gets = stats["hits"] + stats["misses"]
    down = sum(not node["live"] for node in stats["nodes"])
    reasons = sorted(stats["misses_by_reason"].items(), key=lambda pair: -pair[1])
    why = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in reasons if count)
    held = f"{stats['keys']:,} keys, {stats['effective_copies']:.2f} copies of each"
    lines = [
        f"{len(stats['nodes'])} nodes, " + (f"{down} of them down" if down else "all live"),
        f"{gets:,} gets, {percent(stats['hits'], gets)} hits" + (f"; misses: {why}" if why else ""),
        held + f"; {stats['unseen_writes']:,} writes that not every owner has seen",
        f"{size(stats['bytes_used'])} of {size(stats['bytes_max'])} used; {stats['evictions']:,} evictions",
        process(stats),
    ]
    return "\n".join(wrapped(line) for line in lines) + "\n\n" + nodes_table(stats["nodes"])


def process(stats: dict[str, Any]) -> str:
    """Which process it is: with several workers, each has a cache of its own."""
    of = stats["process"]
    return f"process {of['id']:d}" + (f", {of['program']}" if of["program"] else "")


def nodes_table(nodes: list[dict[str, Any]]) -> str:
    """One line for each node."""
    headers = ["node", "state", "hits", "misses", "entries", "evictions", "used", "of"]
    rows = [
        [
            str(node["id"]),
            "live" if node["live"] else "down",
            f"{node['hits']:,}",
            f"{node['misses']:,}",
            f"{node['entries']:,}",
            f"{node['evictions']:,}",
            # The memory of a node that failed is gone.
            *((size(node["bytes_used"]), size(node["bytes_max"])) if node["bytes_max"] else ("-", "-")),
        ]
        for node in nodes
    ]
    return tables(headers, rows, left=2)
