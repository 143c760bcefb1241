"""What the tests share: many threads with a deadline, so that a deadlock is a failure and not a hang; and programs of
their own, for what a process does when it forks, is interrupted or ends."""

import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings

from outside import LEFT_OUT

# A shared machine may be slow at any moment: no example fails for its time. A failure prints what brings it back.
settings.register_profile("tests", deadline=None, print_blob=True)
settings.load_profile("tests")

# Here Ctrl-C is pressed. Who runs the tests may have told them to ignore it, as a shell tells what it runs in the
# background, and a program that is started inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests were left out because something is not installed; also in the file LEFT_OUT, for `make`."""
    left_out: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        _, _, why = report.longrepr
        if LEFT_OUT in why:
            what = f"{Path(report.nodeid.split('::')[0]).name}: {why.split(LEFT_OUT)[1].strip()}"
            left_out[what] = left_out.get(what, 0) + 1
    lines = [f"{count} test{'s' if count > 1 else ''} of {what}" for what, count in sorted(left_out.items())]
    if lines:
        terminalreporter.section("left out")
        for line in lines:
            terminalreporter.line(line)
    if path := os.environ.get("LEFT_OUT"):
        Path(path).write_text("".join(f"== left out: {line}\n" for line in lines), encoding="utf-8")


class RunProgram(Protocol):
    """The type of the fixture `run_program`."""

    def __call__(self, source: str, *, seconds: float = 60.0) -> str:
        """Run Python source in a new interpreter, with warnings off, and return what it printed.

        The test fails if it is not done after so many seconds, exits with anything but 0, or writes to stderr.
        """
        ...


@pytest.fixture
def run_program() -> RunProgram:
    """A program of its own: `assert run_program("print(1)") == "1\\n"`."""
    return _run_program


def _run_program(source: str, *, seconds: float = 60.0) -> str:
    # A session of its own, so that what it forked can be ended with it.
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-X", "faulthandler", "-c", textwrap.dedent(source)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _end_session(process.pid)
        output, errors = process.communicate()
        pytest.fail(f"the program was not done after {seconds:g} s\nstdout: {output}\nstderr: {errors}")
    assert (process.returncode, errors) == (0, ""), (
        f"exit code {process.returncode}\nstdout: {output}\nstderr: {errors}"
    )
    return output


def _end_session(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


class RunThreads(Protocol):
    """The type of the fixture `run_threads`."""

    def __call__(self, count: int, work: Callable[[int], Any], *, seconds: float = 60.0) -> list[Any]:
        """Call `work(0)` to `work(count - 1)`, each in a thread of its own, all at once; return the results in order.

        What a thread raises is raised here. If one is not done after so many seconds, the stacks of all threads are
        written to stderr and the test fails.
        """
        ...


@pytest.fixture
def run_threads() -> RunThreads:
    """A watchdog around threads: `run_threads(1000, lambda i: cache.put(f"k{i}", i))`."""
    return _run_threads


def _run_threads(count: int, work: Callable[[int], Any], *, seconds: float = 60.0) -> list[Any]:
    results: list[Any] = [None] * count
    errors: list[BaseException] = []
    gate = threading.Event()

    def run(index: int) -> None:
        gate.wait()
        try:
            results[index] = work(index)
        except BaseException as error:  # noqa: BLE001 - it is raised again below, whatever it is
            errors.append(error)

    # Daemons, so that a thread that hangs cannot keep the test run from ending.
    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    gate.set()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    hanging = sum(thread.is_alive() for thread in threads)
    if hanging:
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        pytest.fail(f"{hanging} of {count} threads were not done after {seconds:g} s; their stacks are on stderr")
    if errors:
        if len(errors) > 1:
            errors[0].add_note(f"{len(errors)} of {count} threads failed; this is the first")
        raise errors[0]
    return results
