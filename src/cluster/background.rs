//! ```text
//!   thread:  wait for the interval, or for the end  ->  one round of gossip, or one step of other work  ->  wait ..
//! ```
//! What happens in the background: a thread that drives rounds of gossip, and one for what a cache wants to be studied.
//! It holds the cluster only during a round, so that a cache nobody uses any more is dropped, and it ends when the cache is
//! closed or dropped.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Cluster;
use crate::ids::NodeId;
use crate::runtime::Runtime;
use crate::shortage;

/// The pause between two steps of what [`Cluster::start_studies`] was given.
const STUDY_INTERVAL: Duration = Duration::from_millis(100);

/// What [`Cluster::start_studies`] was given, when it is not done in the background.
pub(super) type Study<R> = Box<dyn Fn(&Cluster<R>) + Send + Sync>;

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
        self.repeat("gossip", interval, |cluster| {
            if cluster.pulling.load(Ordering::Relaxed) == 0 {
                cluster.round();
            }
        });
    }

    /// Has something done from time to time, a step each: with an interval for gossip, in a thread of its own, so that no
    /// round waits for it; without, by every call of [`Cluster::gossip`] and [`Cluster::sync`]. To be called once.
    pub fn start_studies(self: &Arc<Self>, study: impl Fn(&Self) + Send + Sync + 'static) {
        match self.config().interval() {
            Some(_) => self.repeat("studies", STUDY_INTERVAL, study),
            // Those of another are no less than these.
            None => drop(self.study.set(Box::new(study))),
        }
    }

    /// Does something again and again in a thread of its own, with this pause between, until the cache is closed or dropped;
    /// closing it waits for what is being done. When no thread can be had, it is not done, and a warning is logged.
    fn repeat(self: &Arc<Self>, name: &str, pause: Duration, work: impl Fn(&Self) + Send + 'static) {
        let (end, ended) = channel();
        let cluster = Arc::downgrade(self);
        let run = move || {
            while matches!(ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) && beat(&cluster, &work) {}
        };
        match std::thread::Builder::new().name(format!("cache-{name}")).spawn(run) {
            Ok(thread) => {
                self.background.lock().push(Background { end, thread });
                // Whichever thread has the shorter pause tells the time to all.
                if pause <= STUDY_INTERVAL {
                    self.has_no_beat.store(false, Ordering::Relaxed);
                }
            }
            Err(error) => log::warn!("no {name} in the background: {error}"),
        }
    }
}

impl<R: Runtime> Cluster<R> {
    /// A step of what is not done in the background.
    pub(super) fn study(&self) {
        if let Some(study) = self.study.get() {
            study(self);
        }
    }

    /// Ends it: gossip stops, and every later call fails with [`Error::Closed`](crate::error::Error::Closed). Waits for a
    /// round, or other work in the background, that is under way, and for what serves the cache.
    pub fn close(&self) {
        for thread in self.tell_to_end() {
            // The last owner may be the background thread itself, which must not wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                // A round that panicked has told so already.
                let _ = thread.join();
            }
        }
        self.services.end();
        // The memory goes now, whoever still names the cache.
        let lives: Vec<NodeId> = self.view().members().map(|member| member.address.node).collect();
        lives.into_iter().for_each(|node| self.stop(node));
        shortage::give_back();
    }

    /// As [`Cluster::close`], but waits for no thread of the background.
    pub fn close_soon(&self) {
        drop(self.tell_to_end());
        self.services.end();
    }

    /// Tells all threads to end, before one is waited for.
    fn tell_to_end(&self) -> Vec<JoinHandle<()>> {
        self.closed.store(true, Ordering::SeqCst);
        self.events.close();
        let background = std::mem::take(&mut *self.background.lock());
        let (ends, threads): (Vec<_>, Vec<_>) = background.into_iter().map(|one| (one.end, one.thread)).unzip();
        drop(ends);
        threads
    }
}

/// One round; false when there is no cluster any more.
fn beat<R: Runtime>(cluster: &Weak<Cluster<R>>, work: &impl Fn(&Cluster<R>)) -> bool {
    let Some(cluster) = cluster.upgrade() else { return false };
    cluster.tell_time();
    work(&cluster);
    !cluster.is_closed()
}

impl<R: Runtime> Drop for Cluster<R> {
    fn drop(&mut self) {
        self.close();
    }
}
