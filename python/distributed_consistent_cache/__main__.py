"""The command line: `python -m distributed_consistent_cache <command>`, or `dccache <command>`.

A command is a module with `HELP` (one line), `add_arguments(parser)` and `run(arguments) -> exit code`. To add one,
write the module and name it in `COMMANDS`.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from . import __version__, bench, demo, explain, metrics, simulate, snapshot, status, top


class Command(Protocol):
    """What a module must have to be a command."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Declare the command's own options."""

    def run(self, arguments: argparse.Namespace, /) -> int:
        """Do the work; 0 is success."""
        ...


COMMANDS: Final[Mapping[str, Command]] = {
    "demo": demo,
    "bench": bench,
    "simulate": simulate,
    "snapshot": snapshot,
    "status": status,
    "top": top,
    "explain": explain,
    "metrics": metrics,
}

EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
EXIT_PIPE_CLOSED: Final = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        code = COMMANDS[arguments.command].run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more. What is still buffered goes nowhere, or Python would complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dccache", description="A replicated in-process cache: N nodes, R copies, the newest timestamp wins."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.HELP, description=command.HELP))
    return parser


if __name__ == "__main__":
    sys.exit(main())
