//! ```text
//!   save, restore, load, verify:  a step without the GIL -> signals, progress -> the next step
//! ```
//! Snapshots, as Python sees them. Ctrl-C is heard between two steps, which take milliseconds.

use std::time::Duration;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use super::convert;
use super::errors::{is_cache_error, raise};
use super::stopped::saying;
use super::timestamps;
use crate::cluster::Cluster;
use crate::cluster::restore::{self, Verifying};
use crate::config::Quorum;
use crate::runtime::embedded::Embedded;
use crate::snapshot::{FORMAT, Info};
use crate::stats;

pub(super) fn save(py: Python<'_>, cluster: &Cluster<Embedded>, path: &Bound<'_, PyAny>) -> PyResult<SaveReport> {
    let path = convert::path(path)?;
    let mut saving = py.detach(|| cluster.begin_save(path)).map_err(raise)?;
    loop {
        if let Some(report) = py.detach(|| saving.step()).map_err(raise)? {
            return Ok(report.into());
        }
        py.check_signals()?;
    }
}

/// What was restored, and the warning of what is ahead, if that is an error.
pub(super) fn restore(
    py: Python<'_>,
    cluster: &Cluster<Embedded>,
    path: &Bound<'_, PyAny>,
) -> PyResult<(RestoreReport, PyResult<()>)> {
    let path = convert::path(path)?;
    let mut restoring = py.detach(|| cluster.begin_restore(path)).map_err(raise)?;
    loop {
        if let Some(report) = py.detach(|| restoring.step()).map_err(raise)? {
            let told = restoring.ahead().map_or(Ok(()), |ahead| timestamps::tell_ahead(py, ahead));
            return Ok((report.into(), told));
        }
        if let Err(error) = py.check_signals() {
            let (done, records) = (restoring.done(), restoring.records());
            let note = match done {
                0 => "nothing was restored".to_owned(),
                _ => format!("{done} of {records} records were restored before that, and are in the cache"),
            };
            // Without its note the error is still the error.
            let _ = error.value(py).call_method1("add_note", (note,));
            return Err(error);
        }
    }
}

pub(super) fn load<'py>(
    class: &Bound<'py, PyType>,
    path: &Bound<'py, PyAny>,
    overrides: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    let info = info_of(py, path)?;
    let arguments = PyDict::new(py);
    let set = |name: &str, saved: Bound<'py, PyAny>| arguments.set_item(name, saved);
    let given = |name: &str| overrides.map_or(Ok(None), |overrides| overrides.get_item(name));
    let most = |name: &str, saved: u8| {
        let given = given(name)?.and_then(|given| given.extract::<u8>().ok());
        Ok::<_, PyErr>(given.map_or(saved, |given| given.min(saved)))
    };
    let config = &info.header.config;
    set("nodes", config.nodes().into_pyobject(py)?.into_any())?;
    // What is given and wrong is the constructor's to refuse: these bounds only follow what is given and right.
    let replicas = config.replicas().min(most("nodes", config.replicas())?).max(1);
    set("replicas", replicas.into_pyobject(py)?.into_any())?;
    set("node_capacity", config.bytes_of_a_node().into_pyobject(py)?.into_any())?;
    let owners = match given("replicas")? {
        // None stands for three, or as many as there are nodes.
        Some(given) if given.is_none() => replicas.min(3),
        Some(given) => given.extract::<u8>().unwrap_or(replicas),
        None => replicas,
    };
    for (name, saved) in [("write_quorum", config.writes()), ("read_quorum", config.reads())] {
        set(name, quorum(py, saved, owners)?)?;
    }
    set("gossip_interval", config.interval().map(|interval| interval.as_secs_f64()).into_pyobject(py)?)?;
    set("compression", config.packs().name().into_pyobject(py)?)?;
    set("default_ttl", config.ttl().as_ref().map(Duration::as_secs_f64).into_pyobject(py)?)?;
    if let Some(overrides) = overrides {
        arguments.update(overrides.as_mapping())?;
    }
    let cache = class.call((), Some(&arguments))?;
    if let Err(error) = cache.call_method1("restore", (path,)) {
        // Nobody will have it.
        cache.call_method0("close")?;
        let is_of_file = is_cache_error(py, &error) || error.is_instance_of::<PyOSError>(py);
        return Err(if is_of_file { error } else { saying(py, error, "load closed the cache that it made") });
    }
    Ok(cache)
}

/// A quorum as the constructor takes it, of so many owners at most.
fn quorum<'py>(py: Python<'py>, quorum: Quorum, owners: u8) -> PyResult<Bound<'py, PyAny>> {
    let name = match quorum {
        Quorum::One => "one",
        Quorum::Majority => "majority",
        Quorum::All => "all",
        Quorum::Count(count) => return Ok(count.min(owners).max(1).into_pyobject(py)?.into_any()),
    };
    Ok(name.into_pyobject(py)?.into_any())
}

