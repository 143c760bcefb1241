# Types of the native module. `distributed_consistent_cache` re-exports what users need. The docstrings are those of the
# module, for editors: `python tests_py/stub_docstrings.py` writes them.

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from os import PathLike
from types import GenericAlias, TracebackType
from typing import Any, Generic, Literal, Protocol, Self, SupportsFloat, SupportsIndex, TypeAlias, final, overload

from typing_extensions import TypeVar, disjoint_base

__all__ = [
    "Advice",
    "Cache",
    "CacheError",
    "ClosedError",
    "Event",
    "Explanation",
    "Gauges",
    "InternalError",
    "KeyIterator",
    "KeyTooLargeError",
    "Latency",
    "ManualClock",
    "NoLiveNodeError",
    "Node",
    "NodeDownError",
    "NodeStats",
    "NodeStatus",
    "OwnerView",
    "QuorumError",
    "RestoreReport",
    "SaveReport",
    "ScenarioReport",
    "SerializationError",
    "Server",
    "SimulationReport",
    "SizeAdvice",
    "SnapshotError",
    "SnapshotInfo",
    "Stats",
    "SyncReport",
    "TimestampWarning",
    "ValueStats",
    "ValueTooLargeError",
    "Violation",
    "_Feed",
    "__version__",
    "_break_down",
    "key_hash",
    "run_scenario",
    "shrink",
    "simulate",
    "snapshot_info",
    "verify_snapshot",
]

__version__: str

# Numbers as Python's own, numpy's and those of users are; no bool.
_Int: TypeAlias = SupportsIndex
_Seconds: TypeAlias = SupportsFloat | SupportsIndex | timedelta

# How many owners must answer.
_Quorum: TypeAlias = _Int | Literal["one", "majority", "all"]
_Callback = TypeVar("_Callback", bound=Callable[[Event], object])

# What the values of a cache are: `Cache[Report]`. Just `Cache` is one of anything.
_Value = TypeVar("_Value", default=Any)
_Default = TypeVar("_Default")

# How values are made smaller.
_Compression: TypeAlias = Literal["lz4", "zstd", "zstd-dict"]

# What turns values into bytes, as the modules `json` and `msgpack` do: `dumps` returns bytes, bytearray or str, and
# `loads` is given what it returned.
class _Serializer(Protocol):
    @property
    def dumps(self) -> Callable[[Any], Any]: ...
    @property
    def loads(self) -> Callable[[Any], Any]: ...

# What names a file.
_Path: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]

def key_hash(key: str) -> int:
    """The 64-bit hash that places a key: SipHash-1-3 of its UTF-8 bytes under
    a fixed key, the same everywhere.
    """

class CacheError(Exception):
    """The root of every error of a cache. Its message says what became of the
    cache.
    """

class ValueTooLargeError(CacheError, ValueError):
    """The entry can never fit on its owners. The message names the key, what
    it takes, the most there is room for, and what to raise. Nothing was
    written and nothing was evicted.
    """

class KeyTooLargeError(CacheError, ValueError):
    """The key has more than 64 KiB in UTF-8. Nothing was written."""

class NoLiveNodeError(CacheError):
    """Every node is down. Nothing was written."""

class NodeDownError(CacheError):
    """The node that was addressed is down. Nothing was done."""

class QuorumError(CacheError):
    """Fewer owners answered than asked for. A write that some hold is not
    undone: it spreads from them.
    """

class SerializationError(CacheError):
    """A value could not be turned into bytes or back; `__cause__` is the
    original error. The cache is as it was.

    It is raised for what says something about the value: errors of the
    pickle module, and TypeError, ValueError, AttributeError, LookupError,
    ImportError, EOFError, OverflowError, BufferError, NotImplementedError
    and RecursionError, whoever raised them; a RuntimeError only if pickle
    itself did. Any other exception comes through as it is: a time limit
    that a signal handler raises, MemoryError, KeyboardInterrupt.
    """

class SnapshotError(CacheError):
    """A file is no snapshot of a cache, or is damaged, cut short or of another
    format; the message says at which byte.
    """

class ClosedError(CacheError):
    """The cache is closed, or the server is that of a parent process. Nothing
    was done.
    """

class InternalError(RuntimeError, CacheError):
    """A fault in this package. What was called may be half done; the cache
    goes on, and is best replaced by a new one.
    """

class TimestampWarning(UserWarning):
    """Writes of one key have timestamps that do not go together: of different
    units, or of a clock that is far ahead, or that is not set. If warnings
    are errors, its text says what became of the write, or of all of a call.
    """

@final
class ManualClock:
    """What an entry may not have to wait for: a clock that goes only when a
    test moves it.

    ManualClock()

    `Cache(clock=ManualClock())` measures by it how long entries live and
    were not used: `advance` has them end without waiting. It begins at the
    present time. Timestamps are not taken from it.

    >>> from distributed_consistent_cache import ManualClock
    >>> clock = ManualClock()
    >>> with Cache(clock=clock) as cache:
    ...     _ = cache.put("session:1", "Ada", ttl=60)
    ...     clock.advance(60)
    ...     cache.get("session:1")
    (None, -1)
    """
    def __new__(cls) -> Self: ...
    def advance(self, seconds: _Seconds) -> None:
        """Lets time pass. seconds: a number of 0 or more, or a timedelta.
        Raises TypeError or ValueError, and no time passed.
        """
    def now(self) -> float:
        """What it says: seconds since 1970."""

def _break_down(detached: bool) -> None:
    """Raises what a fault in this package raises. For tests."""

@final
class _Feed:
    """What the thread asks for what happened."""
    def next(self) -> list[Event] | None:
        """Waits for what happens; None when the cache is closed or gone, and
        all was heard.
        """
    def callbacks(self) -> list[Callable[[Event], object]]:
        """Who is called, now."""

