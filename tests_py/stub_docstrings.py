"""The docstrings of the native module, written into its types: editors look for them there.

python tests_py/stub_docstrings.py     writes them again, when one has changed
"""

import ast
import inspect
from pathlib import Path
from typing import Any

from distributed_consistent_cache import _core

STUB = Path(_core.__file__).parent / "_core.pyi"


def docstring_of(subject: Any) -> str | None:
    """What a class, a function or a member says of itself; nothing if that is what its base says."""
    own = getattr(subject, "__doc__", None)
    return inspect.cleandoc(own) if isinstance(own, str) and own else None


def literal(text: str, indent: str) -> str:
    """A docstring as it stands in a file, without its first indent."""
    first, *rest = text.splitlines()
    lines = [first, *((indent + line).rstrip() for line in rest)]
    begin = ("r" if "\\" in text else "") + ('""" ' if text.startswith('"') else '"""')
    return begin + "\n".join(lines) + (f"\n{indent}" if rest else "") + '"""'


def with_docstrings(stub: str) -> str:
    """The types, with the docstrings of the module as it is. Of several overloads the first has it."""
    lines = stub.splitlines()
    edits: list[tuple[int, int, list[str]]] = []

    def write(node: ast.ClassDef | ast.FunctionDef, subject: Any) -> None:
        text, indent, first = docstring_of(subject), " " * (node.col_offset + 4), node.body[0]
        if text is None:
            return
        assert first.end_lineno is not None
        written = indent + literal(text, indent)
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):  # `...`, or the docstring of before
            before = lines[first.lineno - 1][: first.col_offset].rstrip()
            edits.append((first.lineno - 1, first.end_lineno, [before, written] if before else [written]))
        else:
            decorators = getattr(first, "decorator_list", [])
            begin = min(line.lineno for line in [first, *decorators]) - 1
            # A comment above the first member stays with it.
            while lines[begin - 1].lstrip().startswith("#"):
                begin -= 1
            edits.append((begin, begin, [written]))

    for node in ast.parse(stub).body:
        if isinstance(node, ast.FunctionDef):
            write(node, getattr(_core, node.name))
        elif isinstance(node, ast.ClassDef) and hasattr(_core, node.name):
            cls = getattr(_core, node.name)
            write(node, cls)
            done = set()
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("__") and member.name not in done:
                    done.add(member.name)
                    write(member, getattr(cls, member.name))
    for begin, end, new in sorted(edits, reverse=True):
        lines[begin:end] = new
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    STUB.write_text(with_docstrings(STUB.read_text(encoding="utf-8")), encoding="utf-8")
