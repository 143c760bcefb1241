"""The demo does its job on real input and is readable in a log; the command line behaves like one."""

import re
import signal
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "distributed_consistent_cache"]

# What a reader must have been shown. Each line is printed only after it has been found true.
CLAIMS = """\
every module was a miss
every module is in the cache now
every module was a hit
every index came back as it was put
the cache knows that the node is down
nothing is lost: every module was a hit
the other nodes stand in: 3 copies of everything again
what has changed was parsed again, and nothing else
the new indexes have the function that was added
100 writers come late with the older version: all are refused
the newer version is still what is read
the nodes have converged
asked alone, it knows the newest version of each of them
all 3 owners of every module agree
every module was a hit, in its newest version
all nodes are live
nothing was evicted
no node is above its capacity
"""


def dccache(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def demo() -> subprocess.CompletedProcess[str]:
    return dccache("demo")


def test_the_demo_succeeds(demo: subprocess.CompletedProcess[str]) -> None:
    assert (demo.returncode, demo.stderr) == (0, ""), demo.stdout


@pytest.mark.parametrize("claim", CLAIMS.splitlines())
def test_the_demo_shows_that(claim: str, demo: subprocess.CompletedProcess[str]) -> None:
    assert f"  ok: {claim}\n" in demo.stdout


def test_the_demo_counts_its_claims(demo: subprocess.CompletedProcess[str]) -> None:
    assert demo.stdout.endswith(f"All {demo.stdout.count('  ok: ')} claims hold.\n")


def test_the_demo_works_on_a_whole_library(demo: subprocess.CompletedProcess[str]) -> None:
    files = re.search(r": ([\d,]+) source files\.", demo.stdout)
    assert files is not None
    # Some distributions package the library's own tests apart; without them there are more than 600 files.
    assert int(files[1].replace(",", "")) > 500


def test_the_demo_ends_with_a_table_of_the_nodes(demo: subprocess.CompletedProcess[str]) -> None:
    table = demo.stdout.partition("\nThe nodes\n")[2].splitlines()
    assert table[0].split() == ["node", "state", "entries", "used", "capacity", "full", "markers", "evictions"]
    assert [line.split()[:2] for line in table[2:7]] == [[str(node), "live"] for node in range(5)]


def test_a_log_of_the_demo_has_plain_short_lines(demo: subprocess.CompletedProcess[str]) -> None:
    for line in demo.stdout.splitlines():
        assert len(line) <= 80, line
        assert line.isascii(), line
        assert line.isprintable(), line


def test_ctrl_c_ends_the_demo_with_one_line() -> None:
    # A test run in the background of a script inherits that Ctrl-C is ignored; the demo on a terminal does not.
    listening = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from distributed_consistent_cache.__main__ import main; sys.exit(main(['demo']))"
    )
    command = [sys.executable, "-c", listening]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "cold pass:" in line:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted\n")


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["--version"]], ids=" ".join)
def test_help_is_there_and_fits(arguments: list[str]) -> None:
    done = dccache(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("usage: dccache", "dccache "))
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments", [[], ["unknown"], ["demo", "--unknown"]], ids=lambda given: " ".join(given) or "none"
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    done = dccache(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: dccache")