@disjoint_base
class Cache(Generic[_Value]):
    """A cache of N nodes in this process that keeps every entry on R of them.
    The newest timestamp wins. Any number of threads may share it.

    Cache(nodes=1, node_capacity="64MiB") is the plain case: one bounded
    memory of which the least recently used goes first. `Cache[Report](..)`
    tells a type checker what the values are.

    nodes: 1 to 100.

    replicas: copies of each entry, 1 to `nodes`; None for min(3, nodes).

    node_capacity: bytes of each node, or text such as "64KiB", "512m",
    "2GB", in capital letters or small ones; from 16 KiB to 1 TiB, keys,
    values and all bookkeeping included. KiB, MiB, GiB and TiB are of 1024,
    and so are K, M, G and T alone, as container tools read them; kB, MB, GB
    and TB are of 1000.

    write_quorum, read_quorum: how many owners must have a write, or are
    asked by a read: "one", "majority", "all", or an int from 1 to
    `replicas`.

    gossip_interval: seconds between two rounds of gossip in the background,
    0.001 to 3600, or None for none but those asked for by `gossip` and
    `sync`.

    serializer: "pickle", or an object with `dumps` (value to bytes,
    bytearray or str) and `loads`, such as the module `json`.

    decode: "pickle", or "plain" for a cache whose `get` runs no pickle but
    reads plain data only: None, bool, int, float, complex, str, bytes,
    bytearray, memoryview, list, tuple, dict, set, frozenset, date, time,
    datetime, timedelta, timezone, Decimal; of these types exactly. Anything
    else is a SerializationError of `get`. It goes with the serializer
    "pickle".

    compression: values are made smaller if that saves an eighth: "lz4" or
    "zstd" (smaller and slower) those of 1 KiB and more; "zstd-dict" also
    those of 100 bytes, with a dictionary that is trained from values in the
    background (without a gossip_interval: in calls of `gossip` and `sync`;
    see `value_stats`); or None. Each value says how it is packed, so
    settings may change.

    signing_key: a secret of 16 to 64 bytes, or a list or tuple of one or
    two: values are signed under the first, and read when they are signed
    under any. What is not signed so is refused by reads with
    SerializationError before anything of it is decompressed or unpickled,
    counted in `value_stats().refused`, and stays until it is overwritten;
    without a key, what is signed is refused. A signature covers the key,
    the timestamp, that it is a put, and the bytes. It does not cover how
    long an entry lives, removes, or which of several signed values of a key
    is given back.

    default_ttl: seconds that a value lives which is put without a ttl of
    its own, above 0 and at most 3153600000 (100 years), or a timedelta;
    None for ever.

    clock: a `ManualClock` that a test moves, so that values end without
    waiting; None for one that nobody sets.

    What has __index__ is an int here and in every method, and what has
    __float__ a float; a bool is neither.

    A forked child has its own copy of what was there, with a background of
    its own from its first call on.

    Raises ValueError or TypeError for a bad argument.

    >>> cache = Cache(nodes=5, replicas=3)
    >>> cache.put("user:1", {"name": "Ada"}, timestamp=1)
    True
    >>> cache.get("user:1")
    ({'name': 'Ada'}, 1)
    """
    def __new__(
        cls,
        nodes: _Int = 3,
        replicas: _Int | None = None,
        node_capacity: _Int | str = "1MiB",
        *,
        write_quorum: _Quorum = "all",
        read_quorum: _Quorum = "one",
        gossip_interval: _Seconds | None = 0.1,
        serializer: Literal["pickle"] | _Serializer = "pickle",
        decode: Literal["pickle", "plain"] = "pickle",
        compression: _Compression | None = "lz4",
        signing_key: bytes | list[bytes] | tuple[bytes, ...] | None = None,
        default_ttl: _Seconds | None = None,
        clock: ManualClock | None = None,
    ) -> Self: ...
    def put(
        self,
        key: str,
        value: _Value,
        timestamp: _Int | None = None,
        *,
        ttl: _Seconds | None = None,
        write_quorum: _Quorum | None = None,
    ) -> bool:
        """Writes a value under a key, unless something newer is known.

        key: a str, at most 64 KiB in UTF-8. value: any picklable object.
        timestamp: 0 to 2**63-1, higher is newer, in any unit; None takes
        the cache's own clock, microseconds since 1970. ttl: seconds that
        the value lives, above 0 and at most 3153600000 (100 years), rounded
        up to milliseconds, or a timedelta, or math.inf for ever; None for
        the cache's default_ttl. From its end on it is a miss on every node.
        write_quorum: see the class; None for its own.

        Returns True if this is now the newest write known (also if the very
        same was in place), False if a newer one is known, and then nothing
        changed. At equal timestamps a remove wins, then the put that ends
        later, so that what has expired refuses none; between two that end
        together the same one wins everywhere. The very same value put again
        has its new ttl, or none.

        Raises SerializationError, ValueTooLargeError, KeyTooLargeError,
        NoLiveNodeError, MemoryError, ValueError, TypeError or
        OverflowError, and nothing was written; QuorumError when fewer
        owners have the write than asked for.

        >>> cache.put("user:1", {"name": "Ada"}, timestamp=1)
        True
        """
    def touch(self, key: str, ttl: _Seconds | None) -> bool:
        """Has the value of a key live for another time, from now on; its value
        and its timestamp stay as they are.

        ttl: seconds, as in `put`; math.inf for ever; None for the cache's
        default_ttl, or for ever if it has none.

        Returns True if the key was found and has this ttl now, shorter or
        longer than before, and False for a miss: what has expired does not
        come back. It counts as a use.

        Raises as `get` and `put` do, ValueError or TypeError for a bad ttl,
        and then nothing changed.

        >>> cache.put("session:1", "Ada", timestamp=1, ttl=60)
        True
        >>> cache.touch("session:1", 3600)
        True
        >>> cache.touch("nobody", 3600)
        False
        """
    def ttl(self, key: str) -> float | None:
        """How many seconds the value of a key goes on living: a float, None if
        it does for ever, or -1.0 for a miss, which what has expired is. It
        does not count as a use.

        Raises as `get` does. The cache stays as it was.

        >>> cache.put("session:2", "Ada", timestamp=1, ttl=60)
        True
        >>> 0 < cache.ttl("session:2") <= 60
        True
        >>> cache.ttl("nobody")
        -1.0
        """
    # Whether it is a hit is what the timestamp says. `| Any`: after a hit nobody has to say that the value is no None.
    @overload
    def get(self, key: str, default: None = None, *, read_quorum: _Quorum | None = None) -> tuple[_Value | Any, int]:
        """Returns `(value, timestamp)` of the newest write known of a key, or
        `(default, -1)` for a miss. A use: the entry becomes its node's most
        recently used.

        read_quorum: so many owners are asked, and the newest answer counts;
        None for the cache's own.

        Raises SerializationError when the value cannot be unpickled,
        QuorumError when fewer owners answered than asked for, TypeError,
        ValueError or KeyTooLargeError for a bad key. The cache stays as it
        was.

        >>> cache.get("user:1")
        ({'name': 'Ada'}, 1)
        >>> cache.get("nobody")
        (None, -1)
        """
    @overload
    def get(self, key: str, default: _Value, *, read_quorum: _Quorum | None = None) -> tuple[_Value, int]: ...
    @overload
    def get(
        self, key: str, default: _Default, *, read_quorum: _Quorum | None = None
    ) -> tuple[_Value | _Default, int]: ...
    def remove(self, key: str, timestamp: _Int | None = None, *, write_quorum: _Quorum | None = None) -> bool:
        """Removes a key if its timestamp is not newer than this one, and
        remembers it: an older put that arrives late stays refused for as
        long as memory allows.

        timestamp: as in `put`. None removes what is there, whatever its
        timestamp is: the remove has the clock's, or that of the entry if it
        is of another unit (a version number, say), so that the next version
        is not shut out.

        Returns True if it removed a value, False if there was none or a
        newer write is known.

        Raises as `put` does.

        >>> cache.remove("user:1", timestamp=2)
        True
        """
    def put_many(
        self,
        items: Mapping[str, _Value] | Iterable[tuple[str, _Value] | tuple[str, _Value, _Int]],
        timestamp: _Int | None = None,
        *,
        ttl: _Seconds | None = None,
        write_quorum: _Quorum | None = None,
    ) -> list[str]:
        """Writes many: see `put`. items: a mapping of keys to values, or pairs
        (key, value), or triples (key, value, timestamp). A mapping of more
        than 20,000 keys is read while it is written, and is not to change
        its keys meanwhile. timestamp: for every item without its own; None
        takes the cache's clock for each. ttl: for every item.

        Returns the keys that were refused because something newer is known:
        an empty list when all are the newest.

        Raises as `put`, or what the iterable raises; Ctrl-C is heard. Those
        before the item that it stopped at are written: the error says how
        many, which item that was, and what became of the rest, in its text
        and in a note. A TimestampWarning that is an error ends the call
        once all that was taken is written.

        What the iterable or a value raises, and KeyboardInterrupt, stay the
        objects that they are, with their `errno`, `filename`, `name` or
        key. Their text goes on if it is their only argument, a str, or if
        they have none; an OSError with an errno has it in `strerror`, an
        ImportError and a SyntaxError in `msg`, a UnicodeError in `reason`.
        Only the note says it for other arguments, as those of
        `ValueError("a", 2)`, for SystemExit, ExceptionGroup and
        `KeyError()`, and for a class with a `__str__` of its own, or with
        an `__init__` or `__new__` and no `__reduce__`. An error that is
        raised again tells of the later call alone.
        """
    @overload
    def get_many(
        self, keys: Iterable[str], *, on_error: Literal["raise", "skip"] = "raise", read_quorum: _Quorum | None = None
    ) -> dict[str, tuple[_Value, int]]:
        """Reads many: a dict of those found, key to `(value, timestamp)`. See
        `get`.

        on_error: what becomes of a value that cannot be read, for which
        `get` raises SerializationError. "raise" ends the call with that
        error; "skip" leaves the key out, as one that is not found; "return"
        has the error in the place of the value, `(error, timestamp)`.

        Raises as `get`, ValueError or TypeError for a bad on_error; the
        error says which key it stopped at, as in `put_many`, and those
        before it were read and used.
        """
    @overload
    def get_many(
        self, keys: Iterable[str], *, on_error: Literal["return"], read_quorum: _Quorum | None = None
    ) -> dict[str, tuple[_Value | SerializationError, int]]: ...
    def remove_many(
        self, keys: Iterable[str], timestamp: _Int | None = None, *, write_quorum: _Quorum | None = None
    ) -> int:
        """Removes many: see `remove`. Returns how many values were removed.
        Raises as `remove`; the error says which key it stopped at, as in
        `put_many`, and those before it are removed.
        """
    def clear(self, timestamp: _Int | None = None) -> int:
        """Removes every key whose timestamp is not newer than this one, and
        remembers it. None removes what is there: see `remove`. Returns how
        many values were removed.

        Nothing is remembered of keys that were not there: a `put` of one
        counts, also with a timestamp from before.

        Raises as `remove` does. What ends it early (Ctrl-C, close, too few
        owners) says how many values were removed, as in `put_many`.
        """
    @staticmethod
    def now() -> int:
        """The timestamp that a write without one would get now: microseconds
        since 1970 by a clock that never goes back in this process, never
        twice the same. Taken before a value is computed, and given to
        `put`, it has whatever was written or removed meanwhile win.

        >>> as_of = cache.now()
        >>> cache.remove("report")
        False
        >>> cache.put("report", "made of what was there before", as_of)
        False
        """
    def __contains__(self, key: str, /) -> bool: ...
    def __bool__(self) -> Literal[True]: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    def fail_node(self, node: _Int, lose_memory: bool = True) -> None:
        """Takes a node down: it crashes and its memory is lost or, with
        lose_memory=False, is cut off and keeps it. The next live nodes on
        the ring stand in. Raises ValueError if there is no such node.
        """
    def recover_node(self, node: _Int) -> None:
        """Brings a node back. When it returns, the node has pulled what it
        missed from every node it can reach. Raises ValueError if there is
        no such node.
        """
    def add_node(self, capacity: _Int | str | None = None) -> int:
        """Adds a node and returns its number, the lowest that is free.
        capacity: its bytes, as node_capacity; None for the cache's own.
        When it returns, the node has pulled its share. Raises ValueError
        above 100 nodes. Ctrl-C ends the wait: the node is there, and gossip
        has it pull the rest; a note says so.
        """
    def remove_node(self, node: _Int) -> None:
        """Takes a node out for good. A live one hands over first what the
        others lack. Raises ValueError if there is no such node or it is the
        last.
        """
    def cut(self, side_a: Iterable[_Int], side_b: Iterable[_Int]) -> None:
        """Cuts the nodes of one side from those of the other, as a broken
        network would; callers reach both. Raises ValueError for a node that
        is not there or on both sides.
        """
    def heal(self) -> None:
        """Undoes every cut. What the sides missed of each other travels with
        the next rounds of gossip.
        """
    def owners(self, key: str) -> list[int]:
        """The live nodes that own a key, in the order in which they are asked."""
    def nodes(self) -> list[NodeStatus]:
        """Each node as it is now."""
    def node(self, node: _Int) -> Node[_Value]:
        """One node, to talk to as if connected to it. Raises ValueError if
        there is no such node.
        """
    def gossip(self) -> SyncReport:
        """One round of gossip now: every live node compares notes with one
        other.
        """
    def sync(self) -> SyncReport:
        """Rounds of gossip until all live owners have seen the same. Returns
        what it took. Ctrl-C ends it between two messages; what was pulled
        until then stays.
        """
    def gauges(self) -> Gauges:
        """How well the cache keeps its promises now: copies that are really
        there, markers that must be kept, writes that not every owner has
        seen. It costs what `len` does. The GIL is released.
        """
    def stats(self) -> Stats:
        """What the cache has done since it was made, and what it holds now:
        hits, misses by reason, writes, evictions, bytes by kind, gossip,
        latencies; in all and for each node. Print it to see tables. To
        count copies costs what `len` does. The GIL is released.

        >>> cache.get("nobody")
        (None, -1)
        >>> cache.stats().misses_by_reason["never_seen"] > 0
        True
        """
    def explain(self, key: str) -> Explanation:
        """Why a key is found or not: what each of its owners knows of it, what
        a `get` would answer now, and for which reason. Nothing changes, and
        it does not count as a use. Print it to see a table.

        Raises TypeError, ValueError or KeyTooLargeError for a bad key.

        >>> cache.explain("nobody").reason
        'never_seen'
        """
    def advise(self) -> Advice:
        """Predicts the hit rate at 0.25, 0.5, 1, 2 and 4 times the present
        capacity, from a bounded sample of the reads and writes since the
        cache was made. Print it to see a table. To count keys costs what
        `len` does. The GIL is released.

        >>> [size.times for size in cache.advise().sizes]
        [0.25, 0.5, 1.0, 2.0, 4.0]
        """
    def on_event(self, callback: _Callback) -> _Callback:
        """Has `callback(event)` called when something happens: a node failed,
        recovered, joined or left, a sync finished, entries were evicted
        (told in batches, four times a second at most), a value was too
        large. See `Event`.

        It is called from a thread of its own, one event after the other,
        without any lock: it may call the cache. Events that wait for slow
        callbacks are kept up to 1,024 in number; later ones are dropped,
        and the next that is kept says how many. What a callback raises is
        logged with its traceback, and changes nothing.

        details by kind: node_failed `memory_lost`; node_recovered and
        node_joined `items` (pulled); sync_finished `items`, `converged`;
        evicted `entries`, `bytes`; value_too_large `key`, `bytes`,
        `bytes_max`.

        Returns the callback, so that it can be used as a decorator. Raises
        TypeError for what cannot be called, ClosedError, or OSError when
        there can be no more threads; then nothing is called.

        >>> heard = []
        >>> cache.on_event(heard.append) is not None
        True
        """
    def off_event(self, callback: Callable[[Event], object]) -> bool:
        """Has a callback of `on_event` not called any more. Returns False if
        it was none.
        """
    def metrics(self) -> str:
        """Everything that is counted, as OpenMetrics text for Prometheus:
        names begin with `dcc_`, units are seconds and bytes. Keys, copies
        and unseen writes, which can take a look at every key (see `len`),
        are counted at most once a second and at most 5 % of the time; in
        between they are those of before, and dcc_counted_ago_seconds says
        how old they are. The GIL is released.

        Raises ClosedError.

        >>> "dcc_hits_total" in cache.metrics()
        True
        """
    def serve(self, host: str = "127.0.0.1", port: _Int | range = 0, *, allow_remote: bool = False) -> Server:
        """Serves the dashboard at `/`, `/metrics` for Prometheus, `/healthz`,
        `/api/stats.json`, `/api/ring.json` and `/api/explain.json?key=..`,
        from a thread of its own that never needs the GIL. Nothing can be
        changed there. It ends with `Server.close`, and with the cache, also
        when the cache is dropped.

        host: a name or an address of this machine; anything but a loopback
        address is refused without allow_remote. port: 0 to 65535; 0 takes
        one that is free, see `Server.port`; a range takes its first that is
        free, so that each of several processes has one:
        `serve(port=range(9100, 9120))`. A forked child may serve its own.
        allow_remote: other machines may read everything, keys included, and
        any Host header is answered to; False answers only to the machine's
        own names.

        Returns the server. Raises ValueError for a host that other machines
        can reach, OSError when the port is taken or the host is none,
        ClosedError, TypeError: nothing was started.

        >>> with cache.serve() as server:
        ...     server.url
        'http://127.0.0.1:...'
        """
    def value_stats(self) -> ValueStats:
        """What became of values on their way to the nodes and back, since the
        cache was made: how many became smaller, how far it is with a
        dictionary, how many could not be unpacked or were not signed as
        they should be. It may be asked at any time, also once the cache is
        closed.

        >>> cache.value_stats().corrupt
        0
        """
    def save(self, path: _Path) -> SaveReport:
        """Writes what the live nodes know to a file, from which `restore` or
        `Cache.load` make a warm cache: every key at its newest version,
        removed keys too, in the order of their use. The file is there as a
        whole or not at all, also when the process is killed; other threads
        go on.

        path: a str, bytes or os.PathLike; a file there is replaced, and
        keeps its permissions and, where the system allows it, its owner and
        group. Only its owner may read a new one. It holds pickles: load
        only files that you trust.

        Returns a SaveReport. Raises OSError (FileNotFoundError,
        PermissionError, ..), ClosedError, TypeError or ValueError for a bad
        path: no file was written, and one that was there is as it was. If
        the disk fails after the file was put in its place, the OSError says
        so in a note. A folder that cannot be synced at all is no error; a
        warning is logged.

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "cache.snapshot")
        >>> cache.save(path).entries
        1
        >>> with Cache.load(path, nodes=7) as another:
        ...     another.get("user:1")
        ({'name': 'Ada'}, 1)
        """
    def restore(self, path: _Path) -> RestoreReport:
        """Writes everything in a snapshot into this cache, each entry and
        remove with the timestamp it had: what is newer here stays. Like any
        other write it evicts what was used least recently when a node is
        full; what is restored counts as used more recently than what was
        here.

        path: a str, bytes or os.PathLike, of a file that `save` wrote and
        that you trust: it holds pickles.

        Returns a RestoreReport. A TimestampWarning tells of what is ahead
        of this machine's clock; if it is an error, all is restored. Raises
        SnapshotError for a file that is none, is damaged, cut short or of
        another format, OSError, ClosedError, TypeError or ValueError:
        nothing was written. The whole file is verified before the first
        entry is written; what ends it after that (Ctrl-C, close) says in
        its message or in a note how much was.
        """
    # The overrides are arguments of Cache, by keyword.
    @classmethod
    def load(cls, path: _Path, **overrides: Any) -> Self:
        """A cache as it was saved: made with the arguments of the saved one,
        and restored.

        path: as for `restore`. overrides: arguments of Cache, by keyword,
        that take the place of the saved ones. With fewer nodes than the
        saved replicas, or fewer replicas than a saved quorum, these become
        as many as there are.

        Returns the cache; its `restored` says what was applied. Raises as
        Cache and `restore` do.
        """
    @property
    def restored(self) -> RestoreReport | None:
        """What the last restore into this cache did, or None: also that of
        `Cache.load`.
        """
    def close(self) -> None:
        """Ends it: gossip stops, the memory of the nodes is given back, and
        later calls raise ClosedError. A second time does nothing.
        """
    @property
    def closed(self) -> bool:
        """True once it is closed. In a forked child also until it is used for
        the first time: any call opens the child's own copy of what was
        there. It never raises.
        """
    @property
    def replicas(self) -> int:
        """Copies of each entry."""
    @property
    def partitions(self) -> int:
        """Slices of the hash space: the unit of placement."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...

@final
class KeyIterator:
    """Iterates over the live keys of a cache. A key that is live from the
    beginning to the end is there once; one that is written or removed
    meanwhile may be there or not.
    """
    def __iter__(self) -> Self: ...
    def __next__(self) -> str: ...

@final
class Node(Generic[_Value]):
    """One node of a cache, to talk to as if connected to it: what it answers
    is what it knows now.
    """
    @property
    def id(self) -> int:
        """Its number."""
    def put(self, key: str, value: _Value, timestamp: _Int | None = None, *, ttl: _Seconds | None = None) -> bool:
        """Writes through this node: it coordinates if it owns the key, and
        passes the write on to the owners it can reach. Returns and raises
        as `Cache.put`, and NodeDownError.
        """
    @overload
    def get(self, key: str, default: None = None) -> tuple[_Value | Any, int]:
        """What this node knows of a key, and nobody else is asked: `(value,
        timestamp)` or `(default, -1)`. Not a use. Raises as `Cache.get`,
        and NodeDownError.
        """
    @overload
    def get(self, key: str, default: _Value) -> tuple[_Value, int]: ...
    @overload
    def get(self, key: str, default: _Default) -> tuple[_Value | _Default, int]: ...
    def remove(self, key: str, timestamp: _Int | None = None) -> bool:
        """Removes through this node. Returns and raises as `Cache.remove`, and
        NodeDownError.
        """
    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...

@final
class NodeStatus:
    """One node as it is now. A node that is down counts nothing."""
    @property
    def id(self) -> int:
        """Its number."""
    @property
    def state(self) -> Literal["live", "cut off", "failed"]:
        """ "live", "cut off" (unreachable, memory kept) or "failed" (memory
        lost).
        """
    @property
    def entries(self) -> int:
        """Live entries, those included that have expired and still take space."""
    @property
    def bytes_used(self) -> int:
        """Bytes used: keys, values, bookkeeping, markers and clocks."""
    @property
    def bytes_max(self) -> int:
        """Bytes there are."""
    @property
    def markers(self) -> int:
        """Removed or evicted keys that are still remembered."""
    @property
    def marker_bytes(self) -> int:
        """Bytes of these."""
    @property
    def partitions(self) -> int:
        """Partitions held."""
    @property
    def unsynced_partitions(self) -> int:
        """Partitions of which it has not yet pulled what it missed."""
    @property
    def evictions(self) -> int:
        """Entries that fell off the end in this life."""
    @property
    def expired(self) -> int:
        """Expired entries whose space was given back in this life. They are no
        evictions.
        """

@final
class Gauges:
    """How well the cache keeps its promises at a moment, counted from what the
    nodes really hold.
    """
    @property
    def keys(self) -> int:
        """Keys of which an owner holds the newest value."""
    @property
    def copies(self) -> int:
        """Copies of these values on live owners."""
    @property
    def effective_copies(self) -> float:
        """Copies for each key, on average: the replicas, when nothing is
        missing.
        """
    @property
    def unstable_markers(self) -> int:
        """Markers that must be kept, because an owner may not have seen what
        they stand for.
        """
    @property
    def unseen_writes(self) -> int:
        """Entries and markers that not every live owner has seen."""
    @property
    def oldest_unseen(self) -> int | None:
        """The lowest timestamp among these, or None."""

@final
class Latency:
    """How long calls of one kind took: a sample of one call in about 64,
    measured where Python calls.
    """
    @property
    def count(self) -> int:
        """Calls that were timed."""
    @property
    def mean(self) -> float:
        """Their mean, in seconds."""
    @property
    def p50(self) -> float:
        """Half of them took at most so many seconds."""
    @property
    def p90(self) -> float:
        """Nine in ten."""
    @property
    def p99(self) -> float:
        """99 in 100."""
    @property
    def p999(self) -> float:
        """999 in 1,000."""
    @property
    def max(self) -> float:
        """The longest, in seconds."""
    def as_dict(self) -> dict[str, Any]:
        """The same as a dict of plain numbers."""
    def __eq__(self, other: object, /) -> bool: ...

@final
class NodeStats:
    """What was done on one node in all its lives, and what it holds now. Of a
    read that asks several nodes, the hit counts on the node that has the
    value, and the miss on the one that was asked first; a write counts on
    the first owner of its key. A node that is down holds nothing.
    """
    @property
    def id(self) -> int:
        """Its number."""
    @property
    def live(self) -> bool:
        """Whether it answers."""
    @property
    def hits(self) -> int:
        """Reads that found a value."""
    @property
    def misses(self) -> int:
        """Reads that found none."""
    @property
    def unanswered(self) -> int:
        """Reads and writes that fewer owners answered than were asked for:
        they raised an error.
        """
    @property
    def puts(self) -> int:
        """Puts that were the newest."""
    @property
    def puts_refused(self) -> int:
        """Puts that something newer refused."""
    @property
    def removes(self) -> int:
        """Removes that were the newest, whether or not there was a value to
        remove.
        """
    @property
    def removes_refused(self) -> int:
        """Removes that something newer refused."""
    @property
    def evictions(self) -> int:
        """Entries that fell off the end of a node, each copy by itself."""
    @property
    def evicted_bytes(self) -> int:
        """Bytes of these."""
    @property
    def expired(self) -> int:
        """Copies of expired entries whose space was given back. They are no
        evictions.
        """
    @property
    def repairs(self) -> int:
        """Entries and markers that came by gossip and were news."""
    @property
    def fixes(self) -> int:
        """Entries and markers that were sent because something older had come,
        and were news.
        """
    @property
    def lock_waits(self) -> int:
        """Times that a call waited for a node that was in use."""
    @property
    def entries(self) -> int:
        """Live entries now, each copy by itself, those included that have
        expired and still take space.
        """
    @property
    def markers(self) -> int:
        """Removed or evicted keys that are remembered now."""
    @property
    def bytes_used(self) -> int:
        """Bytes used now."""
    @property
    def bytes_max(self) -> int:
        """Bytes there are."""
    @property
    def unsynced_partitions(self) -> int:
        """Partitions of which a node has yet to pull what it missed."""
    @property
    def misses_by_reason(self) -> dict[str, int]:
        """Reads that found none, by reason: never_seen, removed, expired,
        evicted, superseded, owner_down, not_synced.
        """
    @property
    def bytes_by_kind(self) -> dict[str, int]:
        """Bytes used for values, keys, overhead (slots, tables, rounding),
        markers and clocks: they add up to bytes_used.
        """
    @property
    def hit_rate(self) -> float:
        """The part of reads that found a value, 0 to 1; 0 when there were
        none.
        """
    def as_dict(self) -> dict[str, Any]:
        """The same as a dict of plain types."""

@final
class Stats:
    """What a cache has done since it was made, and what it holds now. Counters
    go on when nodes fail or leave. When no call is under way, each `get`
    counts as one hit or as one miss for one reason.
    """
    @property
    def hits(self) -> int:
        """Reads that found a value."""
    @property
    def misses(self) -> int:
        """Reads that found none."""
    @property
    def unanswered(self) -> int:
        """Reads and writes that fewer owners answered than were asked for:
        they raised an error.
        """
    @property
    def puts(self) -> int:
        """Puts that were the newest."""
    @property
    def puts_refused(self) -> int:
        """Puts that something newer refused."""
    @property
    def removes(self) -> int:
        """Removes that were the newest, whether or not there was a value to
        remove.
        """
    @property
    def removes_refused(self) -> int:
        """Removes that something newer refused."""
    @property
    def evictions(self) -> int:
        """Entries that fell off the end of a node, each copy by itself."""
    @property
    def evicted_bytes(self) -> int:
        """Bytes of these."""
    @property
    def expired(self) -> int:
        """Copies of expired entries whose space was given back. They are no
        evictions.
        """
    @property
    def repairs(self) -> int:
        """Entries and markers that came by gossip and were news."""
    @property
    def fixes(self) -> int:
        """Entries and markers that were sent because something older had come,
        and were news.
        """
    @property
    def lock_waits(self) -> int:
        """Times that a call waited for a node that was in use."""
    @property
    def entries(self) -> int:
        """Live entries now, each copy by itself, those included that have
        expired and still take space.
        """
    @property
    def markers(self) -> int:
        """Removed or evicted keys that are remembered now."""
    @property
    def bytes_used(self) -> int:
        """Bytes used now."""
    @property
    def bytes_max(self) -> int:
        """Bytes there are."""
    @property
    def unsynced_partitions(self) -> int:
        """Partitions of which a node has yet to pull what it missed."""
    @property
    def misses_by_reason(self) -> dict[str, int]:
        """Reads that found none, by reason: never_seen, removed, expired,
        evicted, superseded, owner_down, not_synced.
        """
    @property
    def bytes_by_kind(self) -> dict[str, int]:
        """Bytes used for values, keys, overhead (slots, tables, rounding),
        markers and clocks: they add up to bytes_used.
        """
    @property
    def hit_rate(self) -> float:
        """The part of reads that found a value, 0 to 1; 0 when there were
        none.
        """
    @property
    def nodes(self) -> list[NodeStats]:
        """One for each node that belongs to the cache."""
    @property
    def gossip_rounds(self) -> int:
        """Rounds of gossip."""
    @property
    def gossip_items(self) -> int:
        """Entries and markers that they moved."""
    @property
    def gossip_bytes(self) -> int:
        """Bytes that they moved."""
    @property
    def keys(self) -> int:
        """Live keys."""
    @property
    def effective_copies(self) -> float:
        """Copies of the newest value of a key on live owners, on average: the
        replicas, when nothing is missing.
        """
    @property
    def unseen_writes(self) -> int:
        """Entries and markers that not every live owner has seen."""
    @property
    def oldest_unseen(self) -> int | None:
        """The lowest timestamp among these, or None."""
    @property
    def latency(self) -> dict[str, Latency]:
        """How long calls took, for "get", "put" and "remove"."""
    @property
    def values(self) -> ValueStats:
        """What became of values: how many were made smaller, corrupt, or not
        signed.
        """
    def as_dict(self) -> dict[str, Any]:
        """The same as a dict of plain types, as deep as it goes: ready for
        JSON.
        """

@final
class OwnerView:
    """What one owner of a key knows of it."""
    @property
    def node(self) -> int:
        """Its number."""
    @property
    def state(self) -> str:
        """ "live", "cut off" (unreachable, memory kept) or "failed" (memory
        lost).
        """
    @property
    def synced(self) -> bool | None:
        """It has pulled what it missed of the key's partition; None if it does
        not answer.
        """
    @property
    def knows(self) -> str:
        """ "live" (it has the value), "removed", "expired", "evicted" (it knows
        of a write, and has no value), "nothing", or "no answer".
        """
    @property
    def timestamp(self) -> int | None:
        """The timestamp of what it knows, or None."""
    @property
    def value_bytes(self) -> int | None:
        """Bytes of the value as it is stored, or None if it has none."""
    @property
    def bytes(self) -> int | None:
        """Bytes that it takes in the node, key and bookkeeping included, or
        None.
        """
    @property
    def age(self) -> float | None:
        """Seconds since it was written, by its timestamp, if that is one that
        the cache gave; else None.
        """
    @property
    def ttl(self) -> float | None:
        """Seconds that the value goes on living, or None."""
    @property
    def idle(self) -> float | None:
        """Seconds since the value was last used there by a get or a put, to a
        tenth of a second or one part in ten thousand; of what repair
        brought, since it came. None if it has no value.
        """
    @property
    def used_since(self) -> int | None:
        """So many entries of the node were used after this one: the higher,
        the sooner it is evicted. None if it is not there, or beyond 4,096.
        """
    def as_dict(self) -> dict[str, Any]:
        """The same as a dict of plain types."""
    def __eq__(self, other: object, /) -> bool: ...

@final
class Explanation:
    """What a `get` of a key would answer now, and why: what each of its owners
    knows. Prints as a table.
    """
    @property
    def key(self) -> str:
        """The key."""
    @property
    def partition(self) -> int:
        """The slice of the hash space that it is in."""
    @property
    def owners(self) -> list[OwnerView]:
        """Its owners in the order in which they are asked, then nodes that
        owned it and serve it on until the owners have pulled, and after
        them the nodes that it belongs on and that are down.
        """
    @property
    def hit(self) -> bool:
        """True if a get finds it."""
    @property
    def timestamp(self) -> int | None:
        """The timestamp of what a get finds, or None."""
    @property
    def reason(self) -> str | None:
        """Why a get finds nothing: "never_seen", "removed", "expired",
        "evicted", "superseded", "owner_down" or "not_synced"; or "quorum"
        if too few owners answer. None for a hit.
        """
    @property
    def sentence(self) -> str:
        """The same in words."""
    def as_dict(self) -> dict[str, Any]:
        """The same as a dict of plain types."""

@final
class SizeAdvice:
    """What a cache of another size would have found."""
    @property
    def times(self) -> float:
        """Its size, in parts of the present one: 0.25 to 4."""
    @property
    def bytes(self) -> int:
        """Bytes of all its nodes together."""
    @property
    def hit_rate(self) -> float:
        """The part of reads that it would have found, 0 to 1."""
    def as_dict(self) -> dict[str, Any]:
        """The same as a dict of plain numbers."""
    def __eq__(self, other: object, /) -> bool: ...

@final
class Advice:
    """What other sizes of the cache would have brought, for the reads since it
    was made. Prints as a table.
    """
    @property
    def sizes(self) -> list[SizeAdvice]:
        """One for 0.25, 0.5, 1, 2 and 4 times the present size."""
    @property
    def hit_rate(self) -> float:
        """The part of reads that were found as it is, 0 to 1."""
    @property
    def gets(self) -> int:
        """Reads since the cache was made."""
    @property
    def watched(self) -> int:
        """Reads and writes that were watched: with fewer than about 2,000 the
        rates may be off by more than two points.
        """
    def as_dict(self) -> dict[str, Any]:
        """The same as a dict of plain types."""

@final
class Event:
    """Something that happened to a cache."""
    @property
    def kind(self) -> str:
        """ "node_failed", "node_recovered", "node_joined", "node_left",
        "sync_finished", "evicted" or "value_too_large".
        """
    @property
    def time(self) -> float:
        """When it happened, or for "evicted" when it was noticed: seconds
        since 1970.
        """
    @property
    def node(self) -> int | None:
        """Which node, or None if it is about none."""
    @property
    def details(self) -> dict[str, Any]:
        """What else there is to say of it: see `Cache.on_event`."""
    @property
    def dropped(self) -> int:
        """So many events were dropped just before this one, because callbacks
        were too slow for them.
        """

@final
class Server:
    """A server of metrics, reports and the dashboard of one cache, as
    `Cache.serve` returns it. It goes on when this object is dropped, until
    it is closed, or the cache is closed or dropped. Usable in a `with`
    block, at whose end it is closed.
    """
    @property
    def url(self) -> str:
        """Where to point a browser: "http://127.0.0.1:41735/". Raises
        ClosedError in a forked child, which has no server.
        """
    @property
    def host(self) -> str:
        """The host that it was started with."""
    @property
    def port(self) -> int:
        """The port at which it listens, 1 to 65535."""
    @property
    def closed(self) -> bool:
        """True once it has ended: it was closed, or its cache was. Also true
        in a forked child.
        """
    def close(self) -> None:
        """Ends it: no new connection is taken, requests under way are
        answered, for at most a second, and the port is free. The cache goes
        on. A second time does nothing.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