fn info_of(py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Info> {
    let path = convert::path(path)?;
    py.detach(|| restore::info(path)).map_err(raise)
}

/// What a snapshot says of itself in its header and its footer; what lies
/// between is not looked at. Raises as `Cache.restore`.
#[pyfunction]
pub(super) fn snapshot_info(py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<SnapshotInfo> {
    info_of(py, path).map(SnapshotInfo::from)
}

/// Reads all of a snapshot, and whether it is what was saved: checksums,
/// lengths, keys, timestamps, digests.
///
/// path: as for `Cache.restore`. progress: called from time to time with
/// how many more blocks are done; what it raises ends it. Returns a
/// SnapshotInfo. Raises as `Cache.restore`.
#[pyfunction]
#[pyo3(signature = (path, *, progress=None))]
pub(super) fn verify_snapshot(
    py: Python<'_>,
    path: &Bound<'_, PyAny>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<SnapshotInfo> {
    if let Some(progress) = progress.filter(|progress| !progress.is_callable()) {
        return Err(convert::wrong_type("progress", "a callable or None", progress));
    }
    let path = convert::path(path)?;
    let mut verifying = py.detach(|| Verifying::begin(path)).map_err(raise)?;
    loop {
        let before = verifying.blocks_done();
        let info = py.detach(|| verifying.step()).map_err(raise)?;
        py.check_signals()?;
        if let Some(progress) = progress {
            progress.call1((verifying.blocks_done() - before,))?;
        }
        if let Some(info) = info {
            return Ok(info.into());
        }
    }
}

/// What was saved.
#[pyclass(frozen, eq, get_all, module = "distributed_consistent_cache")]
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SaveReport {
    /// Keys with their values in the file.
    entries: u64,
    /// Removed keys in the file: they are remembered, so that older puts
    /// stay refused.
    removes: u64,
    /// Bytes of the file.
    bytes: u64,
    /// How long it took, in seconds.
    seconds: f64,
}

impl From<stats::SaveReport> for SaveReport {
    fn from(report: stats::SaveReport) -> Self {
        let stats::SaveReport { entries, removes, bytes, seconds } = report;
        Self { entries, removes, bytes, seconds }
    }
}

#[pymethods]
impl SaveReport {
    fn __repr__(&self) -> String {
        let Self { entries, removes, bytes, seconds } = self;
        format!("SaveReport(entries={entries}, removes={removes}, bytes={bytes}, seconds={seconds:.6})")
    }
}

/// What was restored. Every entry and every remove of the file is applied,
/// expired, superseded or too large.
#[pyclass(frozen, eq, get_all, module = "distributed_consistent_cache")]
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RestoreReport {
    /// Keys with their values in the file.
    entries: u64,
    /// Removed keys in the file.
    removes: u64,
    /// Of both: now the newest known, or in place already. Entries among
    /// them may have been evicted since, by the others.
    applied: u64,
    /// Of both: the newest known, and a miss, as their ttl is over.
    expired: u64,
    /// Of both: refused, because something newer is known.
    superseded: u64,
    /// Of both: refused, because they fit in no node.
    too_large: u64,
    /// Bytes of the file.
    bytes: u64,
    /// How long it took, in seconds.
    seconds: f64,
}

impl From<stats::RestoreReport> for RestoreReport {
    fn from(report: stats::RestoreReport) -> Self {
        let stats::RestoreReport { entries, removes, applied, expired, superseded, too_large, bytes, seconds } = report;
        Self { entries, removes, applied, expired, superseded, too_large, bytes, seconds }
    }
}

#[pymethods]
impl RestoreReport {
    fn __repr__(&self) -> String {
        let Self { entries, removes, applied, expired, superseded, too_large, bytes, seconds } = self;
        format!(
            "RestoreReport(entries={entries}, removes={removes}, applied={applied}, expired={expired}, \
             superseded={superseded}, too_large={too_large}, bytes={bytes}, seconds={seconds:.6})"
        )
    }
}

/// What a snapshot says of itself.
#[pyclass(frozen, eq, get_all, module = "distributed_consistent_cache._core")]
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SnapshotInfo {
    /// The version of the file's format.
    format: u16,
    /// When it was saved, by the cache's own clock: microseconds since
    /// 1970.
    saved_at: u64,
    /// Nodes of the cache that was saved.
    nodes: u8,
    /// Copies of each entry there.
    replicas: u8,
    /// Bytes of each node.
    node_capacity: u64,
    /// How many owners must have a write: as the argument of Cache.
    write_quorum: String,
    /// How many owners a read asks: as the argument of Cache.
    read_quorum: String,
    /// Seconds between two rounds of gossip, or None.
    gossip_interval: Option<f64>,
    /// How values were made smaller: a name, or None.
    compression: Option<&'static str>,
    /// Seconds that a value lived which was put without a ttl of its own,
    /// or None.
    default_ttl: Option<f64>,
    /// Blocks of records in the file.
    blocks: u64,
    /// Keys with their values.
    entries: u64,
    /// Removed keys.
    removes: u64,
    /// Bytes of the records before they were compressed.
    record_bytes: u64,
    /// Bytes of the file.
    file_bytes: u64,
}

impl From<Info> for SnapshotInfo {
    fn from(info: Info) -> Self {
        let (config, totals) = (&info.header.config, info.totals);
        Self {
            format: FORMAT,
            saved_at: info.header.saved_at_us,
            nodes: config.nodes(),
            replicas: config.replicas(),
            node_capacity: config.bytes_of_a_node(),
            write_quorum: quorum_text(config.writes()),
            read_quorum: quorum_text(config.reads()),
            gossip_interval: config.interval().as_ref().map(Duration::as_secs_f64),
            compression: config.packs().name(),
            default_ttl: config.ttl().as_ref().map(Duration::as_secs_f64),
            blocks: totals.blocks,
            entries: totals.entries,
            removes: totals.removes,
            record_bytes: totals.record_bytes,
            file_bytes: info.file_bytes,
        }
    }
}

fn quorum_text(quorum: Quorum) -> String {
    match quorum {
        Quorum::One => "one".to_owned(),
        Quorum::Majority => "majority".to_owned(),
        Quorum::All => "all".to_owned(),
        Quorum::Count(count) => count.to_string(),
    }
}

#[pymethods]
impl SnapshotInfo {
    fn __repr__(&self) -> String {
        let Self { format, entries, removes, nodes, replicas, file_bytes, .. } = self;
        format!(
            "SnapshotInfo(format={format}, entries={entries}, removes={removes}, nodes={nodes}, replicas={replicas}, \
             file_bytes={file_bytes})"
        )
    }
}
