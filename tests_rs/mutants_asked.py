"""Builds a mutant and asks whether anybody notices.

    the crate  ->  a copy in target/mutants  ->  a few words changed  ->  build what is asked  ->  ask it
                             ^                                                                        |
                             +----------- the words put back, the next mutant  <----------------------+

Asked is the test that the mutant names, and it alone is built; or, if it names none, more and more seeds of the
simulator, until one breaks a promise. What is built stays in target/mutants, so that the next run begins sooner.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from mutant import ROOT, Texts

WORK: Final = ROOT / "target" / "mutants"
CRATE: Final = WORK / "crate"
BUILT: Final = WORK / "built"
DEPS: Final = BUILT / "simulation" / "deps"
# What cargo needs to be content, and what tests in Python read.
COPIED: Final = (
    "Cargo.toml", "Cargo.lock", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "src", "examples", "tests_rs",
    "tests_py", "python", "docs", "benches", "fuzz/README.md",
)  # fmt: skip

# The interpreter that the extension is built for, unless another is named.
BUILDING: Final = {"PYO3_PYTHON": sys.executable}
# Tests run often and briefly: a crate that is built in a third of the time is worth that they run slower.
QUICKLY: Final = (
    "--profile",
    "simulation",
    "--config",
    "profile.simulation.package.distributed-consistent-cache.opt-level=1",
)

SEEDS_UNBROKEN: Final = 2_000
# The first batch finds most mutants; each one after it is twice as long, so that building up costs little.
BATCH_FIRST: Final = 250
# A batch, or a test, that takes so long does not come to an end.
SECONDS_HUNG: Final = 120.0

BROKEN: Final = re.compile(r"^seed (\d+): (.+?) broken at", re.MULTILINE)


@dataclass(frozen=True)
class Caught:
    """What was said of a mutant."""

    seeds: int
    seconds: float
    # The first seed that broke and the promise that it broke, or the test that failed; nothing when nobody noticed.
    seed: int = -1
    by: str = ""

    @property
    def is_caught(self) -> bool:
        """Somebody noticed."""
        return bool(self.by)


def copy_crate() -> None:
    """The crate as it is now. A file that is the same is left alone, and one that an earlier run left broken is written
    anew: cargo goes by the times of files, and the original's would look older than what was built of the mutant."""
    sources = [path for name in COPIED for path in [ROOT / name, *(ROOT / name).rglob("*")] if path.is_file()]
    wanted = {path.relative_to(ROOT) for path in sources if "__pycache__" not in path.parts and path.suffix != ".so"}
    for path in wanted:
        _write(path, (ROOT / path).read_bytes())
    for copy in [copy for copy in CRATE.rglob("*") if copy.is_file()]:
        if copy.relative_to(CRATE) not in wanted:
            copy.unlink()


def change(files: Iterable[str], changed: Texts) -> None:
    """These files of the copy are as a mutant has them, or as they are."""
    for file in files:
        text = changed.get(file)
        _write(Path(file), (ROOT / file).read_bytes() if text is None else text.encode())


def _write(path: Path, content: bytes) -> None:
    copy = CRATE / path
    if path.name == "Cargo.toml":
        # Tests in Rust need no library for Python, and those in Python say what they need.
        content = content.replace(b'crate-type = ["cdylib", "rlib"]', b'crate-type = ["rlib"]')
    if not copy.is_file() or copy.read_bytes() != content:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)


def _built(*command: str) -> None:
    """What cannot be built is a mistake in the list of mutants, and ends the run."""
    environment = BUILDING | os.environ | {"CARGO_TARGET_DIR": str(BUILT), "CARGO_INCREMENTAL": "1"}
    done = subprocess.run(command, cwd=CRATE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"it does not build:\n{done.stderr}")


