"""The Python examples in README.md and in the pages under docs/ run, and say the truth of what they return; links lead
to what is there."""

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
README_LINES_MAX = 200


class Block(NamedTuple):
    """One ```python block and the line on which its code begins."""

    page: Path
    line: int
    source: str


def python_blocks(text: str, page: Path = README) -> list[Block]:
    """Every ```python block of a Markdown text."""
    found = re.finditer(r"^```python[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [Block(page, text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def promised(comment: str) -> tuple[Any] | None:
    """The value in the comment `# -> value: why`, in a tuple; nothing if it is prose."""
    text = comment
    while text:
        try:
            return (ast.literal_eval(text.strip()),)
        except (SyntaxError, ValueError):
            text = text[: max(text.rfind(";"), text.rfind(":"), 0)]
    return None


class Comparing(ast.NodeTransformer):
    """Makes `expression  # -> value` a comparison, also within `with`, `try` and functions."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.promises: list[Any] = []

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        assert node.end_lineno is not None
        _, arrow, comment = self.lines[node.end_lineno - 1].partition("# -> ")
        value = promised(comment) if arrow else None
        if value is None:
            return node
        self.promises.append(value[0])
        arguments: list[ast.expr] = [ast.Constant(len(self.promises) - 1), ast.Constant(node.lineno), node.value]
        call = ast.Expr(ast.Call(ast.Name("__compare", ast.Load()), arguments, []))
        return ast.fix_missing_locations(ast.copy_location(call, node))


def run(block: Block, namespace: dict[str, Any]) -> int:
    """Run a block; return how many promises of the form `expression  # -> value` it kept."""
    comparing = Comparing(block.source.splitlines())
    module = comparing.visit(ast.parse(block.source))
    kept: set[int] = set()

    def compare(promise: int, line: int, result: object) -> None:
        where = f"{block.page.name}, line {line + block.line - 1}"
        assert result == comparing.promises[promise], f"{where}: it returns {result!r}"
        kept.add(promise)

    # Line numbers as in the page, so that a traceback leads there.
    ast.increment_lineno(module, block.line - 1)
    exec(compile(module, block.page, "exec"), namespace | {"__compare": compare})
    assert len(kept) == len(comparing.promises), "an example was not reached"
    return len(kept)


BLOCKS = [block for page in PAGES for block in python_blocks(page.read_text(encoding="utf-8"), page)]


@pytest.mark.parametrize("block", [pytest.param(block, id=f"{block.page.name}:{block.line}") for block in BLOCKS])
def test_an_example_of_a_page_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(block, {"__name__": "__main__"})


@pytest.mark.parametrize("page", ["README.md", "nodes.md", "signing.md", "snapshots.md", "timestamps.md", "values.md"])
def test_a_page_for_users_has_examples(page: str) -> None:
    assert any(block.page.name == page for block in BLOCKS)


def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= README_LINES_MAX


def anchors(page: Path) -> set[str]:
    """What can be linked to within a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_of_a_page_leads_to_what_is_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.name} leads to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} leads to {target}"


def test_a_promise_that_is_not_kept_is_found() -> None:
    text = (
        "Text.\n\n```python\nnumbers = [1]\nsum(numbers)  # -> 1: all of it\n"
        "if numbers:\n    {2: (3, 4)}  # -> {2: (3, 4)};  so\n```\n"
    )
    assert run(python_blocks(text)[0], {}) == 2
    with pytest.raises(AssertionError, match="line 5: it returns 1"):
        run(python_blocks(text.replace("-> 1", "-> 2"))[0], {})
    with pytest.raises(AssertionError, match="line 7: it returns"):
        run(python_blocks(text.replace("-> {2", "-> {3"))[0], {})
    with pytest.raises(AssertionError, match="not reached"):
        run(python_blocks(text.replace("if numbers", "if not numbers"))[0], {})
