"""Writes what the fuzzer begins with: real pickles, requests and snapshots, as files in `fuzz/corpus/<target>/`.

Needs nothing but Python; snapshots are there only where the package is installed, too.
"""

import hashlib
import pickle
import pickletools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"

VALUES: list[object] = [
    None, True, 0, 255, 65_535, -1, 1 << 31, 1 << 70, 0.5, "", "Ada", "é" * 40, b"", b"x" * 300, bytearray(b"ab"),
    (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1, "a", None], {}, {"name": "Ada", "age": 36, "scores": [1.0, 2.5]},
    {1, 2}, frozenset({"a"}), [[[[]]]], {"a": {"b": {"c": (1, [2, {3}])}}}, ["same"] * 3, 1j,
    {f"column {number}": number for number in range(20)},
]  # fmt: skip

HOSTS = ["localhost", "localhost:9000", "127.0.0.1:80", "[::1]:80", "192.0.2.1", "evil.example", "localhost:x"]
PATHS = [
    "/", "/metrics", "/healthz", "/api/stats.json", "/api/ring.json", "/api/explain.json",
    "/api/explain.json?key=user%3A1", "/api/explain.json?x=1&key=a+b", "/api/explain.json?key=%ff", "/none",
    "http://localhost/metrics", "*",
]  # fmt: skip


def pickles() -> Iterator[bytes]:
    """Each value in each protocol."""
    for value in VALUES:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            yield pickle.dumps(value, protocol)
            yield pickletools.optimize(pickle.dumps(value, protocol))


def requests() -> Iterator[bytes]:
    """A byte that says which server it is, then requests."""
    for host in HOSTS:
        for path in PATHS:
            yield b"\x01" + f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    yield b"\x01" + one * 3
    yield b"\x00" + b"HEAD /metrics HTTP/1.1\r\nHost: anything\r\nAccept: application/openmetrics-text\r\n\r\n"
    yield b"\x01" + b"GET / HTTP/1.0\r\n\r\n"
    yield b"\x01" + b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc" + one
    in_chunks = b"PUT / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    yield b"\x01" + in_chunks + one
    yield b"\x01" + b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"


def snapshots() -> Iterator[bytes]:
    """A byte that says how it is read, then a whole file."""
    try:
        from distributed_consistent_cache import Cache
    except ImportError:
        print("snapshots: none, as the package is not installed")
        return
    for compression in (None, "lz4", "zstd"):
        for count in (0, 1, 30):
            cache = Cache(nodes=3, replicas=2, compression=compression)
            for number in range(count):
                cache.put(f"user:{number}", {"name": "Ada " * 40, "number": number}, number)
            if count:
                cache.remove("user:0", 5)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "cache.snapshot"
                cache.save(path)
                yield b"\x00" + path.read_bytes()
            cache.close()


def write(target: str, inputs: Iterator[bytes]) -> None:
    """Each input as a file of its own, named by what is in it."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for content in inputs:
        (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


if __name__ == "__main__":
    write("pickles", pickles())
    write("values", pickles())
    write("served", requests())
    write("snapshots", snapshots())
    sys.exit(0)
