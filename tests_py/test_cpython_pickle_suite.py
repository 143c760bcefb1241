"""CPython's own tests of pickle pass with put and get as `dumps` and `loads`, wherever they pass with pickle."""

import importlib.util
from pathlib import Path

import pytest

from conftest import RunProgram

SUITE = Path(__file__).with_name("cpython_pickle_suite.py")

# Why a test may be skipped: each is about the suite.
REASONS = (
    "the test is about arguments of pickle.dumps or pickle.loads that put and get do not have",
    "has no associated pickler type",
    "only meaningful on 32-bit builds",
    "requires",
    "Test needs Numpy",
    "not enough memory",
)


def has_suite() -> bool:
    """Some systems ship Python without its tests."""
    try:
        return importlib.util.find_spec("test.pickletester") is not None
    except ModuleNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not has_suite(), reason="this Python has no test.pickletester")


@pytest.mark.parametrize(("suite", "least"), [("PutAndGet", 90), ("PutManyAndGetMany", 90), ("AnyPickle", 120)])
def test_cpythons_own_suite_passes(suite: str, least: int, run_program: RunProgram) -> None:
    output = run_program(f"""
        import runpy, sys
        sys.path.insert(0, {str(SUITE.parent)!r})
        sys.argv[1:] = ["{suite}"]
        runpy.run_path({str(SUITE)!r}, run_name="__main__")
    """)
    *_, last = lines = output.splitlines()
    ran, count, outcome = last.split()
    assert (ran, outcome) == ("ran", "ok"), output
    skipped = [line for line in lines if line.startswith("skipped")]
    assert [line for line in skipped if not any(reason in line for reason in REASONS)] == []
    assert int(count) - len(skipped) >= least


def test_errors_of_pickling_pass_where_the_suite_has_them(run_program: RunProgram) -> None:
    output = run_program(f"""
        import runpy, sys
        from test import pickletester
        if not hasattr(pickletester, "AbstractPicklingErrorTests"):
            print("ok")
        else:
            sys.path.insert(0, {str(SUITE.parent)!r})
            sys.argv[1:] = ["Errors"]
            runpy.run_path({str(SUITE)!r}, run_name="__main__")
    """)
    assert output.split()[-1] == "ok", output
