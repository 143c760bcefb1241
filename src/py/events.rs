//! ```text
//!   cluster: something happened -> queue -> Feed.next -> a thread of Python's own: each callback, one after the other
//! ```
//! Callbacks for what happens to a cache. One thread for each cache that has any; it holds no lock and, while it waits, no
//! GIL. It is Python's own and runs `_threads.listen`, so that no Rust is on its stack while a callback runs: Python may end
//! such a thread anywhere when the process ends.
//!
//! Promise: a callback may do anything that any thread may, the cache's own calls included. What it raises is logged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, UNIX_EPOCH};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{PyTraverseError, PyVisit};

use super::errors::made;
use crate::cluster::Cluster;
use crate::events::{self, Events, What};
use crate::ids::NodeId;
use crate::lock::{Mutex, RawLock, raw};
use crate::runtime::embedded::Embedded;

/// Evictions are told of so often, at most.
const EVICTIONS_EVERY: Duration = Duration::from_millis(250);

/// Something that happened to a cache.
#[pyclass(frozen, get_all, module = "distributed_consistent_cache")]
pub(super) struct Event {
    /// "node_failed", "node_recovered", "node_joined", "node_left",
    /// "sync_finished", "evicted" or "value_too_large".
    kind: &'static str,
    /// When it happened, or for "evicted" when it was noticed: seconds
    /// since 1970.
    time: f64,
    /// Which node, or None if it is about none.
    node: Option<u8>,
    /// What else there is to say of it: see `Cache.on_event`.
    details: Py<PyDict>,
    /// So many events were dropped just before this one, because callbacks
    /// were too slow for them.
    dropped: u64,
}

#[pymethods]
impl Event {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let node = self.node.map_or_else(|| "None".to_owned(), |node| node.to_string());
        let details = self.details.bind(py).repr()?;
        Ok(format!("Event(kind='{}', node={node}, details={details}, dropped={})", self.kind, self.dropped))
    }

    // The dict is what can be cleared.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.details)
    }
}

impl Event {
    fn new(py: Python<'_>, event: &events::Event) -> PyResult<Self> {
        let details = PyDict::new(py);
        let (kind, node) = match &event.what {
            What::NodeFailed { node, memory_lost } => {
                details.set_item("memory_lost", memory_lost)?;
                ("node_failed", Some(*node))
            }
            What::NodeRecovered { node, items } => {
                details.set_item("items", items)?;
                ("node_recovered", Some(*node))
            }
            What::NodeJoined { node, items } => {
                details.set_item("items", items)?;
                ("node_joined", Some(*node))
            }
            What::NodeLeft { node } => ("node_left", Some(*node)),
            What::SyncFinished { items, converged } => {
                details.set_item("items", items)?;
                details.set_item("converged", converged)?;
                ("sync_finished", None)
            }
            What::Evicted { node, entries, bytes } => {
                details.set_item("entries", entries)?;
                details.set_item("bytes", bytes)?;
                ("evicted", Some(*node))
            }
            What::ValueTooLarge { key, bytes, bytes_max } => {
                details.set_item("key", key)?;
                details.set_item("bytes", bytes)?;
                details.set_item("bytes_max", bytes_max)?;
                ("value_too_large", None)
            }
        };
        let time = event.at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Ok(Self { kind, time, node, details: details.unbind(), dropped: event.dropped })
    }
}

/// Who is called.
#[derive(Default)]
pub(super) struct Listeners {
    callbacks: Mutex<Vec<Py<PyAny>>>,
    is_running: AtomicBool,
    /// Callbacks are being called.
    is_calling: AtomicBool,
}

impl Listeners {
    /// Calls this from now on, too.
    ///
    /// # Errors
    /// `OSError` when there can be no more threads; then it is not called.
    pub(super) fn add(
        self: &Arc<Self>,
        py: Python<'_>,
        cluster: &Arc<Cluster<Embedded>>,
        callback: Py<PyAny>,
    ) -> PyResult<()> {
        self.run(py, cluster).map_err(|error| {
            let message = format!("no thread can be had to call back from: {}; nothing was done", error.value(py));
            let raised = made(py, PyOSError::new_err(message));
            raised.set_cause(py, Some(error));
            raised
        })?;
        self.callbacks.lock().push(callback);
        Ok(())
    }

