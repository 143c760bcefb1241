"""What an error says of a file is true, and only files of this library are touched."""

import errno
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import RunProgram
from distributed_consistent_cache import Cache, SnapshotError
from distributed_consistent_cache._core import verify_snapshot

HOUR_AGO = time.time() - 3600


def filled(entries: int = 10) -> Cache:
    cache = Cache(2, 2, "64MiB", gossip_interval=None)
    cache.put_many((f"key {number}", number, 1) for number in range(entries))
    return cache


def names_in(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


def held(path: Any) -> int:
    with Cache.load(path, gossip_interval=None) as cache:
        return len(cache)


OTHERS = [
    ".cache.json.8f3a.tmp",
    ".cache.notes of Ada.tmp",
    ".cache.db-journal.tmp",
    ".cache.2024.backup.tmp",
    ".cache.7.tmp",
    ".cache.7-0.tmp.bak",
    ".cache.7-0-1.tmp",
    ".cache.x7-0.tmp",
    ".cache.-0.tmp",
    ".cache.7-.tmp",
    ".caches.7-0.tmp",
    "cache.7-0.tmp",
    ".cache.tmp",
    ".cache..tmp",
    ".cache.\u0667-0.tmp",
    ".CACHE.7-0.tmp",
]


def test_files_of_others_stay_and_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    own = [".cache.999999-0.tmp", f".cache.{os.getpid()}-999999.tmp"]
    for name in [*OTHERS, *own]:
        (tmp_path / name).write_bytes(b"precious")
    for number, kind in enumerate(["folder", "link", "pipe"]):
        path = tmp_path / f".cache.999998-{number}.tmp"
        if kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(tmp_path / OTHERS[0])
        else:
            os.mkfifo(path)
    for path in tmp_path.iterdir():
        os.utime(path, (HOUR_AGO, HOUR_AGO))
    before = {path.name for path in tmp_path.iterdir()}
    filled().save(tmp_path / "cache")
    after = {path.name for path in tmp_path.iterdir()}
    assert before - after == set(own)
    assert after - before == {"cache"}
    assert all((tmp_path / name).read_bytes() == b"precious" for name in OTHERS)


def test_what_a_living_process_writes_stays_however_old_it_is(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / ".cache.999999-0.tmp"
    path.write_bytes(b"half")
    os.utime(path, (HOUR_AGO, HOUR_AGO))
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        filled().save(tmp_path / "cache")
        assert path.exists()
    filled().save(tmp_path / "cache")
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, run_program: RunProgram) -> None:
    # As nobody, in a folder that may be written to and not listed.
    folder = tmp_path / "drop"
    folder.mkdir()
    filled(1).save(folder / "cache")
    program = f"""
import logging, os
from distributed_consistent_cache import Cache
said = []
class Keeps(logging.Handler):
    def emit(self, record): said.append(record.getMessage())
logging.getLogger("distributed_consistent_cache").addHandler(Keeps())
if os.getuid() == 0:
    for path in ({str(folder)!r}, {str(folder / "cache")!r}): os.chown(path, 65534, 65534)
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.chmod({str(folder)!r}, 0o300)
with Cache(gossip_interval=None) as cache:
    cache.put_many({{"a": 1, "b": 2}})
    print(cache.save({str(folder / "cache")!r}).entries)
with Cache.load({str(folder / "cache")!r}, gossip_interval=None) as cache: print(len(cache))
os.chmod({str(folder)!r}, 0o700)
print([line for line in said if "cannot be synced" in line and "loss of power" in line] != [])
"""
    for parent in [tmp_path, *tmp_path.parents][:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    assert run_program(program) == "2\n2\nTrue\n"


def test_a_link_is_followed_also_to_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/target")
    (tmp_path / "further").symlink_to("link")
    filled(3).save(tmp_path / "further")
    assert (tmp_path / "link").is_symlink()
    assert names_in(tmp_path / "folder") == ["target"]
    assert held(tmp_path / "folder" / "target") == 3
    filled(4).save(tmp_path / "link")
    assert held(tmp_path / "further") == 4
    (tmp_path / "round").symlink_to("and round")
    (tmp_path / "and round").symlink_to("round")
    with pytest.raises(OSError) as raised:  # noqa: PT011
        filled().save(tmp_path / "round")
    assert raised.value.errno == errno.ELOOP


def test_what_is_no_file_is_left_as_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), Path("/dev/full"), tmp_path):
        before = path.stat()
        for call in (filled().save, filled().restore, Cache.load, verify_snapshot):
            with pytest.raises(OSError, match=r"directory|not a regular file"):
                call(path)
        assert stat.S_IFMT(path.stat().st_mode) == stat.S_IFMT(before.st_mode)
    assert names_in(tmp_path) == ["pipe"]


