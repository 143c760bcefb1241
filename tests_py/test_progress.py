"""Progress is a bar on a terminal, plain lines elsewhere, and never wider than 80 columns."""

import io
import re

import pytest

from distributed_consistent_cache.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    # Every step draws.
    monkeypatch.setattr("distributed_consistent_cache.progress.REDRAW_INTERVAL_SECONDS", 0.0)
    return Terminal()


def work(stream: io.StringIO, total: int = 1000) -> str:
    with Progress("parsing", total, stream) as progress:
        for _ in range(total):
            progress.step()
        progress.note = "3 hits"
    return stream.getvalue()


def test_a_log_gets_a_line_at_the_start_and_one_at_the_end() -> None:
    assert re.fullmatch(r"parsing: 1,000 to do\nparsing: 1,000 done in [\d.]+ \w+, 3 hits\n", work(io.StringIO()))


def test_a_terminal_gets_a_bar_and_then_one_line(terminal: Terminal) -> None:
    *bars, last = work(terminal).split("\r")
    assert re.fullmatch(r"\x1b\[Kparsing: 1,000 done in [\d.]+ \w+, 3 hits\n", last)
    assert bars[1] == f"parsing [{'.' * 54}]     0 of 1,000\x1b[K"
    assert bars[-1] == f"parsing [{'#' * 54}] 1,000 of 1,000\x1b[K"


@pytest.mark.parametrize("columns", [1, 10, 25, 79, 80, 300])
def test_a_bar_fits_the_terminal_and_80_columns(
    columns: int, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    *bars, _ = work(terminal).split("\r")
    assert max(len(bar.removesuffix("\x1b[K")) for bar in bars) < min(columns + 1, 80)


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\r" not in work(terminal)


def test_nothing_to_do_is_no_error(terminal: Terminal) -> None:
    assert "0 done" in work(terminal, total=0)


def test_an_interrupted_bar_is_wiped_away(terminal: Terminal) -> None:
    with pytest.raises(KeyboardInterrupt), Progress("parsing", 10, terminal):
        raise KeyboardInterrupt
    assert terminal.getvalue().endswith("\r\x1b[K")
