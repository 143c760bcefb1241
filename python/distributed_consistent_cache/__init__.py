"""A bounded cache in which the newest wins.

It lives in your process, keeps copies of what you put, and any number of
threads may share it. Its memory is in one node or in many; with more than
one copy of each entry, nodes may fail and come back.

>>> from distributed_consistent_cache import Cache
>>> cache = Cache(nodes=1, node_capacity="64MiB")
>>> cache.put("user:1", {"name": "Ada"}, ttl=60)  # for 60 seconds
True
>>> value, timestamp = cache.get("user:1")
>>> value
{'name': 'Ada'}
>>> cache.get("user:2")  # a miss
(None, -1)
>>> cache.put("row:1", "version 2", timestamp=2)
True
>>> cache.put("row:1", "version 1", timestamp=1)  # older than what is known
False
>>> cache.close()
"""

try:
    from ._core import (
        Advice,
        Cache,
        CacheError,
        ClosedError,
        Event,
        Explanation,
        Gauges,
        InternalError,
        KeyTooLargeError,
        Latency,
        ManualClock,
        Node,
        NodeDownError,
        NodeStats,
        NodeStatus,
        NoLiveNodeError,
        OwnerView,
        QuorumError,
        RestoreReport,
        SaveReport,
        SerializationError,
        Server,
        SizeAdvice,
        SnapshotError,
        Stats,
        SyncReport,
        TimestampWarning,
        ValueStats,
        ValueTooLargeError,
        __version__,
    )
except ImportError as _error:
    # In any interpreter of a process but the main one: what does not use the package may import it.
    if not getattr(_error, "is_refused", False):
        raise
    _why = str(_error)

    def __getattr__(name: str) -> object:
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        raise ImportError(_why)


__all__ = [
    "Advice",
    "Cache",
    "CacheError",
    "ClosedError",
    "Event",
    "Explanation",
    "Gauges",
    "InternalError",
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
    "SerializationError",
    "Server",
    "SizeAdvice",
    "SnapshotError",
    "Stats",
    "SyncReport",
    "TimestampWarning",
    "ValueStats",
    "ValueTooLargeError",
    "__version__",
]
