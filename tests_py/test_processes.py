"""A process that forks, ends or is interrupted while it has a cache does so cleanly and at once."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count, repeat
from typing import Any

import pytest

from conftest import RunProgram
from distributed_consistent_cache import Cache

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

# What a program below begins with. `in_child` forks, runs something there, and returns the child's exit code.
START = """
import os, signal, sys, threading, time
from distributed_consistent_cache import Cache, ClosedError

cache = Cache(4, 2, gossip_interval=0.005)
cache.put_many((f"key {number}", number, 1) for number in range(1000))
# Everything that starts threads has been used.
cache.sync()
len(cache)

def in_child(run):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            run()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "the child hangs"

def check_parent():
    assert cache.put("parent", "goes on")
    assert cache.get("parent")[0] == "goes on"
    assert cache.put_many((f"more {number}", number) for number in range(1000)) == []
    assert cache.sync().converged
"""


@forks
def test_a_forked_child_has_a_copy_of_the_cache_as_it_was(run_program: RunProgram) -> None:
    program = (
        START
        + """
node = cache.node(0)

def child():
    assert cache.closed and "not used since the fork" in repr(cache)
    assert cache.get("key 1") == (1, 1)
    assert not cache.closed and "fork" not in repr(cache)
    assert node.get("key 1") in ((1, 1), (None, -1))
    assert node.put("by node", 1) and cache.get("by node")[0] == 1
    assert len(cache) == len(list(cache)) == 1001
    assert cache.put("key 1", 2, 2) and cache.remove("key 2", 2)
    assert cache.put_many((f"more {number}", number) for number in range(500)) == []
    assert len(cache.get_many(f"more {number}" for number in range(500))) == 500
    assert cache.remove_many(["key 3"], 2) == 1
    cache.fail_node(0)
    assert cache.sync().converged
    cache.recover_node(0)
    cache.remove_node(cache.add_node())
    assert cache.nodes() and cache.owners("key 1") and cache.stats() and cache.metrics() and cache.advise()
    assert cache.clear(2**62) > 1000
    assert "not used" not in repr(cache)
    cache.close()
    assert cache.closed
    try:
        cache.get("key 1")
    except ClosedError:
        pass

assert in_child(child) == 0
assert cache.get("key 1") == (1, 1) and cache.get("key 2") == (2, 1) and not cache.closed
check_parent()
"""
    )
    assert run_program(program) == ""


@forks
def test_gossip_goes_on_in_a_forked_child_from_its_first_call_on(run_program: RunProgram) -> None:
    program = (
        START
        + """
def threads():
    return sorted(open(f"/proc/self/task/{thread}/comm").read().strip() for thread in os.listdir("/proc/self/task"))

def child():
    assert len(threads()) == 1, threads()
    cache.cut([0], [1, 2, 3])
    for number in range(100):
        cache.put(f"key {number}", "newer", 2)
    cache.heal()
    deadline = time.monotonic() + 15
    # A thread has its name a moment after it has begun.
    while "cache-gossip" not in threads():
        assert time.monotonic() < deadline, threads()
        time.sleep(0.01)
    while cache.gauges().unseen_writes:
        assert time.monotonic() < deadline, cache.gauges()
        time.sleep(0.01)

if os.path.exists("/proc/self/task"):
    assert in_child(child) == 0
check_parent()
"""
    )
    assert run_program(program) == ""


@forks
def test_a_cache_is_found_by_what_others_do_around_a_fork(run_program: RunProgram) -> None:
    program = """
        import os
        box = {}
        def used():
            assert box["cache"].put("key", os.getpid()) is True
            assert box["cache"].get("key")[0] == os.getpid()
        # Before the import, so that none of the package's own can come first.
        os.register_at_fork(before=used, after_in_parent=used, after_in_child=used)
        from distributed_consistent_cache import Cache
        box["cache"] = Cache(gossip_interval=0.01)
        os.register_at_fork(before=used, after_in_parent=used, after_in_child=used)
        for _ in range(20):
            child = os.fork()
            if child == 0:
                used()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        used()
    """
    assert run_program(program) == ""


@forks
def test_a_fork_that_python_knows_nothing_of_hangs_nobody(run_program: RunProgram) -> None:
    program = (
        START
        + """
import ctypes
fork = ctypes.PyDLL(None).fork
child = fork()
if child == 0:
    signal.alarm(20)
    assert cache.get("key 1") == (1, 1) and cache.put("key 1", 2, 2)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
check_parent()
"""
    )
    assert run_program(program) == ""


@forks
def test_a_served_cache_is_the_parents_and_a_child_may_serve_its_own(run_program: RunProgram) -> None:
    program = (
        START
        + r"""
