//! ```text
//!   Cluster::statistics  ->  Stats: totals, and one NodeStats for each node; prints as a table
//! ```
//! What the cache has done, as Python objects. Plain numbers inside: they can be kept, compared and sent away.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::as_dict::to_dict;
use super::report::ValueStats;
use super::table::{duration, number, size, table};
use crate::counters::{Call, Miss};
use crate::stats::{self, Activity, Gauges, KINDS, Statistics};

/// How long calls of one kind took: a sample of one call in about 64,
/// measured where Python calls.
#[pyclass(frozen, eq, get_all, module = "distributed_consistent_cache")]
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Latency {
    /// Calls that were timed.
    count: u64,
    /// Their mean, in seconds.
    mean: f64,
    /// Half of them took at most so many seconds.
    p50: f64,
    /// Nine in ten.
    p90: f64,
    /// 99 in 100.
    p99: f64,
    /// 999 in 1,000.
    p999: f64,
    /// The longest, in seconds.
    max: f64,
}

const LATENCY: [&str; 7] = ["count", "mean", "p50", "p90", "p99", "p999", "max"];

impl From<stats::Latency> for Latency {
    fn from(latency: stats::Latency) -> Self {
        let stats::Latency { count, mean, p50, p90, p99, p999, max } = latency;
        Self { count, mean, p50, p90, p99, p999, max }
    }
}

#[pymethods]
impl Latency {
    /// The same as a dict of plain numbers.
    fn as_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf.as_any(), &LATENCY)
    }

    fn __repr__(&self) -> String {
        let Self { count, mean, p50, p90, p99, p999, max } = self;
        format!(
            "Latency(count={count}, mean={mean:.3e}, p50={p50:.3e}, p90={p90:.3e}, p99={p99:.3e}, p999={p999:.3e}, \
             max={max:.3e})"
        )
    }
}

