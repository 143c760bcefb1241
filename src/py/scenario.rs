//! ```text
//!   [(at, what, ..), ..] -> steps, owned -> a world that borrows them: without the GIL -> what became of everything
//! ```
//! A user's own scenario. It comes as data, so that it can be written down, made by a program, and run again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use super::convert;
use super::errors::raise;
use super::given::shown;
use super::simulate::{self, NODES_MAX, Violation, quietly, seconds};
use crate::config::{Config, Quorum, check_node_bytes};
use crate::entry::{Key, Value};
use crate::ids::{self, NodeId};
use crate::lifetime::Ttl;
use crate::message::Lent;
use crate::runtime::Wait;
use crate::runtime::simulated::Weather;
use crate::simulation::{self, Counts, Fault, Operation, World};

/// A day: a scenario's last step is not later.
const SECONDS_MAX: f64 = 86_400.0;

/// The world goes on for so long after the last step, unless told otherwise: two timeouts of a call.
const AFTERWARDS_US: u64 = 1_000_000;

/// So much virtual time passes between two looks at the clock.
const SLICE_US: u64 = 10_000;

/// So often signals are looked for: as long as a person waits for Ctrl-C without noticing.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// What is to happen at some time.
enum Step {
    Call { home: NodeId, key: String, action: Action },
    Fault(Fault),
}

/// What a client does with a key.
enum Action {
    Put(Vec<u8>, u64, Option<Duration>),
    Touch(Option<Duration>),
    Remove(u64),
    Get,
}

impl Step {
    fn add_to<'w>(&'w self, world: &mut World<'w>, at_us: u64) {
        match self {
            Self::Fault(fault) => world.plan(at_us, fault.clone()),
            Self::Call { home, key, action } => {
                let key = key.as_bytes();
                let operation = match action {
                    Action::Put(value, timestamp, ttl) => {
                        Operation::Put { key, value, timestamp: *timestamp, ttl: *ttl }
                    }
                    Action::Touch(ttl) => Operation::Touch { key, ttl: *ttl },
                    Action::Remove(timestamp) => Operation::Remove { key, timestamp: *timestamp },
                    Action::Get => Operation::Get { key },
                };
                world.call(at_us, *home, operation);
            }
        }
    }
}

/// A scenario, ready to be run.
struct Scenario {
    seed: u64,
    config: Config,
    weather: Weather,
    gossip_us: u64,
    steps: Vec<(u64, Step)>,
    until_us: u64,
    /// One bit for each node that stays broken.
    broken: u128,
}

/// Runs a scenario in the simulator.
/// `distributed_consistent_cache.simulation.Scenario` makes the steps and
/// has the documentation of each, with units and ranges.
///
/// steps: tuples of a time in seconds, the name of what happens and its
/// arguments, in any order; those at the same time happen in theirs. until:
/// seconds; None for one second after the last step. broken: nodes that
/// stay broken to the end.
///
/// Returns a ScenarioReport. Raises ValueError, TypeError, OverflowError or
/// KeyTooLargeError for a bad argument; if it is one of a step, a note says
/// of which.
#[pyfunction]
#[pyo3(signature = (
    steps, *, seed=None, nodes=None, replicas=None, node_capacity=None, write_quorum=None, read_quorum=None,
    gossip_interval=None, delay=None, loss=None, duplication=None, lateness=None, until=None, broken=None
))]
#[pyo3(text_signature = "(steps, *, seed=0, nodes=3, replicas=None, node_capacity=\"1MiB\", write_quorum=\"all\", \
                      read_quorum=\"one\", gossip_interval=0.1, delay=0.01, loss=0.0, duplication=0.0, lateness=0.0, \
                      until=None, broken=())")]
