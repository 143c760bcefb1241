"""The `explain` command: why a served cache finds a key, or not.

/api/explain.json?key=..  -->  what each owner knows, and what a get answers
"""

import argparse
from typing import Any, Final

from . import remote
from ._text import duration, size, tables, wrapped

HELP: Final = "tell why a served cache finds a key or not: what each of its owners knows"


EXIT_MISS: Final = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("key", metavar="KEY", help="the key")
    remote.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.epilog = (
        "It is no use of the key and changes nothing. Exit code: 0 if a get would find it, 3 if not, 1 if no cache "
        "answers, 2 for wrong usage, 130 if interrupted."
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask and report."""
    try:
        arguments.key.encode()
    except UnicodeEncodeError:
        arguments.parser.error("KEY is no text that can be sent")

    def code(explained: dict[str, Any]) -> int:
        return 0 if explained["hit"] else EXIT_MISS

    return remote.ask(arguments, "/api/explain.json", summary, code, key=arguments.key)


def summary(explained: dict[str, Any]) -> str:
    """What a get answers, and what each owner knows."""
    headers = ["node", "state", "synced", "knows", "timestamp", "value", "age", "ttl", "idle"]
    rows = [
        [
            str(owner["node"]),
            owner["state"],
            {True: "yes", False: "no", None: "-"}[owner["synced"]],
            owner["knows"],
            _or_dash(owner["timestamp"], str),
            _or_dash(owner["value_bytes"], size),
            _or_dash(owner["age"], duration),
            _or_dash(owner["ttl"], duration),
            _or_dash(owner["idle"], duration),
        ]
        for owner in explained["owners"]
    ]
    answer = wrapped(f"partition {explained['partition']}: {explained['sentence']}")
    return f"{answer}\n\n{tables(headers, rows, left=4)}"


def _or_dash(value: Any, text: Any) -> str:
    return "-" if value is None else str(text(value))
