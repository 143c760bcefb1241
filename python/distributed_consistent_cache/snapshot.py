r"""The `snapshot` command: what a file that `Cache.save` wrote holds, and whether it is whole.

PATH --info----> its header and its footer, at once
     \--verify-> every byte of it, with a bar
"""

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

from . import SnapshotError, _core, _text
from .progress import Progress

HELP: Final = "say what a snapshot of a cache holds, or verify that it is whole"

EXIT_BROKEN: Final = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    for action, what in (
        ("info", "say what it holds; reads its header and its footer only"),
        ("verify", "read all of it, and say whether it is what was saved"),
    ):
        of_action = actions.add_parser(action, help=what, description=what)
        of_action.add_argument("path", metavar="PATH", help="a file that Cache.save wrote")
        of_action.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.epilog = (
        "Nothing is restored, and no value is unpickled. Exit code: 0 if the file is a snapshot (and whole, for "
        "verify), 1 if it is not or cannot be read, 2 for wrong usage, 130 if interrupted."
    )


def run(arguments: argparse.Namespace) -> int:
    """Look at the file and report; 1 if it cannot be read, or is not whole."""
    started = time.perf_counter()
    try:
        if arguments.action == "info":
            info = _core.snapshot_info(arguments.path)
        else:
            info = _verify(arguments.path, show=not arguments.json)
    except (SnapshotError, OSError) as error:
        if arguments.json:
            print(json.dumps({"path": arguments.path, "valid": False, "error": str(error)}))
        else:
            print(f"error: {_text.shown(str(error))}", file=sys.stderr)
        return EXIT_BROKEN
    seconds = time.perf_counter() - started
    if arguments.json:
        said = {"path": arguments.path, "valid": True} | as_json(info)
        print(json.dumps(said if arguments.action == "info" else said | {"wall_seconds": seconds}))
        return 0
    if arguments.action == "verify":
        print()
    print(summary(info))
    if arguments.action == "verify":
        speed = _text.size(info.file_bytes / seconds)
        print(f"\nThe file is whole: every byte was checked, {speed} a second.")
    return 0


def _verify(path: str, *, show: bool) -> _core.SnapshotInfo:
    # Also how it is told early that the file is none, or ends early.
    blocks = _core.snapshot_info(path).blocks
    if show:
        with Progress("blocks", blocks) as progress:
            return _core.verify_snapshot(path, progress=progress.step)
    # Whatever reads the JSON sees nothing else; a person who waits for it does.
    if sys.stderr.isatty():
        with Progress("blocks", blocks, sys.stderr) as progress:
            return _core.verify_snapshot(path, progress=progress.step)
    return _core.verify_snapshot(path)


def summary(info: _core.SnapshotInfo) -> str:
    """What it holds, as a table."""
    gossip = "none" if info.gossip_interval is None else f"every {_text.duration(info.gossip_interval)}"
    rows = [
        ["format", str(info.format)],
        ["saved at (UTC)", _moment(info.saved_at)],
        ["entries", f"{info.entries:,}"],
        ["removed keys", f"{info.removes:,}"],
        ["blocks", f"{info.blocks:,}"],
        ["records, unpacked", _text.size(info.record_bytes)],
        ["file", _text.size(info.file_bytes)],
        ["nodes", str(info.nodes)],
        ["replicas", str(info.replicas)],
        ["node capacity", _text.size(info.node_capacity)],
        ["write quorum", info.write_quorum],
        ["read quorum", info.read_quorum],
        ["gossip", gossip],
        ["compression", info.compression or "none"],
        ["default ttl", "none" if info.default_ttl is None else _text.duration(info.default_ttl)],
    ]
    return _text.table(["what", "saved"], rows)


def _moment(microseconds: int) -> str:
    try:
        return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        # Beyond what a calendar has: a clock may say anything.
        return f"{microseconds} us"


def as_json(info: _core.SnapshotInfo) -> dict[str, Any]:
    """Everything in plain types: times in seconds and in microseconds since 1970 (`saved_at`), sizes in bytes."""
    names = (
        "format saved_at entries removes blocks record_bytes file_bytes nodes replicas node_capacity write_quorum "
        "read_quorum gossip_interval compression default_ttl"
    )
    return {name: getattr(info, name) for name in names.split()}
