"""What the interpreter does around a cache: it collects cycles, ends, has brothers, and runs out of threads."""

import gc
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from conftest import RunProgram
from distributed_consistent_cache import Cache, CacheError, InternalError, _core


class Holder:
    """Keeps a cache, and is kept by it."""

    def dumps(self, value: Any) -> str:
        return json.dumps(value)

    def loads(self, text: str) -> Any:
        return json.loads(text)

    def heard(self, event: Any) -> None: ...


def _by_serializer(holder: Any) -> None:
    holder.cache = Cache(serializer=holder)


def _by_node(holder: Any) -> None:
    holder.node = Cache(serializer=holder).node(0)


def _by_callback(holder: Any) -> None:
    holder.cache = Cache()
    holder.cache.on_event(holder.heard)
    holder.cache.fail_node(0)


def _by_keys(holder: Any) -> None:
    holder.cache = Cache(serializer=holder)
    holder.cache.put("key", 1)
    holder.keys = iter(holder.cache)


def _by_event(holder: Any) -> None:
    heard: list[Any] = []
    with Cache() as cache:
        cache.on_event(heard.append)
        cache.fail_node(0)
    while not heard:
        pass
    holder.event = heard[0]
    heard[0].details["holder"] = holder


@pytest.mark.parametrize("tie", [_by_serializer, _by_node, _by_callback, _by_keys, _by_event])
def test_cycles_through_what_a_cache_holds_are_collected(tie: Callable[[Any], None]) -> None:
    def make() -> weakref.ref[Holder]:
        holder = Holder()
        tie(holder)
        return weakref.ref(holder)

    alive = make()
    # A thread that calls back may have one of them in its hands.
    for _ in range(2000):
        gc.collect()
        if alive() is None:
            return
    pytest.fail("it is never freed")


def test_caches_nodes_servers_and_iterators_are_referred_to_weakly() -> None:
    cache = Cache(gossip_interval=None)
    node, server, keys = cache.node(0), cache.serve(), iter(cache)
    weak = [weakref.ref(one) for one in (cache, node, server, keys)]
    assert [one() for one in weak] == [cache, node, server, keys]
    del node, server, keys, cache
    gc.collect()
    assert [one() for one in weak] == [None] * 4


@pytest.mark.parametrize("detached", [False, True])
def test_a_fault_of_the_package_is_an_exception_that_says_what_became_of_the_cache(
    detached: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CacheError, match=r"a fault .*broken on purpose; .*half done; the cache goes on") as raised:
        _core._break_down(detached)
    assert type(raised.value) is InternalError
    assert isinstance(raised.value, RuntimeError)
    assert "broken on purpose" in capfd.readouterr().err


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="there are no limits here")
def test_without_threads_the_calling_thread_works(run_program: RunProgram) -> None:
    program = """
        import os, resource, tempfile
        from distributed_consistent_cache import Cache
        folder = tempfile.mkdtemp()
        os.chmod(folder, 0o777)
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        import logging
        logging.disable()
        for interval in (None, 0.01):
            with Cache(4, 2, gossip_interval=interval, compression="zstd-dict") as cache:
                for _ in range(2):
                    assert cache.put_many({str(n): bytes(20_000) for n in range(20)}) == []
                    assert len(cache.get_many(map(str, range(20)))) == 20
                    assert len(cache) == len(list(cache)) == 20
                    cache.stats(), cache.metrics(), cache.advise(), cache.gauges(), cache.gossip()
                    assert cache.sync().converged
                    cache.fail_node(0)
                    cache.recover_node(0)
                    cache.save(folder + "/snapshot")
                    assert cache.restore(folder + "/snapshot").entries == 20
                    for start in (cache.serve, lambda: cache.on_event(print)):
                        try:
                            start()
                        except OSError:
                            pass
                    assert cache.clear() == 20
    """
    assert run_program(program) == ""


