//! The class `Node`: what one node knows, and writes that go through it.

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use super::calls::{miss, put, remove};
use super::convert;
use super::decode::{Taken, Unpacker, hit};
use super::errors::raise;
use super::handle::Cache;
use crate::ids::NodeId;

/// One node of a cache, to talk to as if connected to it: what it answers
/// is what it knows now.
#[pyclass(frozen, weakref, generic, name = "Node", module = "distributed_consistent_cache")]
pub(super) struct NodeHandle {
    /// Kept, so that whatever ends the cache is in one place.
    pub(super) cache: Py<Cache>,
    pub(super) id: NodeId,
}

#[pymethods]
impl NodeHandle {
    /// Its number.
    #[getter]
    const fn id(&self) -> u8 {
        self.id
    }

    /// Writes through this node: it coordinates if it owns the key, and
    /// passes the write on to the owners it can reach. Returns and raises
    /// as `Cache.put`, and NodeDownError.
    #[pyo3(signature = (key, value, timestamp=None, *, ttl=None))]
    fn put(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        timestamp: Option<&Bound<'_, PyAny>>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let cache = self.cache.get();
        put(py, (cache.cluster()?, &cache.packing), &cache.format, Some(self.id), (key, value), timestamp, ttl, None)
    }

    /// What this node knows of a key, and nobody else is asked: `(value,
    /// timestamp)` or `(default, -1)`. Not a use. Raises as `Cache.get`,
    /// and NodeDownError.
    #[pyo3(signature = (key, default=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let cache = self.cache.get();
        let (cluster, key) = (cache.cluster()?, convert::key(key)?);
        let mut taken = Taken::Nothing;
        let found = py
            .detach(|| cluster.read_at(self.id, key, &mut |read, lent| taken = Taken::keep(read, lent)))
            .map_err(raise)?;
        match found {
            Some(timestamp) => {
                let unpacker = Unpacker { packing: &cache.packing, library: &**cluster };
                hit(py, cache.format.decode(py, unpacker, taken, key)?, timestamp)
            }
            None => miss(py, default.unwrap_or(py.None().bind(py))),
        }
    }

    /// Removes through this node. Returns and raises as `Cache.remove`, and
    /// NodeDownError.
    #[pyo3(signature = (key, timestamp=None))]
    fn remove(&self, py: Python<'_>, key: &Bound<'_, PyAny>, timestamp: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        remove(py, self.cache.get().cluster()?, Some(self.id), key, timestamp, None)
    }

    fn __repr__(&self) -> String {
        format!("<Node {}>", self.id)
    }

    // The cache is what can be cleared.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.cache)
    }
}
