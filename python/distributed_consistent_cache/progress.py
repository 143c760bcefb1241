"""What a person sees while a command works: a bar on a terminal, a plain line at the start and at the end elsewhere.

    parsing [###########................]   704 of 1,790

Promise: it fits 80 columns, and writes no control character to anything but a terminal.
"""

import os
import shutil
import sys
import time
from types import TracebackType
from typing import Final, Self, TextIO

from ._text import duration

COLUMNS_MAX: Final = 80
# Ten times a second looks smooth and costs nothing that could be measured.
REDRAW_INTERVAL_SECONDS: Final = 0.1


class Progress:
    """Counts the steps of one piece of work: `with Progress("parsing", total=1790) as progress: progress.step()`."""

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self.note = ""  # what the line at the end says besides
        self.stream = stream or sys.stdout
        self.on_terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self._started = self._drawn = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._started

    def step(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        if self.on_terminal and time.monotonic() - self._drawn >= REDRAW_INTERVAL_SECONDS:
            self._draw()

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if self.on_terminal:
            self._draw()
        else:
            print(f"{self.label}: {self.total:,} to do", file=self.stream, flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = self.seconds
        if self.on_terminal:
            self.stream.write("\r\x1b[K")
        if error is None:
            note = f", {self.note}" if self.note else ""
            print(f"{self.label}: {self.done:,} done in {duration(seconds)}{note}", file=self.stream, flush=True)

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        # The last column stays empty: writing to it would move some terminals to the next line.
        columns = min(COLUMNS_MAX, shutil.get_terminal_size().columns) - 1
        total = f"{self.total:,}"
        counts = f"{self.done:>{len(total)},} of {total}"
        width = columns - len(self.label) - len(counts) - 4
        filled = width * self.done // max(self.total, 1)
        line = f"{self.label} [{'#' * filled:.<{width}}] {counts}" if width > 0 else counts
        self.stream.write(f"\r{line[:columns]}\x1b[K")
        self.stream.flush()