@final
class SyncReport:
    """What rounds of gossip moved."""
    @property
    def rounds(self) -> int:
        """Rounds: in each, every live node compares notes with one other
        (`gossip`) or with all (`sync`).
        """
    @property
    def items(self) -> int:
        """Entries and markers that were sent."""
    @property
    def bytes(self) -> int:
        """Bytes that were sent."""
    @property
    def converged(self) -> bool:
        """True when all live owners have seen the same and nobody waits for a
        hand-over.
        """
    @property
    def seconds(self) -> float:
        """How long it took, in seconds."""

@final
class ValueStats:
    """What became of values on their way to the nodes and back, since the
    cache was made.
    """
    @property
    def compression(self) -> _Compression | None:
        """ "lz4", "zstd", "zstd-dict" or None. "zstd" also for "zstd-dict" when
        the nodes are too small for a dictionary.
        """
    @property
    def tried(self) -> int:
        """Values that were long enough to be tried."""
    @property
    def packed(self) -> int:
        """Those of them that became smaller by an eighth or more, and were
        stored so.
        """
    @property
    def bytes_in(self) -> int:
        """Bytes of the values that were tried."""
    @property
    def bytes_out(self) -> int:
        """Bytes of the same values as they were stored, once each."""
    @property
    def ratio(self) -> float:
        """bytes_in / bytes_out; 1.0 when nothing was tried."""
    @property
    def dictionary(self) -> str:
        """How far it is with a dictionary: "off", "collecting 40 %" (of the
        samples for the first), "training", "in use", or "in use, collecting
        40 % for the next".
        """
    @property
    def samples(self) -> int:
        """Values that were kept as samples for a dictionary."""
    @property
    def dictionaries(self) -> int:
        """Dictionaries that were trained here, or came with a snapshot and
        were adopted, and are kept.
        """
    @property
    def trainings(self) -> int:
        """Trainings, those included that gave nothing better."""
    @property
    def corrupt(self) -> int:
        """Values that could not be unpacked: each raised SerializationError."""
    @property
    def refused(self) -> int:
        """Values that were not signed as this cache asks for: each raised
        SerializationError.
        """
    def as_dict(self) -> dict[str, Any]:
        """The same as a dict of plain types."""

