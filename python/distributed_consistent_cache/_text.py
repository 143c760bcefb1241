"""Figures and tables as text, in plain ASCII, for whatever a command prints; and what others say, made fit to print."""

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final

# Columns of a terminal that is as narrow as most are.
WIDTH: Final = 80

# Of Unicode's categories those that move a cursor, turn the direction of reading, or are not seen: controls, formats,
# surrogates, private use, separators of lines and paragraphs.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def shown(text: str, *, keep: str = "") -> str:
    """Text that others chose, as it may be printed: nothing in it moves a cursor, colours a terminal, breaks a line or
    hides. Such characters are written as in Python's source, except those to `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in keep or unicodedata.category(char) not in _UNSEEN else ascii(char)[1:-1] for char in text
    )


def all_shown(value: Any) -> Any:
    """The same for every text in what JSON can say, names included."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, list):
        return [all_shown(item) for item in value]
    if isinstance(value, dict):
        return {shown(name): all_shown(item) for name, item in value.items()}
    return value


def wrapped(line: str, width: int = WIDTH) -> str:
    """A line as lines of at most so many characters, those after the first indented. Longer words are broken."""
    return textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False)


def tables(headers: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, width: int = WIDTH) -> str:
    """A table of at most so many characters a line: what is wider becomes several, each with the first column."""
    most = width // 2 - 2
    lines = [[cell if len(cell) <= most else f"{cell[: most - 3]}..." for cell in line] for line in (headers, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    parts = [[0]]
    for column in range(1, len(widths)):
        if sum(widths[other] + 2 for other in parts[-1]) + widths[column] > width:
            parts.append([0])
        parts[-1].append(column)
    of = [[[line[column] for column in part] for line in lines] for part in parts]
    lefts = [sum(column < left for column in part) for part in parts]
    return "\n\n".join(table(some[0], some[1:], left=count) for some, count in zip(of, lefts, strict=True))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A table with its headers underlined: the first `left` columns are aligned left, the others right."""
    lines = [list(headers), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def size(count: float) -> str:
    """Bytes in the unit that suits them: `1.5 MiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: `5.1 s`, `21.3 ms`, `140 ns`."""
    if seconds <= 0:
        return "0 s"
    for unit, scale, least in (("d", 86_400.0, 2), ("h", 3_600.0, 2), ("s", 1.0, 1), ("ms", 1e-3, 1), ("us", 1e-6, 1)):
        if seconds >= least * scale:
            return f"{seconds / scale:.1f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def percent(part: int, whole: int) -> str:
    """A share, never rounded up to all or down to nothing: `99.9 %` is not everything."""
    share = 100 * part / whole if whole else 0.0
    if 0 < part < whole:
        share = min(max(share, 0.1), 99.9)
    return f"{share:.1f} %"
