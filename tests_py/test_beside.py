"""The table that `make beside` prints: everybody is in it, and who has no figures says why."""

from contextlib import ExitStack

import beside


def test_everybody_is_in_the_table_and_who_has_no_figures_says_why() -> None:
    with ExitStack() as stack:
        those = beside.sides(stack)
        medians = beside.measure(those, 1, lambda: None)
    lines = beside.report(those, medians).splitlines()
    assert max(map(len, lines)) <= 80
    rows = lines[3:]
    for side in those:
        assert [line for line in rows if line.startswith(f"{side.name}  ")]
        assert not side.why_not or f"{side.name}: {side.why_not}" in rows
        figures = [medians[what] for what in medians if what[0] == side.name]
        assert len(figures) == (0 if side.why_not else 3 if side.name == "lru_cache" else 6)
        assert all(figure > 0 for figure in figures)


def test_times_are_short() -> None:
    assert [beside.short(time) for time in (87.4, 999.0, 4_120.0, 71_400.0)] == ["87 ns", "999 ns", "4.1 us", "71 us"]
