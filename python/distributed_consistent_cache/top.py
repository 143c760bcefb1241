"""The `top` command: a served cache, live.

/api/stats.json, every few seconds  -->  what changed since the last time, a second
                                         terminal: in place    elsewhere: one block after the other
"""

import argparse
import json
import os
import shutil
import sys
import time
from typing import Any, Final

from . import remote
from ._text import all_shown, duration, percent, shown, size, table, tables, wrapped
from .status import nodes_table, process

HELP: Final = "watch a served cache: calls a second, hits, latencies, nodes"

INTERVAL_SECONDS: Final = 2.0


CLEAR: Final = "\x1b[H\x1b[J"
HIDE_CURSOR: Final = "\x1b[?25l"
SHOW_CURSOR: Final = "\x1b[?25h"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    remote.add_arguments(parser)
    parser.add_argument(
        "--interval",
        type=_interval,
        default=INTERVAL_SECONDS,
        metavar="SECONDS",
        help=f"between two looks, 0.1 to 3600; {INTERVAL_SECONDS:g} if not given",
    )
    parser.add_argument("--count", type=_count, metavar="N", help="end after so many looks; else with Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for each look")
    parser.epilog = (
        "Where the output is no terminal, one look comes after the other, without control characters. "
        "Exit code: 0, also after Ctrl-C, 1 if no cache answers, 2 for wrong usage."
    )


def _interval(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.1 to 3600")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return count


def run(arguments: argparse.Namespace) -> int:
    """Look again and again."""
    url = remote.address(arguments)
    on_terminal = not arguments.json and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    try:
        if on_terminal:
            sys.stdout.write(HIDE_CURSOR)
        return _watch(arguments, url, on_terminal=on_terminal)
    except KeyboardInterrupt:
        return 0
    finally:
        if on_terminal:
            sys.stdout.write(SHOW_CURSOR)
            sys.stdout.flush()


def _watch(arguments: argparse.Namespace, url: str, *, on_terminal: bool) -> int:
    before: dict[str, Any] | None = None
    looked_before = 0.0
    looks = 0
    while True:
        try:
            stats, looked = remote.fetch_json(url, "/api/stats.json"), time.monotonic()
            with remote.understood(url):
                plain = page(shown(url), all_shown(stats), before, looked - looked_before)
            text = json.dumps(stats) if arguments.json else plain
        except remote.UnreachableError as error:
            if before is None or not on_terminal:
                print(f"error: {error}", file=sys.stderr)
                return remote.EXIT_UNREACHABLE
            # Somebody is watching: it may come back.
            sys.stdout.write(f"{CLEAR}{error}\n\nlooking again every {arguments.interval:g} s; Ctrl-C ends\n")
        else:
            before, looked_before = stats, looked
            if on_terminal:
                sys.stdout.write(CLEAR + _fitted(text))
            else:
                print(text if arguments.json or looks == 0 else f"\n{text}")
        sys.stdout.flush()
        looks += 1
        if looks == arguments.count:
            return 0
        time.sleep(arguments.interval)


def _fitted(text: str) -> str:
    """As much of a page as the terminal has lines and columns for."""
    columns, lines = shutil.get_terminal_size()
    kept = text.splitlines()
    if len(kept) > lines - 1:
        hidden = len(kept) - (lines - 2)
        kept = [*kept[: lines - 2], f".. and {hidden} more lines"]
    return "\n".join(line[: columns - 1] for line in kept) + "\n"


def page(url: str, stats: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> str:
    """One look: rates since the last one, or since the cache was made at first."""
    names = ("hits", "misses", "puts", "removes", "evictions", "gossip_bytes")
    if before is None:
        title, since, per = "since it was made", dict.fromkeys(names, 0), 1.0
    else:
        title, since, per = f"a second, over the last {duration(seconds)}", before, seconds

    def rate(count: int) -> str:
        a_second = count / per
        return f"{a_second:,.1f}" if 0 < a_second < 10 and before is not None else f"{a_second:,.0f}"

    # A cache that was started anew counts from 0.
    moved = {name: max(stats[name] - since[name], 0) for name in names}
    gets = moved["hits"] + moved["misses"]
    calls = [
        ["gets", rate(gets)],
        ["  of them hits", percent(moved["hits"], gets)],
        ["puts", rate(moved["puts"])],
        ["removes", rate(moved["removes"])],
        ["evictions", rate(moved["evictions"])],
        ["gossip", size(moved["gossip_bytes"] / per)],
    ]
    held = [
        ["keys", f"{stats['keys']:,}"],
        ["copies of each", f"{stats['effective_copies']:.2f}"],
        ["unseen writes", f"{stats['unseen_writes']:,}"],
        ["unsynced partitions", f"{stats['unsynced_partitions']:,}"],
        ["used", size(stats["bytes_used"])],
        ["of", size(stats["bytes_max"])],
    ]
    latencies = [
        [call, *(duration(times[name]) for name in ("p50", "p90", "p99", "p999", "max"))]
        for call, times in stats["latency"].items()
        if times["count"]
    ]
    now = time.strftime("%H:%M:%S")
    parts = [
        f"{url}  {now}  {title}\n{wrapped(process(stats))}",
        _beside(table(["calls", ""], calls), table(["held now", ""], held)),
    ]
    if latencies:
        parts.append(tables(["time of a", "p50", "p90", "p99", "p99.9", "max"], latencies))
    parts.append(nodes_table(stats["nodes"]))
    return "\n\n".join(parts)


def _beside(left: str, right: str) -> str:
    rows = left.splitlines()
    width = max(map(len, rows))
    return "\n".join(f"{a:<{width}}    {b}".rstrip() for a, b in zip(rows, right.splitlines(), strict=True))
