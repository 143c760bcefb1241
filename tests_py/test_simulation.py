"""The cluster can be simulated in a bad world: every promise is kept there, and what happened can be had again."""

import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed_consistent_cache import Cache, KeyTooLargeError, simulation
from distributed_consistent_cache.simulation import Scenario, ScenarioReport, SimulationReport, Violation, simulate


def bad_day(seed: int = 7) -> Scenario:
    """Puts and gets while a node crashes, the network splits, and both end."""
    day = Scenario(seed=seed, nodes=5, replicas=3, loss=0.1, duplication=0.1, lateness=0.01)
    for number in range(40):
        at, key = number / 50, f"user:{number % 7}"
        day.put(at, key, f"value {number}".encode(), timestamp=number + 1, home=number % 5)
        day.get(at + 0.005, key, home=(number + 1) % 5)
    return (
        day.crash(0.10, node=2, noticed_after=0.05)
        .split(0.20, [0, 1], [2, 3, 4])
        .remove(0.30, "user:3", timestamp=1000)
        .unblock(0.50)
        .recover(0.60, node=2)
    )


# Seeds.


def test_200_seeds_keep_every_promise() -> None:
    report = simulate(0, 200)
    assert report.violations == []
    assert report.seeds == sum(report.rounds.values()) == 200


@pytest.mark.parametrize(("nodes", "replicas"), [(1, 1), (3, 3), (5, 3), (8, 8)])
def test_clusters_of_a_given_size_keep_every_promise(nodes: int, replicas: int) -> None:
    assert simulate(1000, 10, nodes=nodes, replicas=replicas).violations == []


def test_the_same_seeds_are_the_same_executions() -> None:
    assert simulate(100, 50) == simulate(100, 50)


def test_other_seeds_are_other_executions() -> None:
    traces = {simulate(seed, 1).trace for seed in range(20)}
    assert len(traces) == 20


def test_a_seed_is_the_same_alone_and_among_others() -> None:
    together = simulate(5, 40, nodes=4)
    alone = [simulate(seed, 1, nodes=4) for seed in range(5, 45)]
    assert together.events == sum(report.events for report in alone)
    assert together.faults == sum(report.faults for report in alone)
    assert together.rounds == {
        rounds: sum(report.rounds.get(rounds, 0) for report in alone) for rounds in together.rounds
    }


def test_much_happens_in_a_simulation() -> None:
    report = simulate(0, 100)
    assert report.events > 100_000
    for name in ("faults", "writes", "reads", "hits", "refused", "evictions", "node_seconds", "trace"):
        assert getattr(report, name) > 0, name
    assert report.hits < report.reads
    assert list(report.rounds) == sorted(report.rounds)


def test_no_seeds_are_an_empty_report() -> None:
    report = simulate(seeds=0)
    assert (report.seeds, report.events, report.rounds, report.violations) == (0, 0, {}, [])


def test_progress_is_told_of_every_seed() -> None:
    told: list[int] = []
    simulate(0, 150, progress=told.append)
    assert sum(told) == 150
    assert len(told) > 1


