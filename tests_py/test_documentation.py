"""Everything public documents itself, is listed, and is written down in the types."""

import ast
import inspect
import pickle
import pydoc
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import distributed_consistent_cache as package
import stub_docstrings
from distributed_consistent_cache import (
    Cache,
    CacheError,
    Node,
    NodeStatus,
    RestoreReport,
    SaveReport,
    Server,
    SyncReport,
    simulation,
)

PUBLIC = [name for name in package.__all__ if name != "__version__"]
MEMBERS = [
    (cls, name)
    for cls in (Cache, Node, NodeStatus, RestoreReport, SaveReport, Server, SyncReport)
    for name in vars(cls)
    if not name.startswith("_")
]  # fmt: skip
STUB = ast.parse((Path(package.__file__).parent / "_core.pyi").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(package, name))


@pytest.mark.parametrize(
    ("cls", "name"), MEMBERS, ids=lambda given: given if isinstance(given, str) else given.__name__
)
def test_a_public_member_has_a_docstring(cls: Any, name: str) -> None:
    assert inspect.getdoc(inspect.getattr_static(cls, name))


@pytest.mark.parametrize(("cls", "name"), [member for member in MEMBERS if callable(getattr(*member))])
def test_a_method_has_the_arguments_that_the_types_say(cls: Any, name: str) -> None:
    method = getattr(cls, name)
    parameters = [parameter for parameter in inspect.signature(method).parameters if parameter != "self"]
    (stub,) = (node for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    overloads = [node for node in stub.body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert overloads
    for written in overloads:
        arguments = [*written.args.posonlyargs, *written.args.args, *written.args.kwonlyargs]
        arguments += [written.args.kwarg] if written.args.kwarg else []
        assert parameters == [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]


def test_the_types_have_the_docstrings_that_help_shows() -> None:
    stub = stub_docstrings.STUB.read_text(encoding="utf-8")
    assert stub == stub_docstrings.with_docstrings(stub), "python tests_py/stub_docstrings.py writes them"


@pytest.mark.parametrize(
    ("home", "subject"),
    [*((package, name) for name in PUBLIC), *((simulation, name) for name in simulation.__all__)],
    ids=lambda given: given if isinstance(given, str) else given.__name__.rpartition(".")[2],
)
def test_help_fits_80_columns(home: ModuleType, subject: str) -> None:
    shown = pydoc.plain(pydoc.render_doc(getattr(home, subject)))
    lines = shown.splitlines()[2:]
    # Python writes signatures in one line up to 3.12, and says of its own where one cannot be had.
    signature = re.compile(r"[ |]*\w+\(.*\)( -> .*| from .*)?$|.*See help\(type\) for accurate signature\.$")
    assert [line for line in lines if len(line) > 80 and not signature.match(line)] == []


def test_all_lists_what_can_be_imported_and_nothing_else() -> None:
    assert sorted(package.__all__) == sorted(set(package.__all__))
    # Modules of the command line are imported by it only.
    public = {name for name, value in vars(package).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public | {"__version__"} == set(package.__all__)


def test_the_version_begins_with_two_numbers() -> None:
    assert all(part.isdigit() for part in package.__version__.split(".")[:2])


@pytest.mark.parametrize("name", [name for name in PUBLIC if name.endswith("Error")])
def test_every_error_is_a_cache_error_of_this_package(name: str) -> None:
    error = getattr(package, name)
    assert issubclass(error, CacheError)
    assert issubclass(error, Exception)
    assert error.__module__ == "distributed_consistent_cache"
    assert error.__name__ == name
    # Errors travel between processes.
    again = pickle.loads(pickle.dumps(error("why")))
    assert (type(again), again.args) == (error, ("why",))


def test_classes_say_where_they_are_imported_from() -> None:
    for cls in (Cache, Node, NodeStatus, RestoreReport, SaveReport, Server, SyncReport):
        assert cls.__module__ == "distributed_consistent_cache"
        assert getattr(package, cls.__name__) is cls
