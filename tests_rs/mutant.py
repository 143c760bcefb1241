"""What a mutant is: one rule broken, by a few words of the code that are other words."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

ROOT: Final = Path(__file__).resolve().parent.parent

# The texts of files that differ from the original, by their names.
Texts: TypeAlias = dict[str, str]


class NotApplicableError(Exception):
    """A mutant's old text is not in the code exactly once, or there is no such test."""


@dataclass(frozen=True)
class Edit:
    """One place in one file: found whatever white space stands between its words, and only in this function if it names
    one."""

    file: str
    old: str
    new: str
    inside: str = ""


@dataclass(frozen=True)
class Mutant:
    """One rule broken."""

    name: str
    # The rule, as it reads when it is broken.
    breaks: str
    edits: tuple[Edit, ...]
    # The test that notices: "moves::.." for one of tests_rs, "src/lock.rs::.." for one beside the code, and
    # "tests_py/test_serve.py::..". It alone is built and asked; of a mutant without one, the simulator's seeds are.
    test: str = ""
    # Why no run can tell it from the original.
    equivalent: str = ""
    # Why a minute of seeds need not show it, though it is no equivalent: what the simulator would have to do more of.
    unseen: str = ""

    @property
    def may_survive(self) -> str:
        """The reason to let it survive, if there is one."""
        return self.equivalent or self.unseen

    def texts(self) -> Texts:
        """The files that it changes, as they are then."""
        texts: Texts = {}
        for edit in self.edits:
            text = texts.get(edit.file) or (ROOT / edit.file).read_text(encoding="utf-8")
            start, end = _body_of(text, edit.inside)
            found = list(_folded(edit.old).finditer(text, start, end))
            if len(found) != 1:
                where = f"{edit.inside} of {edit.file}" if edit.inside else edit.file
                raise NotApplicableError(
                    f"mutant {self.name} does not apply: its old text is {len(found)} times in {where}, not once:\n"
                    f"{edit.old}"
                )
            new = f" {edit.new.strip()} " if edit.new.strip() else ""
            texts[edit.file] = text[: found[0].start()] + new + text[found[0].end() :]
        return texts

    def check_test(self) -> None:
        """The test that it names must be there, or the run would end in the middle."""
        if not self.test:
            return
        file, name = self.test.split("::", 1)
        path = ROOT / (file if "/" in file else f"tests_rs/{file}.rs")
        word = "def" if path.suffix == ".py" else "fn"
        if not path.is_file() or not re.search(
            rf"\b{word} {re.escape(name.split('::')[-1])}\b", path.read_text("utf-8")
        ):
            raise NotApplicableError(f"mutant {self.name} names a test that is not there: {self.test}")


def _folded(old: str) -> re.Pattern[str]:
    """The text, whatever white space stands between its words and signs: a line may be broken elsewhere since."""
    parts = re.findall(r"\w+|[^\w\s]", old)
    pattern = r"\s*".join(
        re.escape(part) + (r"\b" if part[-1].isalnum() and following[:1].isalnum() else "")
        for part, following in zip(parts, [*parts[1:], ""], strict=True)
    )
    before = r"(?<!\w)" if re.match(r"\w", parts[0]) else ""
    after = r"(?!\w)" if re.match(r"\w", parts[-1]) else ""
    return re.compile(before + pattern + after)


def _body_of(text: str, function: str) -> tuple[int, int]:
    """Where a function begins and ends; the whole text if none is named."""
    if not function:
        return 0, len(text)
    named = re.search(rf"\bfn {re.escape(function)}\b", text)
    if named is None:
        return 0, 0
    end = re.compile(r"^(?: {4})?\}$", re.MULTILINE).search(text, named.end())
    return named.start(), end.end() if end else len(text)
