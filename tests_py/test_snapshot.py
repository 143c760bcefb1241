"""A saved cache comes back warm; a file that is not whole changes nothing; a save leaves a whole file or none."""

import datetime
import errno
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import RunProgram, RunThreads
from distributed_consistent_cache import Cache, CacheError, ClosedError, RestoreReport, SaveReport, SnapshotError
from helpers import copies, state

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
COMMAND = [sys.executable, "-m", "distributed_consistent_cache", "snapshot"]


class Point(NamedTuple):
    """A class that is pickled by name."""

    x: int
    y: float


VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "small": -1,
    "large": 2**63,
    "huge": -(2**5000),
    "float": 1.5,
    "infinity": math.inf,
    "empty str": "",
    "str": "text",
    "surrogate": "\ud800",
    "wide": "\U0001f980" * 1000,
    "empty bytes": b"",
    "bytes": bytes(range(256)),
    "a pickle": b"\x80\x05\x95\x04\x00\x00\x00\x00\x00\x00\x00K\x01K.",
    "a megabyte": os.urandom(1 << 20),
    "zeros": bytes(1 << 20),
    "list": [1, [2, (3, {4})]],
    "dict": {"a": 1, 2: {"b": None}},
    "frozenset": frozenset({1, "x"}),
    "datetime": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    "class": Point(1, 2.5),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.snapshot"


def filled(count: int = 1000, **arguments: Any) -> Cache:
    cache = Cache(**({"nodes": 4, "replicas": 2, "node_capacity": "16MiB", "gossip_interval": None} | arguments))
    cache.put_many(((f"key {number}", number) for number in range(count)), 1)
    return cache


def contents(cache: Cache) -> dict[str, tuple[Any, int]]:
    return cache.get_many(list(cache))


# ---- what comes back


def test_values_of_every_kind_come_back(path: Path) -> None:
    cache = filled(0)
    for timestamp, (key, value) in enumerate(VALUES.items()):
        cache.put(key, value, timestamp)
    cache.put("", "an empty key", 2**63 - 1)
    cache.put("schlüssel \0\n", "a strange one", 0)
    assert cache.save(path).entries == len(VALUES) + 2
    again = Cache.load(path)
    for timestamp, (key, value) in enumerate(VALUES.items()):
        found = again.get(key)
        assert found == (value, timestamp)
        assert type(found[0]) is type(value)
    assert contents(again) == contents(cache)


def test_a_hundred_thousand_entries_come_back(path: Path) -> None:
    cache = Cache(5, 3, "32MiB", gossip_interval=None)
    expected = {f"user:{number}": {"id": number, "name": f"user {number}"} for number in range(100_000)}
    cache.put_many(expected, timestamp=7)
    saved = cache.save(path)
    assert (saved.entries, saved.removes, saved.bytes) == (100_000, 0, path.stat().st_size)
    with Cache.load(path) as again:
        assert again.restored is not None
        assert (again.restored.applied, again.restored.superseded, again.restored.too_large) == (100_000, 0, 0)
        assert contents(again) == {key: (value, 7) for key, value in expected.items()}
        assert again.gauges().effective_copies == 3
        assert again.sync().converged


def test_reports_are_typed_frozen_and_print_well(path: Path) -> None:
    cache = filled(3)
    cache.remove("key 0", 2)
    saved = cache.save(path)
    assert isinstance(saved, SaveReport)
    assert re.fullmatch(r"SaveReport\(entries=2, removes=1, bytes=\d+, seconds=\d+\.\d{6}\)", repr(saved))
    assert cache.restored is None
    restored = cache.restore(path)
    assert isinstance(restored, RestoreReport)
    assert cache.restored == restored
    counts = "entries=2, removes=1, applied=3, expired=0, superseded=0, too_large=0"
    text = rf"RestoreReport\({counts}, bytes=\d+, seconds=\d+\.\d{{6}}\)"
    assert re.fullmatch(text, repr(restored))
    for report in (saved, restored):
        with pytest.raises(AttributeError):
            report.entries = 7  # type: ignore[misc]