import socket, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
server = cache.serve(port=range(21000, 21100))
# A client that is connected while the process forks.
connected = socket.create_connection(("127.0.0.1", server.port))
connected.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % server.port)
assert connected.recv(1000).startswith(b"HTTP/1.1 200")

def child():
    assert server.closed and "another process" in repr(server)
    try:
        server.port
        raise AssertionError
    except ClosedError as error:
        assert "parent" in str(error)
    own = cache.serve(port=range(21000, 21100))
    assert own.port != port
    assert opener.open(own.url + "healthz", timeout=10).read() == b"ok\n"
    own.close()
    server.close()

port = server.port
for _ in range(3):
    assert in_child(child) == 0
assert opener.open(server.url + "healthz", timeout=10).read() == b"ok\n"
check_parent()
"""
    )
    assert run_program(program) == ""


@forks
def test_callbacks_are_called_in_a_forked_child_too(run_program: RunProgram) -> None:
    program = (
        START
        + """
heard = []
cache.on_event(lambda event: heard.append((event.kind, os.getpid())))
cache.fail_node(1)
while not heard:
    time.sleep(0.001)

def child():
    heard.clear()
    cache.fail_node(0)
    deadline = time.monotonic() + 15
    while ("node_failed", os.getpid()) not in heard:
        assert time.monotonic() < deadline, heard
        time.sleep(0.001)
    assert len([kind for kind, _ in heard if kind == "node_failed"]) == 1

assert in_child(child) == 0
cache.recover_node(1)
check_parent()
"""
    )
    assert run_program(program) == ""


@forks
def test_a_forked_child_may_make_a_cache_of_its_own(run_program: RunProgram) -> None:
    program = (
        START
        + """
def child():
    with Cache(4, 2, gossip_interval=0.005) as own:
        assert own.put("key", 1, 1)
        assert own.get("key") == (1, 1)
        assert own.put_many((f"key {number}", number) for number in range(1000)) == []
        assert len(own.get_many(f"key {number}" for number in range(1000))) == 1000
        assert len(own) == len(list(own)) == 1001
        own.fail_node(0)
        assert own.sync().converged
        own.recover_node(0)
        own.remove_node(own.add_node())
        assert own.clear() == 1001
        # And a grandchild.
        def grandchild():
            with Cache(2) as its_own:
                its_own.put_many((f"key {number}", number) for number in range(1000))
                assert its_own.sync().converged
        assert in_child(grandchild) == 0

for _ in range(3):
    assert in_child(child) == 0
check_parent()
"""
    )
    assert run_program(program) == ""


@forks
@pytest.mark.parametrize(
    "leave", ["os._exit(0)", "sys.exit(0)", "pass", "del cache; import gc; gc.collect()", "cache.close()"]
)
def test_a_forked_child_ends_cleanly(leave: str, run_program: RunProgram) -> None:
    program = f"""
{START}
sys.stdout.flush()
child = os.fork()
if child == 0:
    signal.alarm(20)
    {leave}
else:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    check_parent()
"""
    assert run_program(program) == ""


@forks
def test_a_forked_child_may_leave_the_with_block_it_was_born_in(run_program: RunProgram) -> None:
    program = """
        import os, sys
        from distributed_consistent_cache import Cache
        child = 0
        with Cache(gossip_interval=0.01) as cache:
            cache.put("key", 1)
            child = os.fork()
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    assert run_program(program) == ""


@forks
def test_forking_while_other_threads_use_the_cache_hangs_nobody(run_program: RunProgram) -> None:
    program = (
        START
        + """
ended = False
def work(thread):
    step = 0
    while not ended:
        step += 1
        cache.put(f"thread {thread}", bytes(step % 50_000))
        cache.get(f"thread {thread}")
        cache.put_many((f"{thread} {number}", number) for number in range(100))
        if thread == 0:
            cache.fail_node(0)
            cache.recover_node(0)
        if thread == 1:
            Cache(2, gossip_interval=0.001).put("key", 1)

threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
for thread in threads:
    thread.start()

def child():
    assert cache.get("key 1") == (1, 1)
    assert cache.put("key 1", "the child's", 2)
    assert len(cache) >= 1000
    assert cache.sync().converged
    cache.close()
    own = Cache(3, gossip_interval=0.005)
    assert own.put_many((f"key {number}", number) for number in range(500)) == []
    assert own.sync().converged
    own.close()

for _ in range(50):
    assert in_child(child) == 0
ended = True
for thread in threads:
    thread.join()
check_parent()
"""
    )
    assert run_program(program) == ""


