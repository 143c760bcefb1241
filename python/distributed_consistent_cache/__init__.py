"""A replicated in-process cache: N nodes, R copies of every entry, the newest timestamp wins.

>>> from distributed_consistent_cache import Cache
>>> cache = Cache(nodes=5, replicas=3, node_capacity="1MiB")
>>> cache.put("user:1", {"name": "Ada"}, timestamp=2)
True
>>> cache.put("user:1", {"name": "late news"}, timestamp=1)  # older than what is known, so refused
False
>>> cache.fail_node(cache.owners("user:1")[0])  # two copies are left
>>> cache.get("user:1")
({'name': 'Ada'}, 2)
>>> cache.get("user:2")  # a miss
(None, -1)
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
