//! ```text
//!   a thread of Python's own  ->  its logging, at once
//!   any other thread          ->  [ at most 256 records ]  ->  the main thread, as soon as it runs Python code
//! ```
//! What the core logs goes to Python's logging, from Info on, under `distributed_consistent_cache`.
//!
//! Promise: a thread that is not Python's own never asks for the GIL, so it neither waits for Python nor is caught in it when
//! the process ends.

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

use super::{interpreter, simulate};
use crate::lock::{Mutex, RawLock, raw};

/// Records wait in this number at most: those of threads that are not Python's own are few.
const WAITING_MAX: usize = 256;

static WAITING: Mutex<VecDeque<Waiting>> = Mutex::new(VecDeque::new());

/// So many threads are in Python's logging.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Whether a thread is in Python's logging: once the interpreter has begun to end, no other begins.
pub(super) fn is_under_way() -> bool {
    UNDER_WAY.load(Ordering::SeqCst) > 0
}

/// The lock of the module's own.
pub(super) fn locks(each: &mut dyn FnMut(&RawLock)) {
    each(raw(&WAITING));
}

/// In a forked child: what waits is told in the parent, and no other thread is in Python's logging.
pub(super) fn in_child(is_whole: bool) {
    if is_whole {
        WAITING.lock().clear();
    }
    UNDER_WAY.store(0, Ordering::SeqCst);
}

/// A record that waits for the main thread.
struct Waiting {
    level: log::Level,
    target: String,
    text: String,
}

/// Begins to pass on what is logged. It is so seldom that nothing is cached: a level or a handler may be changed at any time.
pub(super) fn start(py: Python<'_>) {
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
        metadata.level() <= log::Level::Info && !simulate::is_simulating() && !interpreter::is_too_late()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if interpreter::is_pythons() {
            UNDER_WAY.fetch_add(1, Ordering::SeqCst);
            if !interpreter::is_too_late() {
                self.0.log(record);
                Python::attach(pass_on);
            }
            UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
        } else {
            wait(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

#[cold]
fn wait(record: &log::Record<'_>) {
    let waiting =
        Waiting { level: record.level(), target: record.target().to_owned(), text: record.args().to_string() };
    let mut all = WAITING.lock();
    if all.len() == WAITING_MAX {
        all.pop_front();
    }
    all.push_back(waiting);
    drop(all);
    interpreter::call_soon(tell);
}

/// Called by the main thread, with the GIL.
extern "C" fn tell(_: *mut c_void) -> c_int {
    let tell = || {
        loop {
            // Not to be held while Python code runs.
            let Some(next) = WAITING.lock().pop_front() else { return };
            log::log!(target: &next.target, next.level, "{}", next.text);
        }
    };
    // A panic has told so already.
    let _ = catch_unwind(tell);
    0
}