@final
class SaveReport:
    """What was saved."""
    @property
    def entries(self) -> int:
        """Keys with their values in the file."""
    @property
    def removes(self) -> int:
        """Removed keys in the file: they are remembered, so that older puts
        stay refused.
        """
    @property
    def bytes(self) -> int:
        """Bytes of the file."""
    @property
    def seconds(self) -> float:
        """How long it took, in seconds."""

@final
class RestoreReport:
    """What was restored. Every entry and every remove of the file is applied,
    expired, superseded or too large.
    """
    @property
    def entries(self) -> int:
        """Keys with their values in the file."""
    @property
    def removes(self) -> int:
        """Removed keys in the file."""
    @property
    def applied(self) -> int:
        """Of both: now the newest known, or in place already. Entries among
        them may have been evicted since, by the others.
        """
    @property
    def expired(self) -> int:
        """Of both: the newest known, and a miss, as their ttl is over."""
    @property
    def superseded(self) -> int:
        """Of both: refused, because something newer is known."""
    @property
    def too_large(self) -> int:
        """Of both: refused, because they fit in no node."""
    @property
    def bytes(self) -> int:
        """Bytes of the file."""
    @property
    def seconds(self) -> float:
        """How long it took, in seconds."""

@final
class SnapshotInfo:
    """What a snapshot says of itself."""
    @property
    def format(self) -> int:
        """The version of the file's format."""
    @property
    def saved_at(self) -> int:
        """When it was saved, by the cache's own clock: microseconds since
        1970.
        """
    @property
    def nodes(self) -> int:
        """Nodes of the cache that was saved."""
    @property
    def replicas(self) -> int:
        """Copies of each entry there."""
    @property
    def node_capacity(self) -> int:
        """Bytes of each node."""
    @property
    def write_quorum(self) -> str:
        """How many owners must have a write: as the argument of Cache."""
    @property
    def read_quorum(self) -> str:
        """How many owners a read asks: as the argument of Cache."""
    @property
    def gossip_interval(self) -> float | None:
        """Seconds between two rounds of gossip, or None."""
    @property
    def compression(self) -> str | None:
        """How values were made smaller: a name, or None."""
    @property
    def default_ttl(self) -> float | None:
        """Seconds that a value lived which was put without a ttl of its own,
        or None.
        """
    @property
    def blocks(self) -> int:
        """Blocks of records in the file."""
    @property
    def entries(self) -> int:
        """Keys with their values."""
    @property
    def removes(self) -> int:
        """Removed keys."""
    @property
    def record_bytes(self) -> int:
        """Bytes of the records before they were compressed."""
    @property
    def file_bytes(self) -> int:
        """Bytes of the file."""

