"""Any number of threads may use one cache at once, also while nodes fail, return, join and leave."""

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from conftest import RunThreads
from distributed_consistent_cache import Cache, ClosedError

# A change of the nodes: one of them goes and comes back, or comes and goes.
Change = Callable[[Cache, random.Random], None]


def crash_and_return(cache: Cache, random: random.Random) -> None:
    """At most one node is down at a time, so that every acknowledged write has a live copy."""
    node = random.randrange(4)
    cache.fail_node(node)
    cache.recover_node(node)


def be_cut_off_and_return(cache: Cache, random: random.Random) -> None:
    node = random.randrange(4)
    cache.fail_node(node, lose_memory=False)
    cache.recover_node(node)


def join_and_leave(cache: Cache, random: random.Random) -> None:
    cache.remove_node(cache.add_node())


CHANGES = [crash_and_return, be_cut_off_and_return, join_and_leave]


@contextmanager
def meanwhile(run: Callable[[], Any]) -> Iterator[None]:
    """Run something again and again in a thread of its own, for as long as the block takes; raise what it raised."""
    ended = threading.Event()
    errors: list[BaseException] = []

    def loop() -> None:
        try:
            while not ended.is_set():
                run()
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            errors.append(error)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)
    assert not thread.is_alive(), "the thread beside did not end"
    if errors:
        raise errors[0]


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """Threads take turns often, so that more interleavings are met in less time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


def full(key: str, timestamp: int) -> dict[str, Any]:
    """A value that tells of which write it is, at both ends."""
    return {"key": key, "timestamp": timestamp, "filling": "x" * (timestamp % 300), "end": [key, timestamp]}


def test_a_thousand_threads_leave_the_newest_version_of_every_key(run_threads: RunThreads) -> None:
    cache = Cache(nodes=5, replicas=3, node_capacity="4MiB", gossip_interval=0.01)
    keys = [f"key-{number}" for number in range(150)]
    steps_each = 30

    def work(thread: int) -> list[tuple[str, int, bool]]:
        """Do mixed work; return the writes as (key, timestamp, is a put)."""
        random_ = random.Random(thread)
        writes = []
        for step in range(steps_each):
            key, timestamp = random_.choice(keys), step * 1000 + thread
            kind = random_.randrange(10)
            if kind < 4:
                cache.put(key, full(key, timestamp), timestamp)
                writes.append((key, timestamp, True))
            elif kind == 4:
                cache.remove(key, timestamp)
                writes.append((key, timestamp, False))
            elif kind == 5:
                cache.put_many({key: full(key, timestamp)}, timestamp)
                writes.append((key, timestamp, True))
            elif kind == 6:
                for found, (value, found_timestamp) in cache.get_many(random_.sample(keys, 5)).items():
                    assert value == full(found, found_timestamp)
            else:
                value, found_timestamp = cache.get(key)
                assert (value, found_timestamp) == (None, -1) or value == full(key, found_timestamp)
        return writes

    random_of_failures = random.Random(0)

    def fail_two_and_recover() -> None:
        one, other = random_of_failures.sample(range(5), 2)
        cache.fail_node(one)
        cache.fail_node(other, lose_memory=random_of_failures.random() < 0.5)
        cache.recover_node(one)
        cache.recover_node(other)

    with meanwhile(fail_two_and_recover):
        writes = [write for of_thread in run_threads(1000, work) for write in of_thread]

    assert cache.sync().converged
    newest: dict[str, tuple[int, bool]] = {}
    for key, timestamp, is_put in writes:
        # No two writes have the same timestamp.
        newest[key] = max(newest.get(key, (-1, False)), (timestamp, is_put))
    expected = {key: (full(key, timestamp), timestamp) for key, (timestamp, is_put) in newest.items() if is_put}
    assert sum(node.evictions for node in cache.nodes()) == 0
    assert cache.get_many(keys) == expected
    for key in keys:
        for owner in cache.owners(key):
            assert cache.node(owner).get(key) == expected.get(key, (None, -1)), f"{key} on node {owner}"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read_quorum", ["one", "majority"])
def test_a_get_after_a_put_is_never_older_while_nodes_come_and_go(
    change: Change, read_quorum: str, run_threads: RunThreads
) -> None:
    cache = Cache(nodes=4, replicas=3, read_quorum=read_quorum, gossip_interval=None)  # type: ignore[arg-type]
    ended = time.monotonic() + 1.0

    def write_and_read(thread: int) -> int:
        written = 0
        while time.monotonic() < ended:
            written += 1
            key = f"thread {thread}, key {written % 20}"
            assert cache.put(key, written, written)
            assert cache.get(key) == (written, written)
        return written

    random_ = random.Random(1)
    with meanwhile(lambda: change(cache, random_)):
        run_threads(3, write_and_read)


@pytest.mark.parametrize("change", CHANGES)
def test_no_node_grows_beyond_its_capacity_and_nothing_is_lost_while_nodes_come_and_go(change: Change) -> None:
    # Small nodes and the usual gossip: what is remembered of writes that some have missed has little room.
    cache = Cache(nodes=4, replicas=3, node_capacity="64KiB")
    random_ = random.Random(2)

    def change_and_check() -> None:
        change(cache, random_)
        for node in cache.nodes():
            assert node.bytes_used <= node.bytes_max, node

    keys = [f"key {number}" for number in range(100)]
    timestamp, ended = 0, time.monotonic() + 1.5
    with meanwhile(change_and_check):
        while time.monotonic() < ended:
            timestamp += 1
            cache.put(keys[timestamp % 100], timestamp, timestamp)
    cache.sync()
    # A hundred small entries take a quarter of a node.
    assert sum(node.evictions for node in cache.nodes()) == 0
    written = {keys[number % 100]: number for number in range(1, timestamp + 1)}
    assert cache.get_many(keys) == {key: (number, number) for key, number in written.items()}


@pytest.mark.parametrize("change", CHANGES)
def test_writers_and_readers_get_on_while_nodes_come_and_go_without_a_pause(
    change: Change, run_threads: RunThreads
) -> None:
    cache = Cache(nodes=4, replicas=3, gossip_interval=None)
    ended = time.monotonic() + 1.0

    def longest(thread: int) -> float:
        """The longest that a put and a get took together, in seconds."""
        longest = 0.0
        while (start := time.monotonic()) < ended:
            cache.put(f"key {thread}", thread)
            cache.get(f"key {thread}")
            longest = max(longest, time.monotonic() - start)
        return longest

    random_ = random.Random(4)
    with meanwhile(lambda: change(cache, random_)):
        waits = run_threads(3, longest)
    # The machine may be busy with other things, but not for so long.
    assert max(waits) < 0.5, waits


@pytest.mark.parametrize("change", CHANGES)
def test_nobody_hears_that_every_node_is_down_while_some_live(change: Change, run_threads: RunThreads) -> None:
    cache = Cache(nodes=4, replicas=3, gossip_interval=None)
    ended = time.monotonic() + 1.0

    def work(thread: int) -> None:
        step = 0
        while time.monotonic() < ended:
            step += 1
            key = f"thread {thread}, key {step % 50}"
            cache.put(key, step)
            cache.remove(key)
            cache.put_many([(f"{key}, {number}", number) for number in range(100)])

    random_ = random.Random(3)
    with meanwhile(lambda: change(cache, random_)):
        run_threads(8, work)


def test_of_many_puts_to_one_key_the_newest_is_told_true_and_stays(run_threads: RunThreads) -> None:
    cache = Cache(nodes=3, replicas=3)
    answers = run_threads(64, lambda thread: [cache.put("key", (thread, n), n * 64 + thread) for n in range(100)])
    assert cache.get("key") == ((63, 99), 6399)
    assert answers[63][99] is True
    assert all(cache.node(node).get("key") == ((63, 99), 6399) for node in range(3))


def test_counting_iterating_and_clearing_beside_writers_raise_nothing(run_threads: RunThreads) -> None:
    cache = Cache(nodes=3, replicas=2, node_capacity="64KiB", gossip_interval=0.001)
    ended = time.monotonic() + 0.7
    calls: list[Callable[[], Any]] = [
        lambda: cache.put(f"key {random.randrange(2000)}", random.randbytes(50)),
        lambda: cache.get(f"key {random.randrange(2000)}"),
        lambda: cache.put_many((f"key {random.randrange(2000)}", number) for number in range(100)),
        lambda: [cache.get(key) for key in cache],
        lambda: len(cache),
        cache.clear,
        cache.sync,
        cache.nodes,
    ]

    def work(thread: int) -> None:
        while time.monotonic() < ended:
            calls[thread % len(calls)]()

    run_threads(16, work)
    assert all(node.bytes_used <= node.bytes_max for node in cache.nodes())


def use_for_ever(cache: Cache) -> None:
    while True:
        cache.put("key", 1)
        cache.get("key")


def test_closing_beside_users_gives_them_an_answer_or_a_clear_error(run_threads: RunThreads) -> None:
    for _ in range(20):
        cache = Cache(nodes=3, gossip_interval=0.001)

        def work(thread: int, cache: Cache = cache) -> None:
            if thread == 0:
                time.sleep(0.005)
                cache.close()
                return
            with pytest.raises(ClosedError):
                use_for_ever(cache)

        run_threads(8, work, seconds=20)
