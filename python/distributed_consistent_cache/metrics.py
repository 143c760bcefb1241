"""The `metrics` command: what Prometheus would scrape of a served cache.

/metrics  -->  the same text
"""

import argparse
import json
import sys
from typing import Final

from . import remote

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
    try:
        text = remote.fetch(remote.address(arguments), "/metrics")
    except remote.UnreachableError as error:
        print(f"error: {error}", file=sys.stderr)
        return remote.EXIT_UNREACHABLE
    if arguments.json:
        print(json.dumps(samples(text)))
    else:
        sys.stdout.write(text)
    return 0


def samples(text: str) -> dict[str, float]:
    """Each line that is no comment: its name with its labels, and its value."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
