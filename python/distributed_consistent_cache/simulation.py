"""The cluster in a bad world that can be replayed: the cache's real nodes,
a network that misbehaves, virtual time.

    calls and faults at their times
      -> nodes and network; one seed decides all
      -> every promise kept? what was broken?

`Scenario` is a day that you write yourself; `simulate` runs as many as
you like that seeds make up. After every event all nodes are looked at;
when the faults are over, all must agree. One seed is one execution, on
every machine: whatever is found can be had again. Nothing here touches
a `Cache` of yours, the network or the clock.

>>> from distributed_consistent_cache.simulation import Scenario, simulate
>>> day = Scenario(nodes=5, replicas=3, loss=0.1)
>>> day = day.put(0.0, "user:1", b"Ada", timestamp=1).crash(0.1, node=2)
>>> report = day.run()
>>> report.violation is None, report.values
(True, {'user:1': (b'Ada', 1)})
>>> simulate(first_seed=0, seeds=10).violations
[]
"""

from collections.abc import Iterable
from typing import Literal, Self, TypeAlias

from ._core import ScenarioReport, SimulationReport, Violation, run_scenario, simulate

__all__ = ["Quorum", "Scenario", "ScenarioReport", "SimulationReport", "Violation", "simulate"]

Quorum: TypeAlias = int | Literal["one", "majority", "all"]


