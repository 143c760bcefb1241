"""`cache.serve()` answers whoever asks from this machine, whatever they send, and ends with the cache."""

import contextlib
import errno
import gc
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from conftest import RunProgram, RunThreads
from distributed_consistent_cache import Cache, ClosedError, Server

PATHS = {
    "/": "text/html; charset=utf-8",
    "/healthz": "text/plain; charset=utf-8",
    "/metrics": "text/plain; version=0.0.4; charset=utf-8",
    "/api/stats.json": "application/json",
    "/api/ring.json": "application/json",
    "/api/explain.json?key=user%3A1": "application/json",
}


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache(4, 2, gossip_interval=None) as cache:
        cache.put("user:1", {"name": "Ada"})
        yield cache


@pytest.fixture
def server(cache: Cache) -> Iterator[Server]:
    with cache.serve() as server:
        yield server


def ask(
    server: Server, path: str, method: str = "GET", *, host: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own: the status, the headers with small letters, the body."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=host is not None)
        for name, value in (({"Host": host} if host else {}) | (headers or {})).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def raw(server: Server, sent: bytes, seconds: float = 20) -> bytes:
    """All that comes back for these bytes until the server hangs up."""
    with socket.create_connection((server.host, server.port), timeout=seconds) as connection:
        received = b""
        try:
            connection.sendall(sent)
            while more := connection.recv(65536):
                received += more
        except (ConnectionResetError, BrokenPipeError):
            pass
        return received


@pytest.mark.parametrize("path", PATHS)
def test_every_path_answers(path: str, server: Server) -> None:
    status, headers, body = ask(server, path)
    assert (status, headers["content-type"]) == (200, PATHS[path])
    assert body
    if headers["content-type"] == "application/json":
        json.loads(body)
    # HEAD says the same and sends nothing.
    assert ask(server, path, "HEAD")[::2] == (200, b"")


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/api/explain.json"])
def test_every_answer_is_for_nobody_else_and_is_not_kept(path: str, server: Server) -> None:
    _, headers, _ = ask(server, path)
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "*" not in policy


def test_the_page_is_one_piece_and_only_its_own_script_runs(server: Server) -> None:
    pages = [ask(server, "/") for _ in range(2)]
    texts = [body.decode() for _, _, body in pages]
    for (_, headers, _), text in zip(pages, texts, strict=True):
        nonce = headers["content-security-policy"].split("'nonce-")[1].split("'")[0]
        assert len(nonce) == 32
        assert text.count(f'nonce="{nonce}"') == text.count("<script") + text.count("<style") == 2
        assert "NONCE" not in text
        for outside in ("src=", "@import", "url(h", 'href="h', "innerHTML", "insertAdjacentHTML", "document.write"):
            assert outside not in text, outside
    assert texts[0] != texts[1], "a nonce is used once"


@pytest.mark.parametrize(
    "path", ["/nothing", "/api", "/metrics/", "//", "/../etc/passwd", "/%2e%2e/", "/api/stats", "*"]
)
def test_there_is_nothing_else(path: str, server: Server) -> None:
    assert ask(server, path)[0] in (400, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
@pytest.mark.parametrize("path", ["/", "/api/stats.json", "/nothing"])
def test_nothing_can_be_changed(method: str, path: str, server: Server) -> None:
    status, headers, _ = ask(server, path, method)
    assert status in (400, 405)
    assert status == 400 or headers["allow"] == "GET, HEAD"


def test_a_body_that_comes_with_a_request_is_not_read(server: Server) -> None:
    sent = b"POST / HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 1000000000000\r\n\r\n" % server.port
    assert raw(server, sent + bytes(10_000)).startswith(b"HTTP/1.1 405 ")


def test_only_the_names_of_this_machine_are_answered_to(server: Server) -> None:
    port = server.port
    for host in (
        f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}", f"127.0.0.2:{port}",
        # Behind a forwarded port: ssh -L, kubectl port-forward, docker -p.
        "localhost:9000", "127.0.0.1:1", "[::1]:65535", "localhost", "127.0.0.1", "[::1]",
        # Nobody else can have them.
        "localhost.", f"cache.localhost:{port}",
    ):  # fmt: skip
        assert ask(server, "/healthz", host=host)[0] == 200, host
    for host in (
        "evil.example", f"evil.example:{port}", f"localhost.evil:{port}", f"127.0.0.1.evil:{port}", f"127.1:{port}",
        f"x@localhost:{port}", "localhost:x", "localhost:65536", "localhost:1:1", "[::1", "192.0.2.1", "0.0.0.0",
        f"[::ffff:192.0.2.1]:{port}", " ", "\xff",
    ):  # fmt: skip
        for path in PATHS:
            status, _, body = ask(server, path, host=host)
            assert (status, b"Ada" in body) in ((403, False), (400, False)), (host, path)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost:PORT\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost:PORT\r\nConnection: close\r\n\r\n",
        b"GET http://localhost:PORT/healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    ],
)
def test_a_request_that_hides_its_host_is_refused(sent: bytes, server: Server) -> None:
    answered = raw(server, sent.replace(b"PORT", b"%d" % server.port))
    assert answered.split(b" ")[1] in (b"403", b"400")
    assert not answered.endswith(b"ok\n")


