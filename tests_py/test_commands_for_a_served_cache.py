"""The commands that look at a served cache, and the quick benchmark: as a program of its own, as a shell runs them."""

import contextlib
import json
import os
import pty
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from distributed_consistent_cache import Cache

COMMAND = [sys.executable, "-m", "distributed_consistent_cache"]
CLEAR = b"\x1b[H\x1b[J"


def run(*arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DCCACHE_URL"}
    if url is not None:
        environment["DCCACHE_URL"] = url
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, env=environment, check=False
    )


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache(3, 2, "64KiB") as cache:
        for number in range(100):
            cache.put(f"key {number}", number)
            cache.get(f"key {number}")
        cache.get("nobody")
        yield cache


@pytest.fixture
def url(cache: Cache) -> str:
    return str(cache.serve().url)


def test_status_shows_the_nodes(cache: Cache, url: str) -> None:
    done = run("status", "--url", url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "3 nodes, all live"
    assert lines[1] == "101 gets, 99.0 % hits; misses: never seen 1"
    assert lines[2] == "100 keys, 2.00 copies of each; 0 writes that not every owner has seen"
    assert lines[4].startswith(f"process {os.getpid()}")
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[:2] for line in lines[-3:]] == [["0", "live"], ["1", "live"], ["2", "live"]]
    cache.fail_node(1)
    done = run("status", url=url)
    assert (done.returncode, done.stdout.splitlines()[0]) == (3, "3 nodes, 1 of them down")
    said = json.loads(run("status", "--json", url=url).stdout)
    assert (said["hits"], said["nodes"][1]["live"]) == (100, False)


@pytest.mark.parametrize("key", ["key 7", "nobody", "schlüssel & wert=?#%", "", "键 " * 100])
def test_explain_says_what_the_cache_says(key: str, cache: Cache, url: str) -> None:
    if key not in {"key 7", "nobody"}:
        cache.put(key, 1)
    done = run("explain", "--url", url, "--", key)
    explained = cache.explain(key)
    assert (done.returncode, done.stderr) == (0 if explained.hit else 3, "")
    assert done.stdout.startswith(f"partition {explained.partition}: a get ")
    answer, _, owners = done.stdout.partition("\n\n")
    assert " ".join(answer.split()) == f"partition {explained.partition}: {explained.sentence}"
    assert len(owners.splitlines()) == 2 + len(explained.owners)
    said = json.loads(run("explain", "--json", "--url", url, "--", key).stdout)
    assert (said["key"], said["hit"], said["reason"]) == (key, explained.hit, explained.reason)
    assert [owner["node"] for owner in said["owners"]] == [owner.node for owner in explained.owners]