/// A class with what was done and what is held, and what else is said.
macro_rules! statistics_class {
    ($(#[$meta:meta])* $name:ident { $($(#[$more_meta:meta])* $more:ident: $type:ty),* }) => {
        $(#[$meta])*
        #[pyclass(frozen, module = "distributed_consistent_cache")]
        pub(super) struct $name {
            $($(#[$more_meta])* $more: $type,)*
            /// Reads that found a value.
            #[pyo3(get)]
            hits: u64,
            /// Reads that found none.
            #[pyo3(get)]
            misses: u64,
            /// The part of reads that found a value, 0 to 1; 0 when there were
            /// none.
            #[pyo3(get)]
            hit_rate: f64,
            by_reason: [u64; Miss::ALL.len()],
            /// Reads and writes that fewer owners answered than were asked for:
            /// they raised an error.
            #[pyo3(get)]
            unanswered: u64,
            /// Puts that were the newest.
            #[pyo3(get)]
            puts: u64,
            /// Puts that something newer refused.
            #[pyo3(get)]
            puts_refused: u64,
            /// Removes that were the newest, whether or not there was a value to
            /// remove.
            #[pyo3(get)]
            removes: u64,
            /// Removes that something newer refused.
            #[pyo3(get)]
            removes_refused: u64,
            /// Entries that fell off the end of a node, each copy by itself.
            #[pyo3(get)]
            evictions: u64,
            /// Bytes of these.
            #[pyo3(get)]
            evicted_bytes: u64,
            /// Copies of expired entries whose space was given back. They are no
            /// evictions.
            #[pyo3(get)]
            expired: u64,
            /// Entries and markers that came by gossip and were news.
            #[pyo3(get)]
            repairs: u64,
            /// Entries and markers that were sent because something older had come,
            /// and were news.
            #[pyo3(get)]
            fixes: u64,
            /// Times that a call waited for a node that was in use.
            #[pyo3(get)]
            lock_waits: u64,
            /// Live entries now, each copy by itself, those included that have
            /// expired and still take space.
            #[pyo3(get)]
            entries: u64,
            /// Removed or evicted keys that are remembered now.
            #[pyo3(get)]
            markers: u64,
            /// Bytes used now.
            #[pyo3(get)]
            bytes_used: u64,
            /// Bytes there are.
            #[pyo3(get)]
            bytes_max: u64,
            by_kind: [u64; KINDS.len()],
            /// Partitions of which a node has yet to pull what it missed.
            #[pyo3(get)]
            unsynced_partitions: u64,
        }

        impl $name {
            #[allow(clippy::too_many_arguments, reason = "one for each field")]
            fn counting(activity: &Activity, holds: &stats::NodeStats, $($more: $type),*) -> Self {
                Self {
                    $($more,)*
                    hits: activity.hits,
                    misses: activity.misses_in_all(),
                    hit_rate: activity.hit_rate(),
                    by_reason: activity.misses,
                    unanswered: activity.unanswered,
                    puts: activity.puts,
                    puts_refused: activity.puts_refused,
                    removes: activity.removes,
                    removes_refused: activity.removes_refused,
                    evictions: activity.evictions,
                    evicted_bytes: activity.evicted_bytes,
                    expired: activity.expired,
                    repairs: activity.repairs,
                    fixes: activity.fixes,
                    lock_waits: activity.lock_waits,
                    entries: holds.entries,
                    markers: holds.markers,
                    bytes_used: holds.bytes_used,
                    bytes_max: holds.bytes_max,
                    by_kind: holds.bytes_by_kind(),
                    unsynced_partitions: holds.unsynced_partitions,
                }
            }
        }
    };
}

/// What both classes have.
const COMMON: [&str; 21] = [
    "hits",
    "misses",
    "misses_by_reason",
    "unanswered",
    "puts",
    "puts_refused",
    "removes",
    "removes_refused",
    "evictions",
    "evicted_bytes",
    "expired",
    "repairs",
    "fixes",
    "lock_waits",
    "entries",
    "markers",
    "bytes_used",
    "bytes_max",
    "bytes_by_kind",
    "unsynced_partitions",
    "hit_rate",
];

statistics_class! {
    /// What was done on one node in all its lives, and what it holds now. Of a
    /// read that asks several nodes, the hit counts on the node that has the
    /// value, and the miss on the one that was asked first; a write counts on
    /// the first owner of its key. A node that is down holds nothing.
    NodeStats {
        /// Its number.
        #[pyo3(get)]
        id: u8,
        /// Whether it answers.
        #[pyo3(get)]
        live: bool
    }
}

statistics_class! {
    /// What a cache has done since it was made, and what it holds now. Counters
    /// go on when nodes fail or leave. When no call is under way, each `get`
    /// counts as one hit or as one miss for one reason.
    Stats {
        /// One for each node that belongs to the cache.
        #[pyo3(get)]
        nodes: Vec<Py<NodeStats>>,
        /// Rounds of gossip.
        #[pyo3(get)]
        gossip_rounds: u64,
        /// Entries and markers that they moved.
        #[pyo3(get)]
        gossip_items: u64,
        /// Bytes that they moved.
        #[pyo3(get)]
        gossip_bytes: u64,
        /// Live keys.
        #[pyo3(get)]
        keys: u64,
        /// Copies of the newest value of a key on live owners, on average: the
        /// replicas, when nothing is missing.
        #[pyo3(get)]
        effective_copies: f64,
        /// Entries and markers that not every live owner has seen.
        #[pyo3(get)]
        unseen_writes: u64,
        /// The lowest timestamp among these, or None.
        #[pyo3(get)]
        oldest_unseen: Option<u64>,
        /// What became of values: how many were made smaller, corrupt, or not
        /// signed.
        #[pyo3(get)]
        values: Py<ValueStats>,
        latencies: [Latency; Call::ALL.len()]
    }
}

const OF_NODE: [&str; 2] = ["id", "live"];
const OF_ALL: [&str; 10] = [
    "values",
    "nodes",
    "gossip_rounds",
    "gossip_items",
    "gossip_bytes",
    "keys",
    "effective_copies",
    "unseen_writes",
    "oldest_unseen",
    "latency",
];

fn named<'py>(
    py: Python<'py>,
    names: impl IntoIterator<Item = &'static str>,
    of: &[u64],
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in names.into_iter().zip(of) {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}

#[pymethods]
impl NodeStats {
    /// Reads that found none, by reason: never_seen, removed, expired,
    /// evicted, superseded, owner_down, not_synced.
    #[getter]
    fn misses_by_reason<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        named(py, Miss::ALL.map(Miss::name), &self.by_reason)
    }

    /// Bytes used for values, keys, overhead (slots, tables, rounding),
    /// markers and clocks: they add up to bytes_used.
    #[getter]
    fn bytes_by_kind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        named(py, KINDS, &self.by_kind)
    }

    /// The same as a dict of plain types.
    fn as_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf.as_any(), &[&OF_NODE[..], &COMMON].concat())
    }

    fn __repr__(&self) -> String {
        let Self { id, hits, misses, entries, bytes_used, bytes_max, evictions, .. } = self;
        format!(
            "NodeStats(id={id}, live={}, hits={hits}, misses={misses}, entries={entries}, bytes_used={bytes_used}, \
             bytes_max={bytes_max}, evictions={evictions})",
            if self.live { "True" } else { "False" }
        )
    }
}

