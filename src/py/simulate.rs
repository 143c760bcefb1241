//! ```text
//!   seeds -> each on a thread of its own, without the GIL -> summed up in the order of seeds
//!                                                         -> now and then: signals, progress
//! ```
//! Runs of the seeded simulator, one for each seed.

use std::cell::Cell;
use std::collections::BTreeMap;

use pyo3::prelude::*;

use super::convert;
use crate::runtime::workers;
use crate::simulation::{self, Counts, Options};

/// The most nodes that a simulation begins with.
pub(super) const NODES_MAX: u64 = 16;

/// A trial that is told no number of nodes may pick as few: more replicas than these would be too many for some.
const NODES_LEAST: u64 = 2;

/// Progress is told of so many seeds at a time, or less often when they take long.
const TOLD_AT_ONCE: u64 = 32;

/// Runs seeds of the simulator, on all cores: clusters of real nodes in a
/// bad world, where every promise is checked after every event.
///
/// Each seed decides everything about one execution: sizes, quorums, the
/// network's weather, calls and faults. The same seed is the same
/// execution, on every machine.
///
/// first_seed: 0 to 2**63-1. seeds: how many, 0 to 2**32. nodes: of each
/// cluster at its start, 1 to 16; None: each seed picks 2 to 6. replicas:
/// copies of each entry, 1 to `nodes`, and at most 2 when that is None;
/// None: each seed picks from 1 to 3, if it has so many nodes. progress:
/// called from time to time with how many more seeds are done; what it
/// raises ends the simulation.
///
/// Returns a SimulationReport: what happened in numbers, and every promise
/// that was broken, of which there should be none. Raises ValueError or
/// TypeError for a bad argument.
///
/// >>> simulate(first_seed=0, seeds=10, nodes=5, replicas=3).violations
/// []
#[pyfunction]
#[pyo3(signature = (first_seed=None, seeds=None, *, nodes=None, replicas=None, progress=None))]
#[pyo3(text_signature = "(first_seed=0, seeds=1000, *, nodes=None, replicas=None, progress=None)")]
pub(super) fn simulate(
    py: Python<'_>,
    first_seed: Option<&Bound<'_, PyAny>>,
    seeds: Option<&Bound<'_, PyAny>>,
    nodes: Option<&Bound<'_, PyAny>>,
    replicas: Option<&Bound<'_, PyAny>>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<SimulationReport> {
    let first = first_seed.map_or(Ok(0), |given| seed("first_seed", given))?;
    let seeds = seeds.map_or(Ok(1000), |given| convert::whole("seeds", given, 0..=1 << 32, "from 0 to 2**32"))?;
    let options = options(nodes, replicas)?;
    if let Some(progress) = progress.filter(|progress| !progress.is_callable()) {
        return Err(convert::wrong_type("progress", "a callable or None", progress));
    }
    let (mut report, mut more, mut raised) = (SimulationReport::default(), 0, None);
    let progress = progress.map(|progress| progress.clone().unbind());
    let tell = |py: Python<'_>, more: &mut u64| {
        py.check_signals()?;
        let more = std::mem::take(more);
        if let Some(progress) = progress.as_ref().filter(|_| more > 0) {
            progress.call1(py, (more,))?;
        }
        Ok::<(), PyErr>(())
    };
    // Results come in no order; the report is of the seeds in theirs.
    let (mut waiting, mut next) = (BTreeMap::new(), first);
    py.detach(|| {
        let run = |seed, is_over: &_| (seed, quietly(|| simulation::run_until_over(seed, options, is_over)));
        workers::each_alone(first..first + seeds, run, |result| {
            if let Some((seed, result)) = result {
                waiting.insert(seed, result);
                while let Some(result) = waiting.remove(&next) {
                    report.add(next, result);
                    next += 1;
                }
                more += 1;
                if more < TOLD_AT_ONCE {
                    return true;
                }
            }
            raised = Python::attach(|py| tell(py, &mut more)).err();
            raised.is_none()
        });
    });
    if let Some(raised) = raised {
        return Err(raised);
    }
    tell(py, &mut more)?;
    Ok(report)
}