#[expect(clippy::too_many_arguments, reason = "each is an argument of Python, given by its name")]
pub(super) fn run_scenario(
    py: Python<'_>,
    steps: &Bound<'_, PyAny>,
    seed: Option<&Bound<'_, PyAny>>,
    nodes: Option<&Bound<'_, PyAny>>,
    replicas: Option<&Bound<'_, PyAny>>,
    node_capacity: Option<&Bound<'_, PyAny>>,
    write_quorum: Option<&Bound<'_, PyAny>>,
    read_quorum: Option<&Bound<'_, PyAny>>,
    gossip_interval: Option<&Bound<'_, PyAny>>,
    delay: Option<&Bound<'_, PyAny>>,
    loss: Option<&Bound<'_, PyAny>>,
    duplication: Option<&Bound<'_, PyAny>>,
    lateness: Option<&Bound<'_, PyAny>>,
    until: Option<&Bound<'_, PyAny>>,
    broken: Option<&Bound<'_, PyAny>>,
) -> PyResult<ScenarioReport> {
    let seed = seed.map_or(Ok(0), |given| simulate::seed("seed", given))?;
    let of_nodes = format!("from 1 to {NODES_MAX}");
    let nodes = nodes.map_or(Ok(3), |given| convert::whole("nodes", given, 1..=NODES_MAX, &of_nodes))? as usize;
    let replicas =
        replicas.map(|given| convert::count("replicas", given, &format!("from 1 to {nodes}"))).transpose()?;
    let mut config = Config::new(nodes, replicas).map_err(raise)?;
    if let Some(given) = node_capacity {
        config = config.node_bytes(convert::size("node_capacity", given)?).map_err(raise)?;
    }
    let replicas = config.replicas();
    if let Some(given) = write_quorum {
        config = config.write_quorum(convert::quorum("write_quorum", given, replicas)?).map_err(raise)?;
    }
    if let Some(given) = read_quorum {
        config = config.read_quorum(convert::quorum("read_quorum", given, replicas)?).map_err(raise)?;
    }
    let interval = |given| convert::real("gossip_interval", given, 0.001..=3600.0, "from 0.001 to 3600 seconds");
    let gossip_us = gossip_interval.map_or(Ok(0.1), interval).map(microseconds)?;
    let delay = delay.map_or(Ok(0.01), |given| convert::real("delay", given, 0.0..=60.0, "from 0 to 60 seconds"))?;
    let weather = Weather {
        delay_us_max: microseconds(delay),
        lost_permille: permille("loss", loss)?,
        twice_permille: permille("duplication", duplication)?,
        late_permille: permille("lateness", lateness)?,
    };
    let (steps, numbers) = parse(steps, nodes)?;
    let last_us = steps.iter().map(|(at_us, _)| *at_us).max().unwrap_or(0);
    let until_us = match until {
        None => last_us + AFTERWARDS_US,
        Some(given) => {
            let least = seconds(last_us);
            let expected = format!("from {least} seconds, the time of the last step, to {SECONDS_MAX}");
            microseconds(convert::real("until", given, least..=SECONDS_MAX, &expected)?)
        }
    };
    let broken = broken.map_or(Ok(0), |given| numbers.side("broken", given))?;
    if (0..nodes).all(|node| broken >> node & 1 == 1) {
        return Err(PyValueError::new_err("broken has every node, but one must come back; nothing was done"));
    }
    let scenario = Scenario { seed, config, weather, gossip_us, steps, until_us, broken };
    // An assertion that fails in a node is a broken promise like any other.
    let report = py.detach(|| quietly(|| catch_unwind(AssertUnwindSafe(|| scenario.run()))));
    report.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let what = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        let violation = simulation::Violation { invariant: "a panic", at_us: 0, what };
        Ok(ScenarioReport { violation: Some(Violation::new(seed, violation)), ..ScenarioReport::default() })
    })
}

impl Scenario {
    /// Runs it, and ends early only when a signal does.
    fn run(&self) -> PyResult<ScenarioReport> {
        let mut world = World::new(self.seed, self.config.clone(), self.weather, self.gossip_us);
        for (at_us, step) in &self.steps {
            step.add_to(&mut world, *at_us);
        }
        let mut heard = Instant::now();
        let mut now_us = 0;
        while now_us < self.until_us {
            now_us = self.until_us.min(now_us + SLICE_US);
            world.run_until(now_us);
            if heard.elapsed() > SIGNALS_EVERY {
                Python::attach(|py| py.check_signals())?;
                heard = Instant::now();
            }
        }
        let result = world.settle(|node| self.broken >> node & 1 == 1);
        let seconds = seconds(world.now_us());
        match result {
            Ok(counts) => Ok(ScenarioReport::new(seconds, counts, self.values(&world))),
            Err(violation) => {
                let violation = Some(Violation::new(self.seed, violation));
                Ok(ScenarioReport { seconds, violation, ..ScenarioReport::default() })
            }
        }
    }

    /// What a get finds now, of every key that the scenario names.
    fn values(&self, world: &World<'_>) -> BTreeMap<String, (Vec<u8>, u64)> {
        let mut values = BTreeMap::new();
        for (_, step) in &self.steps {
            let Step::Call { key: name, .. } = step else { continue };
            let Ok(key) = Key::new(name.as_bytes()) else { continue };
            let mut bytes = Vec::new();
            let mut take = |_, lent: Lent<'_>| {
                bytes = match lent {
                    Lent::Now(value) => value.whole().into_owned(),
                    Lent::Share(share) => share.value().whole().into_owned(),
                };
            };
            let answer = world.cluster().read(key, false, Some(Quorum::One), Wait::ForTurn, &mut take);
            if let Ok(Some(timestamp)) = answer.found() {
                values.insert(name.clone(), (bytes, timestamp.get()));
            }
        }
        values
    }
}

