"""What happens to a cache is told to callbacks, from a thread of its own, without any lock."""

import gc
import logging
import os
import threading
import time
import weakref
from typing import Any

import pytest

from conftest import RunProgram
from distributed_consistent_cache import Cache, ClosedError, Event, ValueTooLargeError
from helpers import wait_until


def test_what_happens_to_nodes_is_told_in_order() -> None:
    heard: list[Event] = []
    with Cache(3, 2, gossip_interval=None) as cache:
        cache.put("key", 1)
        assert cache.on_event(heard.append) is not None
        began = time.time()
        cache.fail_node(1)
        cache.recover_node(1)
        cache.fail_node(2, lose_memory=False)
        cache.recover_node(2)
        assert cache.add_node() == 3
        cache.remove_node(0)
        assert cache.sync().converged
        kinds = [
            "node_failed",
            "node_recovered",
            "node_failed",
            "node_recovered",
            "node_joined",
            "node_left",
            "sync_finished",
        ]
        wait_until(lambda: len(heard) == len(kinds))
        assert [event.kind for event in heard] == kinds
        assert [event.node for event in heard] == [1, 1, 2, 2, 3, 0, None]
        assert [event.details["memory_lost"] for event in heard if event.kind == "node_failed"] == [True, False]
        assert set(heard[1].details) == set(heard[4].details) == {"items"}
        assert (heard[5].details, heard[6].details["converged"]) == ({}, True)
        assert all(began - 1 < event.time < time.time() + 1 for event in heard)
        assert all(event.dropped == 0 for event in heard)
        assert repr(heard[0]) == "Event(kind='node_failed', node=1, details={'memory_lost': True}, dropped=0)"


def test_evictions_are_told_in_batches() -> None:
    heard: list[Event] = []
    with Cache(2, 1, "64KiB", gossip_interval=None) as cache:
        cache.on_event(heard.append)
        for number in range(5000):
            cache.put(f"key {number}", b"x" * 100)
        wait_until(lambda: sum(event.details["entries"] for event in heard) == cache.stats().evictions)
        assert {event.kind for event in heard} == {"evicted"}
        assert {event.node for event in heard} == {0, 1}
        assert sum(event.details["bytes"] for event in heard) == cache.stats().evicted_bytes
        assert len(heard) < 100


def test_a_value_that_is_too_large_is_told() -> None:
    heard: list[Event] = []
    with Cache(1, node_capacity="64KiB", gossip_interval=None) as cache:
        cache.on_event(heard.append)
        with pytest.raises(ValueTooLargeError):
            cache.put("big", os.urandom(100_000))
        wait_until(lambda: len(heard) == 1)
        assert (heard[0].kind, heard[0].details["key"]) == ("value_too_large", "big")
        assert heard[0].details["bytes"] > heard[0].details["bytes_max"] > 0


def test_a_callback_may_call_the_cache_and_close_it() -> None:
    done = threading.Event()
    cache = Cache(3, 2, gossip_interval=None)

    def callback(event: Event) -> None:
        assert threading.current_thread() is not threading.main_thread()
        cache.put("heard", event.kind)
        cache.on_event(print)
        assert cache.off_event(print)
        cache.stats()
        cache.close()
        done.set()

    cache.on_event(callback)
    cache.fail_node(1)
    assert done.wait(20)
    assert cache.closed


def test_what_a_callback_raises_is_logged_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def bad(_: Event) -> None:
        raise ValueError("of the callback")

    with Cache(3, gossip_interval=None) as cache:
        cache.on_event(bad)
        cache.on_event(heard.append)
        cache.fail_node(0)
        cache.fail_node(1)
        wait_until(lambda: len(heard) == 2)
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(records) == 2
    assert records[0].exc_info is not None
    assert str(records[0].exc_info[1]) == "of the callback"


def test_what_a_callback_raises_is_never_logged_raw(caplog: pytest.LogCaptureFixture) -> None:
    def bad(_: Event) -> None:
        raise ValueError("\x1b[31m\r\u202e")

    with Cache(2, gossip_interval=None) as cache:
        cache.on_event(bad)
        cache.fail_node(0)
        wait_until(lambda: r"\x1b[31m\r\u202e" in caplog.text)
    assert [char for char in caplog.text if char != "\n" and not char.isprintable()] == []


def test_a_slow_callback_loses_events_and_is_told_how_many() -> None:
    heard: list[Event] = []
    gate = threading.Event()

    def slow(event: Event) -> None:
        gate.wait(20)
        heard.append(event)

    with Cache(1, node_capacity="16KiB", gossip_interval=None) as cache:
        cache.on_event(slow)

        def refuse(count: int) -> None:
            for _ in range(count):
                with pytest.raises(ValueTooLargeError):
                    cache.put("big", os.urandom(100_000))

        refuse(1)
        time.sleep(0.1)
        refuse(1500)
        gate.set()
        wait_until(lambda: len(heard) >= 1024)
        refuse(1)
        wait_until(lambda: heard[-1].dropped > 0)
        assert len(heard) + heard[-1].dropped == 1502


def test_callbacks_can_be_taken_back() -> None:
    heard: list[Event] = []
    with Cache(3, gossip_interval=None) as cache:
        cache.on_event(heard.append)
        # Another method object of the same list.
        assert cache.off_event(heard.append)
        assert not cache.off_event(heard.append)
        cache.fail_node(0)
        time.sleep(0.1)
    assert heard == []


@pytest.mark.parametrize("wrong", [None, 7, "text"])
def test_what_cannot_be_called_is_refused(wrong: Any) -> None:
    with Cache(gossip_interval=None) as cache, pytest.raises(TypeError, match="callback must be something that can be"):
        cache.on_event(wrong)


def test_a_closed_cache_takes_no_callbacks() -> None:
    cache = Cache()
    cache.close()
    with pytest.raises(ClosedError):
        cache.on_event(print)


def test_a_callback_that_keeps_the_cache_does_not_keep_it_alive() -> None:
    class Owner:
        def __init__(self) -> None:
            self.cache = Cache(3, gossip_interval=0.01)
            self.cache.on_event(self.hear)

        def hear(self, event: Event) -> None:
            pass

    before = threading.active_count()
    owner = weakref.ref(Owner())
    gc.collect()
    assert owner() is None
    wait_until(lambda: threading.active_count() <= before)


def test_the_process_ends_while_callbacks_run(run_program: RunProgram) -> None:
    program = """
        import time
        from distributed_consistent_cache import Cache

        cache = Cache(3)
        cache.on_event(lambda event: time.sleep(0.01))
        for _ in range(50):
            cache.fail_node(0)
            cache.recover_node(0)
        print("over")
    """
    assert run_program(program) == "over\n"