def test_names_of_any_kind(tmp_path: Path) -> None:
    class Named:
        def __init__(self, name: Any) -> None:
            self.name = name

        def __fspath__(self) -> Any:
            return self.name

    cache = filled(5)
    names: list[Any] = [
        os.fsencode(tmp_path) + b"/caf\xe9\xff",
        tmp_path / "line\nbreak",
        str(tmp_path / "\x1b[31mred"),
        Named(str(tmp_path / "str")),
        Named(os.fsencode(tmp_path) + b"/bytes"),
        tmp_path / ("é" * 127),
        tmp_path / "\udcff",
        tmp_path / ".hidden",
    ]
    for name in names:
        cache.save(name)
        assert held(name) == 5
    assert len(names_in(tmp_path)) == len(names)
    for wrong, error in (
        (Named(5), TypeError),
        (Named(None), TypeError),
        (3, TypeError),
        ("", OSError),
        ("a\0b", ValueError),
    ):
        with pytest.raises(error):
            cache.save(wrong)


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
def test_a_replaced_file_keeps_its_mode_and_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    filled().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o664)
    if os.getuid() == 0:
        os.chown(path, 65534, 65533)
    before = path.stat()
    filled(11).save(path)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert held(path) == 11


def test_a_cut_file_changes_nothing_wherever_it_is_cut(tmp_path: Path) -> None:
    path, cut = tmp_path / "cache", tmp_path / "cut"
    filled(2000).save(path)
    whole = path.read_bytes()
    cache = filled(1)
    for length in {0, 1, 7, 8, 11, 12, 59, 60, 61, 100, len(whole) // 2, len(whole) - 25, len(whole) - 1}:
        cut.write_bytes(whole[:length])
        for call in (cache.restore, Cache.load, verify_snapshot):
            with pytest.raises(SnapshotError, match=r"at byte \d+: .*; nothing was changed$"):
                call(cut)
    assert len(cache) == 1


def test_a_huge_file_with_holes_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    for start in (b"", (lambda: (filled(5).save(path), path.read_bytes()[:200])[1])()):
        with path.open("wb") as file:
            file.write(start)
            file.truncate(1 << 40)
        for call in (filled().restore, Cache.load, verify_snapshot):
            with pytest.raises(SnapshotError):
                call(path)
        path.unlink()


def test_many_threads_save_to_one_path(tmp_path: Path) -> None:
    path, errors = tmp_path / "cache", []

    def save(entries: int) -> None:
        try:
            with filled(entries) as cache:
                for _ in range(10):
                    cache.save(path)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=save, args=(100 + number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert held(path) in range(100, 104)
    assert names_in(tmp_path) == ["cache"]


def test_ctrl_c_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    filled(7).save(path)
    program = f"""
import os, signal
from distributed_consistent_cache import Cache
# Whoever runs the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
cache = Cache(2, 2, "256MiB", gossip_interval=None)
cache.put_many((f"key {{number}}", os.urandom(100)) for number in range(300_000))
print("ready", flush=True)
try:
    while True: cache.save({str(path)!r} + "-other"); cache.save({str(path)!r} + "-other")
except KeyboardInterrupt: print("stopped")
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "stopped\n"
    assert held(path) == 7
    assert {found.name for found in tmp_path.iterdir()} <= {"cache", "cache-other"}


def test_a_warning_names_no_control_characters(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.INFO):
        filled().save(tmp_path / "\x1b[31mred")
    assert "\x1b" not in caplog.text
