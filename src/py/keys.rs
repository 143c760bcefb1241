//! ```text
//!   len, iter, clear:  some partitions without the GIL  ->  signals, others' turn  ->  some more
//! ```
//! All keys of a cache, as Python sees them: how many, which, and gone. Nobody is held up: what is looked over without the GIL
//! are some partitions at a time, and what is handed out is counted.

use std::collections::VecDeque;

use crate::lock::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{PyTraverseError, PyVisit};

use super::errors::raise;
use super::handle::Cache;
use super::interrupts::{heard, interruptible};
use super::stopped::{CLEAR, Call};
use super::timestamps;
use crate::cluster::Cluster;
use crate::cluster::clear::Cleared;
use crate::cluster::walk::Keys;
use crate::entry::Key;
use crate::error::Error;
use crate::ids::PartitionId;
use crate::runtime::embedded::Embedded;
use crate::version::Timestamp;

/// After so many keys whoever waits for the GIL has a turn: a part of a millisecond.
const KEYS_A_TURN: u32 = 2048;

/// How many live keys there are.
pub(super) fn len(py: Python<'_>, cluster: &Cluster<Embedded>) -> PyResult<usize> {
    cluster.check_open().map_err(raise)?;
    interruptible(py, |go_on| cluster.len_while(go_on))?.ok_or_else(|| raise(Error::Closed))
}

/// Removes all that is not newer than this. What ends it early says how much was removed.
pub(super) fn clear(py: Python<'_>, cluster: &Cluster<Embedded>, timestamp: Option<Timestamp>) -> PyResult<usize> {
    cluster.check_open().map_err(raise)?;
    let call = Call::begin(&CLEAR);
    let (cleared, raised) = heard(py, |go_on| cluster.clear(timestamp, go_on));
    let Cleared { removed, error, of_other_unit, .. } = cleared;
    let told = || match (&of_other_unit, timestamp) {
        (Some(key), Some(timestamp)) => {
            timestamps::refused(py, cluster, Key::new(key).map_err(raise)?, timestamp, false).1
        }
        _ => Ok(()),
    };
    let Some(error) = raised.or_else(|| error.map(raise)).or_else(|| told().err()) else { return Ok(removed) };
    Err(call.after(py, error, removed))
}

/// Iterates over the live keys of a cache. A key that is live from the
/// beginning to the end is there once; one that is written or removed
/// meanwhile may be there or not.
#[pyclass(frozen, weakref, module = "distributed_consistent_cache")]
pub(super) struct KeyIterator {
    /// Nothing once it is at its end.
    cache: Mutex<Option<Py<Cache>>>,
    place: Mutex<Place>,
}

/// How far it is.
struct Place {
    /// The next partition that nobody has looked over.
    next: PartitionId,
    /// Keys that were found and not handed out, and how many of the first were.
    found: VecDeque<Keys>,
    handed_out: usize,
    /// Keys since others had a turn.
    since_turn: u32,
}

impl KeyIterator {
    pub(super) fn of(cache: Bound<'_, Cache>) -> PyResult<Self> {
        cache.get().cluster()?.check_open().map_err(raise)?;
        let place = Place { next: 0, found: VecDeque::new(), handed_out: 0, since_turn: 0 };
        Ok(Self { cache: Mutex::new(Some(cache.unbind())), place: Mutex::new(place) })
    }
}

impl Place {
    /// The next key that was found.
    fn key<'py>(&mut self, py: Python<'py>) -> Option<PyResult<Bound<'py, PyString>>> {
        loop {
            let Some(key) = self.found.front()?.get(self.handed_out) else {
                self.found.pop_front();
                self.handed_out = 0;
                continue;
            };
            self.handed_out += 1;
            self.since_turn += 1;
            return Some(PyString::from_bytes(py, key));
        }
    }
}

#[pymethods]
impl KeyIterator {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyString>>> {
        loop {
            // No lock is held while the GIL is let go of: who waits for one may have the other.
            let from = {
                let mut place = self.place.lock();
                if place.since_turn < KEYS_A_TURN
                    && let Some(key) = place.key(py)
                {
                    return key.map(Some);
                }
                if std::mem::take(&mut place.since_turn) >= KEYS_A_TURN { None } else { Some(place.next) }
            };
            let Some(from) = from else {
                py.detach(|| {});
                py.check_signals()?;
                continue;
            };
            let Some(cache) = self.cache.lock().as_ref().map(|cache| cache.clone_ref(py)) else { return Ok(None) };
            let cluster = cache.get().cluster()?;
            cluster.check_open().map_err(raise)?;
            let some = py.detach(|| cluster.some_keys(from));
            cluster.check_open().map_err(raise)?;
            py.check_signals()?;
            let Some((keys, next)) = some else {
                let ended = self.cache.lock().take();
                drop(ended);
                return Ok(None);
            };
            let mut place = self.place.lock();
            // Another thread may have looked over the same partitions: they are handed out once.
            if place.next == from {
                place.next = next;
                place.found.extend(keys);
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever has it locked is in the middle of a call, and is a reference that is not counted here.
        self.cache.try_lock().map_or(Ok(()), |cache| visit.call(&*cache))
    }

    fn __clear__(&self) {
        let cache = self.cache.lock().take();
        drop(cache);
    }
}
