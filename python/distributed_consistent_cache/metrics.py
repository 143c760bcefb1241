"""The `metrics` command: what Prometheus would scrape of a served cache.

/metrics  -->  the same text
"""

import argparse
import json
import sys
from typing import Final

from . import remote
from ._text import shown

HELP: Final = "print the metrics of a served cache, as Prometheus scrapes them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    remote.add_arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, each sample's name with its labels and its value"
    )
    parser.epilog = "Exit code: 0, 1 if no cache answers, 2 for wrong usage, 130 if interrupted."


def run(arguments: argparse.Namespace) -> int:
    """Ask and print."""
    url = remote.address(arguments)
    try:
        text = remote.fetch(url, "/metrics")
        with remote.understood(url):
            said = json.dumps(samples(text)) + "\n" if arguments.json else shown(text, keep="\n")
    except remote.UnreachableError as error:
        print(f"error: {error}", file=sys.stderr)
        return remote.EXIT_UNREACHABLE
    sys.stdout.write(said)
    return 0


def samples(text: str) -> dict[str, float]:
    """Each line that is no comment: its name with its labels, and its value. What is whole is an int: timestamps have
    more digits than a float holds."""
    lines = (line for line in text.split("\n") if line and not line.startswith("#"))
    return {name: _number(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def _number(value: str) -> float:
    return int(value) if value.isascii() and value.isdigit() else float(value)