#[pymethods]
impl Stats {
    /// Reads that found none, by reason: never_seen, removed, expired,
    /// evicted, superseded, owner_down, not_synced.
    #[getter]
    fn misses_by_reason<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        named(py, Miss::ALL.map(Miss::name), &self.by_reason)
    }

    /// Bytes used for values, keys, overhead (slots, tables, rounding),
    /// markers and clocks: they add up to bytes_used.
    #[getter]
    fn bytes_by_kind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        named(py, KINDS, &self.by_kind)
    }

    /// How long calls took, for "get", "put" and "remove".
    #[getter]
    fn latency<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (call, latency) in Call::ALL.iter().zip(self.latencies) {
            dict.set_item(call.name(), Py::new(py, latency)?)?;
        }
        Ok(dict)
    }

    /// The same as a dict of plain types, as deep as it goes: ready for
    /// JSON.
    fn as_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf.as_any(), &[&COMMON[..], &OF_ALL].concat())
    }

    fn __repr__(&self) -> String {
        let Self { hits, misses, puts, removes, evictions, keys, entries, bytes_used, bytes_max, .. } = self;
        format!(
            "Stats(hits={hits}, misses={misses}, puts={puts}, removes={removes}, evictions={evictions}, keys={keys}, \
             entries={entries}, bytes_used={bytes_used}, bytes_max={bytes_max})"
        )
    }

    /// All of it as tables of at most 80 columns.
    fn __str__(&self) -> String {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let percent = |part: u64, of: u64| {
            if of == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / of as f64) }
        };
        let gets = self.hits + self.misses;
        let mut calls = vec![
            row("calls", String::new()),
            row("gets", number(gets)),
            row("  hits", number(self.hits)),
            row("  misses", number(self.misses)),
        ];
        calls.extend(
            Miss::ALL
                .iter()
                .zip(self.by_reason)
                .filter(|(_, count)| *count > 0)
                .map(|(why, count)| row(&format!("    {}", why.name().replace('_', " ")), number(count))),
        );
        calls.extend([
            row("puts", number(self.puts)),
            row("  refused, as older", number(self.puts_refused)),
            row("removes", number(self.removes)),
            row("  refused, as older", number(self.removes_refused)),
            row("unanswered", number(self.unanswered)),
            row("evictions", number(self.evictions)),
            row("expired", number(self.expired)),
            row("repairs", number(self.repairs)),
            row("fixes", number(self.fixes)),
            row("gossip rounds", number(self.gossip_rounds)),
            row("lock waits", number(self.lock_waits)),
        ]);
        let mut held = vec![
            row("held now", String::new()),
            row("keys", number(self.keys)),
            row("copies of each", format!("{:.2}", self.effective_copies)),
            row("entries", number(self.entries)),
            row("markers", number(self.markers)),
            row("unseen writes", number(self.unseen_writes)),
            row("unsynced partitions", number(self.unsynced_partitions)),
            row("bytes", size(self.bytes_max)),
            row("  used", size(self.bytes_used)),
        ];
        held.extend(KINDS.iter().zip(self.by_kind).map(|(kind, bytes)| row(&format!("    {kind}"), size(bytes))));
        held.push(row("  used, of all", percent(self.bytes_used, self.bytes_max)));
        held.push(row("hit rate", percent(self.hits, gets)));
        let names = ["time of a", "timed", "p50", "p90", "p99", "p99.9", "max"];
        let mut times = vec![names.map(str::to_owned).to_vec()];
        for (call, latency) in Call::ALL.iter().zip(self.latencies).filter(|(_, latency)| latency.count > 0) {
            let Latency { count, p50, p90, p99, p999, max, .. } = latency;
            let mut row = vec![call.name().to_owned(), number(count)];
            row.extend([p50, p90, p99, p999, max].map(duration));
            times.push(row);
        }
        let mut parts = vec![beside(&table(&calls), &table(&held))];
        if times.len() > 1 {
            parts.push(table(&times));
        }
        Python::attach(|py| {
            let names = ["node", "state", "hits", "misses", "entries", "evictions", "used", "of"];
            let mut rows = vec![names.map(str::to_owned).to_vec()];
            for node in &self.nodes {
                let node = node.bind(py).get();
                let mut row = vec![node.id.to_string(), if node.live { "live" } else { "down" }.to_owned()];
                row.extend([node.hits, node.misses, node.entries, node.evictions].map(number));
                row.extend([node.bytes_used, node.bytes_max].map(size));
                rows.push(row);
            }
            parts.push(table(&rows));
        });
        parts.join("\n\n")
    }
}

/// Two blocks of text side by side.
fn beside(left: &str, right: &str) -> String {
    let width = left.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let rows = left.lines().count().max(right.lines().count());
    let (mut left, mut right) = (left.lines(), right.lines());
    let line = |_| {
        let (left, right) = (left.next().unwrap_or(""), right.next().unwrap_or(""));
        format!("{left:<width$}    {right}").trim_end().to_owned()
    };
    (0..rows).map(line).collect::<Vec<_>>().join("\n")
}

impl Stats {
    pub(super) fn new(
        py: Python<'_>,
        report: &Statistics,
        gauges: &Gauges,
        values: stats::ValueStats,
    ) -> PyResult<Self> {
        let of_node = |node: &stats::NodeReport| {
            Py::new(py, NodeStats::counting(&node.activity, &node.holds, node.node, node.is_live))
        };
        Ok(Self::counting(
            &report.total,
            &report.holds,
            report.nodes.iter().map(of_node).collect::<PyResult<_>>()?,
            report.gossip_rounds,
            report.gossip_items,
            report.gossip_bytes,
            gauges.keys,
            gauges.effective_copies(),
            gauges.unseen_writes,
            gauges.oldest_unseen.map(|oldest| oldest.get()),
            Py::new(py, ValueStats::from(values))?,
            report.latency.map(Latency::from),
        ))
    }
}
