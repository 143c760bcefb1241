//! ```text
//!   cluster: something happened -> queue -> [ thread "cache-events" ] -> attach -> each callback, one after the other
//! ```
//! Callbacks for what happens to a cache. One thread for each cache that has any; it holds no lock and, while it waits, no
//! GIL.
//!
//! Promise: a callback may do anything that any thread may, the cache's own calls included. What it raises is logged.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::process;
use crate::cluster::Cluster;
use crate::entry::NodeId;
use crate::events::{self, What};
use crate::runtime::embedded::Embedded;

/// Evictions are told of so often, at most.
const EVICTIONS_EVERY: Duration = Duration::from_millis(250);

/// Something that happened to a cache.
#[pyclass(frozen, get_all, module = "distributed_consistent_cache")]
pub(super) struct Event {
    /// "node_failed", "node_recovered", "node_joined", "node_left", "sync_finished", "evicted" or "value_too_large".
    kind: &'static str,
    /// When it happened, or for "evicted" when it was noticed: seconds since 1970.
    time: f64,
    /// Which node, or None if it is about none.
    node: Option<u8>,
    /// What else there is to say of it: see `Cache.on_event`.
    details: Py<PyDict>,
    /// So many events were dropped just before this one, because callbacks were too slow for them.
    dropped: u64,
}

#[pymethods]
impl Event {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let node = self.node.map_or_else(|| "None".to_owned(), |node| node.to_string());
        let details = self.details.bind(py).repr()?;
        Ok(format!("Event(kind='{}', node={node}, details={details}, dropped={})", self.kind, self.dropped))
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
    is_running: Mutex<bool>,
}

impl Listeners {
    /// Calls this from now on, too.
    pub(super) fn add(self: &Arc<Self>, cluster: &Arc<Cluster<Embedded>>, callback: Py<PyAny>) -> std::io::Result<()> {
        let mut is_running = self.is_running.lock();
        if !*is_running {
            cluster.events().begin_to_listen();
            let (cluster, listeners) = (Arc::downgrade(cluster), Arc::clone(self));
            process::join_at_exit(spawn(cluster, listeners)?);
            *is_running = true;
        }
        drop(is_running);
        self.callbacks.lock().push(callback);
        Ok(())
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
    pub(super) fn traverse(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        let Some(callbacks) = self.callbacks.try_lock() else { return Ok(()) };
        callbacks.iter().try_for_each(|callback| visit.call(callback))
    }

    /// The garbage collector takes the callbacks.
    pub(super) fn clear(&self) {
        let callbacks = std::mem::take(&mut *self.callbacks.lock());
        drop(callbacks);
    }
}

fn spawn(cluster: Weak<Cluster<Embedded>>, listeners: Arc<Listeners>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("cache-events".to_owned()).spawn(move || listen(&cluster, &listeners))
}

/// Calls back what is told, until the cache is closed or gone.
fn listen(cluster: &Weak<Cluster<Embedded>>, listeners: &Listeners) {
    let Some(events) = cluster.upgrade().map(|cluster| Arc::clone(cluster.events())) else { return };
    let mut evicted: Vec<(NodeId, u64, u64)> = Vec::new();
    while let Some(heard) = events.next(EVICTIONS_EVERY) {
        if let Some(cluster) = cluster.upgrade() {
            tell_evictions(&cluster, &mut evicted);
        }
        if !heard.is_empty() {
            Python::attach(|py| heard.iter().for_each(|event| call_all(py, listeners, event)));
        }
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

fn call_all(py: Python<'_>, listeners: &Listeners, event: &events::Event) {
    let event = match Event::new(py, event).and_then(|event| Py::new(py, event)) {
        Ok(event) => event,
        Err(error) => return log_error(py, &error),
    };
    for callback in listeners.all(py) {
        if let Err(error) = callback.call1(py, (&event,)) {
            log_error(py, &error);
        }
    }
}

/// Logs what a callback raised, with its traceback. What logging itself raises has nowhere else to go.
fn log_error(py: Python<'_>, error: &PyErr) {
    let log = || -> PyResult<()> {
        let logger = py.import("logging")?.call_method1("getLogger", ("distributed_consistent_cache",))?;
        let arguments = PyDict::new(py);
        arguments.set_item("exc_info", error.value(py))?;
        logger.call_method("error", ("a callback of Cache.on_event raised",), Some(&arguments))?;
        Ok(())
    };
    if let Err(error) = log() {
        error.write_unraisable(py, None);
    }
}