def test_removed_keys_stay_removed(path: Path) -> None:
    cache = filled(100)
    assert cache.remove_many([f"key {number}" for number in range(50)], 5) == 50
    cache.remove("never there", 9)
    assert cache.save(path).removes == 51
    again = Cache.load(path)
    assert len(again) == 50
    assert again.put("key 7", "late", 5) is False
    assert again.put("never there", "late", 9) is False
    assert again.put("key 7", "newer", 6) is True


def test_versions_are_merged(path: Path) -> None:
    cache = filled(0)
    cache.put_many([("older here", "saved", 5), ("newer here", "saved", 5), ("same", "saved", 5), ("removed", 1, 5)])
    cache.remove("gone", 5)
    cache.save(path)
    other = Cache(3, gossip_interval=None)
    other.put_many([("older here", "here", 4), ("newer here", "here", 6), ("same", "saved", 5), ("only", "here", 1)])
    other.remove("removed", 5)
    other.put("gone", "here", 5)
    report = other.restore(path)
    assert (report.entries, report.removes, report.applied, report.superseded) == (4, 1, 3, 2)
    assert contents(other) == {
        "older here": ("saved", 5),
        "newer here": ("here", 6),
        "same": ("saved", 5),
        "only": ("here", 1),
    }
    before = state(other)
    other.restore(path)
    # What is in place already is not written again.
    assert state(other)[:2] == before[:2]


def test_what_expires_expires_when_it_would_have(path: Path) -> None:
    cache = filled(0)
    cache.put("long", [1] * 2_000, 1, ttl=3_600)
    cache.put("for ever", "value", 1)
    cache.put("over", "value", 1, ttl=0.001)
    cache.put("soon", "value", 1, ttl=0.5)
    while "over" in cache:
        time.sleep(0.001)
    left = cache.ttl("long")
    # What is over by now is not saved: `soon` may be, on a slow machine.
    saved = cache.save(path)
    assert saved.entries in {2, 3}
    while "soon" in cache:
        time.sleep(0.01)
    other = filled(0)
    other.put("soon", "older", 0)
    report = other.restore(path)
    assert (report.applied, report.expired, report.superseded) == (2, saved.entries - 2, 0)
    assert contents(other) == {"long": ([1] * 2_000, 1), "for ever": ("value", 1)} | (
        {} if report.expired else {"soon": ("older", 0)}
    )
    gone_on = other.ttl("long")
    assert left is not None
    assert gone_on is not None
    assert 3_000 < gone_on <= left
    assert other.ttl("for ever") is None


def test_the_end_that_was_decided_last_stays(path: Path) -> None:
    cache = filled(0)
    cache.put("longer", "value", 1, ttl=1_000)
    cache.put("shorter", "value", 1, ttl=1_000)
    cache.save(path)
    assert cache.touch("longer", 2_000)
    assert cache.touch("shorter", 500)
    report = cache.restore(path)
    assert (report.applied, report.superseded) == (0, 2)
    longer, shorter = cache.ttl("longer"), cache.ttl("shorter")
    assert longer is not None
    assert shorter is not None
    assert longer > 1_500
    assert shorter <= 500


def test_what_was_used_last_fits_in_a_smaller_cache(path: Path) -> None:
    cache = filled(20_000, nodes=3, replicas=3)
    hot = [f"key {number}" for number in range(0, 20_000, 50)]
    for key in hot:
        cache.get(key)
    cache.save(path)
    small = Cache.load(path, node_capacity="256KiB")
    assert small.restored is not None
    assert small.restored.applied == 20_000
    assert len(hot) < len(small) < 5_000
    assert len(small.get_many(hot)) == len(hot)
    assert all(node.bytes_used <= node.bytes_max for node in small.nodes())


def test_a_put_without_a_timestamp_is_newer_than_what_was_restored(path: Path) -> None:
    cache = Cache(1, gossip_interval=None)
    cache.put("key", "saved")
    cache.save(path)
    again = Cache.load(path)
    assert again.put("key", "after the restart") is True
    assert again.get("key")[0] == "after the restart"


# ---- the configuration


