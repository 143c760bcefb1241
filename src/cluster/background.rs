//! ```text
//!   thread:  wait for the interval, or for the end  ->  one round of gossip  ->  wait ..
//! ```
//! The background beat: one thread that drives rounds of gossip. It holds the cluster only during a round, so that a cache
//! nobody uses any more is dropped, and it ends when the cache is closed or dropped.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use super::Cluster;
use crate::runtime::Runtime;

/// The thread, and what ends it.
pub(super) struct Background {
    /// Dropping it ends the thread's wait.
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl<R: Runtime + 'static> Cluster<R> {
    /// Starts gossip in the background, if the configuration has an interval for it. When no thread can be had, gossip is
    /// left to [`Cluster::gossip`] and [`Cluster::sync`], and a warning is logged.
    pub fn start_gossip(self: &Arc<Self>) {
        let Some(interval) = self.config().interval() else { return };
        let (end, ended) = channel();
        let cluster = Arc::downgrade(self);
        let run =
            move || while matches!(ended.recv_timeout(interval), Err(RecvTimeoutError::Timeout)) && beat(&cluster) {};
        match std::thread::Builder::new().name("cache-gossip".to_owned()).spawn(run) {
            Ok(thread) => *self.background.lock() = Some(Background { end, thread }),
            Err(error) => log::warn!("no gossip in the background: {error}"),
        }
    }
}

impl<R> Cluster<R> {
    /// Ends it: gossip stops, and every later call fails with [`Error::Closed`](crate::error::Error::Closed). Waits for a
    /// round that is under way, and for what serves the cache.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.events.close();
        let background = self.background.lock().take();
        if let Some(Background { end, thread }) = background {
            drop(end);
            // The last owner may be the background thread itself, which must not wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                // A round that panicked has told so already.
                let _ = thread.join();
            }
        }
        self.services.end();
    }
}

/// One round; false when there is no cluster any more.
fn beat<R: Runtime>(cluster: &Weak<Cluster<R>>) -> bool {
    let Some(cluster) = cluster.upgrade() else { return false };
    if cluster.pulling.load(Ordering::Relaxed) == 0 {
        cluster.round();
    }
    !cluster.is_closed()
}

impl<R> Drop for Cluster<R> {
    fn drop(&mut self) {
        self.close();
    }
}
