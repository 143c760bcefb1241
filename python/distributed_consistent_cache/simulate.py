r"""The `simulate` command: clusters in a bad world, one for each seed, and every promise checked after every event.

seeds --simulation.simulate--> a table of what happened
                          \--> a promise was broken: which, how, and the line that replays it
"""

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import _core, _text, simulation
from .progress import COLUMNS_MAX, Progress

HELP: Final = "simulate clusters in a bad world, one for each seed, and check every promise"

SEEDS: Final = 1000
SEEDS_MAX: Final = 2**32
# What many seeds find is mostly the same: the first few are enough to begin with. `--json` has them all.
VIOLATIONS_SHOWN: Final = 5
# What was seen may be the state of all nodes: so many lines of it.
LINES_SHOWN: Final = 12

DAY_SECONDS: Final = 86_400
YEAR_SECONDS: Final = 365.25 * DAY_SECONDS

EXIT_BROKEN: Final = 1


@dataclass(frozen=True)
class Run:
    """What is simulated: as `simulation.simulate` takes it."""

    first_seed: int
    seeds: int
    nodes: int | None
    replicas: int | None

    def sizes(self) -> dict[str, int]:
        """The sizes that are given, and not left to the seeds."""
        sizes = {"nodes": self.nodes, "replicas": self.replicas}
        return {name: size for name, size in sizes.items() if size is not None}

    def replay(self, seed: int) -> str:
        """The command that runs one of its seeds again."""
        sizes = "".join(f" --{name} {size}" for name, size in self.sizes().items())
        return f"python -m {__package__} simulate --seeds 1 --first-seed {seed}{sizes}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--nodes", type=int, metavar="N", help="nodes of each cluster, 1 to 16; else each seed picks")
    parser.add_argument(
        "--replicas", type=int, metavar="R", help="copies of each entry, 1 to the nodes; else each seed picks"
    )
    parser.add_argument(
        "--seeds", type=_count, default=SEEDS, metavar="COUNT", help=f"how many seeds; {SEEDS} if not given"
    )
    parser.add_argument("--first-seed", type=int, default=0, metavar="S", help="the first of them; 0 if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    # For wrong usage that is found later.
    parser.set_defaults(parser=parser)
    parser.epilog = (
        "The same seed is the same execution, on every machine. "
        "Exit code: 0 if every promise was kept, 1 if one was broken, 2 for wrong usage, 130 if interrupted."
    )


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= SEEDS_MAX:
        raise argparse.ArgumentTypeError(f"{count} is not from 1 to {SEEDS_MAX}")
    return count


def run(arguments: argparse.Namespace) -> int:
    """Simulate and report; 1 if a promise was broken."""
    what = Run(arguments.first_seed, arguments.seeds, arguments.nodes, arguments.replicas)
    try:
        # No seed is run: this asks whether the sizes are in their ranges, which depend on one another.
        simulation.simulate(what.first_seed, 0, nodes=what.nodes, replicas=what.replicas)
    except ValueError as error:
        arguments.parser.error(str(error))
    started = time.perf_counter()
    report = _simulate(what, show=not arguments.json)
    seconds = time.perf_counter() - started
    if arguments.json:
        print(json.dumps(as_json(what, report, seconds)))
    else:
        print(f"\n{summary(report, seconds)}")
        print(f"\n{verdict(what, report)}")
    return EXIT_BROKEN if report.violations else 0


def _simulate(what: Run, *, show: bool) -> simulation.SimulationReport:
    def simulate(progress: Progress | None) -> simulation.SimulationReport:
        step = None if progress is None else progress.step
        return simulation.simulate(what.first_seed, what.seeds, nodes=what.nodes, replicas=what.replicas, progress=step)

    if show:
        with Progress("seeds", what.seeds) as progress:
            report = simulate(progress)
            progress.note = "every promise kept" if not report.violations else f"{len(report.violations):,} broken"
            return report
    # Whatever reads the JSON sees nothing else; a person who waits for it does.
    if sys.stderr.isatty():
        with Progress("seeds", what.seeds, sys.stderr) as progress:
            return simulate(progress)
    return simulate(None)


def summary(report: simulation.SimulationReport, seconds: float) -> str:
    """What happened, as a table."""
    rounds = " / ".join(map(str, percentiles(report.rounds).values())) if report.rounds else "-"
    rows = [
        ["seeds", f"{report.seeds:,}"],
        ["events", f"{report.events:,}"],
        ["faults", f"{report.faults:,}"],
        ["puts and removes", f"{report.writes:,}"],
        ["gets", f"{report.reads:,}"],
        ["calls refused", f"{report.refused:,}"],
        ["evictions", f"{report.evictions:,}"],
        ["simulated time of nodes", virtual_time(report.node_seconds)],
        ["wall time", _text.duration(seconds)],
        ["seeds per second", f"{report.seeds / seconds:,.0f}"],
        ["rounds to agree, p50 / p99 / max", rounds],
        ["promises broken", f"{len(report.violations):,}"],
    ]
    return _text.table(["what", "measured"], rows)


def verdict(what: Run, report: simulation.SimulationReport) -> str:
    """What was broken, and how to see it again; or that nothing was."""
    if not report.violations:
        return "Every promise was kept."
    shown = report.violations[:VIOLATIONS_SHOWN]
    blocks = [f"{_described(violation)}\nreplay: {what.replay(violation.seed)}" for violation in shown]
    if what.seeds == 1:
        blocks += _shrunken(what)
    more = len(report.violations) - len(shown)
    if more:
        blocks.append(f"{more:,} more seeds broke a promise; --json lists them all.")
    return "\n\n".join(blocks)


def _described(violation: simulation.Violation) -> str:
    lines = [f"BROKEN: {violation.invariant}, seed {violation.seed}, at {violation.at_seconds:.6f} s of virtual time"]
    for line in violation.what.splitlines():
        lines += textwrap.wrap(line, COLUMNS_MAX - 1, initial_indent="  ", subsequent_indent="    ")
    if len(lines) > LINES_SHOWN:
        lines[LINES_SHOWN:] = [f"  ... {len(lines) - LINES_SHOWN:,} more lines; --json has them"]
    return "\n".join(lines)


def _shrunken(what: Run) -> list[str]:
    """The fewest faults that still break the seed's promise, if the core can find them."""
    faults = _core.shrink(what.first_seed, **what.sizes())
    if faults is None:
        return []
    lines = [f"It takes {len(faults):,} of its faults:"]
    for fault in faults:
        lines += textwrap.wrap(fault, COLUMNS_MAX - 1, initial_indent="  ", subsequent_indent="    ")
    return ["\n".join(lines)]


def as_json(what: Run, report: simulation.SimulationReport, seconds: float) -> dict[str, Any]:
    """Everything in plain types. Times are in seconds; `nodes` and `replicas` are null where seeds picked them."""
    return {
        "first_seed": what.first_seed,
        "seeds": report.seeds,
        "nodes": what.nodes,
        "replicas": what.replicas,
        "events": report.events,
        "faults": report.faults,
        "writes": report.writes,
        "reads": report.reads,
        "hits": report.hits,
        "refused": report.refused,
        "evictions": report.evictions,
        "markers_lost": report.markers_lost,
        "late_keys": report.late_keys,
        "node_seconds": report.node_seconds,
        "wall_seconds": seconds,
        "seeds_per_second": report.seeds / seconds,
        "rounds": percentiles(report.rounds) if report.rounds else None,
        # 64 bits, which are more than a JSON number carries everywhere.
        "trace": f"{report.trace:016x}",
        "violations": [
            {
                "seed": violation.seed,
                "invariant": violation.invariant,
                "at_seconds": violation.at_seconds,
                "what": violation.what,
                "replay": what.replay(violation.seed),
            }
            for violation in report.violations
        ],
    }


def percentiles(counted: Mapping[int, int]) -> dict[str, int]:
    """p50, p99 and max of numbers that are given as number -> how often; there is at least one."""
    total = sum(counted.values())
    found = {}
    for name, percent in {"p50": 50, "p99": 99, "max": 100}.items():
        below = 0
        for number in sorted(counted):
            below += counted[number]
            # The smallest number that so many percent are not above; in whole numbers, which do not round.
            if 100 * below >= percent * total:
                found[name] = number
                break
    return found


def virtual_time(seconds: float) -> str:
    """A simulated time in the unit that suits it: `3.2 years`, `17.5 days`, `14.0 hours`."""
    for unit, scale in (("years", YEAR_SECONDS), ("days", DAY_SECONDS), ("hours", 3600.0)):
        if seconds >= scale:
            return f"{seconds / scale:,.1f} {unit}"
    return _text.duration(seconds)