def configuration(cache: Cache, path: Path) -> tuple[Any, ...]:
    cache.save(path)
    done = subprocess.run([*COMMAND, "info", "--json", path], capture_output=True, text=True, timeout=60, check=True)
    said = json.loads(done.stdout)
    names = ("nodes", "replicas", "node_capacity", "write_quorum", "read_quorum", "gossip_interval", "compression")
    assert said["default_ttl"] == 86_400.5
    return tuple(said[name] for name in names)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, (5, 4, 300_000, "3", "majority", 0.25, "zstd")),
        ({"nodes": 9}, (9, 4, 300_000, "3", "majority", 0.25, "zstd")),
        ({"nodes": 2}, (2, 2, 300_000, "2", "majority", 0.25, "zstd")),
        ({"replicas": 1}, (5, 1, 300_000, "1", "majority", 0.25, "zstd")),
        ({"replicas": None}, (5, 3, 300_000, "3", "majority", 0.25, "zstd")),
        ({"nodes": 2, "replicas": None}, (2, 2, 300_000, "2", "majority", 0.25, "zstd")),
        ({"node_capacity": "1MiB", "gossip_interval": None}, (5, 4, 1 << 20, "3", "majority", None, "zstd")),
        ({"write_quorum": "one", "read_quorum": 2}, (5, 4, 300_000, "one", "2", 0.25, "zstd")),
        ({"compression": None}, (5, 4, 300_000, "3", "majority", 0.25, None)),
    ],
    ids=str,
)
def test_a_loaded_cache_is_made_as_the_saved_one_unless_told(
    overrides: dict[str, Any], expected: tuple[Any, ...], path: Path
) -> None:
    saved = Cache(
        5,
        4,
        300_000,
        write_quorum=3,
        read_quorum="majority",
        gossip_interval=0.25,
        compression="zstd",
        default_ttl=86_400.5,
    )
    saved.put_many({f"key {number}": number for number in range(300)})
    saved.save(path)
    again = Cache.load(path, **overrides)
    assert contents(again) == contents(saved)
    assert copies(again, "key 7") == expected[1]
    assert configuration(again, path) == expected


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"nodes": 0}, ValueError, "nodes is 0, but must be from 1 to 100; nothing was done"),
        ({"nodes": 1000}, ValueError, "nodes is 1000, but must be from 1 to 100"),
        ({"nodes": "3"}, TypeError, "nodes must be int, not str"),
        ({"replicas": 9}, ValueError, "replicas is 9, but must be from 1 to 4"),
        ({"nodes": 2, "replicas": 3}, ValueError, "replicas is 3, but must be from 1 to 2"),
        ({"write_quorum": 3}, ValueError, "write_quorum is 3, but must be from 1 to 2"),
        ({"colour": 3}, TypeError, "colour"),
    ],
    ids=str,
)
def test_wrong_overrides_are_refused_as_by_the_class(
    overrides: dict[str, Any], error: type[Exception], message: str, path: Path
) -> None:
    filled(1).save(path)
    with pytest.raises(error, match=message):
        Cache.load(path, **overrides)


# ---- paths