def test_metrics_are_those_that_prometheus_scrapes(url: str) -> None:
    done = run("metrics", "--url", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("# HELP dcc_")
    assert "dcc_hits_total" in done.stdout
    samples = json.loads(run("metrics", "--json", "--url", url).stdout)
    assert sum(value for name, value in samples.items() if name.startswith("dcc_hits_total")) == 100


def test_top_prints_one_look_after_the_other_where_there_is_no_terminal(url: str) -> None:
    done = run("top", "--url", url, "--interval", "0.2", "--count", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert done.stdout.count("since it was made") == 1
    assert done.stdout.count("a second, over the last ") == 2
    looks = run("top", "--json", "--url", url, "--interval", "0.2", "--count", "2").stdout.splitlines()
    assert [json.loads(look)["hits"] for look in looks] == [100, 100]


def test_top_on_a_terminal_draws_in_place_and_ends_with_ctrl_c(cache: Cache, url: str) -> None:
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [*COMMAND, "top", "--url", url, "--interval", "0.2"],
        stdin=follower,
        stdout=follower,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    os.close(follower)
    try:
        seen = _watched(process, leader, cache)
    finally:
        process.kill()
        _, errors = process.communicate()
        os.close(leader)
    assert (process.returncode, errors) == (0, b"")
    assert seen.startswith(b"\x1b[?25l")
    assert seen.rstrip().endswith(b"\x1b[?25h")


def _watched(process: "subprocess.Popen[bytes]", leader: int, cache: Cache) -> bytes:
    """What a person sees until a node that failed is shown as down, and Ctrl-C is pressed."""
    seen = b""
    deadline = time.monotonic() + 30
    while seen.count(CLEAR) < 3 or b"down" not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([leader], [], [], 1)[0]:
            seen += os.read(leader, 65_536)
        if seen.count(CLEAR) == 1:
            cache.fail_node(2)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    return seen + os.read(leader, 65_536)


@contextlib.contextmanager
def answering(body: bytes, reason: str | None = None, **headers: str) -> Iterator[str]:
    """Another server, at this URL: it answers 200 with a body, or 404 for a reason."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302 if headers else 404 if reason else 200, reason)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, format: str, *_: Any) -> None:  # noqa: A002 - the name that it has there
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def can_resolve(name: str) -> bool:
    """Names below "localhost" are this machine (RFC 6761), which not every resolver knows."""
    with contextlib.suppress(OSError):
        return bool(socket.getaddrinfo(name, 80, family=socket.AF_INET))
    return False


@pytest.mark.parametrize("command", [["status"], ["explain", "key 7"], ["metrics"], ["top", "--count", "1"]], ids=str)
@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_this_machine_is_asked_without_a_proxy(name: str, command: list[str], url: str) -> None:
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment[name] = "http://127.0.0.1:9"
    # What listens everywhere is asked at 0.0.0.0 by some.
    names = ["localhost", "localhost.", "cache.localhost"] if can_resolve("cache.localhost") else ["localhost"]
    for there in (url, *(url.replace("127.0.0.1", name) for name in [*names, "0.0.0.0"])):
        done = subprocess.run(
            [*COMMAND, *command, "--url", there], capture_output=True, timeout=60, env=environment, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")


ODD = "\x1b[2J\x07\r\x9b\u202egnp.exe\u2028\u200b\x00"
"""Clears a terminal, rings, goes back to the beginning of the line, and turns the direction of reading."""


def check_plain(done: "subprocess.CompletedProcess[str]") -> None:
    """Nothing in it is obeyed by a terminal or not seen."""
    for text in (done.stdout, done.stderr):
        assert [char for char in text if char != "\n" and not char.isprintable()] == []


@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_server_says_is_never_printed_raw(as_json: bool, cache: Cache, url: str) -> None:
    flags = ["--json"] if as_json else []
    stats = json.loads(run("status", "--json", url=url).stdout)
    explained = json.loads(run("explain", "--json", "key 7", url=url).stdout)
    stats["process"]["program"] = explained["sentence"] = explained["owners"][0]["knows"] = ODD
    stats["misses_by_reason"] = {ODD: 3}
    for node in (stats["nodes"][0], explained["owners"][0]):
        node["state"] = ODD
    for command, said in (("status", stats), ("top --count 1", stats), ("explain x", explained)):
        with answering(json.dumps(said).encode()) as there:
            done = run(*command.split(), *flags, "--url", there)
            assert "u202e" in done.stdout, done
            check_plain(done)
    with answering(f"# HELP {ODD}\n{ODD} 1\n".encode()) as there:
        check_plain(run("metrics", *flags, "--url", there))
    with answering(b"", "\x1b[2J nothing") as there:
        for command in ("status", "top", "explain x", "metrics"):
            done = run(*command.split(), *flags, "--url", there)
            assert (done.returncode, done.stdout) == (1, "")
            check_plain(done)
    odd = ODD.replace("\x00", "")
    cache.put(odd, 1)
    check_plain(run("explain", *flags, "--url", url, odd))
    check_plain(run("snapshot", "info", *flags, f"/nowhere/{odd}"))


def test_an_answer_that_never_ends_or_leads_elsewhere_is_no_answer(url: str) -> None:
    with answering(b" " * 2**24 + b"{}") as there:
        done = run("status", "--url", there)
        assert (done.returncode, done.stdout) == (1, "")
        assert "more than 16 MiB" in done.stderr
    with answering(b"", Location=f"{url}api/stats.json") as there:
        done = run("status", "--url", there)
        assert (done.returncode, done.stdout) == (1, "")
        assert "answers 302" in done.stderr


def test_whole_numbers_arrive_whole(cache: Cache, url: str) -> None:
    cache.put("large", 1, timestamp=2**63 - 1)
    assert str(2**63 - 1) in run("explain", "large", url=url).stdout
    assert json.loads(run("explain", "--json", "large", url=url).stdout)["timestamp"] == 2**63 - 1
    samples = json.loads(run("metrics", "--json", url=url).stdout)
    assert all(type(value) is int for name, value in samples.items() if name.startswith("dcc_hits_total"))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full", "2> /dev/full"])
@pytest.mark.parametrize(
    "command", ["status", "status --json", "explain nobody", "metrics", "top --count 1", "no-such"]
)
def test_streams_that_are_closed_or_full_leave_no_traceback(closed: str, command: str, url: str) -> None:
    if closed.endswith("full") and not os.path.exists("/dev/full"):  # noqa: PTH110 - as the shell sees it
        pytest.skip("this system has no /dev/full")
    line = f"{shlex.join(COMMAND)} {command} {closed}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, timeout=60, check=False, env=os.environ | {"DCCACHE_URL": url}
    )
    for complaint in (b"Traceback", b"Exception ignored", b"Fatal"):
        assert complaint not in done.stdout + done.stderr
    assert done.returncode in (0, 1, 2, 3)
    if closed == "> /dev/full" and command != "no-such":
        assert (done.returncode, done.stderr) == (1, b"error: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(
    "command", [["status"], ["explain", "key"], ["metrics"], ["top"]], ids=lambda command: command[0]
)
class TestWhereThereIsNoCache:
    def test_nobody_answers(self, command: list[str]) -> None:
        done = run(*command, "--url", "http://127.0.0.1:1")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: no cache answers at http://127.0.0.1:1: ")
        assert len(done.stderr.splitlines()) == 1

    def test_nobody_said_where(self, command: list[str]) -> None:
        done = run(*command)
        assert done.returncode == 2
        assert "say where the cache is: --url URL, or set DCCACHE_URL" in done.stderr

    @pytest.mark.parametrize(
        "wrong",
        [
            "127.0.0.1:80",
            "ftp://localhost",
            "http://",
            "file:///etc/passwd",
            "http://[::1",
            "http://localhost:x",
            "http://a:0",
        ],
    )
    def test_it_is_no_url(self, command: list[str], wrong: str) -> None:
        for done in (run(*command, "--url", wrong), run(*command, url=wrong)):
            assert done.returncode == 2
            assert f"'{wrong}' is no URL like http://127.0.0.1:8080" in done.stderr

    def test_a_password_in_a_url_is_not_printed(self, command: list[str]) -> None:
        wrong = "http://user:secret@127.0.0.1:8080"
        for done in (run(*command, "--url", wrong), run(*command, url=wrong)):
            assert (done.returncode, "secret" in done.stderr) == (2, False)
            assert "a served cache asks for no user and no password" in " ".join(done.stderr.split())

    @pytest.mark.parametrize(
        "answer",
        [
            b"<html>", b"{}", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"nodes": 1, "owners": 1}', b"9" * 5000,
            b'{"nodes": [{"live": true}], "hits": "x", "owners": [3], "hit": true, "partition": 1}',
        ],
        ids=["html", "empty", "list", "bytes", "deep", "other", "digits", "types"],
    )  # fmt: skip
    def test_something_else_answers(self, command: list[str], answer: bytes) -> None:
        with answering(answer) as there:
            done = run(*command, "--url", there)
        if command == ["metrics"] and answer != b"\xff\xfe":
            assert (done.returncode, done.stdout) == (0, answer.decode())
            return
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1


def test_bench_measures_in_the_time_it_is_given() -> None:
    done = run("bench", "--seconds", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "dict + pickle" in done.stdout
    assert "8 threads, 95 gets to 5 puts" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    said = json.loads(run("bench", "--seconds", "0.5", "--json").stdout)
    assert len(said["calls"]) == 5
    assert all(one["cache_ns"] > 0 < one["dict_ns"] for one in said["calls"])
    assert said["mix"]["cache_a_second"] > 0


@pytest.mark.parametrize(
    "wrong",
    [
        ["bench", "--seconds", "0"],
        ["bench", "--seconds", "x"],
        ["top", "--interval", "0", "--url", "http://x"],
        ["top", "--count", "0", "--url", "http://x"],
        ["explain", "--url", "http://x"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(wrong: list[str]) -> None:
    done = run(*wrong)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("command", ["status", "explain", "metrics", "top", "bench"])
def test_help_says_what_it_does_and_its_exit_codes(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "xit code:" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_every_answer_fits_in_80_columns(cache: Cache, url: str) -> None:
    cache.put("large", b"x" * 1000, timestamp=10**18 + 7, ttl=3e9)
    for command in (["explain", "never put"], ["explain", "large"], ["status"], ["top", "--count", "1"]):
        done = run(*command, url=url)
        assert done.stderr == ""
        assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    said = run("explain", "large", url=url).stdout
    assert str(10**18 + 7) in said
    headers = [line.split() for line in said.splitlines() if line.startswith("node")]
    assert headers == [["node", "state", "synced", "knows", "timestamp", "value", "age", "ttl"], ["node", "idle"]]


def test_no_server_makes_a_line_longer_than_80_columns(url: str) -> None:
    stats = json.loads(run("status", "--json", url=url).stdout)
    explained = json.loads(run("explain", "--json", "key 7", url=url).stdout)
    stats["process"]["program"] = explained["sentence"] = explained["owners"][0]["knows"] = "x" * 500
    stats["misses_by_reason"] = {"y" * 500: 3}
    stats["latency"] = {"z" * 500: {"count": 1, "p50": 1, "p90": 1, "p99": 1, "p999": 1, "max": 1}}
    stats["nodes"][0]["hits"] = explained["owners"][0]["node"] = 10**100
    for command, said in (("status", stats), ("top --count 1", stats), ("explain x", explained)):
        with answering(json.dumps(said).encode()) as there:
            done = run(*command.split(), "--url", there)
            assert "x" * 70 in done.stdout, done
            assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    "command", ["demo", "bench", "simulate", "snapshot info x", "status", "top", "explain x", "metrics"]
)
def test_wrong_usage_is_never_printed_raw(command: str) -> None:
    odd = ODD.replace("\x00", "")
    for wrong in (f"--{odd}", odd):
        done = run(*command.split(), "more", wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert "u202e" in done.stderr
        check_plain(done)
