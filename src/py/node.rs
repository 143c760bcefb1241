//! The class `Node`: what one node knows, and writes that go through it.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::cache::{miss, put, remove};
use super::convert;
use super::decode::{Taken, Unpacker, hit};
use super::errors::{forked, raise};
use super::process;
use super::serializer::Format;
use crate::cluster::Cluster;
use crate::entry::NodeId;
use crate::runtime::embedded::Embedded;
use crate::values::Packing;

/// One node of a cache, to talk to as if connected to it: what it answers is what it knows now.
#[pyclass(frozen, name = "Node", module = "distributed_consistent_cache")]
pub(super) struct NodeHandle {
    pub(super) cluster: Arc<Cluster<Embedded>>,
    pub(super) format: Arc<Format>,
    pub(super) packing: Arc<Packing>,
    pub(super) id: NodeId,
    /// The process that it was made in.
    pub(super) generation: u32,
}

impl NodeHandle {
    fn cluster(&self) -> PyResult<&Arc<Cluster<Embedded>>> {
        if self.generation == process::generation() { Ok(&self.cluster) } else { Err(forked()) }
    }
}

#[pymethods]
impl NodeHandle {
    /// Its number.
    #[getter]
    const fn id(&self) -> u8 {
        self.id
    }

    /// Writes through this node: it coordinates if it owns the key, and passes the write on to the owners it can reach.
    /// Returns and raises as `Cache.put`, and NodeDownError.
    #[pyo3(signature = (key, value, timestamp=None, *, ttl=None))]
    fn put(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        timestamp: Option<&Bound<'_, PyAny>>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        put(py, (self.cluster()?, &self.packing), &self.format, Some(self.id), (key, value), timestamp, ttl, None)
    }

    /// What this node knows of a key, and nobody else is asked: `(value, timestamp)` or `(default, -1)`. Not a use.
    /// Raises as `Cache.get`, and NodeDownError.
    #[pyo3(signature = (key, default=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let (cluster, key) = (self.cluster()?, convert::key(key)?);
        let mut taken = Taken::Nothing;
        let found = py
            .detach(|| cluster.read_at(self.id, key, &mut |read, lent| taken = Taken::keep(read, lent)))
            .map_err(raise)?;
        match found {
            Some(timestamp) => {
                let unpacker = Unpacker { packing: &self.packing, library: &**cluster };
                hit(py, self.format.decode(py, unpacker, taken, key)?, timestamp)
            }
            None => miss(py, default.unwrap_or(py.None().bind(py))),
        }
    }

    /// Removes through this node. Returns and raises as `Cache.remove`, and NodeDownError.
    #[pyo3(signature = (key, timestamp=None))]
    fn remove(&self, py: Python<'_>, key: &Bound<'_, PyAny>, timestamp: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        remove(py, self.cluster()?, Some(self.id), key, timestamp, None)
    }

    fn __repr__(&self) -> String {
        format!("<Node {}>", self.id)
    }
}