class Scenario:
    """One simulated cluster, and what happens to it when.

    Each step is a method: it takes its time `at` first, in seconds of
    virtual time since the beginning, 0 to 86,400, and returns the
    scenario, so that steps can be chained. Steps may be given in any
    order; those at the same time happen in theirs. Nothing happens, and
    nothing is checked, before `run`: it raises ValueError, TypeError,
    OverflowError or KeyTooLargeError for a bad argument of any step,
    with a note that says in which.

    Nodes are numbered from 0; one that joins takes the lowest number
    that is free. A step that makes no sense when its time comes, such
    as `recover` for a node that has left, changes nothing.

    >>> day = Scenario(nodes=3, replicas=2)
    >>> day = day.put(0, "key", b"value", timestamp=1).crash(1, node=0)
    >>> day.run().values
    {'key': (b'value', 1)}
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        nodes: int = 3,
        replicas: int | None = None,
        node_capacity: int | str = "1MiB",
        write_quorum: Quorum = "all",
        read_quorum: Quorum = "one",
        gossip_interval: float = 0.1,
        delay: float = 0.01,
        loss: float = 0.0,
        duplication: float = 0.0,
        lateness: float = 0.0,
    ) -> None:
        """A cluster in some weather; `run` raises ValueError or TypeError for
        a bad argument.

        seed: decides all that is left to chance, 0 to 2**63-1. nodes: at
        the start, 1 to 16. replicas, node_capacity, write_quorum,
        read_quorum: see `Cache`. gossip_interval: about so many seconds
        between two rounds of a node, 0.001 to 3600.

        The weather, for messages between nodes and from a client that is
        beside another node; chances are from 0 to 1, in steps of 0.001.
        delay: a message takes up to so many seconds, 0 to 60. loss: the
        chance that it is lost. duplication: the chance that it arrives
        twice. lateness: the chance that it takes up to 20 seconds more,
        which is long after its sender gave up.
        """
        self._steps: list[tuple[object, ...]] = []
        self._seed = seed
        self._nodes = nodes
        self._replicas = replicas
        self._node_capacity = node_capacity
        self._write_quorum = write_quorum
        self._read_quorum = read_quorum
        self._gossip_interval = gossip_interval
        self._delay = delay
        self._loss = loss
        self._duplication = duplication
        self._lateness = lateness

    # What clients do.

    def put(
        self, at: float, key: str, value: bytes, *, timestamp: int, ttl: float | None = None, home: int = 0
    ) -> Self:
        """A client beside the node `home` puts a value. timestamp: 0 to
        2**63-1. ttl: see `Cache.put`; None for ever.

        It waits half a second for each answer. A value that fits in no node
        is refused, and counted as such.
        """
        return self._add(at, "put", home, key, value, timestamp, ttl)

    def touch(self, at: float, key: str, *, ttl: float | None, home: int = 0) -> Self:
        """A client beside the node `home` gives what it finds another ttl: see
        `Cache.touch`; None for ever.
        """
        return self._add(at, "touch", home, key, ttl)

    def remove(self, at: float, key: str, *, timestamp: int, home: int = 0) -> Self:
        """A client beside the node `home` removes a key. timestamp: 0 to
        2**63-1.
        """
        return self._add(at, "remove", home, key, timestamp)

    def get(self, at: float, key: str, *, home: int = 0) -> Self:
        """A client beside the node `home` gets a key. That the value is one
        that was put so is checked.
        """
        return self._add(at, "get", home, key)

    # What happens to nodes.

    def crash(self, at: float, *, node: int, noticed_after: float = 0.0) -> Self:
        """A node loses its memory at once. The others know after so many
        seconds, 0 to 86,400.
        """
        return self._add(at, "crash", node, noticed_after)

    def suspect(self, at: float, *, node: int) -> Self:
        """A node is thought to be down and is not: it keeps its memory, and
        messages that are under way reach it.
        """
        return self._add(at, "suspect", node)

    def recover(self, at: float, *, node: int) -> Self:
        """A node that is down, or thought to be, comes back: with its memory
        if it kept it, else empty.
        """
        return self._add(at, "recover", node)

    def join(self, at: float, *, capacity: int | str = "1MiB") -> Self:
        """A new node of so many bytes, 16 KiB to 1 TiB, joins. With those of
        the start there may be 100.
        """
        return self._add(at, "join", capacity)

    def leave(self, at: float, *, node: int) -> Self:
        """A node begins to leave for good: it owns nothing any more, and hands
        over what it has until `dismiss`.
        """
        return self._add(at, "leave", node)

    def dismiss(self, at: float, *, node: int) -> Self:
        """A node that leaves is gone, if it has handed over all; else it stays
        for now.
        """
        return self._add(at, "dismiss", node)

    # What happens between nodes.

    def block(self, at: float, *, sender: int, receiver: int) -> Self:
        """Messages from one node to another are lost from now on, one way, and
        nobody knows.
        """
        return self._add(at, "block", sender, receiver)

    def split(self, at: float, side_a: Iterable[int], side_b: Iterable[int] | None = None) -> Self:
        """Messages between two sides are lost from now on, both ways, and
        nobody knows.

        side_b: every node that is not on side_a; None for these. Nodes that
        join are on side_b, unless they are named.
        """
        return self._add(at, "split", list(side_a), None if side_b is None else list(side_b))

    def unblock(self, at: float) -> Self:
        """Undoes every `block` and `split`."""
        return self._add(at, "unblock")

    def cut(self, at: float, side_a: Iterable[int], side_b: Iterable[int] | None = None) -> Self:
        """Two sides are cut from each other, and the cluster knows, as with
        `Cache.cut`; sides are those of `split`.
        """
        return self._add(at, "cut", list(side_a), None if side_b is None else list(side_b))

    def heal(self, at: float) -> Self:
        """Undoes every `cut`."""
        return self._add(at, "heal")

    def run(self, *, until: float | None = None, broken: Iterable[int] = ()) -> ScenarioReport:
        """Let it happen, then end all faults, and have the nodes gossip until
        they agree.

        until: when the faults end, in seconds, from the last step to
        86,400; None for one second after the last step. broken: nodes that
        do not come back at the end; the others must agree without them.

        Returns a ScenarioReport: what happened, what a get of each key
        gives at the end, and in `violation` the first promise that was
        broken, if one was. A scenario can be run again, and gives an equal
        report. Raises ValueError, TypeError, OverflowError or
        KeyTooLargeError for a bad argument, also one of a step or of the
        class; nothing was done then.
        """
        return run_scenario(
            self._steps,
            seed=self._seed,
            nodes=self._nodes,
            replicas=self._replicas,
            node_capacity=self._node_capacity,
            write_quorum=self._write_quorum,
            read_quorum=self._read_quorum,
            gossip_interval=self._gossip_interval,
            delay=self._delay,
            loss=self._loss,
            duplication=self._duplication,
            lateness=self._lateness,
            until=until,
            broken=broken,
        )

    def __repr__(self) -> str:
        sizes = f"seed={self._seed!r}, nodes={self._nodes!r}, replicas={self._replicas!r}"
        return f"<Scenario({sizes}) of {len(self._steps)} steps>"

    def _add(self, *step: object) -> Self:
        self._steps.append(step)
        return self
