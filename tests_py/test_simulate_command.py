"""The simulate command says what it simulated, what was broken and how to see it again, to people and to programs."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from distributed_consistent_cache import simulate as command
from distributed_consistent_cache import simulation
from distributed_consistent_cache.__main__ import main

COMMAND = [sys.executable, "-m", "distributed_consistent_cache", "simulate"]
ROWS = [
    "seeds",
    "events",
    "faults",
    "puts and removes",
    "gets",
    "calls refused",
    "evictions",
    "simulated time of nodes",
    "wall time",
    "seeds per second",
    "rounds to agree, p50 / p99 / max",
    "promises broken",
]


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)


@dataclass(frozen=True)
class Broken:
    """A violation that the real code does not have."""

    seed: int
    invariant: str = "I7"
    at_seconds: float = 3.25
    what: str = "owners have different values of key 3"


@dataclass(frozen=True)
class Report:
    """A report of seeds that broke promises."""

    seeds: int
    violations: list[Broken] = field(default_factory=list)
    rounds: dict[int, int] = field(default_factory=dict)
    events: int = 10
    faults: int = 9
    writes: int = 8
    reads: int = 7
    hits: int = 6
    refused: int = 5
    evictions: int = 4
    markers_lost: int = 3
    late_keys: int = 2
    node_seconds: float = 86_400.0
    trace: int = 255


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every seed breaks a promise."""

    def simulate(first_seed: int, seeds: int, **_: object) -> Report:
        return Report(seeds, [Broken(seed) for seed in range(first_seed, first_seed + seeds)])

    monkeypatch.setattr(simulation, "simulate", simulate)


@pytest.fixture(scope="module")
def done() -> subprocess.CompletedProcess[str]:
    return run_command("--seeds", "100")