/// The fewest faults with which a seed still breaks a promise, each with
/// its time, or None when the seed breaks none. A seed that breaks one is
/// run again some twenty times. `nodes` and `replicas` must be those with
/// which it broke.
#[pyfunction]
#[pyo3(signature = (seed, *, nodes=None, replicas=None))]
pub(super) fn shrink(
    py: Python<'_>,
    seed: &Bound<'_, PyAny>,
    nodes: Option<&Bound<'_, PyAny>>,
    replicas: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Vec<String>>> {
    let (seed, options) = (self::seed("seed", seed)?, options(nodes, replicas)?);
    let (mut shrunken, mut raised) = (None, None);
    py.detach(|| {
        let run = |seed, is_over: &_| quietly(|| simulation::shrink(seed, options, is_over));
        workers::each_alone(seed..seed + 1, run, |result| {
            if let Some(result) = result {
                shrunken = result;
            }
            raised = Python::attach(|py| py.check_signals()).err();
            raised.is_none()
        });
    });
    if let Some(raised) = raised {
        return Err(raised);
    }
    let line = |(at_us, fault): &(u64, simulation::Fault)| format!("{:.6} s: {fault}", *at_us as f64 / 1e6);
    Ok(shrunken.map(|(trial, _)| trial.faults.iter().map(line).collect()))
}

thread_local! {
    /// Whether what this thread does is only simulated.
    static IS_SIMULATING: Cell<bool> = const { Cell::new(false) };
}

/// Whether what this thread does is only simulated.
pub(super) fn is_simulating() -> bool {
    IS_SIMULATING.get()
}

/// Runs a simulation, of which nothing is logged. It must not panic.
pub(super) fn quietly<T>(run: impl FnOnce() -> T) -> T {
    IS_SIMULATING.set(true);
    let result = run();
    IS_SIMULATING.set(false);
    result
}

/// A seed: an `int` from 0 to 2**63-1.
pub(super) fn seed(argument: &str, seed: &Bound<'_, PyAny>) -> PyResult<u64> {
    convert::whole(argument, seed, 0..=i64::MAX.cast_unsigned(), "from 0 to 2**63-1")
}

/// What the caller fixes of every trial.
fn options(nodes: Option<&Bound<'_, PyAny>>, replicas: Option<&Bound<'_, PyAny>>) -> PyResult<Options> {
    let of_nodes = format!("from 1 to {NODES_MAX}");
    let nodes = nodes.map(|given| convert::whole("nodes", given, 1..=NODES_MAX, &of_nodes)).transpose()?;
    let (most, why) = match nodes {
        Some(nodes) => (nodes, ""),
        None => (NODES_LEAST, ", as some seeds pick 2 nodes unless told"),
    };
    let of_replicas = format!("from 1 to {most}{why}");
    let replicas = replicas.map(|given| convert::whole("replicas", given, 1..=most, &of_replicas)).transpose()?;
    // Both are at most `NODES_MAX`.
    Ok(Options { nodes: nodes.map(|nodes| nodes as u8), replicas: replicas.map(|replicas| replicas as u8) })
}

/// A promise that did not hold in a simulation.
#[pyclass(frozen, eq, get_all, module = "distributed_consistent_cache.simulation")]
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Violation {
    /// The seed of the execution in which it was seen.
    seed: u64,
    /// Which promise: "I1" to "I21", by their numbers in
    /// docs/reliability.md; or "a panic".
    invariant: &'static str,
    /// When it was seen, in seconds of virtual time.
    at_seconds: f64,
    /// What was seen.
    what: String,
}

impl Violation {
    pub(super) fn new(seed: u64, violation: simulation::Violation) -> Self {
        let simulation::Violation { invariant, at_us, what } = violation;
        Self { seed, invariant, at_seconds: seconds(at_us), what }
    }
}

#[pymethods]
impl Violation {
    pub(super) fn __repr__(&self) -> String {
        let Self { seed, invariant, at_seconds, what } = self;
        format!("Violation(seed={seed}, invariant='{invariant}', at_seconds={at_seconds:.6}, what={what:?})")
    }
}

/// What happened in many simulated clusters. A seed that broke a promise
/// ended there, and is counted in `seeds` and `violations` only.
#[pyclass(frozen, eq, get_all, module = "distributed_consistent_cache.simulation")]
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SimulationReport {
    /// Seeds that were run.
    seeds: u64,
    /// Events: messages that arrived, timeouts, rounds of gossip, calls,
    /// faults.
    events: u64,
    /// Faults: crashes, false suspicions, cuts, nodes that join or leave,
    /// and their ends.
    faults: u64,
    /// Puts and removes that were begun.
    writes: u64,
    /// Gets and touches that were begun.
    reads: u64,
    /// Gets that found a value.
    hits: u64,
    /// Calls that ended in an error: too few owners, or none.
    refused: u64,
    /// Entries that fell off full nodes.
    evictions: u64,
    /// Expired entries whose space was given back.
    expired: u64,
    /// Markers that had to be dropped before every owner had seen them.
    markers_lost: u64,
    /// Keys with a write below what everybody who could be reached had
    /// forgotten, which counts as new.
    late_keys: u64,
    /// Virtual time lived through, in seconds, summed over the nodes of all
    /// clusters.
    node_seconds: f64,
    /// In how many rounds of gossip the nodes agreed after the faults
    /// stopped: rounds -> seeds, rising.
    rounds: BTreeMap<u64, u64>,
    /// A hash of everything that happened, in the order of the seeds: the
    /// same for the same arguments.
    trace: u64,
    /// Every promise that was broken, the first of each seed, in the order
    /// of the seeds.
    violations: Vec<Violation>,
}

impl SimulationReport {
    fn add(&mut self, seed: u64, result: Result<Counts, simulation::Violation>) {
        self.seeds += 1;
        let trace = match result {
            Ok(counts) => {
                self.events += counts.events;
                self.faults += counts.faults;
                self.writes += counts.writes;
                self.reads += counts.reads;
                self.hits += counts.hits;
                self.refused += counts.refused;
                self.evictions += counts.evictions;
                self.expired += counts.expired;
                self.markers_lost += counts.markers_lost;
                self.late_keys += counts.late_keys;
                self.node_seconds += seconds(counts.node_us);
                *self.rounds.entry(counts.rounds).or_default() += 1;
                counts.trace
            }
            Err(violation) => {
                let at_us = violation.at_us;
                self.violations.push(Violation::new(seed, violation));
                at_us
            }
        };
        self.trace = (self.trace ^ trace).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
    }
}

#[pymethods]
impl SimulationReport {
    fn __repr__(&self) -> String {
        let Self { seeds, events, faults, node_seconds, violations, .. } = self;
        let violations = violations.len();
        format!(
            "SimulationReport(seeds={seeds}, events={events}, faults={faults}, node_seconds={node_seconds:.6}, \
             violations={violations})"
        )
    }
}

/// Virtual microseconds as Python has them.
pub(super) const fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