def test_a_server_that_is_open_to_others_answers_to_any_name(cache: Cache) -> None:
    with cache.serve("0.0.0.0", allow_remote=True) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/"
        assert ask(server, "/healthz", host="cache.example")[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "255.255.255.255", "0"])
def test_other_machines_are_let_in_only_when_that_is_said(host: str, cache: Cache) -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match=r"other machines can reach.*allow_remote=True.*nothing was started"):
        cache.serve(host)
    assert threading.active_count() == before


def test_what_cannot_be_served_is_an_error(cache: Cache, server: Server) -> None:
    with pytest.raises(OSError, match="nothing was started") as taken:
        cache.serve(port=server.port)
    assert taken.value.errno == errno.EADDRINUSE
    for host in ("", "no such host", "null\0", "[", "host.invalid", "x" * 300):
        with pytest.raises(OSError, match="nothing was started"):
            cache.serve(host)
    for port in (-1, 65536, 2**70):
        with pytest.raises(ValueError, match="from 0 to 65535; nothing was done"):
            cache.serve(port=port)
    for wrong in (
        {"host": 1},
        {"host": b"localhost"},
        {"port": "80"},
        {"port": True},
        {"port": 1.0},
        {"allow_remote": 1},
    ):
        with pytest.raises(TypeError):
            cache.serve(**wrong)
    cache.close()
    with pytest.raises(ClosedError):
        cache.serve()


def test_a_server_says_what_it_is(cache: Cache) -> None:
    server = cache.serve("localhost")
    assert (server.host, server.closed) == ("localhost", False)
    assert 1 <= server.port <= 65535
    assert repr(server) == f"<Server at {server.url}>"
    server.close()
    server.close()
    assert server.closed
    assert repr(server) == f"<Server at {server.url}, closed>"
    with pytest.raises(OSError, match=r"(?i)refused"):
        ask(server, "/healthz")
    with pytest.raises(TypeError, match="pickled"):
        __import__("pickle").dumps(server)


def test_ipv6(cache: Cache) -> None:
    try:
        server = cache.serve("::1")
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert server.url == f"http://[::1]:{server.port}/"
    assert ask(server, "/healthz")[0] == 200
    server.close()


def test_stats_json_is_what_stats_says(cache: Cache, server: Server) -> None:
    for number in range(100):
        cache.put(f"key {number}", number)
        cache.get(f"key {number * 2}")
    cache.fail_node(1, lose_memory=False)
    time.sleep(1.05)
    said, stats = json.loads(ask(server, "/api/stats.json")[2]), cache.stats().as_dict()
    assert said["nodes"][1]["state"] == "cut off"
    for node, of_node in zip(said["nodes"], stats["nodes"], strict=True):
        assert {name: node[name] for name in of_node} == of_node
    del said["nodes"], stats["nodes"]
    assert {name: said[name] for name in stats} == stats
    for call, below in said["latency_below"].items():
        assert below == sorted(below)
        assert below[-1] == said["latency"][call]["count"]