def test_what_progress_raises_ends_the_simulation() -> None:
    def stop(_: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        simulate(0, 2**32, progress=stop)


def test_the_largest_seeds_can_be_run() -> None:
    report = simulate(2**63 - 1, 2)
    assert (report.seeds, report.violations) == (2, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first_seed": -1}, "first_seed is -1, but must be from 0 to 2**63-1; nothing was done"),
        ({"first_seed": 2**63}, f"first_seed is {2**63}, but must be from 0 to 2**63-1; nothing was done"),
        ({"seeds": -1}, "seeds is -1, but must be from 0 to 2**32; nothing was done"),
        ({"seeds": 2**32 + 1}, f"seeds is {2**32 + 1}, but must be from 0 to 2**32; nothing was done"),
        ({"nodes": 0}, "nodes is 0, but must be from 1 to 16; nothing was done"),
        ({"nodes": 17}, "nodes is 17, but must be from 1 to 16; nothing was done"),
        ({"nodes": 3, "replicas": 0}, "replicas is 0, but must be from 1 to 3; nothing was done"),
        ({"nodes": 3, "replicas": 4}, "replicas is 4, but must be from 1 to 3; nothing was done"),
        (
            {"replicas": 3},
            "replicas is 3, but must be from 1 to 2, as some seeds pick 2 nodes unless told; nothing was done",
        ),
    ],
)
def test_a_number_out_of_its_range_is_named_with_its_range(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared
        simulate(**arguments)  # type: ignore[arg-type]
    assert str(raised.value) == message


@pytest.mark.parametrize("argument", ["first_seed", "seeds", "nodes", "replicas"])
@pytest.mark.parametrize("value", [True, 1.0, "1", [1]], ids=repr)
def test_what_is_no_int_is_a_type_error(argument: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{argument} must be int, not {type(value).__name__}; nothing was done"):
        simulate(**{argument: value})  # type: ignore[arg-type]


def test_progress_must_be_callable() -> None:
    with pytest.raises(TypeError, match="progress must be a callable or None, not int; nothing was done"):
        simulate(0, 1, progress=1)  # type: ignore[arg-type]


# Scenarios.


def test_an_acknowledged_put_survives_a_crash_a_split_and_a_recovery() -> None:
    report = (
        Scenario(seed=7, nodes=5, replicas=3, loss=0.1)
        .put(0.00, "user:1", b"Ada", timestamp=1)
        .crash(0.10, node=2)
        .split(0.20, [0, 1], [2, 3, 4])
        .unblock(0.50)
        .recover(0.60, node=2)
        .run()
    )
    assert report.violation is None
    assert report.values == {"user:1": (b"Ada", 1)}
    assert (report.faults, report.writes, report.reads) == (4, 1, 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_bad_day_keeps_every_promise(seed: int) -> None:
    report = bad_day(seed).run()
    assert report.violation is None
    assert report.rounds > 0
    assert set(report.values) <= {f"user:{number}" for number in range(7)} - {"user:3"}


def test_a_scenario_run_twice_is_the_same_execution() -> None:
    day = bad_day()
    assert day.run() == day.run()
    assert day.run() == bad_day().run()


def test_another_seed_is_another_execution() -> None:
    assert bad_day(1).run().trace != bad_day(2).run().trace


def test_the_newest_timestamp_wins_in_every_order() -> None:
    steps = Scenario(nodes=3).put(0.3, "key", b"old", timestamp=1).put(0.1, "key", b"new", timestamp=2)
    assert steps.run().values == {"key": (b"new", 2)}


def test_a_removed_key_has_no_value_at_the_end() -> None:
    steps = Scenario(nodes=3).put(0, "key", b"value", timestamp=1).remove(0.1, "key", timestamp=1)
    assert steps.put(0.2, "key", b"late", timestamp=0).run().values == {}


def test_values_come_back_as_they_were_put() -> None:
    # A pickle, nothing at all, and one that a node shares instead of copying.
    values = {"pickle": b"\x80\x05\x95\x02\x00\x00\x00\x00\x00\x00\x00N.", "empty": b"", "large": bytes(200_000)}
    steps = Scenario(nodes=3)
    for key, value in values.items():
        steps.put(0, key, value, timestamp=1)
    assert steps.run().values == {key: (value, 1) for key, value in values.items()}


def test_all_copies_lost_are_a_miss() -> None:
    steps = Scenario(nodes=2, replicas=2).put(0, "key", b"value", timestamp=1)
    report = steps.crash(0.5, node=0).crash(0.5, node=1).get(0.6, "key").recover(1, node=0).recover(1, node=1).run()
    assert (report.violation, report.values, report.hits) == (None, {}, 0)


def test_a_value_that_fits_in_no_node_is_refused() -> None:
    report = Scenario(node_capacity="16KiB").put(0, "key", bytes(20_000), timestamp=1).run()
    assert (report.refused, report.values) == (1, {})


def test_a_node_that_joins_takes_over_from_one_that_leaves() -> None:
    steps = Scenario(nodes=1).put(0, "key", b"value", timestamp=1).join(0.5).leave(1, node=0).dismiss(5, node=0)
    report = steps.get(6, "key", home=1).run()
    assert (report.violation, report.values, report.hits) == (None, {"key": (b"value", 1)}, 1)


def test_a_suspected_node_keeps_its_memory() -> None:
    steps = Scenario(nodes=1).put(0, "key", b"value", timestamp=1).suspect(1, node=0).recover(2, node=0)
    assert steps.run().values == {"key": (b"value", 1)}


def test_nodes_may_stay_broken() -> None:
    steps = Scenario(nodes=3, replicas=3).put(0, "key", b"value", timestamp=1)
    report = steps.run(broken=[1, 2])
    assert (report.violation, report.values) == (None, {"key": (b"value", 1)})


def test_cuts_and_blocked_links_are_faults_too() -> None:
    steps = Scenario(nodes=4, replicas=2).cut(0, [0, 1]).heal(0.5).cut(1, (2, 3), (0, 1)).heal(1.5)
    steps.block(2, sender=0, receiver=1).put(2.1, "key", b"value", timestamp=1).unblock(3).split(3.5, {3}, None)
    report = steps.run(until=10)
    assert (report.violation, report.faults) == (None, 7)
    assert report.seconds >= 10


def test_a_blocked_client_is_refused_or_hears_nothing_until_the_link_is_back() -> None:
    def hits(*, blocked: bool) -> int:
        steps = Scenario(nodes=2, replicas=1, gossip_interval=1).put(0, "key", b"value", timestamp=1)
        if blocked:
            steps.split(1, [0], [1])
        return steps.get(2, "key", home=0).get(2, "key", home=1).run(until=5).hits

    assert (hits(blocked=False), hits(blocked=True)) == (2, 1)


def test_steps_may_be_given_in_any_order() -> None:
    first = Scenario(nodes=3).put(0, "a", b"1", timestamp=1).crash(1, node=0)
    second = Scenario(nodes=3).crash(1, node=0).put(0, "a", b"1", timestamp=1)
    assert first.run().values == second.run().values == {"a": (b"1", 1)}


def test_a_scenario_of_no_steps_is_a_quiet_day() -> None:
    report = Scenario().run()
    assert (report.violation, report.values, report.faults) == (None, {}, 0)


BAD_STEPS: dict[str, tuple[Callable[[Scenario], Scenario], type[Exception], str]] = {
    "a negative time": (
        lambda day: day.get(-0.5, "key"),
        ValueError,
        "at is -0.5, but must be from 0 to 86400 seconds; nothing was done",
    ),
    "no time at all": (lambda day: day.get(float("nan"), "key"), ValueError, "at is nan, but must be"),
    "a time beyond a day": (lambda day: day.unblock(86_401), ValueError, "at is 86401, but must be"),
    "a huge time": (lambda day: day.unblock(10**400), ValueError, "at is 1000"),
    "a time of text": (
        lambda day: day.get("1", "key"),  # type: ignore[arg-type]
        TypeError,
        "at must be float or int, not str; nothing was done",
    ),
    "a node that is not there": (
        lambda day: day.crash(0, node=3),
        ValueError,
        "node is 3, but must be from 0 to 2; nothing was done",
    ),
    "a negative node": (lambda day: day.recover(0, node=-1), ValueError, "node is -1, but must be from 0 to 2"),
    "a home that is not there": (lambda day: day.get(0, "k", home=9), ValueError, "home is 9, but must be from 0 to 2"),
    "a node that is no int": (
        lambda day: day.leave(0, node=True),
        TypeError,
        "node must be int, not bool; nothing was done",
    ),
    "a sender that is not there": (lambda day: day.block(0, sender=3, receiver=0), ValueError, "sender is 3, but"),
    "a receiver that is not there": (lambda day: day.block(0, sender=0, receiver=3), ValueError, "receiver is 3, but"),
    "sides that share a node": (
        lambda day: day.split(0, [0, 1], [1, 2]),
        ValueError,
        "side_b is [1, 2], but must be None, or every node that is not on side_a and no other; nothing was done",
    ),
    "sides that lack a node": (lambda day: day.cut(0, [0], [1]), ValueError, "side_b is [1], but must be None, or"),
    "a side with a node that is not there": (
        lambda day: day.cut(0, [7]),
        ValueError,
        "a node of side_a is 7, but must be from 0 to 2; nothing was done",
    ),
    "noticed before it happens": (
        lambda day: day.crash(0, node=0, noticed_after=-1),
        ValueError,
        "noticed_after is -1, but must be from 0 to 86400 seconds; nothing was done",
    ),
    "a value of text": (
        lambda day: day.put(0, "key", "text", timestamp=1),  # type: ignore[arg-type]
        TypeError,
        "value must be bytes, not str; nothing was done",
    ),
    "a key of bytes": (
        lambda day: day.get(0, b"key"),  # type: ignore[arg-type]
        TypeError,
        "key must be str, not bytes; nothing was done",
    ),
    "a key that is too long": (lambda day: day.get(0, "k" * 65_537), KeyTooLargeError, "the key has 65537 bytes"),
    "a negative timestamp": (
        lambda day: day.remove(0, "key", timestamp=-1),
        ValueError,
        "timestamp is -1, but must be from 0 to 2**63-1; nothing was done",
    ),
    "a huge timestamp": (
        lambda day: day.put(0, "key", b"", timestamp=2**63),
        OverflowError,
        f"timestamp is {2**63}, but must be from 0 to 2**63-1; nothing was done",
    ),
    "a node without room": (lambda day: day.join(0, capacity=1), ValueError, "capacity is 1 bytes, but must be"),
}


@pytest.mark.parametrize("case", BAD_STEPS)
def test_a_bad_step_is_an_error_that_names_it(case: str) -> None:
    add, error, message = BAD_STEPS[case]
    day = add(Scenario(nodes=3).put(0, "key", b"", timestamp=1))
    with pytest.raises(error) as raised:
        day.run()
    assert str(raised.value).startswith(message)
    (note,) = raised.value.__notes__
    assert note.startswith("in step 1, (")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Scenario(seed=-1), ValueError, "seed is -1, but must be from 0 to 2**63-1; nothing was done"),
        (lambda: Scenario(nodes=17), ValueError, "nodes is 17, but must be from 1 to 16; nothing was done"),
        (lambda: Scenario(replicas=4), ValueError, "replicas is 4, but must be from 1 to 3; nothing was done"),
        (lambda: Scenario(node_capacity=1), ValueError, "node_capacity is 1 bytes, but must be from 16384 bytes"),
        (lambda: Scenario(write_quorum=4), ValueError, "write_quorum is 4, but must be from 1 to 3; nothing was done"),
        (lambda: Scenario(read_quorum="no"), ValueError, "read_quorum is 'no', but must be"),  # type: ignore[arg-type]
        (lambda: Scenario(gossip_interval=0), ValueError, "gossip_interval is 0, but must be from 0.001 to 3600 s"),
        (lambda: Scenario(delay=61), ValueError, "delay is 61, but must be from 0 to 60 seconds; nothing was done"),
        (lambda: Scenario(loss=1.01), ValueError, "loss is 1.01, but must be from 0 to 1; nothing was done"),
        (lambda: Scenario(duplication=-1), ValueError, "duplication is -1, but must be from 0 to 1; nothing was done"),
        (lambda: Scenario(lateness="1"), TypeError, "lateness must be float or int, not str"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_cluster_is_an_error_that_names_the_argument(
    make: Callable[[], Scenario], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        make().run()
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"until": 1}, ValueError, "until is 1, but must be from 2 seconds, the time of the last step, to 86400"),
        ({"until": "3"}, TypeError, "until must be float or int, not str; nothing was done"),
        ({"broken": [0, 1, 2]}, ValueError, "broken has every node, but one must come back; nothing was done"),
        ({"broken": [3]}, ValueError, "a node of broken is 3, but must be from 0 to 2; nothing was done"),
        ({"broken": 3}, TypeError, "broken must be an iterable of int, not int; nothing was done"),
    ],
)
def test_a_bad_end_is_an_error_that_names_the_argument(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        Scenario(nodes=3).unblock(2).run(**arguments)
    assert str(raised.value).startswith(message)


def test_too_many_nodes_cannot_join() -> None:
    day = Scenario(nodes=16)
    for _ in range(85):
        day.join(0)
    with pytest.raises(ValueError, match="steps have 85 nodes join, but at most 84 may; nothing was done"):
        day.run()


NODES = st.integers(0, 3)
TIMES = st.floats(0, 5)
KEYS = st.sampled_from(["a", "b", "c", "long" * 100])
STEPS: list[st.SearchStrategy[Callable[[Scenario], Scenario]]] = [
    st.builds(
        lambda at, key, value, timestamp, home: lambda day: day.put(at, key, value, timestamp=timestamp, home=home),
        TIMES, KEYS, st.binary(max_size=2000), st.integers(0, 9), NODES,
    ),
    st.builds(
        lambda at, key, timestamp, home: lambda day: day.remove(at, key, timestamp=timestamp, home=home),
        TIMES, KEYS, st.integers(0, 9), NODES,
    ),
    st.builds(lambda at, key, home: lambda day: day.get(at, key, home=home), TIMES, KEYS, NODES),
    st.builds(
        lambda at, node, after: lambda day: day.crash(at, node=node, noticed_after=after), TIMES, NODES, st.floats(0, 1)
    ),
    st.builds(lambda at, node: lambda day: day.suspect(at, node=node), TIMES, NODES),
    st.builds(lambda at, node: lambda day: day.recover(at, node=node), TIMES, NODES),
    st.builds(lambda at, nodes: lambda day: day.split(at, nodes), TIMES, st.sets(NODES)),
    st.builds(lambda at, nodes: lambda day: day.cut(at, nodes), TIMES, st.sets(NODES)),
    st.builds(lambda at: lambda day: day.unblock(at), TIMES),
    st.builds(lambda at: lambda day: day.heal(at), TIMES),
    st.builds(lambda at: lambda day: day.join(at, capacity="16KiB"), TIMES),
    st.builds(lambda at, node: lambda day: day.leave(at, node=node), TIMES, NODES),
    st.builds(lambda at, node: lambda day: day.dismiss(at, node=node), TIMES, NODES),
]  # fmt: skip


@settings(max_examples=50)
@given(st.lists(st.one_of(STEPS), max_size=25), st.integers(0, 2**63 - 1), st.integers(1, 4), st.floats(0, 0.3))
def test_no_scenario_breaks_a_promise(
    steps: list[Callable[[Scenario], Scenario]], seed: int, replicas: int, loss: float
) -> None:
    day = Scenario(seed=seed, nodes=4, replicas=replicas, node_capacity="16KiB", loss=loss)
    for add in steps:
        add(day)
    assert day.run().violation is None


# Beside a program.


@pytest.mark.parametrize(
    "run",
    [lambda: simulate(0, 60), lambda: [bad_day(seed).run() for seed in range(30)]],
    ids=["seeds", "scenarios"],
)
def test_other_threads_run_on_while_it_simulates(run: Callable[[], object]) -> None:
    steps = 0
    running, ended = threading.Event(), threading.Event()

    def count() -> None:
        nonlocal steps
        while not ended.is_set():
            steps += 1
            running.set()

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    running.wait()
    before = steps
    run()
    after = steps
    ended.set()
    thread.join()
    # With the GIL held throughout there would be next to none.
    assert after - before > 1000


def test_threads_may_simulate_at_once(run_threads: Any) -> None:
    reports = run_threads(4, lambda _: (simulate(0, 20), bad_day().run()))
    assert all(report == reports[0] for report in reports)


def test_ctrl_c_ends_a_simulation(run_program: Any) -> None:
    program = """
        import os, signal, threading, time
        from distributed_consistent_cache._core import shrink
        from distributed_consistent_cache.simulation import Scenario, simulate

        signal.signal(signal.SIGINT, signal.default_int_handler)
        endless = Scenario(nodes=16, gossip_interval=0.001).unblock(86_400)
        # A seed of 20,000 holds very many keys: it takes many seconds by itself.
        large = lambda: simulate(19_999, 1)
        for run in (lambda: simulate(0, 2**32), endless.run, large, lambda: shrink(19_999)):
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            began = time.monotonic()
            try:
                run()
            except KeyboardInterrupt:
                print("ended" if time.monotonic() - began < 3 else "ended late")
    """
    assert run_program(program) == "ended\n" * 4


def test_what_happens_to_simulated_nodes_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    simulate(0, 20)
    bad_day().run()
    assert caplog.records == []
    # What happens to real ones is, also after a simulation.
    with Cache() as cache:
        cache.fail_node(0)
    assert any("node 0 failed" in record.getMessage() for record in caplog.records)


def test_a_forked_child_can_simulate(run_program: Any) -> None:
    program = """
        import os, sys
        from distributed_consistent_cache.simulation import simulate

        report = simulate(0, 10)
        child = os.fork()
        if not child:
            os._exit(0 if simulate(0, 10) == report else 1)
        print(os.waitpid(child, 0)[1])
    """
    assert run_program(program) == "0\n"


# What it says of itself.


@pytest.mark.parametrize("cls", [Scenario, ScenarioReport, SimulationReport, Violation])
def test_every_public_member_has_a_docstring(cls: type) -> None:
    assert cls.__module__ == "distributed_consistent_cache.simulation"
    assert inspect.getdoc(cls)
    for name in vars(cls):
        if not name.startswith("_"):
            assert inspect.getdoc(inspect.getattr_static(cls, name)), name


def test_reports_print_well() -> None:
    assert repr(simulate(seeds=0)) == (
        "SimulationReport(seeds=0, events=0, faults=0, node_seconds=0.000000, violations=0)"
    )
    assert repr(Scenario(nodes=3).unblock(1)) == "<Scenario(seed=0, nodes=3, replicas=None) of 1 steps>"
    assert repr(Scenario().run()).startswith("ScenarioReport(seconds=")
    assert repr(Scenario().run()).endswith("values=0, violation=None)")


def test_all_lists_what_is_public() -> None:
    assert all(hasattr(simulation, name) for name in simulation.__all__)
    assert simulation.__all__ == sorted(simulation.__all__)
