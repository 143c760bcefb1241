//! ```text
//!   attach  ->  serves the cache ..  ->  close, or the last use of the cache is over  ->  end
//! ```
//! What goes on beside a cache for as long as it is open: a server of metrics, for one. The cluster knows only how to end it.

use std::sync::Arc;

use crate::lock::{Mutex, RawLock, raw};

use super::Cluster;
use crate::runtime::Runtime;

/// Something that ends with the cache. It must not keep the cluster alive.
pub trait Service: Send + Sync {
    /// Ends it, and waits until it has ended. It may be called twice, and from a thread of its own.
    fn end(&self);

    /// Whether it has ended by itself.
    fn has_ended(&self) -> bool;
}

/// All that a cache has.
#[derive(Default)]
pub(super) struct Services(Mutex<Vec<Arc<dyn Service>>>);

impl Services {
    /// Its lock.
    pub(super) fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        each(raw(&self.0));
    }

    /// In a forked child: they are the parent's, and so is what they hold.
    pub(super) fn in_child(&self) {
        std::mem::forget(std::mem::take(&mut *self.0.lock()));
    }

    /// Ends all, without a lock: each may take a while.
    pub(super) fn end(&self) {
        let services = std::mem::take(&mut *self.0.lock());
        services.iter().for_each(|service| service.end());
    }
}

impl<R: Runtime> Cluster<R> {
    /// Has a service end when the cache is closed or nobody uses it any more: at once, if it is closed.
    pub fn attach(&self, service: Arc<dyn Service>) {
        {
            let mut services = self.services.0.lock();
            services.retain(|service| !service.has_ended());
            services.push(service);
        }
        // Closed meanwhile: who closed it may have looked before.
        if self.closed.load(std::sync::atomic::Ordering::SeqCst) {
            self.services.end();
        }
    }
}