EXITS = {
    "registered before the import": (
        "import atexit\natexit.register(lambda: print(cache.get('key')[0], cache.sync().converged))\n"
        "from distributed_consistent_cache import Cache\ncache = Cache(gossip_interval=0.01); cache.put('key', 1)\n"
    ),
    "a thread that is in a generator": (
        "import threading, time\nfrom distributed_consistent_cache import Cache\ncache = Cache(gossip_interval=0.01)\n"
        "def pairs():\n    while True:\n        time.sleep(0.0001)\n        yield 'key', 1\n"
        "threading.Thread(target=lambda: cache.put_many(pairs()), daemon=True).start()\ntime.sleep(0.1)\n"
        "print('1 True')\n"
    ),
    "a thread that is in __reduce__": (
        "import threading, time\nfrom distributed_consistent_cache import Cache\ncache = Cache(gossip_interval=0.01)\n"
        "class Slow:\n    def __reduce__(self):\n        time.sleep(0.01)\n        return int, (1,)\n"
        "def work():\n    while True:\n        cache.put('key', Slow())\n"
        "threading.Thread(target=work, daemon=True).start()\ntime.sleep(0.1)\nprint('1 True')\n"
    ),
    "a thread that is in a serializer": (
        "import json, threading, time, types\nfrom distributed_consistent_cache import Cache\n"
        "def dumps(value):\n    time.sleep(0.01)\n    return json.dumps(value)\n"
        "cache = Cache(serializer=types.SimpleNamespace(dumps=dumps, loads=json.loads))\n"
        "def work():\n    while True:\n        cache.put('key', 1)\n"
        "threading.Thread(target=work, daemon=True).start()\ntime.sleep(0.1)\nprint('1 True')\n"
    ),
    "a callback that takes longer": (
        "import time\nfrom distributed_consistent_cache import Cache\ncache = Cache(gossip_interval=0.01)\n"
        "class Late:\n    def __del__(self): time.sleep(1)\n"
        "import builtins\nbuiltins.late = Late()\n"
        "cache.on_event(lambda event: time.sleep(5.7))\ncache.fail_node(0)\ntime.sleep(0.2)\nprint('1 True')\n"
    ),
}


@pytest.mark.parametrize("what", EXITS)
def test_an_exit_finds_open_caches_and_is_clean_with(what: str, run_program: RunProgram) -> None:
    assert run_program(EXITS[what]) == "1 True\n"


def test_every_interpreter_but_the_main_one_is_told_so(run_program: RunProgram) -> None:
    program = """
        import os, sys
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            import _interpreters as interpreters

        def run(source):
            try:
                other = interpreters.create("legacy") if sys.version_info >= (3, 13) else interpreters.create()
                raised = (getattr(interpreters, "run_string"))(other, source)
                assert "ImportError" in str(raised), raised
            except RuntimeError as error:
                assert "ImportError" in str(error), error

        package = "distributed_consistent_cache"
        for source in (f"import {package} as d; d.Cache", f"from {package} import Cache"):
            run(source)
            run(source)
        from distributed_consistent_cache import Cache
        with Cache() as cache:
            cache.put("key", 1)
            run("from distributed_consistent_cache import Cache")
            print(cache.get("key")[0])
        sys.stdout.flush()
        os._exit(0)
    """
    assert run_program(program) == "1\n"


def test_a_process_ends_whose_other_interpreter_imported_the_package() -> None:
    program = (
        "try:\n    import _xxsubinterpreters as interpreters\nexcept ImportError:\n    import sys; sys.exit(0)\n"
        "other = interpreters.create()\n"
        "try:\n    interpreters.run_string(other, 'import distributed_consistent_cache')\nexcept RuntimeError: pass\n"
        "print('end')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


LATE = [
    "cache.on_event(print)",
    "cache.put('key', {1, 2})",
    "cache.put('key', object)",
    "cache.put('key', lambda: 1)",
    "cache.put(5, 1)",
    "cache.put('key', 1, timestamp=5.5)",
    "cache.put('key', 1, timestamp=-1)",
    "cache.put('key', 1, ttl=-1)",
    "cache.put('key', 1, write_quorum=9)",
    "cache.put('k' * 70_000, 1)",
    "cache.put('key', bytes(3 << 20))",
    "cache.put_many({'key': {1}, 'other': object})",
    "cache.put_many({5: 1})",
    "cache.put_many([5])",
    "cache.put_many([('key', 1), (1, 2, 3, 4)])",
    "cache.put_many(5)",
    "cache.get_many(5)",
    "cache.get_many([5])",
    "cache.remove_many(['key', 5])",
    "cache.node(0).put('key', object)",
    "cache.node(7)",
    "cache.fail_node(7)",
    "cache.load('nowhere')",
    "cache.close(); cache.get('key')",
    "cache.close(); cache.put_many({'key': 1})",
    "cache.close(); list(cache)",
    "str(cache.explain('key')) + str(cache.stats()) + str(cache.advise())",
]


@pytest.mark.parametrize("late", LATE)
def test_what_is_called_when_the_interpreter_has_ended_raises_at_most_an_error_of_its_own(late: str) -> None:
    program = (
        "import builtins\nfrom distributed_consistent_cache import Cache, InternalError\nclass Late:\n"
        "    def __init__(self): self.cache = Cache(4, 2, '1MiB'); self.fault = InternalError\n"
        "    def __del__(self):\n        cache, fault = self.cache, self.fault\n"
        f"        try: {late}\n        except fault as error: print('a fault', error)\n        except Exception: pass\n"
        "builtins.late = Late()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
