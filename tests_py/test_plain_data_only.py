"""A cache with decode="plain" reads plain data and runs nothing: any other pickle is refused, and says why."""

import collections
import datetime
import decimal
import fractions
import pickle
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from conftest import RunProgram
from distributed_consistent_cache import Cache, SerializationError

UTC, NEPAL = datetime.UTC, datetime.timezone(datetime.timedelta(hours=5, minutes=45), "Nepal")

PLAIN: list[Any] = [
    None,
    [True, 1.5, "text", b"bytes", bytearray(b"array"), "\ud800"],
    [2**63, -(2**63) - 1, 2**2039, 2**2040, -(2**100_000)],
    {(1, (2, frozenset({3}))): {4}, "complex": complex(-0.0, 1)},
    datetime.datetime(2026, 2, 28, 23, 59, 59, 999_999, UTC),
    [datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 1, 2, 3, 4, NEPAL, fold=1)],  # noqa: DTZ001
    {datetime.date(2024, 2, 29): datetime.time(1, 2, 3, 4, UTC, fold=1), "time": datetime.time(23, 59)},
    [datetime.timedelta(-1, 2, 3), datetime.timedelta.max, UTC, NEPAL],
    [decimal.Decimal("1.50"), decimal.Decimal("-Infinity"), decimal.Decimal("sNaN"), decimal.Decimal(10) ** 400],
    {"tuple": ("a", "b"), "other": 1},
    {"tuple": (1, "a", "b"), "time": datetime.time(23, 59), "other": "c", "date": datetime.date(2026, 1, 1)},
    {"a": 1, "b": ("c", 2, "d", 3), "e": None},
    bytes(100_000),
    bytearray(b"x" * 100_000),
    {"large": b"y" * 100_000, "text": "z" * 100_000},
]


@pytest.fixture
def cache() -> Cache:
    return Cache(3, 2, "16MiB", gossip_interval=None, decode="plain")


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_plain_data_comes_back(number: int, cache: Cache) -> None:
    value = PLAIN[number]
    cache.put("key", value, 1)
    for back in cache.get("key"), cache.get_many(["key"])["key"], cache.node(cache.owners("key")[0]).get("key"):
        # Tells types, folds, signs of zeros and what is shared; `==` does not.
        assert pickle.dumps(back[0], 5) == pickle.dumps(value, 5)
        assert back[1] == 1


def test_a_view_of_memory_is_plain_too(cache: Cache) -> None:
    cache.put("key", memoryview(bytearray(8)).cast("i"))
    assert cache.get("key")[0].tolist() == [0, 0]


NOT_PLAIN: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict(a=1),
    "fractions.Fraction": [1, {"deep": fractions.Fraction(1, 3)}],
    "pathlib.PosixPath": Path("/"),
    "uuid.UUID": uuid.UUID(int=1),
    "builtins.len": len,
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_anything_else_is_refused_and_named(name: str, cache: Cache) -> None:
    cache.put("the key", NOT_PLAIN[name], 1)
    for read in (
        lambda: cache.get("the key"),
        lambda: cache.get_many(["the key"]),
        lambda: cache.node(cache.owners("the key")[0]).get("the key"),
    ):
        with pytest.raises(SerializationError, match=f'"the key".*would import {name}.*decode="plain"') as raised:
            read()
        assert type(raised.value.__cause__) is ValueError
    assert "the key" in cache


class Runs:
    """Runs a command when it is read."""

    def __reduce__(self) -> Any:
        return subprocess.call, (["touch", "/tmp/this must not be there"],)


def test_nothing_runs(cache: Cache) -> None:
    cache.put("key", [Runs()])
    with pytest.raises(SerializationError, match=r"would import subprocess\.call"):
        cache.get("key")
    assert not Path("/tmp/this must not be there").exists()


@pytest.mark.parametrize("size", [100, 100_000])
def test_bare_buffers_are_plain_whatever_their_size(size: int, cache: Cache) -> None:
    fixed, changing = bytes(size), bytearray(b"x" * size)
    cache.put("key", [pickle.PickleBuffer(fixed), pickle.PickleBuffer(changing), [1], "tail"], 1)
    assert cache.get("key") == ([fixed, changing, [1], "tail"], 1)
    assert list(map(type, cache.get("key")[0][:2])) == [bytes, bytearray]


def test_a_class_that_stands_in_for_a_plain_one_is_not_used(run_program: RunProgram) -> None:
    program = """
        import datetime
        from distributed_consistent_cache import Cache, SerializationError

        class Fake(datetime.date):
            pass

        real, value = datetime.date, datetime.date(2026, 1, 2)
        Fake.__module__, Fake.__qualname__ = "tests", "Fake"
        cache = Cache(1, decode="plain")
        cache.put("key", value)
        datetime.date = Fake
        try:
            cache.get("key")
        except SerializationError as error:
            print("refused")
        datetime.date = real
        print(cache.get("key")[0] == value)
    """
    assert run_program(program) == "refused\nTrue\n"