@forks
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works_beside_a_cache(method: str, tmp_path: Any, run_program: RunProgram) -> None:
    # Under `spawn` the child imports this file.
    (tmp_path / "work.py").write_text(
        "from distributed_consistent_cache import Cache\n"
        "def work(number):\n"
        "    with Cache(3) as cache:\n"
        "        cache.put_many((f'key {n}', n * number) for n in range(300))\n"
        "        return sum(value for value, _ in cache.get_many(cache).values())\n"
    )
    program = f"""
        import multiprocessing, sys
        sys.path.insert(0, {str(tmp_path)!r})
        import work
        from distributed_consistent_cache import Cache
        if __name__ == "__main__":
            with Cache(gossip_interval=0.005) as cache:
                cache.put_many((f"key {{number}}", number) for number in range(1000))
                cache.sync()
                with multiprocessing.get_context({method!r}).Pool(2) as pool:
                    print(pool.map(work.work, range(4)))
                cache.put("key", 1)
    """
    sums = [sum(range(300)) * number for number in range(4)]
    assert run_program(program) == f"{sums}\n"


ENDINGS = {
    "a cache that is open": "",
    "many caches": "caches = [Cache(3, gossip_interval=0.001) for _ in range(50)]",
    "a cache without gossip": "other = Cache(gossip_interval=None)",
    "a cache that waits for an hour": "other = Cache(gossip_interval=3600)",
    "a cache in a cycle": "loop = [cache]; loop.append(loop)",
    "a cache in a module": "import sys; sys.modules['keeps it'] = cache",
    "an iterator": "keys = iter(cache)",
    "a node": "node = cache.node(0); del cache",
    "an exit function that uses it": (
        "import atexit; atexit.register(lambda: (cache.put('late', 1), print(cache.get('late')[0])))"
    ),
    "sys.exit": "import sys; sys.exit(0)",
    "a thread that ends later": "threading.Thread(target=lambda: (time.sleep(0.1), cache.put('key', 1))).start()",
    "an object that uses it when it is dropped": """
class Late:
    def __del__(self):
        try:
            cache.put("late", 1)
        except (ClosedError, NameError, TypeError):
            pass
late = Late()
""",
}


@pytest.mark.parametrize("what", ENDINGS)
def test_a_process_ends_at_once_with(what: str, run_program: RunProgram) -> None:
    program = START + ENDINGS[what]
    started = time.monotonic()
    assert run_program(program, seconds=30) in ("", "1\n")
    assert time.monotonic() - started < 20


def test_a_process_ends_while_daemon_threads_use_the_cache(run_program: RunProgram) -> None:
    program = (
        START
        + """
def work(thread):
    large = bytes(100_000)
    while True:
        try:
            cache.put(f"thread {thread}", {"thread": [thread]})
            cache.get(f"thread {thread}")
            cache.put(f"large {thread}", large)
            cache.get(f"large {thread}")
            cache.put_many((f"{thread} {number}", number) for number in range(300))
            cache.get_many(f"{thread} {number}" for number in range(300))
            len(cache)
            cache.sync()
            if thread == 0:
                cache.fail_node(0)
                cache.recover_node(0)
        except ClosedError:
            # Goes on: also an answer takes the GIL.
            pass

for thread in range(6):
    threading.Thread(target=work, args=(thread,), daemon=True).start()
time.sleep(0.05)
"""
    )
    for _ in range(20):
        assert run_program(program, seconds=30) == ""


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Presses Ctrl-C after a moment, once. A test run in the background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timers: list[threading.Timer] = []

    def press(seconds: float = 0.1) -> None:
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield press
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGINT, before)


def slowly(of: Iterable[Any]) -> Iterator[Any]:
    for item in of:
        time.sleep(0.001)
        yield item


# Without an end. Those made of C alone run no Python code that would notice.
ENDLESS: dict[str, Callable[[Cache], Any]] = {
    "put_many of a slow generator": lambda cache: cache.put_many(slowly((str(number), number) for number in count())),
    "put_many of C": lambda cache: cache.put_many(zip(map(str, count()), repeat(1))),
    "put_many of one key": lambda cache: cache.put_many(repeat(("key", 1, 1))),
    "get_many of C": lambda cache: cache.get_many(map(str, count())),
    "get_many of a slow generator": lambda cache: cache.get_many(slowly(map(str, count()))),
    "remove_many of C": lambda cache: cache.remove_many(map(str, count())),
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent another way there")
@pytest.mark.parametrize("name", ENDLESS)
def test_ctrl_c_ends_a_bulk_call_and_the_cache_still_works(name: str, ctrl_c: Callable[[], None]) -> None:
    cache = Cache(3, 2, "64KiB", gossip_interval=0.01)
    cache.put("before", 1, 1)
    ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        ENDLESS[name](cache)
    assert cache.put("after", 2, 2**62) is True
    assert cache.get("after") == (2, 2**62)
    assert cache.sync().converged
    if name.startswith("put_many"):
        assert len(cache) > 2
