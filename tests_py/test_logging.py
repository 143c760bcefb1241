"""What happens to the nodes is logged under `distributed_consistent_cache`; what happens to entries is not."""

import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import RunProgram, RunThreads
from distributed_consistent_cache import Cache

NAME = "distributed_consistent_cache"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger=NAME)
    return caplog


def records(log: pytest.LogCaptureFixture, run: Callable[[], object]) -> list[tuple[str, str]]:
    """What is logged meanwhile: level and text."""
    log.clear()
    run()
    for record in log.records:
        assert record.name == NAME or record.name.startswith(f"{NAME}."), record.name
    return [(record.levelname, record.getMessage()) for record in log.records]


def test_each_change_of_the_nodes_is_one_record(log: pytest.LogCaptureFixture) -> None:
    cache = Cache(3, 2, gossip_interval=None)
    cache.put("key", 1)

    def text(run: Callable[[], object]) -> str:
        ((level, message),) = records(log, run)
        assert level == "INFO"
        return message

    assert text(lambda: cache.fail_node(1)) == "node 1 failed"
    assert text(lambda: cache.recover_node(1)).startswith("node 1 recovered")
    assert text(lambda: cache.fail_node(1, lose_memory=False)) == "node 1 is cut off"
    assert text(lambda: cache.fail_node(1)) == "node 1 failed"
    assert text(lambda: cache.recover_node(1)).startswith("node 1 recovered")
    assert text(cache.add_node).startswith("node 3 joined")
    assert text(lambda: cache.remove_node(0)) == "node 0 left"
    assert text(cache.sync).startswith("sync finished after 1 round")


def test_what_changes_nothing_is_not_logged(log: pytest.LogCaptureFixture) -> None:
    cache = Cache(3, 2, gossip_interval=None)
    cache.fail_node(1)

    def refused() -> None:
        with pytest.raises(ValueError, match="there is no node 7"):
            cache.fail_node(7)

    assert records(log, lambda: cache.fail_node(1)) == []
    assert records(log, lambda: cache.recover_node(0)) == []
    assert records(log, refused) == []
    assert records(log, cache.close) == []


def test_entries_are_never_logged(log: pytest.LogCaptureFixture) -> None:
    cache = Cache(3, 2, "64KiB", gossip_interval=0.001)

    def use() -> None:
        for number in range(2000):
            cache.put(f"key {number}", bytes(100), 5)
            cache.put(f"key {number}", bytes(100), 4)
            cache.get(f"key {number}")
            cache.get("missing")
            cache.remove(f"key {number // 2}", 6)
        cache.put_many((f"key {number}", number) for number in range(2000))
        cache.get_many(cache)
        cache.clear()
        assert len(list(cache)) == 0

    assert records(log, use) == []


def test_rounds_of_gossip_are_not_logged(log: pytest.LogCaptureFixture) -> None:
    cache = Cache(3, 2, gossip_interval=None)
    assert records(log, lambda: [cache.gossip() for _ in range(10)]) == []


def test_a_level_may_be_set_at_any_time(run_program: RunProgram) -> None:
    program = """
        import io, logging
        from distributed_consistent_cache import Cache
        cache = Cache(gossip_interval=None)
        # Logged at a level that nobody listens to yet.
        cache.fail_node(0)
        stream = io.StringIO()
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=stream)
        cache.fail_node(1)
        logging.getLogger("distributed_consistent_cache").setLevel(logging.ERROR)
        cache.recover_node(0)
        logging.getLogger("distributed_consistent_cache").setLevel(logging.NOTSET)
        cache.fail_node(2)
        logging.disable(logging.CRITICAL)
        cache.recover_node(1)
        logging.disable(logging.NOTSET)
        cache.fail_node(0)
        print(stream.getvalue(), end="")
    """
    assert run_program(program) == "node 1 failed\nnode 2 failed\nnode 0 failed\n"


class UsesTheCache(logging.Handler):
    """A handler that calls the cache whose records it gets."""

    def __init__(self, cache: Cache) -> None:
        super().__init__()
        self.cache = cache
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.cache.put("logged", record.getMessage())
        self.cache.get("logged")
        self.cache.nodes()
        len(self.cache)
        self.cache.gossip()
        if len(self.texts) == 1:
            self.cache.fail_node(2)
            self.cache.recover_node(2)
            self.cache.remove_node(self.cache.add_node())
            self.cache.sync()


def test_a_handler_may_use_the_cache(run_threads: RunThreads) -> None:
    cache = Cache(3, 2, gossip_interval=0.001)
    handler = UsesTheCache(cache)
    logger = logging.getLogger(NAME)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        run_threads(1, lambda _: (cache.fail_node(1), cache.recover_node(1), cache.sync()), seconds=20)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert handler.texts[0] == "node 1 failed"
    assert len(handler.texts) == 8
    assert cache.get("logged")[0].startswith("sync finished")


class Raising(logging.Handler):
    """Raises what it is given, at every record."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error


def raising_calls(tmp_path: Path, error: BaseException) -> None:
    """Calls that log, while whatever is logged raises."""
    cache = Cache(3, 2, gossip_interval=None)
    handler = Raising(error)
    logging.getLogger(NAME).addHandler(handler)
    try:
        for call in (cache.sync, lambda: cache.save(tmp_path / "file"), lambda: cache.fail_node(1), cache.add_node):
            call()
            # Ctrl-C is heard when the call is over.
            time.sleep(0)
    finally:
        logging.getLogger(NAME).removeHandler(handler)


def test_ctrl_c_while_something_is_logged_is_a_keyboard_interrupt(
    log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            raising_calls(tmp_path, KeyboardInterrupt())
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_raises_does_not_fail_the_call(
    log: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: unraisable.append(told.exc_value))
    raising_calls(tmp_path, ZeroDivisionError("in a handler"))
    assert len(unraisable) == 4
    assert {str(error) for error in unraisable} == {"in a handler"}
