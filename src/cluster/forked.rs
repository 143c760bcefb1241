//! ```text
//!   before:  every lock of the cluster, and nothing half done      after, in the child:  no thread but this one
//! ```
//! What a fork does to a cluster: the child has it as it was at that moment. What other threads were in the middle of is
//! done there as far as it was done, as when the caller of a message is gone: gossip does the rest.

use std::sync::atomic::Ordering;

use super::Cluster;
use crate::lock::OnlyThread;
use crate::lock::{RawLock, raw};
use crate::runtime::Runtime;

impl<R: Runtime> Cluster<R> {
    /// Shows each of its locks: see [`Forked::locks`](crate::fork::Forked::locks).
    pub fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        // Whoever holds it takes the others: it goes first.
        each(raw(&self.changes));
        each(raw(&self.background));
        each(raw(&self.orphans));
        self.services.locks(each);
        self.recent.locks(each);
        self.counters.locks(each);
        self.sample.locks(each);
        self.events.locks(each);
        self.runtime.locks(each);
        // Another thread may be in the middle of finding out, and would never be done in the child.
        let _ = self.view().partners(0);
    }

    /// In a forked child: threads and what serves the cache stayed in the parent, and calls of other threads are over.
    /// Nothing happens in the background until [`Cluster::start_gossip`] is called again.
    pub fn in_child(&self, alone: &OnlyThread) {
        // Their threads are not there to be waited for.
        std::mem::forget(std::mem::take(&mut *self.background.lock()));
        self.services.in_child();
        self.recent.in_child(alone);
        self.events.in_child(alone);
        self.pulling.store(0, Ordering::Relaxed);
        self.keeping.store(0, Ordering::Relaxed);
        self.has_no_beat.store(true, Ordering::Relaxed);
    }
}