/// Steps as Python gives them, and the nodes that they may name. What is wrong in one is raised with a note that says
/// in which.
fn parse(steps: &Bound<'_, PyAny>, nodes: usize) -> PyResult<(Vec<(u64, Step)>, Numbers)> {
    convert::check_iterable("steps", "an iterable of steps", steps)?;
    let rows = steps.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    let is_join = |row: &&Bound<'_, PyAny>| row.get_item(1).is_ok_and(|kind| kind.eq("join").unwrap_or(false));
    let numbers = Numbers { nodes, joins: rows.iter().filter(is_join).count() };
    if numbers.all() > usize::from(ids::NODES_MAX) {
        let (joins, most) = (numbers.joins, usize::from(ids::NODES_MAX) - nodes);
        let message = format!("steps have {joins} nodes join, but at most {most} may; nothing was done");
        return Err(PyValueError::new_err(message));
    }
    let one = |(number, row): (usize, &Bound<'_, PyAny>)| {
        numbers.step(row).inspect_err(|error| {
            // Without its note the error is still the error.
            let _ = error.value(steps.py()).call_method1("add_note", (format!("in step {number}, {}", shown(row)),));
        })
    };
    let steps = rows.iter().enumerate().map(one).collect::<PyResult<Vec<_>>>()?;
    Ok((steps, numbers))
}

/// What numbers nodes can have: those of the start, and of those that join later.
struct Numbers {
    nodes: usize,
    joins: usize,
}

impl Numbers {
    const fn all(&self) -> usize {
        self.nodes + self.joins
    }

    fn step(&self, row: &Bound<'_, PyAny>) -> PyResult<(u64, Step)> {
        let Ok(row) = row.cast::<PyTuple>() else { return Err(convert::wrong_type("a step", "tuple", row)) };
        let parts: Vec<_> = row.iter().collect();
        let [at, kind, arguments @ ..] = parts.as_slice() else { return Err(no_step()) };
        let at = convert::real("at", at, 0.0..=SECONDS_MAX, &format!("from 0 to {SECONDS_MAX} seconds"))?;
        let Ok(kind) = kind.cast::<PyString>() else { return Err(no_step()) };
        let node = |given| self.node("node", given);
        let fault = match (&*kind.to_string_lossy(), arguments) {
            ("put", [home, key, value, timestamp, ttl]) => {
                let Ok(value) = value.cast::<PyBytes>() else {
                    return Err(convert::wrong_type("value", "bytes", value));
                };
                Value::new(value.as_bytes()).map_err(raise)?;
                let timestamp = convert::timestamp(Some(timestamp))?.get();
                return self.call(at, home, key, Action::Put(value.as_bytes().to_vec(), timestamp, lives(ttl)?));
            }
            ("touch", [home, key, ttl]) => return self.call(at, home, key, Action::Touch(lives(ttl)?)),
            ("remove", [home, key, timestamp]) => {
                let timestamp = convert::timestamp(Some(timestamp))?.get();
                return self.call(at, home, key, Action::Remove(timestamp));
            }
            ("get", [home, key]) => return self.call(at, home, key, Action::Get),
            ("crash", [given, noticed_after]) => {
                let expected = format!("from 0 to {SECONDS_MAX} seconds");
                let noticed = convert::real("noticed_after", noticed_after, 0.0..=SECONDS_MAX, &expected)?;
                Fault::Crash { node: node(given)?, noticed_us: microseconds(noticed) }
            }
            ("recover", [given]) => Fault::Recover { node: node(given)? },
            ("suspect", [given]) => Fault::Suspect { node: node(given)? },
            ("block", [from, to]) => Fault::Block { from: self.node("sender", from)?, to: self.node("receiver", to)? },
            ("split", [side_a, side_b]) => Fault::Split { sides: self.sides(side_a, side_b)? },
            ("unblock", []) => Fault::Unblock,
            ("cut", [side_a, side_b]) => Fault::Cut { sides: self.sides(side_a, side_b)? },
            ("heal", []) => Fault::Heal,
            ("join", [capacity]) => {
                let bytes = convert::size("capacity", capacity)?;
                Fault::Join { bytes: check_node_bytes("capacity", bytes).map_err(raise)? }
            }
            ("leave", [given]) => Fault::Leave { node: node(given)? },
            ("dismiss", [given]) => Fault::Dismiss { node: node(given)? },
            _ => return Err(no_step()),
        };
        Ok((microseconds(at), Step::Fault(fault)))
    }

    fn call(&self, at: f64, home: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>, action: Action) -> PyResult<(u64, Step)> {
        let home = self.node("home", home)?;
        convert::key(key)?;
        Ok((microseconds(at), Step::Call { home, key: key.extract()?, action }))
    }

