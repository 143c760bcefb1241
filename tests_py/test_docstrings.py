"""The `>>>` examples in the docstrings of the public API run."""

import doctest
import inspect
from typing import Any

import pytest

import distributed_consistent_cache as package


def globs() -> dict[str, Any]:
    """What the examples may use: everything public, and for those of methods a cache that holds something."""
    cache = package.Cache(nodes=5, replicas=3)
    cache.put("user:1", {"name": "Ada"}, timestamp=1)
    return {name: getattr(package, name) for name in package.__all__} | {"cache": cache}


# The package first: its own docstring is the example that a newcomer reads.
OBJECTS = [package, *(getattr(package, name) for name in package.__all__)]
EXAMPLES = [
    example
    for subject in OBJECTS
    if inspect.ismodule(subject) or inspect.isclass(subject)
    # `module=False`: native classes do not say in which module their methods were written.
    for example in doctest.DocTestFinder(recurse=inspect.isclass(subject)).find(subject, subject.__name__, module=False)
    if example.examples
]


def test_the_package_has_an_example() -> None:
    assert EXAMPLES[0].name == package.__name__


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_example_of_a_docstring_runs(example: doctest.DocTest) -> None:
    report: list[str] = []
    example.globs = globs()
    failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert not failed, "".join(report)