def _notices(command: list[str], ran: str, **more: str) -> str:
    """How a test failed; nothing when it passed. `ran` is what it prints when it was found."""
    environment = os.environ | more
    try:
        done = subprocess.run(
            command, cwd=CRATE, env=environment, capture_output=True, text=True, errors="replace", check=False,
            timeout=SECONDS_HUNG,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return ", which does not come to an end"
    if not re.search(ran, done.stdout):
        # Whoever aborts the process says no more.
        if done.returncode < 0:
            return f", which ends by signal {-done.returncode}"
        raise SystemExit(f"the test was not run: {' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return " " if done.returncode != 0 else ""


def ask_test(test: str) -> Caught:
    """One test by its name, or several of one file, with blanks between their names."""
    started = perf_counter()
    file, names = test.split("::", 1)
    if file.startswith("tests_py/"):
        failed = _ask_python(file, names.split())
    elif file.startswith("src/"):
        failed = _ask_beside(file, names.split())
    else:
        failed = _ask_rust(file, names.split())
    return Caught(0, perf_counter() - started, by=f"{test}{failed.rstrip()}" if failed else "")


def _ask_rust(file: str, names: list[str]) -> str:
    _built("cargo", "build", "--quiet", *QUICKLY, "--lib")
    if not any(DEPS.glob("libproptest-*.rlib")):
        # What only tests use is built with the examples.
        _built("cargo", "build", "--quiet", "--profile", "simulation", "--example", "simulate")
    # Files of tests use each other's helpers: those that are needed, and no others, are one crate.
    needed, left = [], [file]
    while left:
        needed.append(left.pop())
        text = (CRATE / "tests_rs" / f"{needed[-1]}.rs").read_text(encoding="utf-8")
        left += set(re.findall(r"^use (?:super|crate)::(\w+)", text, re.MULTILINE)) - {*needed, *left}
    root = CRATE / "tests_rs" / f"only_{file}.rs"
    _write(root.relative_to(CRATE), "".join(f"mod {name};\n" for name in sorted(needed)).encode())
    runs = BUILT / f"test-{file}"
    compile_ = [
        "rustc", "--test", "--edition", "2024", "-C", "opt-level=1", "-A", "dead_code", str(root), "-o", str(runs),
        "--extern", f"distributed_consistent_cache={BUILT / 'simulation' / 'libdistributed_consistent_cache.rlib'}",
        "-L", f"dependency={DEPS}",
    ]  # fmt: skip
    for crate in ("proptest", "serde", "shuttle", "xxhash_rust"):
        newest = max(DEPS.glob(f"lib{crate}-*.rlib"), key=lambda path: path.stat().st_mtime)
        compile_ += ["--extern", f"{crate}={newest}"]
    done = subprocess.run(compile_, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the tests of {file} do not build:\n{done.stderr}")
    return _notices([str(runs), "--exact", *(f"{file}::{name}" for name in names)], f"running {len(names)} tests?")


def _ask_beside(file: str, names: list[str]) -> str:
    module = "::".join(Path(file).with_suffix("").parts[1:]).removesuffix("::mod")
    command = ["cargo", "test", "--quiet", *QUICKLY, "--lib"]
    _built(*command, "--no-run")
    exact = [f"{module}::tests::{name}" for name in names]
    return _notices(
        [*command, "--", "--exact", *exact], f"running {len(names)} tests?",
        CARGO_TARGET_DIR=str(BUILT), CARGO_INCREMENTAL="1",
    )  # fmt: skip


def _ask_python(file: str, names: list[str]) -> str:
    _built("cargo", "rustc", "--quiet", "--profile", "quick", "--features", "python", "--lib", "--crate-type", "cdylib")
    library = next(
        path for path in (BUILT / "quick").glob("libdistributed_consistent_cache.*") if path.suffix in {".so", ".dylib"}
    )
    module = CRATE / "python" / "distributed_consistent_cache" / "_core.abi3.so"
    # A new file: one that another process still has open is not written over.
    module.unlink(missing_ok=True)
    module.write_bytes(library.read_bytes())
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-p",
        "no:cacheprovider",
        *(f"{file}::{name}" for name in names),
    ]
    return _notices(command, r"\d+ (passed|failed|error)", PYTHONPATH=str(CRATE / "python"))


def ask_seeds(seed: int, seconds: float) -> Caught:
    """More and more seeds, until one breaks or the time is over."""
    _build_simulator()
    started, seeds, size = perf_counter(), 0, BATCH_FIRST
    while True:
        caught = _batch(seed + seeds, size)
        seeds += size
        passed = perf_counter() - started
        if caught.is_caught or passed >= seconds:
            return Caught(seeds, passed, caught.seed, caught.by)
        # No more than the time that is left is good for.
        size = max(BATCH_FIRST, min(2 * size, int(seeds / passed * (seconds - passed))))


def ask_unbroken(seed: int) -> Caught:
    """Some seeds, none of which should break."""
    _build_simulator()
    return _batch(seed, SEEDS_UNBROKEN)


def _build_simulator() -> None:
    _built("cargo", "build", "--quiet", "--profile", "simulation", "--example", "simulate")


def _batch(seed: int, seeds: int) -> Caught:
    """So many seeds from this one on."""
    started = perf_counter()
    command = [str(BUILT / "simulation" / "examples" / "simulate"), str(seed), str(seeds)]
    environment = os.environ | {"RUST_BACKTRACE": "0"}
    try:
        # A panic that was caught writes to the error stream, and there are many.
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
            timeout=SECONDS_HUNG,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Caught(seeds, perf_counter() - started, seed, "not coming to an end")
    seconds = perf_counter() - started
    if done.returncode == 0:
        return Caught(seeds, seconds)
    found = [(int(number), by) for number, by in BROKEN.findall(done.stdout)]
    first, by = min(found, default=(seed, f"ending with code {done.returncode}"))
    return Caught(seeds, seconds, first, by)
