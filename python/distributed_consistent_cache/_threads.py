"""What runs in threads of Python's own.

A callback is called from Python and not from Rust: when the process ends, Python may end a thread that is not the main
one wherever it is, and then only Python may be on its stack.
"""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._core import Event, _Feed


def listen(feed: "_Feed") -> None:
    """Call back what happens to a cache, until it is closed or gone."""
    while (events := feed.next()) is not None:
        for event in events:
            _call_all(feed, event)
        # Nothing is kept while nothing happens: a callback may keep the cache.
        del events, event


def _call_all(feed: "_Feed", event: "Event") -> None:
    for callback in feed.callbacks():
        try:
            callback(event)
        except BaseException:
            # Whatever it raises is nobody's but the log's.
            logging.getLogger("distributed_consistent_cache").exception("a callback of Cache.on_event raised")
