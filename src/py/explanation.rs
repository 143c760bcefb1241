//! ```text
//!   Cluster::explain  ->  Explanation: what a get answers and why, and one OwnerView for each owner; prints as a table
//! ```
//! Why a key is found or not, as Python objects.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::as_dict::to_dict;
use super::table::{duration, size, table};
use crate::cluster::explain::{Explanation as Explained, OwnerReport};

/// What one owner of a key knows of it.
#[pyclass(frozen, eq, get_all, module = "distributed_consistent_cache")]
#[derive(Clone, PartialEq)]
pub(super) struct OwnerView {
    /// Its number.
    node: u8,
    /// "live", "cut off" (unreachable, memory kept) or "failed" (memory
    /// lost).
    state: &'static str,
    /// It has pulled what it missed of the key's partition; None if it does
    /// not answer.
    synced: Option<bool>,
    /// "live" (it has the value), "removed", "expired", "evicted" (it knows
    /// of a write, and has no value), "nothing", or "no answer".
    knows: &'static str,
    /// The timestamp of what it knows, or None.
    timestamp: Option<u64>,
    /// Bytes of the value as it is stored, or None if it has none.
    value_bytes: Option<usize>,
    /// Bytes that it takes in the node, key and bookkeeping included, or
    /// None.
    bytes: Option<usize>,
    /// Seconds since it was written, by its timestamp, if that is one that
    /// the cache gave; else None.
    age: Option<f64>,
    /// Seconds that the value goes on living, or None.
    ttl: Option<f64>,
    /// Seconds since the value was last used there by a get or a put, to a
    /// tenth of a second or one part in ten thousand; of what repair
    /// brought, since it came. None if it has no value.
    idle: Option<f64>,
    /// So many entries of the node were used after this one: the higher,
    /// the sooner it is evicted. None if it is not there, or beyond 4,096.
    used_since: Option<u32>,
}

const OWNER_VIEW: [&str; 11] =
    ["node", "state", "synced", "knows", "timestamp", "value_bytes", "bytes", "age", "ttl", "idle", "used_since"];

impl From<OwnerReport> for OwnerView {
    fn from(report: OwnerReport) -> Self {
        let (knows, timestamp) = (report.knows(), report.timestamp());
        let (value_bytes, bytes) = (report.value_bytes(), report.bytes());
        let OwnerReport { node, state, says, age, left, idle, .. } = report;
        Self {
            node,
            state: state.name(),
            synced: says.map(|says| says.synced),
            knows,
            timestamp,
            value_bytes,
            bytes,
            age: age.map(|age| age.as_secs_f64()),
            ttl: left.map(|left| left.as_secs_f64()),
            idle: idle.map(|idle| idle.as_secs_f64()),
            used_since: says.and_then(|says| says.used_since),
        }
    }
}

#[pymethods]
impl OwnerView {
    /// The same as a dict of plain types.
    fn as_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf.as_any(), &OWNER_VIEW)
    }

    fn __repr__(&self) -> String {
        let Self { node, state, knows, .. } = self;
        let timestamp = self.timestamp.map_or_else(|| "None".to_owned(), |timestamp| timestamp.to_string());
        format!("OwnerView(node={node}, state='{state}', knows='{knows}', timestamp={timestamp})")
    }
}

/// What a `get` of a key would answer now, and why: what each of its owners
/// knows. Prints as a table.
#[pyclass(frozen, get_all, module = "distributed_consistent_cache")]
pub(super) struct Explanation {
    /// The key.
    key: String,
    /// The slice of the hash space that it is in.
    partition: u16,
    /// Its owners in the order in which they are asked, then nodes that
    /// owned it and serve it on until the owners have pulled, and after
    /// them the nodes that it belongs on and that are down.
    owners: Vec<Py<OwnerView>>,
    /// True if a get finds it.
    hit: bool,
    /// The timestamp of what a get finds, or None.
    timestamp: Option<u64>,
    /// Why a get finds nothing: "never_seen", "removed", "expired",
    /// "evicted", "superseded", "owner_down" or "not_synced"; or "quorum"
    /// if too few owners answer. None for a hit.
    reason: Option<&'static str>,
    /// The same in words.
    sentence: String,
}

const EXPLANATION: [&str; 7] = ["key", "partition", "owners", "hit", "timestamp", "reason", "sentence"];

impl Explanation {
    pub(super) fn new(py: Python<'_>, key: &str, explained: Explained) -> PyResult<Self> {
        let timestamp = explained.answer.as_ref().ok().copied().flatten();
        let (reason, sentence) = (explained.reason(), explained.sentence());
        let owners = explained.owners.into_iter().map(|owner| Py::new(py, OwnerView::from(owner)));
        Ok(Self {
            key: key.to_owned(),
            partition: explained.partition,
            owners: owners.collect::<PyResult<_>>()?,
            hit: timestamp.is_some(),
            timestamp: timestamp.map(|timestamp| timestamp.get()),
            reason,
            sentence,
        })
    }
}

#[pymethods]
impl Explanation {
    /// The same as a dict of plain types.
    fn as_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf.as_any(), &EXPLANATION)
    }

    fn __repr__(&self) -> String {
        let timestamp = self.timestamp.map_or_else(|| "None".to_owned(), |timestamp| timestamp.to_string());
        let reason = self.reason.map_or_else(|| "None".to_owned(), |reason| format!("'{reason}'"));
        let hit = if self.hit { "True" } else { "False" };
        format!("Explanation(partition={}, hit={hit}, timestamp={timestamp}, reason={reason})", self.partition)
    }

    fn __str__(&self) -> String {
        let names = ["node", "state", "synced", "knows", "timestamp", "value", "age", "ttl", "idle"];
        let mut rows = vec![names.map(str::to_owned).to_vec()];
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        Python::attach(|py| {
            for owner in &self.owners {
                let owner = owner.bind(py).get();
                rows.push(vec![
                    owner.node.to_string(),
                    owner.state.to_owned(),
                    owner.synced.map_or("-", |synced| if synced { "yes" } else { "no" }).to_owned(),
                    owner.knows.to_owned(),
                    or_dash(owner.timestamp.map(|timestamp| timestamp.to_string())),
                    or_dash(owner.value_bytes.map(|bytes| size(bytes as u64))),
                    or_dash(owner.age.map(duration)),
                    or_dash(owner.ttl.map(duration)),
                    or_dash(owner.idle.map(duration)),
                ]);
            }
        });
        let mut key: String = self.key.chars().take(60).collect();
        if key.len() < self.key.len() {
            key.push_str("..");
        }
        format!("{key:?}, partition {}: {}\n\n{}", self.partition, self.sentence, table(&rows))
    }
}