def test_ring_json_says_whose_the_hash_space_is(cache: Cache, server: Server) -> None:
    def ring() -> dict[str, Any]:
        return json.loads(ask(server, "/api/ring.json")[2])  # type: ignore[no-any-return]

    before = ring()
    assert (before["replicas"], before["partitions"]) == (2, cache.partitions)
    for name, copies in (("homes", 2), ("owned", 2), ("first", 1)):
        assert sum(node[name] for node in before["nodes"]) == copies * cache.partitions, name
    cache.fail_node(3)
    after = ring()
    assert after["epoch"] > before["epoch"]
    assert [node["state"] for node in after["nodes"]] == ["live", "live", "live", "failed"]
    assert after["nodes"][3]["owned"] == 0
    assert after["nodes"][3]["homes"] == before["nodes"][3]["homes"]
    assert sum(node["owned"] for node in after["nodes"]) == 2 * cache.partitions


HOSTILE = [
    "", " ", "+", "a+b c", "%41", "%", "&key=other", "key=1", "#", "?", "/", "\\", "\0",
    "\r\nX-Injected: 1", "\x7f", "é", "日本", "👾",
    "\u202e", "<script>alert(1)</script>", "</script>",
    "' OR 1=1 --", '"', "{{7*7}}", "../../etc/passwd", "k" * 20_000, "\ufffd",
]  # fmt: skip


@pytest.mark.parametrize("key", HOSTILE, ids=lambda key: repr(key)[:30])
def test_any_key_is_explained_as_it_is(key: str, cache: Cache, server: Server) -> None:
    def without_times(said: dict[str, Any]) -> dict[str, Any]:
        return said | {"owners": [owner | {"age": None, "idle": None} for owner in said["owners"]]}

    def explained() -> dict[str, Any]:
        status, headers, body = ask(server, "/api/explain.json?key=" + urllib.parse.quote(key, safe=""))
        assert (status, "x-injected" in headers) == (200, False)
        return without_times(json.loads(body))

    def expected() -> dict[str, Any]:
        return without_times(cache.explain(key).as_dict())

    assert explained() == expected()
    assert explained()["reason"] == "never_seen"
    cache.put(key, 1, 2**63 - 1)
    before = cache.stats()
    assert explained() == expected()
    assert (explained()["hit"], explained()["timestamp"], explained()["key"]) == (True, 2**63 - 1, key)
    after = cache.stats()
    assert (after.hits, after.misses) == (before.hits, before.misses), "it is no use"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "which key"), ("?", "which key"), ("?kex=1", "which key"), ("?key", "which key"), ("?key=%ff", "UTF-8"),
        ("?key=%ed%a0%80", "UTF-8"), ("?key=%c0%80", "UTF-8"), ("?key=" + "k" * 64_000 + "%41" * 2000, "64 KiB"),
    ],
)  # fmt: skip
def test_what_is_no_key_is_said_to_be_none(query: str, why: str, server: Server) -> None:
    status, _, body = ask(server, "/api/explain.json" + query)
    if len(query) > 65_000:
        assert status in (400, 414, 431)
        return
    assert status == 400
    assert why in json.loads(body)["error"]


def test_a_form_writes_a_space_as_a_plus(cache: Cache, server: Server) -> None:
    cache.put("two words + more", 1)
    query = urllib.parse.urlencode({"other": 1, "key": "two words + more"})
    assert json.loads(ask(server, f"/api/explain.json?{query}")[2])["hit"] is True


def test_health_is_whether_any_node_is_live(cache: Cache, server: Server) -> None:
    assert ask(server, "/healthz")[::2] == (200, b"ok\n")
    for node in range(4):
        cache.fail_node(node)
    assert ask(server, "/healthz")[0] == 503
    assert ask(server, "/metrics")[0] == 200
    cache.recover_node(2)
    assert ask(server, "/healthz")[0] == 200