def snapshot_info(path: _Path) -> SnapshotInfo:
    """What a snapshot says of itself in its header and its footer; what lies
    between is not looked at. Raises as `Cache.restore`.
    """

def verify_snapshot(path: _Path, *, progress: Callable[[int], object] | None = None) -> SnapshotInfo:
    """Reads all of a snapshot, and whether it is what was saved: checksums,
    lengths, keys, timestamps, digests.

    path: as for `Cache.restore`. progress: called from time to time with
    how many more blocks are done; what it raises ends it. Returns a
    SnapshotInfo. Raises as `Cache.restore`.
    """

# Runs seeds of the simulator, which must keep every promise. `distributed_consistent_cache.simulation` re-exports it.
def simulate(
    first_seed: int = 0,
    seeds: int = 1000,
    *,
    nodes: int | None = None,
    replicas: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> SimulationReport:
    """Runs seeds of the simulator, on all cores: clusters of real nodes in a
    bad world, where every promise is checked after every event.

    Each seed decides everything about one execution: sizes, quorums, the
    network's weather, calls and faults. The same seed is the same
    execution, on every machine.

    first_seed: 0 to 2**63-1. seeds: how many, 0 to 2**32. nodes: of each
    cluster at its start, 1 to 16; None: each seed picks 2 to 6. replicas:
    copies of each entry, 1 to `nodes`, and at most 2 when that is None;
    None: each seed picks from 1 to 3, if it has so many nodes. progress:
    called from time to time with how many more seeds are done; what it
    raises ends the simulation.

    Returns a SimulationReport: what happened in numbers, and every promise
    that was broken, of which there should be none. Raises ValueError or
    TypeError for a bad argument.

    >>> simulate(first_seed=0, seeds=10, nodes=5, replicas=3).violations
    []
    """

def shrink(seed: int, *, nodes: int | None = None, replicas: int | None = None) -> list[str] | None:
    """The fewest faults with which a seed still breaks a promise, each with
    its time, or None when the seed breaks none. A seed that breaks one is
    run again some twenty times. `nodes` and `replicas` must be those with
    which it broke.
    """

# Runs a scenario that is given as data: `distributed_consistent_cache.simulation.Scenario` makes the steps.
def run_scenario(
    steps: Iterable[tuple[object, ...]],
    *,
    seed: int = 0,
    nodes: int = 3,
    replicas: int | None = None,
    node_capacity: _Int | str = "1MiB",
    write_quorum: _Quorum = "all",
    read_quorum: _Quorum = "one",
    gossip_interval: float = 0.1,
    delay: float = 0.01,
    loss: float = 0.0,
    duplication: float = 0.0,
    lateness: float = 0.0,
    until: float | None = None,
    broken: Iterable[_Int] = (),
) -> ScenarioReport:
    """Runs a scenario in the simulator.
    `distributed_consistent_cache.simulation.Scenario` makes the steps and
    has the documentation of each, with units and ranges.

    steps: tuples of a time in seconds, the name of what happens and its
    arguments, in any order; those at the same time happen in theirs. until:
    seconds; None for one second after the last step. broken: nodes that
    stay broken to the end.

    Returns a ScenarioReport. Raises ValueError, TypeError, OverflowError or
    KeyTooLargeError for a bad argument; if it is one of a step, a note says
    of which.
    """

@final
class Violation:
    """A promise that did not hold in a simulation."""
    @property
    def seed(self) -> int:
        """The seed of the execution in which it was seen."""
    @property
    def invariant(self) -> str:
        """Which promise: "I1" to "I21", by their numbers in
        docs/reliability.md; or "a panic".
        """
    @property
    def at_seconds(self) -> float:
        """When it was seen, in seconds of virtual time."""
    @property
    def what(self) -> str:
        """What was seen."""

@final
class SimulationReport:
    """What happened in many simulated clusters. A seed that broke a promise
    ended there, and is counted in `seeds` and `violations` only.
    """
    @property
    def seeds(self) -> int:
        """Seeds that were run."""
    @property
    def events(self) -> int:
        """Events: messages that arrived, timeouts, rounds of gossip, calls,
        faults.
        """
    @property
    def faults(self) -> int:
        """Faults: crashes, false suspicions, cuts, nodes that join or leave,
        and their ends.
        """
    @property
    def writes(self) -> int:
        """Puts and removes that were begun."""
    @property
    def reads(self) -> int:
        """Gets and touches that were begun."""
    @property
    def hits(self) -> int:
        """Gets that found a value."""
    @property
    def refused(self) -> int:
        """Calls that ended in an error: too few owners, or none."""
    @property
    def evictions(self) -> int:
        """Entries that fell off full nodes."""
    @property
    def expired(self) -> int:
        """Expired entries whose space was given back."""
    @property
    def markers_lost(self) -> int:
        """Markers that had to be dropped before every owner had seen them."""
    @property
    def late_keys(self) -> int:
        """Keys with a write below what everybody who could be reached had
        forgotten, which counts as new.
        """
    @property
    def node_seconds(self) -> float:
        """Virtual time lived through, in seconds, summed over the nodes of all
        clusters.
        """
    @property
    def rounds(self) -> dict[int, int]:
        """In how many rounds of gossip the nodes agreed after the faults
        stopped: rounds -> seeds, rising.
        """
    @property
    def trace(self) -> int:
        """A hash of everything that happened, in the order of the seeds: the
        same for the same arguments.
        """
    @property
    def violations(self) -> list[Violation]:
        """Every promise that was broken, the first of each seed, in the order
        of the seeds.
        """

@final
class ScenarioReport:
    """What became of a scenario. If a promise was broken, it ended there, and
    all but `seconds` and `violation` is 0 or empty.
    """
    @property
    def seconds(self) -> float:
        """Virtual time at the end, in seconds."""
    @property
    def events(self) -> int:
        """Events: messages that arrived, timeouts, rounds of gossip, calls,
        faults.
        """
    @property
    def faults(self) -> int:
        """Faults that happened."""
    @property
    def writes(self) -> int:
        """Puts and removes that were begun."""
    @property
    def reads(self) -> int:
        """Gets and touches that were begun."""
    @property
    def hits(self) -> int:
        """Gets that found a value."""
    @property
    def refused(self) -> int:
        """Calls that ended in an error: too few owners, or none, or an entry
        that fits in no node.
        """
    @property
    def evictions(self) -> int:
        """Entries that fell off full nodes."""
    @property
    def expired(self) -> int:
        """Expired entries whose space was given back."""
    @property
    def markers_lost(self) -> int:
        """Markers that had to be dropped before every owner had seen them."""
    @property
    def late_keys(self) -> int:
        """Keys with a write below what everybody who could be reached had
        forgotten, which counts as new.
        """
    @property
    def rounds(self) -> int:
        """In how many rounds of gossip the nodes agreed after the faults
        stopped.
        """
    @property
    def trace(self) -> int:
        """A hash of everything that happened, in its order: the same for the
        same scenario and seed.
        """
    @property
    def values(self) -> dict[str, tuple[bytes, int]]:
        """What a get of each key gives at the end, when all agree: key ->
        (value, timestamp); a miss is left out.
        """
    @property
    def violation(self) -> Violation | None:
        """The first promise that was broken; None if all were kept."""