HOSTILE = """
    import resource, sys, time
    sys.path.insert(0, {tests!r})
    from raw_pickles import get_of, Cache
    from distributed_consistent_cache import SerializationError

    cache = Cache(1, node_capacity="64MiB", gossip_interval=None, decode="plain")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    try:
        value = get_of(cache, {pickled})
        print("read", type(value).__name__)
    except SerializationError as error:
        print("refused")
    del cache
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown < 200, grown
    assert time.process_time() - started < 20
"""


def chain(first: int, end: int) -> bytes:
    """Each frozenset has two tuples with the frozenset before it, which is memoized under these numbers."""
    words = (b"\x94(h%cK\x01\x86h%cK\x02\x86\x91" % (number, number) for number in range(first, end))
    return b"(K\x01\x91" + b"".join(words)


LENGTHS = "b'\\xff' * 7 + b'\\x7f' + b'a.'"


@pytest.mark.parametrize(
    ("pickled", "outcome"),
    [
        # Deep, and dropped again.
        ("b']' * 100_000 + b'a' * 99_999 + b'.'", "read list"),
        ("b')' + b'\\x85' * 200_000 + b'.'", "read tuple"),
        ("b'}' * 50_000 + b'N' + b'.'", "refused"),
        ("b'(' * 500_000 + b'.'", "refused"),
        # Hashed by recursion.
        ("b'}' + b')' + b'\\x85' * 500_000 + b'Ns.'", "refused"),
        ("b'\\x8f(' + b')' + b'\\x85' * 500_000 + b'\\x90.'", "refused"),
        # Each twice what was before it, hashed.
        ("b'}' + b'K\\x01' + b'2\\x86' * 64 + b'Ns.'", "refused"),
        ("b'(K\\x01' + b'2\\x86' * 64 + b'\\x91.'", "refused"),
        # Equal frozensets of tuples, each twice what was before it, compared item by item.
        (f"b'(' + {chain(0, 40)!r} + {chain(40, 80)!r} + b'\\x91.'", "refused"),
        # The same, not hashed: references take no memory.
        ("b'K\\x01' + b'2\\x86' * 64 + b'.'", "read tuple"),
        # A long integer, hashed again and again.
        ("b'\\x8f\\x8b\\0\\0\\x10\\0' + b'\\x7f' * 2**20 + b'\\x94(' + b'h\\0' * 200_000 + b'\\x90.'", "refused"),
        # Lengths and indexes that the bytes do not have.
        ("b'\\x8e' + " + LENGTHS, "refused"),
        ("b'\\x8d' + " + LENGTHS, "refused"),
        ("b'\\x96' + " + LENGTHS, "refused"),
        ("b'\\x8b\\xff\\xff\\xff\\x7fa.'", "refused"),
        ("b'Nr\\xff\\xff\\xff\\x7f.'", "refused"),
        ("b'Nj\\xff\\xff\\xff\\x7f.'", "refused"),
        # Classes, called with what pickle does not write for them.
        ("b'cdatetime\\ndatetime\\n(K\\x01K\\x01K\\x01tR.'", "refused"),
        ("b'cdatetime\\ndate\\nC\\x04\\x07\\xe8\\x02\\x1e\\x85R.'", "refused"),
        ("b'cdatetime\\ntime\\nC\\x06\\x18\\0\\0\\0\\0\\0\\x85R.'", "refused"),
        ("b'cdecimal\\nDecimal\\nX\\x88\\x13\\0\\0' + b'1' * 5000 + b'\\x85R.'", "refused"),
        ("b'cdatetime\\ntimezone\\ncdatetime\\ntimedelta\\n(K\\x02K\\x00K\\x00tR\\x85R.'", "refused"),
        # What is beside a pickle, and is not there.
        ("b'\\0\\0\\xff\\xff\\xff\\xff' + b'\\xff' * 60", "refused"),
        ("b'\\0\\1\\1\\0\\0\\0' + bytes(100)", "refused"),
        ("b'\\0'", "refused"),
    ],
)  # fmt: skip
def test_hostile_bytes_cost_no_more_than_they_justify(pickled: str, outcome: str, run_program: RunProgram) -> None:
    program = HOSTILE.format(tests=str(Path(__file__).parent), pickled=pickled)
    assert run_program(program) == outcome + "\n"


@pytest.mark.parametrize("seed", [1, 2])
def test_made_up_pickles_are_read_as_pickle_reads_them_or_refused(seed: int, run_program: RunProgram) -> None:
    folder = Path(__file__).parent
    output = run_program(f"""
        import os, runpy, sys
        sys.path.insert(0, {str(folder)!r})
        os.environ.update(SEED="{seed}", COUNT="10000")
        runpy.run_path({str(folder / "fuzz_plain_pickles.py")!r}, run_name="__main__")
    """)
    assert output.startswith("accepted"), output


def test_a_wrong_argument_says_what_would_do() -> None:
    with pytest.raises(ValueError, match='decode is \'json\', but must be "pickle" or "plain"'):
        Cache(decode="json")  # type: ignore[call-overload, arg-type, unused-ignore]
    with pytest.raises(TypeError, match="decode must be str, not int"):
        Cache(decode=1)  # type: ignore[arg-type]