def test_a_connection_is_kept_for_the_next_request(server: Server) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    connection.connect()
    first = connection.sock
    for path in (*PATHS, "/nothing", *PATHS):
        connection.request("GET", path)
        connection.getresponse().read()
        assert connection.sock is first
    connection.close()


def test_what_is_too_long_is_refused_and_others_are_answered(server: Server) -> None:
    long = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(5000)) + b"\r\n",
        b"G" * 500_000,
    ]
    for sent in long:
        answered = raw(server, sent)
        assert not answered or answered.split(b" ")[1] in (b"400", b"414", b"431"), answered[:100]
        assert ask(server, "/healthz")[0] == 200


def test_no_bytes_end_it(server: Server) -> None:
    chance = random.Random(7)
    good = (
        b"GET /api/explain.json?key=user%%3A1 HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n" % server.port
    )
    for _ in range(300):
        sent = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(sent))
            what = chance.randrange(3)
            if what == 0:
                sent[at] = chance.randrange(256)
            elif what == 1:
                del sent[at : at + chance.randrange(1, 9)]
            else:
                sent[at:at] = chance.randbytes(chance.randrange(1, 9))
        with socket.create_connection((server.host, server.port), timeout=20) as connection:
            connection.sendall(bytes(sent) or b"\0")
            connection.shutdown(socket.SHUT_WR)
            try:
                while connection.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    assert ask(server, "/healthz")[0] == 200


def test_a_client_that_says_nothing_is_hung_up_on(server: Server) -> None:
    started = time.monotonic()
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((server.host, server.port), timeout=30)) for _ in range(3)]
        slow[1].sendall(b"GET / HT")
        slow[2].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % server.port)
        assert ask(server, "/healthz")[0] == 200
        for connection in slow:
            while connection.recv(65536):
                pass
    assert 4 < time.monotonic() - started < 20


def test_clients_that_ask_again_and_again_and_read_nothing_have_no_probe_reset(server: Server) -> None:
    asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50
    stop = threading.Event()

    def hold() -> None:
        held: list[socket.socket] = []
        while not stop.is_set():
            while len(held) < 80:
                held.append(socket.create_connection((server.host, server.port), timeout=10))
                held[-1].sendall(asked)
                held[-1].setblocking(False)
            for client in held.copy():
                try:
                    client.send(asked)
                except BlockingIOError:
                    pass
                except OSError:
                    held.remove(client)
                    client.close()
        for client in held:
            client.close()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        for _ in range(100):
            # As a probe does: one connection for one question, some milliseconds after it was made.
            with socket.create_connection((server.host, server.port), timeout=10) as probe:
                time.sleep(0.005)
                probe.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert probe.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        stop.set()
        holder.join()


@pytest.mark.parametrize("sent", [b"", b"GET /metr", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30], ids=len)
def test_clients_that_hold_on_to_their_places_keep_nobody_out(sent: bytes, server: Server) -> None:
    """They say nothing, half of a request, or ask for much and read none of it; and come again when sent away."""
    ended = threading.Event()

    def hold() -> None:
        held: list[socket.socket] = []
        while not ended.is_set():
            with contextlib.suppress(OSError):
                client = socket.create_connection((server.host, server.port), timeout=1)
                held.append(client)
                client.setblocking(False)
                client.send(sent)
            if len(held) > 200:
                held.pop(0).close()
            time.sleep(0.002)
        for client in held:
            client.close()

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    try:
        time.sleep(0.5)
        waited = []
        for _ in range(5):
            started = time.monotonic()
            assert ask(server, "/healthz")[0] == 200
            waited.append(time.monotonic() - started)
    finally:
        ended.set()
        holder.join()
    # Those that hold a place are hung up on after 5 s at the soonest: nobody waits for that.
    assert sorted(waited)[2] < 1, waited