    fn node(&self, argument: &str, node: &Bound<'_, PyAny>) -> PyResult<NodeId> {
        let last = self.all() - 1;
        let number = convert::whole(argument, node, 0..=last as u64, &format!("from 0 to {last}"))?;
        // At most `NODES_MAX` nodes there are.
        Ok(number as NodeId)
    }

    /// One bit for each node that is named.
    fn side(&self, argument: &str, nodes: &Bound<'_, PyAny>) -> PyResult<u128> {
        let Ok(nodes) = nodes.try_iter() else {
            return Err(convert::wrong_type(argument, "an iterable of int", nodes));
        };
        let node =
            |node: PyResult<Bound<'_, PyAny>>| Ok(1_u128 << self.node(&format!("a node of {argument}"), &node?)?);
        nodes.map(node).try_fold(0, |side, node: PyResult<u128>| Ok(side | node?))
    }

    /// One bit for each node of the first side. The second may be left out; else it has every other node.
    fn sides(&self, side_a: &Bound<'_, PyAny>, side_b: &Bound<'_, PyAny>) -> PyResult<u128> {
        let a = self.side("side_a", side_a)?;
        if !side_b.is_none() {
            let b = self.side("side_b", side_b)?;
            let all = (1_u128 << self.nodes) - 1;
            if a & b != 0 || (a | b) & all != all {
                let expected = "None, or every node that is not on side_a and no other";
                return Err(convert::out_of_range("side_b", side_b, expected));
            }
        }
        Ok(a)
    }
}

/// How long a value lives: seconds, or `None` for ever.
fn lives(ttl: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    Ok(match convert::ttl(Some(ttl).filter(|ttl| !ttl.is_none()))? {
        Ttl::For(ttl) => Some(ttl),
        Ttl::OfCache | Ttl::Forever => None,
    })
}

#[cold]
fn no_step() -> PyErr {
    PyTypeError::new_err("a step must be (at, name, ...) as `Scenario` makes them; nothing was done")
}

/// A probability, in thousandths.
fn permille(argument: &str, given: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
    let Some(given) = given else { return Ok(0) };
    let share = convert::real(argument, given, 0.0..=1.0, "from 0 to 1")?;
    Ok((share * 1000.0).round() as u64)
}

/// Seconds, checked to be within their range, as the simulator has them.
fn microseconds(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

/// What became of a scenario. If a promise was broken, it ended there, and
/// all but `seconds` and `violation` is 0 or empty.
#[pyclass(frozen, eq, get_all, module = "distributed_consistent_cache.simulation")]
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ScenarioReport {
    /// Virtual time at the end, in seconds.
    seconds: f64,
    /// Events: messages that arrived, timeouts, rounds of gossip, calls,
    /// faults.
    events: u64,
    /// Faults that happened.
    faults: u64,
    /// Puts and removes that were begun.
    writes: u64,
    /// Gets and touches that were begun.
    reads: u64,
    /// Gets that found a value.
    hits: u64,
    /// Calls that ended in an error: too few owners, or none, or an entry
    /// that fits in no node.
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
    /// In how many rounds of gossip the nodes agreed after the faults
    /// stopped.
    rounds: u64,
    /// A hash of everything that happened, in its order: the same for the
    /// same scenario and seed.
    trace: u64,
    /// What a get of each key gives at the end, when all agree: key ->
    /// (value, timestamp); a miss is left out.
    values: BTreeMap<String, (Vec<u8>, u64)>,
    /// The first promise that was broken; None if all were kept.
    violation: Option<Violation>,
}

impl ScenarioReport {
    const fn new(seconds: f64, counts: Counts, values: BTreeMap<String, (Vec<u8>, u64)>) -> Self {
        let Counts {
            events,
            faults,
            writes,
            reads,
            hits,
            refused,
            evictions,
            expired,
            markers_lost,
            late_keys,
            rounds,
            trace,
            ..
        } = counts;
        Self {
            seconds,
            events,
            faults,
            writes,
            reads,
            hits,
            refused,
            evictions,
            expired,
            markers_lost,
            late_keys,
            rounds,
            trace,
            values,
            violation: None,
        }
    }
}

#[pymethods]
impl ScenarioReport {
    fn __repr__(&self) -> String {
        let Self { seconds, events, faults, rounds, values, violation, .. } = self;
        let violation = violation.as_ref().map_or_else(|| "None".to_owned(), Violation::__repr__);
        format!(
            "ScenarioReport(seconds={seconds:.6}, events={events}, faults={faults}, rounds={rounds}, \
             values={}, violation={violation})",
            values.len()
        )
    }
}
