"""The command line: `python -m distributed_consistent_cache <command>`, or `dccache <command>`.

A command is a module with `HELP` (one line), `add_arguments(parser)` and `run(arguments) -> exit code`. To add one,
write the module and name it in `COMMANDS`.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn, Protocol, TextIO

from . import __version__, _text, bench, demo, explain, metrics, simulate, snapshot, status, top


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

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
EXIT_PIPE_CLOSED: Final = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 nobody reads."""
    _have_streams()
    try:
        return _run(_parser().parse_args(argv))
    finally:
        # Also when the usage was wrong, or --help was asked for.
        _give_up_unwritten()


def _run(arguments: argparse.Namespace) -> int:
    try:
        code = COMMANDS[arguments.command].run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
        _say("interrupted")
    except BrokenPipeError:
        code = EXIT_PIPE_CLOSED
    except OSError as error:
        # A full disk, of what is printed or of what a command writes.
        code = EXIT_FAILED
        _say(f"error: {_text.shown(str(error))}")
    return code


def _have_streams() -> None:
    """A stream that was closed by whoever started this reads and writes nothing. One that cannot write a character
    writes it as in Python's source."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - while the process lives
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(text: str) -> None:
    # Where nobody reads what goes wrong, nobody can be told.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _give_up_unwritten() -> None:
    """What cannot be written any more goes nowhere, or Python would complain about it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Parser(argparse.ArgumentParser):
    """One that prints nothing raw of what it was given. The parsers of its commands are of this class, too."""

    def error(self, message: str) -> NoReturn:
        super().error(_text.shown(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dccache", description="A replicated in-process cache: N nodes, R copies, the newest timestamp wins."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.HELP, description=command.HELP))
    return parser


if __name__ == "__main__":
    sys.exit(main())