def test_a_report_names_the_process_whose_cache_it_is(server: Server) -> None:
    said = json.loads(ask(server, "/api/stats.json")[2])["process"]
    assert said["id"] == os.getpid()
    assert "py" in said["program"]


def test_the_memory_of_a_failed_node_is_not_counted(cache: Cache, server: Server) -> None:
    def capacity() -> int:
        return int(json.loads(ask(server, "/api/stats.json")[2])["bytes_max"])

    whole = capacity()
    cache.fail_node(1)
    assert capacity() == cache.stats().bytes_max == whole * 3 // 4
    cache.fail_node(2, lose_memory=False)
    assert capacity() == whole * 3 // 4, "a node that is cut off keeps its memory"
    cache.recover_node(1)
    cache.recover_node(2)
    assert capacity() == whole


def test_many_threads_ask_at_once(cache: Cache, server: Server, run_threads: RunThreads) -> None:
    def work(thread: int) -> None:
        for number in range(20):
            for path in PATHS:
                assert ask(server, path)[0] == 200
            cache.put(f"{thread} {number}", number)
            if thread == 0:
                cache.fail_node(1)
                cache.recover_node(1)

    run_threads(8, work)


def test_requests_that_are_under_way_at_its_end_are_answered(cache: Cache, run_threads: RunThreads) -> None:
    for _ in range(10):
        server = cache.serve()
        answered = []

        def work(thread: int, server: Server = server, answered: list[int] = answered) -> None:
            if thread == 0:
                time.sleep(0.05)
                started = time.monotonic()
                server.close()
                assert time.monotonic() - started < 5
                return
            while True:
                try:
                    status, _, body = ask(server, "/api/stats.json")
                except OSError:
                    # Not connected any more, or hung up on before anything was said.
                    return
                except http.client.RemoteDisconnected:
                    return
                assert status == 200
                json.loads(body)
                answered.append(status)

        run_threads(5, work)
        assert answered
        # The port is free again.
        cache.serve(port=server.port).close()


def test_it_ends_with_the_cache() -> None:
    cache = Cache()
    servers = [cache.serve() for _ in range(3)]
    kept = http.client.HTTPConnection("127.0.0.1", servers[0].port, timeout=20)
    kept.request("GET", "/healthz")
    kept.getresponse().read()
    started = time.monotonic()
    cache.close()
    assert time.monotonic() - started < 5
    assert all(server.closed for server in servers)
    for server in servers:
        with pytest.raises(OSError, match=r"(?i)refused"):
            ask(server, "/healthz")
    kept.close()


def test_it_ends_when_the_cache_is_dropped_and_goes_on_when_the_server_is() -> None:
    cache = Cache()
    server = cache.serve()
    port = server.port
    del server
    gc.collect()
    with socket.create_connection(("127.0.0.1", port)):
        pass
    server = cache.serve()
    del cache
    gc.collect()
    deadline = time.monotonic() + 10
    while not server.closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.closed
    for gone in (port, server.port):
        with pytest.raises(OSError, match=r"(?i)refused"):
            socket.create_connection(("127.0.0.1", gone)).close()


def test_dropping_caches_while_they_are_asked_hangs_nobody(run_threads: RunThreads) -> None:
    def work(thread: int) -> None:
        for _ in range(15):
            cache = Cache(2, gossip_interval=0.001)
            cache.put("key", thread)
            server = cache.serve()
            gone = threading.Thread(target=lambda server=server: [_ask_or_not(server) for _ in range(4)], daemon=True)
            gone.start()
            time.sleep(random.Random(thread).random() * 0.005)
            del cache
            gone.join(30)
            assert not gone.is_alive()

    def _ask_or_not(server: Server) -> None:
        try:
            ask(server, "/api/stats.json")
        except (OSError, http.client.HTTPException):
            return

    run_threads(4, work)


