//! ```text
//!   a value  ->  its bytes (Format)  ->  packed, if long or signed (Packing)  ->  the cluster: with the GIL, unless it is busy
//!   refused by a clock that is ahead?  ->  once more, with this clock's next timestamp
//! ```
//! One write of one entry, of a whole cache or through one node.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::codec::LARGE_BYTES;
use super::convert;
use super::errors::raise;
use super::serializer::Format;
use super::stopped::saying;
use super::timestamps;
use crate::cluster::put::Outcome;
use crate::cluster::stamps::TRIES_MAX;
use crate::cluster::{Cluster, Progress};
use crate::config::Quorum;
use crate::entry::{Key, Value};
use crate::hybrid_clock;
use crate::ids::NodeId;
use crate::lifetime::Lifetime;
use crate::message::Write;
use crate::runtime::Wait;
use crate::runtime::embedded::Embedded;
use crate::values::Packing;
use crate::version::Timestamp;

/// Encodes a value and writes it.
#[inline]
#[expect(clippy::too_many_arguments, reason = "those of put, and what the cache is made of")]
pub(super) fn put(
    py: Python<'_>,
    (cluster, packing): (&Cluster<Embedded>, &Packing),
    format: &Format,
    via: Option<NodeId>,
    (key, value): (&Bound<'_, PyAny>, &Bound<'_, PyAny>),
    timestamp: Option<&Bound<'_, PyAny>>,
    ttl: Option<&Bound<'_, PyAny>>,
    quorum: Option<Quorum>,
) -> PyResult<bool> {
    let key = convert::key(key)?;
    let (by_clock, mut timestamp) = (timestamp.is_none(), convert::timestamp(timestamp)?);
    let ttl = convert::ttl(ttl)?;
    let encoded = format.encode(value)?;
    let value = encoded.value()?;
    // It lives from when it is written, not from before it was encoded.
    let lifetime = cluster.lifetime(ttl);
    let put = |timestamp| put_at(py, (cluster, packing), via, (key, value), (timestamp, lifetime), quorum);
    if put(timestamp)? {
        return Ok(true);
    }
    for _ in 0..TRIES_MAX {
        let (again, told) = timestamps::refused(py, cluster, key, timestamp, by_clock);
        if !again {
            return told.map(|()| false);
        }
        told.map_err(|error| saying(py, error, "nothing was written"))?;
        timestamp = hybrid_clock::now();
        if put(timestamp)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Packs a value and writes it; whether it is the newest.
#[inline]
fn put_at(
    py: Python<'_>,
    (cluster, packing): (&Cluster<Embedded>, &Packing),
    via: Option<NodeId>,
    (key, value): (Key<'_>, Value<'_>),
    (timestamp, lifetime): (Timestamp, Lifetime),
    quorum: Option<Quorum>,
) -> PyResult<bool> {
    if value.bytes().len() >= LARGE_BYTES || packing.packs_long(value) {
        let put = || {
            let packed = packing.pack(Write::put_living(key, timestamp, value, lifetime))?;
            cluster.write(packed.write(), quorum, via)
        };
        return py.detach(put).map(|outcome| outcome.newest).map_err(raise);
    }
    let put = Write::put_living(key, timestamp, value, lifetime);
    if packing.leaves(&put) {
        return write(py, cluster, put, quorum, via).map(|outcome| outcome.newest);
    }
    let packed = packing.pack(put).map_err(raise)?;
    write(py, cluster, packed.write(), quorum, via).map(|outcome| outcome.newest)
}

pub(super) fn remove(
    py: Python<'_>,
    cluster: &Cluster<Embedded>,
    via: Option<NodeId>,
    key: &Bound<'_, PyAny>,
    timestamp: Option<&Bound<'_, PyAny>>,
    quorum: Option<Quorum>,
) -> PyResult<bool> {
    let (key, stamp) = (convert::key(key)?, convert::timestamp(timestamp)?);
    let outcome = if timestamp.is_none() {
        py.detach(|| cluster.remove_by_clock(key, stamp, quorum, via)).map_err(raise)?
    } else {
        write(py, cluster, Write::remove(key, stamp), quorum, via)?
    };
    if !outcome.newest {
        timestamps::refused(py, cluster, key, stamp, timestamp.is_none()).1?;
    }
    Ok(outcome.newest && outcome.was_live)
}

/// Writes with the GIL held, and lets go of it when a node is busy.
#[inline]
fn write(
    py: Python<'_>,
    cluster: &Cluster<Embedded>,
    write: Write<'_>,
    quorum: Option<Quorum>,
    via: Option<NodeId>,
) -> PyResult<Outcome> {
    let mut writing = match cluster.begin(write, quorum, via) {
        Ok(writing) => writing,
        Err(error) => return Err(raise(error)),
    };
    let mut wait = Wait::Never;
    loop {
        let progress = match wait {
            Wait::Never => cluster.advance(&mut writing, wait),
            Wait::ForTurn => py.detach(|| cluster.advance(&mut writing, wait)),
        };
        match progress.map_err(raise)? {
            Progress::Done(outcome) => return Ok(outcome),
            Progress::Busy => wait = Wait::ForTurn,
        }
    }
}

pub(super) fn miss<'py>(py: Python<'py>, default: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    (default, -1).into_pyobject(py)
}
