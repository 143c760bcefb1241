//! ```text
//!   Cache  =  a cluster + how values become bytes (format, packing) + what goes on beside it (living)
//!      used after a fork: its background begins anew       dropped: it is closed, and nobody is waited for with the GIL
//! ```
//! What a `Cache` is made of, for its methods (`cache`), its nodes (`node`) and its iterators (`keys`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::decode::Unpacker;
use super::errors::forked;
use super::process::{self, Living};
use super::serializer::Format;
use super::{convert, interpreter};
use crate::cluster::Cluster;
use crate::config::Quorum;
use crate::runtime::embedded::Embedded;
use crate::values::Packing;

/// A cache of N nodes in this process that keeps every entry on R of them.
/// The newest timestamp wins. Any number of threads may share it.
///
/// Cache(nodes=1, node_capacity="64MiB") is the plain case: one bounded
/// memory of which the least recently used goes first. `Cache[Report](..)`
/// tells a type checker what the values are.
///
/// nodes: 1 to 100.
///
/// replicas: copies of each entry, 1 to `nodes`; None for min(3, nodes).
///
/// node_capacity: bytes of each node, or text such as "64KiB", "512m",
/// "2GB", in capital letters or small ones; from 16 KiB to 1 TiB, keys,
/// values and all bookkeeping included. KiB, MiB, GiB and TiB are of 1024,
/// and so are K, M, G and T alone, as container tools read them; kB, MB, GB
/// and TB are of 1000.
///
/// write_quorum, read_quorum: how many owners must have a write, or are
/// asked by a read: "one", "majority", "all", or an int from 1 to
/// `replicas`.
///
/// gossip_interval: seconds between two rounds of gossip in the background,
/// 0.001 to 3600, or None for none but those asked for by `gossip` and
/// `sync`.
///
/// serializer: "pickle", or an object with `dumps` (value to bytes,
/// bytearray or str) and `loads`, such as the module `json`.
///
/// decode: "pickle", or "plain" for a cache whose `get` runs no pickle but
/// reads plain data only: None, bool, int, float, complex, str, bytes,
/// bytearray, memoryview, list, tuple, dict, set, frozenset, date, time,
/// datetime, timedelta, timezone, Decimal; of these types exactly. Anything
/// else is a SerializationError of `get`. It goes with the serializer
/// "pickle".
///
/// compression: values are made smaller if that saves an eighth: "lz4" or
/// "zstd" (smaller and slower) those of 1 KiB and more; "zstd-dict" also
/// those of 100 bytes, with a dictionary that is trained from values in the
/// background (without a gossip_interval: in calls of `gossip` and `sync`;
/// see `value_stats`); or None. Each value says how it is packed, so
/// settings may change.
///
/// signing_key: a secret of 16 to 64 bytes, or a list or tuple of one or
/// two: values are signed under the first, and read when they are signed
/// under any. What is not signed so is refused by reads with
/// SerializationError before anything of it is decompressed or unpickled,
/// counted in `value_stats().refused`, and stays until it is overwritten;
/// without a key, what is signed is refused. A signature covers the key,
/// the timestamp, that it is a put, and the bytes. It does not cover how
/// long an entry lives, removes, or which of several signed values of a key
/// is given back.
///
/// default_ttl: seconds that a value lives which is put without a ttl of
/// its own, above 0 and at most 3153600000 (100 years), or a timedelta;
/// None for ever.
///
/// clock: a `ManualClock` that a test moves, so that values end without
/// waiting; None for one that nobody sets.
///
/// What has __index__ is an int here and in every method, and what has
/// __float__ a float; a bool is neither.
///
/// A forked child has its own copy of what was there, with a background of
/// its own from its first call on.
///
/// Raises ValueError or TypeError for a bad argument.
///
/// >>> cache = Cache(nodes=5, replicas=3)
/// >>> cache.put("user:1", {"name": "Ada"}, timestamp=1)
/// True
/// >>> cache.get("user:1")
/// ({'name': 'Ada'}, 1)
#[pyclass(frozen, subclass, weakref, generic, module = "distributed_consistent_cache")]
pub(super) struct Cache {
    pub(super) cluster: Option<Arc<Cluster<Embedded>>>,
    pub(super) format: Format,
    pub(super) packing: Arc<Packing>,
    /// The answer to most misses: `(None, -1)`.
    pub(super) miss: Py<PyTuple>,
    /// The process that it was used in last.
    pub(super) generation: AtomicU32,
    pub(super) living: Option<Arc<Living>>,
}

impl Cache {
    /// The cluster. The first time after a fork, what goes on in its background begins anew.
    #[inline]
    pub(super) fn cluster(&self) -> PyResult<&Arc<Cluster<Embedded>>> {
        match &self.cluster {
            Some(cluster) if self.generation.load(Ordering::Relaxed) == process::generation() => Ok(cluster),
            _ => self.cluster_after_fork(),
        }
    }

    #[cold]
    fn cluster_after_fork(&self) -> PyResult<&Arc<Cluster<Embedded>>> {
        let begins = |living: &Arc<Living>| Python::attach(|py| living.begin_anew(py));
        match &self.cluster {
            Some(cluster) if self.living.as_ref().is_some_and(begins) => {
                self.generation.store(process::generation(), Ordering::Relaxed);
                Ok(cluster)
            }
            _ => Err(forked()),
        }
    }

    /// What lives on beside this object.
    pub(super) fn living(&self) -> PyResult<&Arc<Living>> {
        self.cluster()?;
        self.living.as_ref().ok_or_else(forked)
    }

    /// What unpacks the values of this cluster.
    #[inline]
    pub(super) fn unpacker<'a>(&'a self, cluster: &'a Cluster<Embedded>) -> Unpacker<'a> {
        Unpacker { packing: &self.packing, library: cluster }
    }

    /// A quorum for one call, if one is given.
    #[inline]
    pub(super) fn quorum(&self, argument: &'static str, quorum: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Quorum>> {
        let Some(given) = quorum else { return Ok(None) };
        convert::quorum(argument, given, self.cluster()?.config().replicas()).map(Some)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let (Some(cluster), Some(living)) = (self.cluster.take(), self.living.take()) else { return };
        if living.is_lost() {
            // What other threads of another process had in their hands cannot be taken apart here.
            std::mem::forget((cluster, living));
            return;
        }
        // Callbacks are Python objects, to be dropped with the GIL; the threads in the background are waited for without. When
        // the interpreter ends they are not: another that waits for it for ever may have what they wait for.
        living.listeners.clear();
        let end = || {
            if interpreter::is_ending() {
                cluster.close_soon()
            } else {
                cluster.close()
            }
            drop((cluster, living));
        };
        Python::attach(|py| py.detach(end));
    }
}
