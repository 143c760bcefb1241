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
def test_a_forked_child_is_told_that_the_cache_is_not_its_own(run_program: RunProgram) -> None:
    program = (
        START
        + """
calls = {
    "put": lambda: cache.put("key", 1), "get": lambda: cache.get("key 1"), "remove": lambda: cache.remove("key 1"),
    "put_many": lambda: cache.put_many({"key": 1}), "get_many": lambda: cache.get_many(["key 1"]),
    "remove_many": lambda: cache.remove_many(["key 1"]), "clear": cache.clear, "in": lambda: "key 1" in cache,
    "len": lambda: len(cache), "iter": lambda: list(cache), "nodes": cache.nodes, "node": lambda: cache.node(0),
    "owners": lambda: cache.owners("key"), "sync": cache.sync, "gossip": cache.gossip,
    "fail_node": lambda: cache.fail_node(0), "add_node": cache.add_node, "enter": cache.__enter__,
    "node.get": lambda: node.get("key 1"), "node.put": lambda: node.put("key 1", 1),
}
node = cache.node(0)

def child():
    for name, call in calls.items():
        try:
            call()
        except ClosedError as error:
            assert "fork" in str(error) and "make a new one here" in str(error), error
        else:
            raise AssertionError(name)
    assert "another process" in repr(cache)

assert in_child(child) == 0
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

threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
for thread in threads:
    thread.start()

def child():
    try:
        cache.get("key 1")
    except ClosedError:
        pass
    own = Cache(3, gossip_interval=0.005)
    assert own.put_many((f"key {number}", number) for number in range(500)) == []
    assert own.sync().converged
    own.close()

for _ in range(20):
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
