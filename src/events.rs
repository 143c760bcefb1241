//! ```text
//!   a node fails, something is too large ..  ->  [ queue, at most 1024 ]  ->  whoever listens
//!                                                  full: dropped, and counted
//! ```
//! What happens to a cache that somebody may want to hear of.
//!
//! Promise: who tells never waits for who listens, and while nobody listens nothing is kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::lock::OnlyThread;
use crate::lock::{Condvar, Mutex, RawLock, raw};

use crate::ids::NodeId;

/// Events that wait to be heard.
const WAITING_MAX: usize = 1024;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A node is down; with `memory_lost` what it had is gone.
    NodeFailed {
        /// Which.
        node: NodeId,
        /// Else it is only cut off.
        memory_lost: bool,
    },
    /// A node is back, and has pulled what it missed.
    NodeRecovered {
        /// Which.
        node: NodeId,
        /// So many items.
        items: u64,
    },
    /// A node was added, and has pulled its share.
    NodeJoined {
        /// Which.
        node: NodeId,
        /// So many items.
        items: u64,
    },
    /// A node was taken out.
    NodeLeft {
        /// Which.
        node: NodeId,
    },
    /// A `sync` is over.
    SyncFinished {
        /// It moved so many items.
        items: u64,
        /// All live owners have seen the same.
        converged: bool,
    },
    /// Entries fell off the end of a node since it was last looked at.
    Evicted {
        /// Which.
        node: NodeId,
        /// So many.
        entries: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A value fits in no node, and was refused.
    ValueTooLarge {
        /// Under this key.
        key: String,
        /// What it would take.
        bytes: u64,
        /// What there is room for.
        bytes_max: u64,
    },
}

/// Something that happened, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What.
    pub what: What,
    /// When.
    pub at: SystemTime,
    /// So many events were dropped just before it, because nobody heard them in time.
    pub dropped: u64,
}

/// What waits to be heard.
#[derive(Default)]
pub struct Events {
    is_heard: AtomicBool,
    waiting: Mutex<Waiting>,
    told: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    dropped: u64,
    closed: bool,
}

impl Events {
    /// From now on somebody listens.
    pub fn begin_to_listen(&self) {
        self.is_heard.store(true, Ordering::Relaxed);
    }

    /// Whether somebody listens.
    pub fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Relaxed)
    }

    /// Tells what happened, if somebody listens.
    pub fn tell(&self, what: impl FnOnce() -> What) {
        if !self.is_heard() {
            return;
        }
        let what = what();
        let mut waiting = self.waiting.lock();
        if waiting.events.len() < WAITING_MAX {
            let dropped = std::mem::take(&mut waiting.dropped);
            waiting.events.push_back(Event { what, at: SystemTime::now(), dropped });
        } else {
            waiting.dropped += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        drop(waiting);
        self.told.notify_one();
    }

    /// The next events, waiting for the first so long; none when there are none. Nothing when it is closed and all were heard.
    pub fn next(&self, wait: Duration) -> Option<Vec<Event>> {
        let mut waiting = self.waiting.lock();
        if waiting.events.is_empty() && !waiting.closed {
            self.told.wait_for(&mut waiting, wait);
        }
        let events: Vec<_> = waiting.events.drain(..).collect();
        (!events.is_empty() || !waiting.closed).then_some(events)
    }

    /// Nothing more will be told.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.told.notify_all();
    }

    /// In a forked child: what waits is heard in the parent.
    pub fn in_child(&self, alone: &OnlyThread) {
        self.waiting.lock().events.clear();
        self.told.renew(alone);
    }

    /// True when all that was told is heard.
    pub fn is_empty(&self) -> bool {
        self.waiting.lock().events.is_empty()
    }

    /// Its lock.
    pub fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        each(raw(&self.waiting));
    }

    /// Events that nobody heard in time, in all.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(node: NodeId) -> What {
        What::NodeLeft { node }
    }

    #[test]
    fn nothing_is_kept_while_nobody_listens() {
        let events = Events::default();
        events.tell(|| left(1));
        events.begin_to_listen();
        assert_eq!(events.next(Duration::ZERO), Some(vec![]));
        events.tell(|| left(2));
        events.close();
        assert_eq!(events.next(Duration::MAX).map(|events| events.len()), Some(1), "what was told is heard");
        assert_eq!(events.next(Duration::MAX), None);
    }

    #[test]
    fn what_is_not_heard_in_time_is_dropped_and_counted() {
        let events = Events::default();
        events.begin_to_listen();
        (0..WAITING_MAX + 7).for_each(|_| events.tell(|| left(1)));
        assert_eq!(events.next(Duration::ZERO).map(|events| events.len()), Some(WAITING_MAX));
        events.tell(|| left(2));
        let heard = events.next(Duration::ZERO).unwrap_or_default();
        assert_eq!((heard[0].dropped, events.dropped()), (7, 7));
    }
}
