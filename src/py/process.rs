//! ```text
//!   import:  the main interpreter, once       any other: ImportError, and nothing of it stays
//!   fork:    child -> a copy of each cache, as it was; its threads begin anew with the first call
//!   exit:    exit functions find open caches; what is dropped after them ends without waiting for anybody
//! ```
//! What the life of the process does to caches.
//!
//! Promise: threads that run Python code are Python's own; no other thread asks for the GIL, ever.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyImportError;
use pyo3::types::PyDict;
use pyo3::{ffi, prelude::*};

use super::events::Listeners;
use super::snapshot::RestoreReport;
use super::{interpreter, logging};
use crate::cluster::Cluster;
use crate::fork::{self, Forked};
use crate::lock::OnlyThread;
use crate::lock::{Mutex, RawLock, raw};
use crate::runtime::embedded::Embedded;
use crate::values::Packing;

/// Caches that live.
static LIVING: Mutex<Vec<Weak<Living>>> = Mutex::new(Vec::new());

/// A callback that does not come back does not keep the process from ending for longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which process this is.
#[inline]
pub(super) fn generation() -> u32 {
    fork::generation()
}

/// What is left of this module when its interpreter is one that may have it, which is asked before anything is made: classes,
/// exceptions and interned strings are kept for the whole process, and belong to one interpreter.
///
/// # Errors
/// `ImportError` in every interpreter but the main one, and in one that comes after the first has ended.
pub(super) fn claim(py: Python<'_>) -> PyResult<()> {
    static IS_CLAIMED: AtomicBool = AtomicBool::new(false);
    const MAIN: i64 = 0;
    let mark = "distributed_consistent_cache._core";
    // Safety: the GIL is held, and with it an interpreter. Its dict is borrowed, and stays while this runs.
    #[expect(unsafe_code, reason = "which interpreter it is, is asked in C")]
    let (number, own) = unsafe {
        let interpreter = ffi::PyInterpreterState_Get();
        let own = Bound::from_borrowed_ptr_or_opt(py, ffi::PyInterpreterState_GetDict(interpreter));
        (ffi::PyInterpreterState_GetID(interpreter), own)
    };
    if number != MAIN {
        return Err(refused(
            py,
            &format!(
                "distributed_consistent_cache works in the main interpreter of a process only, and this is number {number}: \
             its classes and caches belong to one interpreter; run this code in the main interpreter, or in a process of \
             its own (mod_wsgi: WSGIApplicationGroup %{{GLOBAL}}); nothing was imported"
            ),
        ));
    }
    let own = own.ok_or_else(|| PyImportError::new_err("the interpreter has no room for this module"))?;
    let own = own.cast::<PyDict>()?;
    if IS_CLAIMED.load(Ordering::Relaxed) && !own.contains(mark)? {
        return Err(refused(
            py,
            "distributed_consistent_cache belongs to an interpreter of this process that has ended; it works in the first \
             one only; nothing was imported",
        ));
    }
    own.set_item(mark, true)?;
    IS_CLAIMED.store(true, Ordering::Relaxed);
    Ok(())
}

/// The package itself can be imported all the same: whatever is asked of it raises this.
fn refused(py: Python<'_>, why: &str) -> PyErr {
    let error = PyImportError::new_err(why.to_owned());
    // Without the mark the import of the package fails.
    let _ = error.value(py).setattr("is_refused", true);
    error
}

/// What belongs to the module, and not to one cache.
struct OfModule;

impl Forked for OfModule {
    fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        each(raw(&LIVING));
        logging::locks(each);
    }

    fn in_child(&self, is_whole: bool, _: &OnlyThread) {
        logging::in_child(is_whole);
    }
}

/// Asks to be told of forks and of the end.
pub(super) fn watch(py: Python<'_>) -> PyResult<()> {
    static OF_MODULE: OnceLock<Arc<OfModule>> = OnceLock::new();
    OF_MODULE.get_or_init(|| {
        let of_module = Arc::new(OfModule);
        let weak: Weak<OfModule> = Arc::downgrade(&of_module);
        fork::register(weak);
        of_module
    });
    py.import("atexit")?.call_method1("register", (wrap_pyfunction!(at_exit, py)?,))?;
    Ok(())
}

/// Callbacks hear what was told, and other threads are done with logging. Caches stay open: functions that were registered before this one are called after it.
#[pyfunction]
fn at_exit(py: Python<'_>) {
    interpreter::begin_to_end();
    let living: Vec<_> = LIVING.lock().iter().filter_map(Weak::upgrade).collect();
    py.detach(|| {
        let began = Instant::now();
        let is_behind = || logging::is_under_way() || living.iter().any(|one| one.listeners.is_behind(&one.cluster));
        while began.elapsed() < PATIENCE && is_behind() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// A cache beside its Python object: what goes on in the background, and what lives on in a forked child.
pub(super) struct Living {
    pub(super) cluster: Arc<Cluster<Embedded>>,
    pub(super) packing: Arc<Packing>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) restored: Mutex<Option<RestoreReport>>,
    /// The process in which its threads are.
    at_home: AtomicU32,
    /// A fork could not get hold of it: in this process nothing of it may be used.
    is_lost: AtomicBool,
}

impl Living {
    pub(super) fn new(cluster: Arc<Cluster<Embedded>>, packing: Arc<Packing>) -> Arc<Self> {
        let living = Arc::new(Self {
            cluster,
            packing,
            listeners: Arc::default(),
            restored: Mutex::new(None),
            at_home: AtomicU32::new(generation()),
            is_lost: AtomicBool::new(false),
        });
        let weak: Weak<Self> = Arc::downgrade(&living);
        {
            let mut all = LIVING.lock();
            all.retain(|living| living.strong_count() > 0);
            all.push(Weak::clone(&weak));
        }
        fork::register(weak);
        living.begin();
        living
    }

    /// Starts what goes on in the background.
    fn begin(&self) {
        self.cluster.start_gossip();
        if self.packing.studies() {
            let packing = Arc::clone(&self.packing);
            self.cluster.start_studies(move |cluster| packing.study(cluster, Instant::now()));
        }
    }

    /// Starts it in this process, if a fork lies between it and the one in which it goes on. False if it cannot be used.
    #[cold]
    pub(super) fn begin_anew(&self, py: Python<'_>) -> bool {
        if self.is_lost() {
            return false;
        }
        let here = generation();
        if self.at_home.swap(here, Ordering::Relaxed) != here && !self.cluster.is_closed() {
            self.begin();
            self.listeners.begin_anew(py, &self.cluster);
        }
        true
    }

    /// Whether nothing of it may be used in this process.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }
}

impl Forked for Living {
    fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        self.cluster.locks(each);
        self.packing.locks(each);
        self.listeners.locks(each);
        each(raw(&self.restored));
    }

    fn in_child(&self, is_whole: bool, alone: &OnlyThread) {
        if !is_whole {
            self.is_lost.store(true, Ordering::Relaxed);
            return;
        }
        self.cluster.in_child(alone);
        self.packing.in_child(alone);
        self.listeners.in_child();
    }
}