# Asks for some seconds, and says when it was answered: from another process, that needs no GIL of this one.
CLIENT = """
import http.client, sys, time
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
paths = ["/metrics", "/api/stats.json", "/api/explain.json?key=user:1", "/api/ring.json", "/"]
until = time.monotonic() + 4
while time.monotonic() < until:
    for path in paths:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
        print(time.monotonic(), flush=True)
    time.sleep(0.01)
"""


def test_it_answers_while_python_holds_the_gil(server: Server) -> None:
    client = subprocess.Popen([sys.executable, "-c", CLIENT, str(server.port)], stdout=subprocess.PIPE, text=True)
    assert client.stdout
    client.stdout.readline()
    began = time.monotonic()
    # One call of C that never lets go of the GIL.
    sum(range(60_000_000))
    ended = time.monotonic()
    answers = [float(line) for line in client.communicate(timeout=60)[0].split()]
    assert client.returncode == 0
    within = [at for at in answers if began < at < ended]
    assert ended - began > 0.3
    assert len(within) > 20 * (ended - began), "no answer needs the GIL"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_no_server_and_does_not_keep_its_port(run_program: RunProgram) -> None:
    program = """
import os, socket, urllib.request
from distributed_consistent_cache import Cache, ClosedError
cache = Cache(gossip_interval=0.01)
server = cache.serve()
port = server.port
urllib.request.urlopen(server.url + "metrics").read()
to_child, from_parent = os.pipe()
to_parent, from_child = os.pipe()
child = os.fork()
if child == 0:
    for name in ("url", "host", "port"):
        try:
            getattr(server, name)
        except ClosedError as error:
            assert "fork" in str(error)
        else:
            os._exit(1)
    assert server.closed
    assert repr(server) == "<Server of another process>"
    server.close()
    own = Cache()
    with own.serve() as its:
        assert its.port != port
        assert urllib.request.urlopen(its.url + "healthz").read() == b"ok\\n"
    os.write(from_child, b"!")
    os.read(to_child, 1)
    os._exit(0)
assert os.read(to_parent, 1) == b"!"
assert urllib.request.urlopen(server.url + "healthz").read() == b"ok\\n"
server.close()
# The child lives, and the port is free.
try:
    socket.create_connection(("127.0.0.1", port), timeout=5)
except ConnectionRefusedError:
    print("free")
cache.serve(port=port).close()
os.write(from_parent, b"!")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    assert run_program(program) == "free\n"


ENDINGS = {
    "a server": "",
    "a server and nobody who holds it": "del server",
    "a server and nobody who holds the cache": "del cache",
    "a server that was closed": "server.close()",
    "a connection that is open": "kept = socket.create_connection(('127.0.0.1', server.port))",
    "a server in a module": "sys.modules['keeps it'] = server",
    "threads that ask": """
def work():
    while True:
        try:
            urllib.request.urlopen(server.url + "api/stats.json").read()
        except Exception:
            pass
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
""",
}


@pytest.mark.parametrize("what", ENDINGS)
def test_a_process_ends_at_once_with(what: str, run_program: RunProgram) -> None:
    program = """
import socket, sys, threading, time, urllib.request
from distributed_consistent_cache import Cache
cache = Cache()
server = cache.serve()
urllib.request.urlopen(server.url + "metrics").read()
""" + ENDINGS[what]
    started = time.monotonic()
    assert run_program(program, seconds=30) == ""
    assert time.monotonic() - started < 15


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="there are no limits here")
def test_it_answers_when_no_more_threads_can_be_had(run_program: RunProgram) -> None:
    program = f"""
        import http.client, os, resource
        from distributed_consistent_cache import Cache
        cache = Cache(4, 2, gossip_interval=None)
        cache.put("user:1", 1)
        server = cache.serve()
        connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
        # What Python imports for a request is there before the user may read nothing.
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        for path in {list(PATHS)!r}:
            for _ in range(2):
                connection.request("GET", path)
                answer = connection.getresponse()
                assert answer.status == 200, path
                answer.read()
        print("answered")
    """
    assert run_program(program) == "answered\n"