    /// Starts the thread, unless it runs. No lock is held: Python waits until the thread has begun.
    fn run(self: &Arc<Self>, py: Python<'_>, cluster: &Arc<Cluster<Embedded>>) -> PyResult<()> {
        if self.is_running.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        cluster.events().begin_to_listen();
        let feed = Feed {
            cluster: Arc::downgrade(cluster),
            events: Arc::clone(cluster.events()),
            listeners: Arc::clone(self),
            evicted: Mutex::default(),
        };
        let start = || {
            let arguments = PyDict::new(py);
            arguments.set_item("target", py.import("distributed_consistent_cache._threads")?.getattr("listen")?)?;
            arguments.set_item("args", (Py::new(py, feed)?,))?;
            arguments.set_item("name", "cache-events")?;
            arguments.set_item("daemon", true)?;
            py.import("threading")?.getattr("Thread")?.call((), Some(&arguments))?.call_method0("start")?;
            Ok(())
        };
        start().inspect_err(|_| self.is_running.store(false, Ordering::Release))
    }

    /// In a forked child, at the first call: callbacks are called here, too.
    pub(super) fn begin_anew(self: &Arc<Self>, py: Python<'_>, cluster: &Arc<Cluster<Embedded>>) {
        if self.callbacks.lock().is_empty() {
            return;
        }
        if let Err(error) = self.run(py, cluster) {
            log::warn!("no callbacks of Cache.on_event: {}", error.value(py));
        }
    }

    /// In a forked child: the thread stayed in the parent.
    pub(super) fn in_child(&self) {
        self.is_running.store(false, Ordering::Relaxed);
        self.is_calling.store(false, Ordering::Relaxed);
    }

    /// Its lock.
    pub(super) fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        each(raw(&self.callbacks));
    }

    /// True while something was told that is not heard yet.
    pub(super) fn is_behind(&self, cluster: &Cluster<Embedded>) -> bool {
        let is_running = self.is_running.load(Ordering::Acquire);
        is_running && (!cluster.events().is_empty() || self.is_calling.load(Ordering::Acquire))
    }

    /// Calls this no more; false if it was not called.
    pub(super) fn remove(&self, callback: &Bound<'_, PyAny>) -> PyResult<bool> {
        let all = self.all(callback.py());
        for (place, one) in all.iter().enumerate() {
            // Two methods of one object are equal, and not the same.
            if one.bind(callback.py()).eq(callback)? {
                let mut callbacks = self.callbacks.lock();
                let is_there = callbacks.get(place).is_some_and(|there| there.is(one));
                let removed = is_there.then(|| callbacks.remove(place));
                drop(callbacks);
                return Ok(removed.is_some());
            }
        }
        Ok(false)
    }

    fn all(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.callbacks.lock().iter().map(|callback| callback.clone_ref(py)).collect()
    }

    /// For Python's garbage collector: a callback may keep the cache.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(callbacks) = self.callbacks.try_lock() else { return Ok(()) };
        callbacks.iter().try_for_each(|callback| visit.call(callback))
    }

    /// The garbage collector takes the callbacks.
    pub(super) fn clear(&self) {
        let callbacks = std::mem::take(&mut *self.callbacks.lock());
        drop(callbacks);
    }
}

/// What the thread asks for what happened.
#[pyclass(frozen, name = "_Feed", module = "distributed_consistent_cache._core")]
pub(super) struct Feed {
    cluster: Weak<Cluster<Embedded>>,
    events: Arc<Events>,
    listeners: Arc<Listeners>,
    evicted: Mutex<Vec<(NodeId, u64, u64)>>,
}

#[pymethods]
impl Feed {
    /// Waits for what happens; None when the cache is closed or gone, and
    /// all was heard.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Vec<Event>>> {
        self.listeners.is_calling.store(false, Ordering::Release);
        let heard = py.detach(|| {
            loop {
                let heard = self.events.next(EVICTIONS_EVERY)?;
                if let Some(cluster) = self.cluster.upgrade() {
                    tell_evictions(&cluster, &mut self.evicted.lock());
                }
                if !heard.is_empty() {
                    self.listeners.is_calling.store(true, Ordering::Release);
                    return Some(heard);
                }
            }
        });
        heard.map(|heard| heard.iter().map(|event| Event::new(py, event)).collect()).transpose()
    }

    /// Who is called, now.
    fn callbacks(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.listeners.all(py)
    }
}

/// Tells what fell off since the last time.
fn tell_evictions(cluster: &Cluster<Embedded>, before: &mut Vec<(NodeId, u64, u64)>) {
    let now = cluster.evicted();
    for &(node, entries, bytes) in &now {
        let (had, had_bytes) =
            before.iter().find(|(other, ..)| *other == node).map_or((0, 0), |&(_, entries, bytes)| (entries, bytes));
        if entries > had {
            let what = What::Evicted { node, entries: entries - had, bytes: bytes.saturating_sub(had_bytes) };
            cluster.events().tell(|| what);
        }
    }
    *before = now;
}