def test_a_simulation_without_violations_succeeds(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nEvery promise was kept.\n")


def test_a_log_has_a_line_at_the_start_and_one_at_the_end(done: subprocess.CompletedProcess[str]) -> None:
    first, second = done.stdout.splitlines()[:2]
    assert first == "seeds: 100 to do"
    assert re.fullmatch(r"seeds: 100 done in [\d.]+ \w+, every promise kept", second)


def test_a_table_says_what_was_simulated(done: subprocess.CompletedProcess[str]) -> None:
    table = done.stdout.split("\n\n")[1].splitlines()[2:]
    rows = dict(re.split(r"\s{2,}", line) for line in table)
    assert list(rows) == ROWS
    assert (rows["seeds"], rows["promises broken"]) == ("100", "0")
    assert re.fullmatch(r"\d+ / \d+ / \d+", rows["rounds to agree, p50 / p99 / max"])
    assert rows["simulated time of nodes"].endswith(" hours")


def test_a_log_has_plain_short_lines(done: subprocess.CompletedProcess[str]) -> None:
    for line in done.stdout.splitlines():
        assert len(line) <= 80, line
        assert line.isascii(), line
        assert line.isprintable() or not line, line


def test_sizes_and_seeds_can_be_given() -> None:
    done = run_command("--seeds", "5", "--first-seed", "40", "--nodes", "5", "--replicas", "3", "--json")
    said = json.loads(done.stdout)
    report = simulation.simulate(40, 5, nodes=5, replicas=3)
    assert (said["first_seed"], said["nodes"], said["replicas"]) == (40, 5, 3)
    assert (said["seeds"], said["events"], said["faults"]) == (5, report.events, report.faults)
    assert said["trace"] == f"{report.trace:016x}"


def test_json_is_one_object_and_nothing_else() -> None:
    done = run_command("--seeds", "5", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    said = json.loads(done.stdout)
    assert said["violations"] == []
    assert said["nodes"] is None
    assert set(said["rounds"]) == {"p50", "p99", "max"}
    assert said["seeds_per_second"] == pytest.approx(5 / said["wall_seconds"])


@pytest.mark.usefixtures("broken")
def test_a_broken_promise_is_told_with_the_line_that_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seeds", "1", "--first-seed", "17"]) == 1
    out = capsys.readouterr().out
    assert "seeds: 0 done in" in out
    assert ", 1 broken\n" in out
    assert out.endswith(
        "\nBROKEN: I7, seed 17, at 3.250000 s of virtual time\n"
        "  owners have different values of key 3\n"
        "replay: python -m distributed_consistent_cache simulate --seeds 1 --first-seed 17\n"
    )


@pytest.mark.usefixtures("broken")
def test_a_replay_has_the_sizes_that_were_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seeds", "2", "--nodes", "5", "--replicas", "3"]) == 1
    replays = [line for line in capsys.readouterr().out.splitlines() if line.startswith("replay: ")]
    assert replays == [
        f"replay: python -m distributed_consistent_cache simulate --seeds 1 --first-seed {seed} --nodes 5 --replicas 3"
        for seed in (0, 1)
    ]


@pytest.mark.usefixtures("broken")
def test_of_many_broken_promises_the_first_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seeds", "1000"]) == 1
    out = capsys.readouterr().out
    assert out.count("BROKEN: ") == out.count("replay: ") == 5
    assert out.endswith("\n995 more seeds broke a promise; --json lists them all.\n")


@pytest.mark.usefixtures("broken")
def test_json_has_every_broken_promise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seeds", "20", "--json"]) == 1
    violations = json.loads(capsys.readouterr().out)["violations"]
    assert [violation["seed"] for violation in violations] == list(range(20))
    assert violations[3] == {
        "seed": 3,
        "invariant": "I7",
        "at_seconds": 3.25,
        "what": "owners have different values of key 3",
        "replay": "python -m distributed_consistent_cache simulate --seeds 1 --first-seed 3",
    }


def test_long_descriptions_are_cut_and_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    what = "\n".join(f"partition {number}: " + "clock " * 40 for number in range(50))
    monkeypatch.setattr(simulation, "simulate", lambda *_, **__: Report(1, [Broken(0, what=what)]))
    assert main(["simulate", "--seeds", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if not line.startswith("replay: ")) <= 80
    assert any(re.fullmatch(r"  \.\.\. \d+ more lines; --json has them", line) for line in lines)
    assert len(lines) < 40


@pytest.mark.usefixtures("broken")
def test_a_replay_of_one_seed_tells_the_fewest_faults_that_break_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def shrink(seed: int, **sizes: int) -> list[str]:
        asked.append((seed, sizes))
        return ["1.250000 s: Crash { node: 2, noticed_us: 0 }", "1.500000 s: Recover { node: 2 }"]

    monkeypatch.setattr("distributed_consistent_cache._core.shrink", shrink, raising=False)
    assert main(["simulate", "--seeds", "2", "--nodes", "4"]) == 1
    assert asked == []
    capsys.readouterr()
    assert main(["simulate", "--seeds", "1", "--first-seed", "8", "--nodes", "4"]) == 1
    assert asked == [(8, {"nodes": 4})]
    assert capsys.readouterr().out.endswith(
        "\n\nIt takes 2 of its faults:\n"
        "  1.250000 s: Crash { node: 2, noticed_us: 0 }\n"
        "  1.500000 s: Recover { node: 2 }\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "argument --seeds: 0 is not from 1 to 4294967296"),
        (["--seeds", "many"], "argument --seeds: invalid"),
        (["--first-seed", "-1"], "first_seed is -1, but must be from 0 to 2**63-1; nothing was done"),
        (["--nodes", "17"], "nodes is 17, but must be from 1 to 16; nothing was done"),
        (["--nodes", "2", "--replicas", "3"], "replicas is 3, but must be from 1 to 2; nothing was done"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    done = run_command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: dccache")
    assert f"error: {message}" in done.stderr


def test_help_is_there_and_fits() -> None:
    done = run_command("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_ctrl_c_ends_it_with_one_line() -> None:
    # A test run in the background of a script inherits that Ctrl-C is ignored; the command on a terminal does not.
    listening = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from distributed_consistent_cache.__main__ import main; sys.exit(main(['simulate', '--seeds', '100000000']))"
    )
    command = [sys.executable, "-c", listening]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "seeds: 100,000,000 to do\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_a_terminal_gets_a_bar() -> None:
    program = f"import pty, sys; sys.exit(pty.spawn({[*COMMAND, '--seeds', '40']}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    shown = done.stdout.decode()
    assert re.search(r"\rseeds \[#*\.*\] +\d+ of 40\x1b\[K", shown)
    assert "seeds: 40 to do" not in shown
    assert shown.endswith("\r\nEvery promise was kept.\r\n")


@pytest.mark.parametrize(
    ("counted", "found"),
    [
        ({3: 1}, {"p50": 3, "p99": 3, "max": 3}),
        ({1: 50, 2: 49, 9: 1}, {"p50": 1, "p99": 2, "max": 9}),
        ({2: 980, 1: 1, 7: 10, 8: 9}, {"p50": 2, "p99": 7, "max": 8}),
    ],
)
def test_percentiles_are_of_all_that_was_counted(counted: dict[int, int], found: dict[str, int]) -> None:
    assert command.percentiles(counted) == found


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.0, "12.0 s"), (7200.0, "2.0 hours"), (5 * 86_400.0, "5.0 days"), (1e11, "3,168.8 years")],
)
def test_simulated_time_is_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert command.virtual_time(seconds) == text
