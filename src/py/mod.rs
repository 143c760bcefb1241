//! ```text
//!   Python call -> convert: arguments in -> core -> decode: value out -> return, or errors: raise
//! ```
//! The Python face. It converts, opens the door to the core, and converts back; nothing is decided here.
//!
//! The GIL: a call hashes and tries the node's lock with the GIL held, because letting go of it costs more than the whole
//! call and hands the turn to whoever computes. It lets go when a node is busy, and for what takes long: large values,
//! bulk calls, sync, changes of the membership, close. No Python code runs while a node is held.

mod advice;
mod as_dict;
mod buffers;
mod bulk;
mod cache;
mod calls;
mod codec;
mod convert;
mod decode;
mod encode;
mod errors;
mod events;
mod explanation;
mod given;
mod handle;
mod interpreter;
mod interrupts;
mod key_strings;
mod keys;
mod logging;
mod monitor;
mod node;
mod opcodes;
mod plain;
mod plain_slots;
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

use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;
use pyo3::types::PyMapping;

/// The native module. Everything public is re-exported by `distributed_consistent_cache`.
///
/// It says that it needs the GIL: a build of Python without one switches it on. Several proofs rest on it: of two threads, one
/// at a time runs Python's own C code on a value (`encode.rs`, `buffers.rs`, `decode.rs`), and a fork finds no thread
/// inside `key_strings.rs`.
#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // Before anything that is kept is made.
    process::claim(module.py())?;
    crate::shortage::prepare();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    errors::add_to(module)?;
    module.add_class::<handle::Cache>()?;
    module.add_class::<keys::KeyIterator>()?;
    module.add_class::<monitor::ServerHandle>()?;
    module.add_class::<node::NodeHandle>()?;
    module.add_class::<report::Gauges>()?;
    module.add_class::<report::NodeStatus>()?;
    module.add_class::<report::SyncReport>()?;
    module.add_class::<report::ValueStats>()?;
    module.add_class::<scenario::ScenarioReport>()?;
    module.add_class::<simulate::SimulationReport>()?;
    module.add_class::<simulate::Violation>()?;
    module.add_class::<snapshot::RestoreReport>()?;
    module.add_class::<snapshot::SaveReport>()?;
    module.add_class::<snapshot::SnapshotInfo>()?;
    module.add_class::<advice::Advice>()?;
    module.add_class::<advice::SizeAdvice>()?;
    module.add_class::<events::Event>()?;
    module.add_class::<events::Feed>()?;
    module.add_class::<explanation::Explanation>()?;
    module.add_class::<explanation::OwnerView>()?;
    module.add_class::<statistics::Latency>()?;
    module.add_class::<statistics::NodeStats>()?;
    module.add_class::<statistics::Stats>()?;
    module.add_class::<timestamps::ManualClock>()?;
    module.add_function(wrap_pyfunction!(scenario::run_scenario, module)?)?;
    module.add_function(wrap_pyfunction!(simulate::shrink, module)?)?;
    module.add_function(wrap_pyfunction!(simulate::simulate, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot::snapshot_info, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot::verify_snapshot, module)?)?;
    module.add_function(wrap_pyfunction!(key_hash, module)?)?;
    module.add_function(wrap_pyfunction!(errors::break_down, module)?)?;
    // Looked up at its first use it might not be found: when the interpreter ends nothing can be imported.
    PyMapping::type_object(module.py());
    process::watch(module.py())?;
    logging::start(module.py());
    Ok(())
}

/// The 64-bit hash that places a key: SipHash-1-3 of its UTF-8 bytes under
/// a fixed key, the same everywhere.
#[pyfunction]
fn key_hash(key: &Bound<'_, PyAny>) -> PyResult<u64> {
    Ok(convert::key(key)?.hash().0)
}
