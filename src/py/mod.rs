//! ```text
//!   Python call -> convert: arguments in -> core -> decode: value out -> return, or errors: raise
//! ```
//! The Python face. It converts, opens the door to the core, and converts back; nothing is decided here.
//!
//! The GIL: a call hashes and tries the node's lock with the GIL held, because letting go of it costs more than the whole
//! call and hands the turn to whoever computes. It lets go when a node is busy, and for what takes long: large values,
//! bulk calls, sync, changes of the membership, close. No Python code runs while a node is held.

mod advice;
mod buffers;
mod bulk;
mod cache;
mod codec;
mod convert;
mod decode;
mod encode;
mod errors;
mod events;
mod explanation;
mod given;
mod interrupts;
mod key_strings;
mod keys;
mod monitor;
mod node;
mod plain;
mod plain_types;
mod plain_work;
mod process;
mod report;
mod scenario;
mod serializer;
mod simulate;
mod small;
mod snapshot;
mod statistics;
mod stopped;
mod table;
mod timestamps;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

/// The native module. Everything public is re-exported by `distributed_consistent_cache`.
#[pymodule(gil_used = false)]
mod _core {
    use super::PyResult;
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::cache::Cache;
    #[pymodule_export]
    use super::keys::KeyIterator;
    #[pymodule_export]
    use super::monitor::ServerHandle;
    #[pymodule_export]
    use super::node::NodeHandle;
    #[pymodule_export]
    use super::report::{Gauges, NodeStatus, SyncReport, ValueStats};
    #[pymodule_export]
    use super::scenario::{ScenarioReport, run_scenario};
    #[pymodule_export]
    use super::simulate::{SimulationReport, Violation, shrink, simulate};
    #[pymodule_export]
    use super::snapshot::{RestoreReport, SaveReport, SnapshotInfo, snapshot_info, verify_snapshot};

    #[pymodule_export]
    use super::advice::{Advice, SizeAdvice};
    #[pymodule_export]
    use super::events::Event;
    #[pymodule_export]
    use super::explanation::{Explanation, OwnerView};
    #[pymodule_export]
    use super::statistics::{Latency, NodeStats, Stats};
    #[pymodule_export]
    use super::timestamps::ManualClock;

    /// The 64-bit hash that places a key: SipHash-1-3 of its UTF-8 bytes under a fixed key, the same everywhere.
    #[pyfunction]
    fn key_hash(key: &Bound<'_, PyAny>) -> PyResult<u64> {
        Ok(super::convert::key(key)?.hash().0)
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        super::errors::add_to(module)?;
        super::process::watch(module.py())?;
        super::start_logging(module.py());
        Ok(())
    }
}

/// What the core logs goes to Python's logging, from Info on, under `distributed_consistent_cache`. It is so seldom that
/// nothing is cached: a level or a handler may be changed at any time.
fn start_logging(py: Python<'_>) {
    let Ok(logger) = pyo3_log::Logger::new(py, pyo3_log::Caching::Nothing) else { return };
    let logger = Logging(logger.filter(log::LevelFilter::Info));
    // Another logger that is there already stays: it is the embedding program's.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// What was raised while something was logged is nobody's who called: a handler of Ctrl-C may have run there. Ctrl-C is
/// pressed once more, for Python to hear when the call is over; anything else is told as what cannot be raised.
fn pass_on(py: Python<'_>) {
    let Some(raised) = PyErr::take(py) else { return };
    if raised.is_instance_of::<PyKeyboardInterrupt>(py)
        && py.import("_thread").and_then(|thread| thread.call_method0("interrupt_main")).is_ok()
    {
        return;
    }
    raised.write_unraisable(py, None);
}

/// Python's logging, for all but simulated clusters: what happens to their nodes is nobody's news, and there is much.
struct Logging(pyo3_log::Logger);

impl log::Log for Logging {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        !simulate::is_simulating() && self.0.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if !simulate::is_simulating() {
            self.0.log(record);
            Python::attach(pass_on);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}
