"""What runs in threads of Python's own.

A callback is called from Python and not from Rust: when the process ends, Python may end a thread that is not the main
one wherever it is, and then only Python may be on its stack.
"""

import logging
import sys
import traceback
from typing import TYPE_CHECKING

from ._text import shown

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
        except BaseException:  # noqa: BLE001 - whatever it raises is nobody's but the log's
            _log_raised()


def _log_raised() -> None:
    """Log what is being handled. Nothing of its text is written raw but the ends of its lines."""
    logger = logging.getLogger("distributed_consistent_cache")
    if not logger.isEnabledFor(logging.ERROR):
        return
    record = logger.makeRecord(
        logger.name, logging.ERROR, __file__, 0, "a callback of Cache.on_event raised", (), sys.exc_info()
    )
    # What a formatter finds here it does not format itself.
    record.exc_text = shown("".join(traceback.format_exception(*sys.exc_info())).rstrip("\n"), keep="\n")
    logger.handle(record)