@pytest.mark.parametrize("as_path", [str, Path, os.fsencode], ids=["str", "Path", "bytes"])
def test_a_path_is_str_bytes_or_path_like(as_path: Callable[[Path], Any], path: Path) -> None:
    cache = filled(3)
    assert cache.save(as_path(path)).entries == 3
    assert cache.restore(as_path(path)).entries == 3
    assert len(Cache.load(as_path(path))) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_path_need_not_be_utf_8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9"
    filled(3).save(path)
    assert [os.fsencode(found.name) for found in tmp_path.iterdir()] == [b"caf\xe9"]
    assert len(Cache.load(os.fsdecode(path))) == 3


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f980"])
def test_a_name_may_be_as_long_as_a_name_can_be(letter: str, tmp_path: Path) -> None:
    path = tmp_path / (letter * (255 // len(letter.encode())))
    filled(3).save(path)
    assert len(Cache.load(path)) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    filled(3).save("name only")
    assert len(Cache.load("name only")) == 3
    assert [found.name for found in tmp_path.iterdir()] == ["name only"]


@pytest.mark.parametrize("wrong", [None, 7, 1.5, ["x"], object()], ids=str)
def test_what_is_no_path_is_a_type_error(wrong: Any) -> None:
    cache = filled(1)
    for call in (cache.save, cache.restore, Cache.load):
        with pytest.raises(TypeError, match=r"^path must be str, bytes or os.PathLike, not .*; nothing was done$"):
            call(wrong)


def test_a_path_with_a_null_character_is_a_value_error() -> None:
    for call in (filled(1).save, Cache.load):
        with pytest.raises(ValueError, match="without null characters; nothing was done"):
            call("a\0b")


# ---- files that cannot be read or written


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    cache = filled(1)
    before = state(cache)
    for call in (cache.restore, Cache.load):
        with pytest.raises(FileNotFoundError) as raised:
            call(tmp_path / "missing")
        assert raised.value.filename == str(tmp_path / "missing")
        assert raised.value.errno == errno.ENOENT
        assert raised.value.__notes__ == ["nothing was changed"]
    with pytest.raises(FileNotFoundError) as raised:
        cache.save(tmp_path / "missing" / "file")
    assert raised.value.filename == str(tmp_path / "missing" / "file")
    with pytest.raises(FileNotFoundError):
        cache.save("")
    assert state(cache) == before


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    cache = filled(1)
    for call in (cache.save, cache.restore, Cache.load):
        with pytest.raises(IsADirectoryError):
            call(tmp_path)
    with pytest.raises(NotADirectoryError):
        cache.save(Path(__file__) / "file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_neither_waited_for_nor_replaced(path: Path) -> None:
    os.mkfifo(path)
    cache = filled(1)
    for call in (cache.save, cache.restore, Cache.load):
        with pytest.raises(OSError, match="it is not a regular file; nothing was changed"):
            call(path)
    assert path.is_fifo()


@forks
def test_permission_denied(tmp_path: Path, run_program: RunProgram) -> None:
    filled(1).save(tmp_path / "mine")
    tmp_path.chmod(0o755)
    program = f"""
        import os
        from distributed_consistent_cache import Cache
        cache = Cache(1)
        if os.getuid() == 0:
            os.setuid(65534)
            for call in (cache.save, cache.restore, Cache.load):
                try:
                    call({str(tmp_path / "mine")!r})
                except PermissionError as error:
                    assert error.filename == {str(tmp_path / "mine")!r}, error
                else:
                    raise AssertionError(call)
    """
    if os.getuid() == 0:
        for folder in [tmp_path, *tmp_path.parents][:3]:
            folder.chmod(0o755)
        assert run_program(program) == ""
    else:
        (tmp_path / "mine").chmod(0)
        for call in (filled(1).restore, Cache.load):
            with pytest.raises(PermissionError):
                call(tmp_path / "mine")
        tmp_path.chmod(0o500)
        with pytest.raises(PermissionError):
            filled(1).save(tmp_path / "other")
        tmp_path.chmod(0o700)
    assert [found.name for found in tmp_path.iterdir()] == ["mine"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits are other ones there")
def test_no_room_for_the_file(tmp_path: Path, run_program: RunProgram) -> None:
    program = f"""
        import os, resource
        from pathlib import Path
        from distributed_consistent_cache import Cache
        path = Path({str(tmp_path)!r}) / "cache"
        cache = Cache(1, 1, "16MiB")
        cache.put("key", 1)
        cache.save(path)
        before = path.read_bytes()
        cache.put("large", os.urandom(1 << 20))
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        try:
            cache.save(path)
        except OSError as error:
            print(error.errno, error.filename == str(path), error.__notes__)
        print([found.name for found in path.parent.iterdir()], path.read_bytes() == before, len(cache))
    """
    assert run_program(program) == f"{errno.EFBIG} True ['nothing was changed']\n['cache'] True 2\n"


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "an empty file": (lambda _: b"", "at byte 0: it is no snapshot of a cache"),
    "a text": (lambda _: b"hello, world\n" * 100, "at byte 0: it is no snapshot of a cache"),
    "an image": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(100), "at byte 0: it is no snapshot of a cache"),
    "a pickle": (lambda _: b"\x80\x05K\x01.", "at byte 0: it is no snapshot of a cache"),
    "one byte short": (lambda whole: whole[:-1], "the file ends here, and is not whole"),
    "half of it": (lambda whole: whole[: len(whole) // 2], "the file ends here, and is not whole"),
    "its first bytes": (lambda whole: whole[:10], "at byte 10: the file ends here, and is not whole"),
    "a byte more": (lambda whole: whole + b"\0", "something follows the end"),
    "a changed header": (lambda whole: whole[:20] + b"!" + whole[21:], "the checksum of the header is wrong"),
    "a changed block": (
        lambda whole: whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :],
        "the checksum of a block is wrong",
    ),
    "text mode": (lambda whole: whole.replace(b"\r\n", b"\n"), "at byte 4: it is no snapshot of a cache"),
    "a later format": (
        lambda whole: whole[:8] + b"\x02" + whole[9:],
        "at byte 8: it is in format 2, and this release reads format 1 only",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_a_clear_error_and_changes_nothing(what: str, path: Path) -> None:
    damage, message = BROKEN[what]
    filled(20_000).save(path)
    path.write_bytes(damage(path.read_bytes()))
    cache = filled(10, nodes=2)
    before = state(cache)
    for call in (cache.restore, Cache.load):
        with pytest.raises(SnapshotError) as raised:
            call(path)
        assert isinstance(raised.value, CacheError)
        said = str(raised.value)
        assert said.startswith(f"{path}: at byte "), said
        # To load it, the footer is read first.
        assert message in said or (call != cache.restore and "there is no footer where it should be" in said), said
        assert said.endswith("; nothing was changed"), said
    assert state(cache) == before


# ---- the process, threads, signals


def test_other_threads_run_while_a_cache_is_saved_and_restored(path: Path) -> None:
    cache = filled(200_000, node_capacity="64MiB")
    steps = 0
    is_over = threading.Event()

    def count() -> None:
        nonlocal steps
        while not is_over.wait(0.0005):
            steps += 1

    counting = threading.Thread(target=count, daemon=True)
    counting.start()
    for call in (cache.save, cache.restore):
        before = steps
        call(path)
        assert steps > before + 5
    is_over.set()
    counting.join()


def test_what_threads_write_meanwhile_is_there_as_it_was_or_is(path: Path, run_threads: RunThreads) -> None:
    cache = filled(20_000)
    cache.put_many((f"busy {number}", (number, 0)) for number in range(500))
    is_over = threading.Event()

    def work(thread: int) -> int:
        if thread == 0:
            for _ in range(5):
                cache.save(path)
                with Cache.load(path, gossip_interval=None) as again:
                    found = contents(again)
                for number in range(20_000):
                    assert found[f"key {number}"] == (number, 1)
                for number in range(500):
                    if number % 10:
                        (key, time, *rest), _ = found[f"busy {number}"]
                        assert key == number
                        assert rest == [time] * (time % 5)
                assert len(found) <= 20_500
            is_over.set()
            return 0
        time = 0
        while not is_over.is_set():
            time += 1
            for number in range(thread, 500, 3):
                if number % 10 == 0 and time % 2:
                    cache.remove(f"busy {number}")
                else:
                    # Of many lengths: some take the place of the last, others a new one.
                    cache.put(f"busy {number}", (number, time, *[time] * (time % 5)))
        return time

    def work_to_the_end(thread: int) -> int:
        try:
            return work(thread)
        finally:
            is_over.set()

    rounds = run_threads(4, work_to_the_end, seconds=150)
    assert min(rounds[1:]) > 0


def test_saves_to_one_path_at_once_leave_one_whole_file(path: Path, run_threads: RunThreads) -> None:
    caches = [filled(1000 * (1 + number)) for number in range(4)]
    run_threads(4, lambda thread: [caches[thread].save(path) for _ in range(10)])
    assert len(Cache.load(path)) in (1000, 2000, 3000, 4000)
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_failed_nodes_are_done_without(path: Path) -> None:
    cache = filled(1000, nodes=5, replicas=3)
    cache.fail_node(0)
    cache.fail_node(1, lose_memory=False)
    cache.put("key 7", "newer", 2)
    cache.save(path)
    with Cache.load(path) as again:
        assert contents(again) == contents(cache)
        assert len(again.nodes()) == 5
    for node in range(5):
        cache.fail_node(node)
    with pytest.raises(CacheError, match="every node is down; nothing was written"):
        cache.restore(path)
    assert cache.save(path).entries == 0


def test_a_closed_cache_saves_and_restores_nothing(path: Path) -> None:
    cache = filled(10)
    cache.save(path)
    before = path.read_bytes()
    cache.close()
    for call in (cache.save, cache.restore):
        with pytest.raises(ClosedError, match=r"^the cache is closed; nothing was done$"):
            call(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", ["save", "restore"])
def test_a_cache_may_be_closed_meanwhile(call: str, path: Path) -> None:
    for attempt in range(50):
        cache = filled(100_000)
        cache.save(path)
        before = path.read_bytes()
        closing = threading.Timer(0.01 * (1 + attempt % 10), cache.close)
        closing.start()
        try:
            while True:
                getattr(cache, call)(path)
        except ClosedError as error:
            said = str(error)
        finally:
            closing.join()
        assert [found.name for found in path.parent.iterdir()] == [path.name]
        assert len(path.read_bytes()) == len(before)
        if call == "save" or "were restored before that, and are in the cache" in said:
            assert re.match(r"the cache is closed; nothing was done|the cache was closed; \d+ of 100000 records", said)
            return
    pytest.fail("it was never closed in the middle")


@forks
def test_a_forked_child_saves_and_restores_its_own_copy(path: Path, run_program: RunProgram) -> None:
    program = f"""
        import os
        from distributed_consistent_cache import Cache
        cache = Cache(3, gossip_interval=0.01)
        cache.put("key", 1, 1)
        cache.save({str(path)!r})
        child = os.fork()
        if child == 0:
            cache.put("key", 2, 2)
            if cache.save({str(path)!r} + ".child").entries != 1 or cache.restore({str(path)!r}).superseded != 1:
                os._exit(1)
            if Cache.load({str(path)!r} + ".child").get("key") != (2, 2):
                os._exit(3)
            os._exit(0 if Cache.load({str(path)!r}).get("key") == (1, 1) else 2)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run_program(program) == "0\n"


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[float], threading.Timer]]:
    """Presses Ctrl-C after a moment, once."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timers: list[threading.Timer] = []

    def press(seconds: float) -> threading.Timer:
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()
        return timers[-1]

    yield press
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent another way there")
def test_ctrl_c_ends_a_save_and_leaves_the_old_file(path: Path, ctrl_c: Callable[[float], threading.Timer]) -> None:
    cache = filled(200_000, node_capacity="64MiB")
    cache.save(path)
    before = path.read_bytes()[100:-100]

    def save() -> None:
        for _ in range(1000):
            cache.save(path)

    pressed = ctrl_c(0.3)
    with pytest.raises(KeyboardInterrupt):
        save()
    pressed.join()
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    assert len(path.read_bytes()[100:-100]) == len(before)
    assert cache.save(path).entries == 200_000


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent another way there")
def test_ctrl_c_ends_a_restore_which_says_how_far_it_came(
    path: Path, ctrl_c: Callable[[float], threading.Timer]
) -> None:
    filled(200_000, node_capacity="64MiB").save(path)
    for attempt in range(30):
        cache = Cache(4, 2, "64MiB", gossip_interval=None)
        pressed = ctrl_c(0.05 + 0.02 * (attempt % 10))
        try:
            cache.restore(path)
            time.sleep(1)
        except KeyboardInterrupt as interrupt:
            notes = getattr(interrupt, "__notes__", [])
        pressed.join()
        found = re.fullmatch(r"(\d+) of 200000 records were restored before that, and are in the cache", "".join(notes))
        if found:
            assert len(cache) == int(found[1])
            assert cache.restored is None
            return
    pytest.fail("it was never in the middle")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed another way there")
def test_a_process_that_is_killed_while_it_saves_leaves_a_whole_file(path: Path) -> None:
    program = f"""
import itertools
from distributed_consistent_cache import Cache
cache = Cache(2, 2, "64MiB", gossip_interval=None)
cache.put_many((f"key {{number}}", number) for number in range(100_000))
for time in itertools.count():
    cache.put("time", time)
    cache.save({str(path)!r})
    print(time, flush=True)
"""
    temporaries = 0
    for attempt in range(12):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "0\n"
            time.sleep(0.013 * attempt)
            process.kill()
            told = ["0", *process.stdout.read().split()]
        again = Cache.load(path, gossip_interval=None)
        assert len(again) == 100_001
        # The last that it told of, or the one after that.
        assert again.get("time")[0] in (int(told[-1]), int(told[-1]) + 1)
        again.close()
        temporaries += len(list(path.parent.glob(f".{path.name}.*.tmp")))
    assert temporaries > 0, "it was never killed in the middle"
    # What the killed ones left is removed once it is a minute old.
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        os.utime(left, (0, 0))
    filled(1).save(path)
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_what_was_done_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "distributed_consistent_cache")
    filled(10).save(path)
    Cache.load(path, gossip_interval=None)
    said = [record.message for record in caplog.records if "saved" in record.message or "restored" in record.message]
    assert re.fullmatch(r"saved 10 entries and 0 removes, \d+ bytes", said[0])
    assert said[1] == "restored 10 entries and removes; 0 had expired, 0 were superseded, 0 too large"


# ---- the command


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def saved(path: Path) -> Path:
    cache = filled(10_000, nodes=5, replicas=3, write_quorum="majority")
    cache.remove("key 7")
    cache.save(path)
    return path


def test_info_says_what_a_snapshot_holds(saved: Path) -> None:
    done = run_command("info", saved)
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(re.split(r"\s{2,}", line) for line in done.stdout.splitlines()[2:])
    assert (rows["format"], rows["entries"], rows["removed keys"]) == ("1", "9,999", "1")
    assert (rows["nodes"], rows["replicas"], rows["node capacity"]) == ("5", "3", "16.0 MiB")
    assert (rows["write quorum"], rows["read quorum"], rows["gossip"]) == ("majority", "one", "none")
    moment = datetime.datetime.strptime(rows["saved at (UTC)"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.UTC)
    assert abs(datetime.datetime.now(datetime.UTC) - moment) < datetime.timedelta(minutes=5)


def test_verify_says_that_a_snapshot_is_whole(saved: Path) -> None:
    done = run_command("verify", saved)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()[:2]
    assert re.fullmatch(r"blocks: \d+ to do", first)
    assert re.fullmatch(r"blocks: \d+ done in [\d.]+ \w+", second)
    assert "\nThe file is whole: every byte was checked, " in done.stdout
    for line in done.stdout.splitlines():
        assert len(line) <= 80, line
        assert line.isascii(), line


def test_json_is_one_object_and_nothing_else(saved: Path) -> None:
    info, verify = run_command("info", saved, "--json"), run_command("verify", "--json", saved)
    for done in (info, verify):
        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    said, verified = json.loads(info.stdout), json.loads(verify.stdout)
    assert verified.pop("wall_seconds") > 0
    assert said == verified
    assert (said["path"], said["valid"], said["entries"], said["removes"]) == (str(saved), True, 9999, 1)
    assert said["file_bytes"] == saved.stat().st_size


@pytest.mark.parametrize("action", ["info", "verify"])
def test_a_file_that_is_none_fails_with_one_line(action: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("hello, world")
    for name, message in {other: "at byte 0: it is no snapshot", tmp_path / "missing": "No such file"}.items():
        done = run_command(action, name)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        done = run_command(action, "--json", name)
        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (1, "", 1)
        said = json.loads(done.stdout)
        assert (said["path"], said["valid"]) == (str(name), False)
        assert message in said["error"]


def test_verify_finds_what_info_does_not_look_at(saved: Path) -> None:
    whole = saved.read_bytes()
    middle = len(whole) // 2
    saved.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert run_command("info", saved).returncode == 0
    done = run_command("verify", saved)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*: at byte \d+: the checksum of a block is wrong; nothing was changed\n", done.stderr)


@pytest.mark.parametrize("arguments", [[], ["info"], ["verify"], ["mend", "x"], ["info", "x", "--unknown"]], ids=str)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    done = run_command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: dccache")


@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"], ["verify", "--help"]], ids=" ".join)
def test_help_is_there_and_fits(arguments: list[str]) -> None:
    done = run_command(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_a_terminal_gets_a_bar(saved: Path) -> None:
    program = f"import pty, sys; sys.exit(pty.spawn({[*COMMAND, 'verify', str(saved)]}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    shown = done.stdout.decode()
    assert re.search(r"^\rblocks \[#*\.*\] +\d+ of \d+\x1b\[K", shown)
    assert " to do" not in shown
    assert "\x1b[Kblocks: " in shown
