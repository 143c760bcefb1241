"""The Python examples in README.md run, and say the truth about what they return."""

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

README = Path(__file__).parent.parent / "README.md"


class Block(NamedTuple):
    """One ```python block and the line on which its code begins."""

    line: int
    source: str


def python_blocks(text: str) -> list[Block]:
    """Every ```python block of a Markdown text."""
    found = re.finditer(r"^```python[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [Block(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def promised(comment: str) -> tuple[Any] | None:
    """The value in the comment `# -> value: why`, in a tuple; nothing if it is prose."""
    text = comment
    while text:
        try:
            return (ast.literal_eval(text.strip()),)
        except (SyntaxError, ValueError):
            text = text[: max(text.rfind(";"), text.rfind(":"), 0)]
    return None


def run(block: Block, namespace: dict[str, Any]) -> int:
    """Run a block statement by statement; return how many promises of the form `expression  # -> value` it kept."""
    lines = block.source.splitlines()
    kept = 0
    for statement in ast.parse(block.source).body:
        assert statement.end_lineno is not None
        _, arrow, comment = lines[statement.end_lineno - 1].partition("# -> ")
        value = promised(comment) if arrow else None
        # Line numbers as in the README, so that a traceback leads there.
        ast.increment_lineno(statement, block.line - 1)
        if value is not None and isinstance(statement, ast.Expr):
            result = eval(compile(ast.Expression(statement.value), README, "eval"), namespace)
            assert result == value[0], f"README.md, line {statement.lineno}: it returns {result!r}"
            kept += 1
        else:
            exec(compile(ast.Module([statement], []), README, "exec"), namespace)
    return kept


BLOCKS = python_blocks(README.read_text(encoding="utf-8")) if README.exists() else []


def test_the_readme_has_python_examples() -> None:
    assert BLOCKS, f"{README.name} has no ```python block"


@pytest.mark.parametrize("block", [pytest.param(block, id=f"line-{block.line}") for block in BLOCKS])
def test_an_example_of_the_readme_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(block, {"__name__": "__main__"})


def test_a_promise_that_is_not_kept_is_found() -> None:
    text = (
        "Text.\n\n```python\nnumbers = [1]\nsum(numbers)  # -> 1: all of it\n{2: (3, 4)}  # -> {2: (3, 4)};  so\n```\n"
    )
    assert run(python_blocks(text)[0], {}) == 2
    with pytest.raises(AssertionError, match="line 5: it returns 1"):
        run(python_blocks(text.replace("-> 1", "-> 2"))[0], {})
