//! ```text
//!   fork:  child  ->  its caches say so and do nothing: threads and held locks stayed behind
//!   exit:  nothing is logged any more, and every cache that is left is closed, with the GIL released
//! ```
//! What the life of the process does to caches.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::cluster::Cluster;
use crate::monitor::serve;
use crate::runtime::embedded::Embedded;

/// How many forks lie between this process and the one that loaded the module.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Caches to be closed at exit.
static OPEN: Mutex<Vec<Weak<Cluster<Embedded>>>> = Mutex::new(Vec::new());

/// Threads that may call into Python.
static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// A callback that does not come back does not keep the process from ending for longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which process this is.
#[inline]
pub(super) fn generation() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Has a cache closed at exit.
pub(super) fn close_at_exit(cluster: &Arc<Cluster<Embedded>>) {
    let mut open = OPEN.lock();
    open.retain(|cluster| cluster.strong_count() > 0);
    open.push(Arc::downgrade(cluster));
}

/// A thread that may call into Python is waited for at exit, once what it works for is closed.
pub(super) fn join_at_exit(thread: JoinHandle<()>) {
    let mut threads = THREADS.lock();
    threads.retain(|thread| !thread.is_finished());
    threads.push(thread);
}

/// Asks to be told of forks and of the end.
pub(super) fn watch(py: Python<'_>) -> PyResult<()> {
    let os = py.import("os")?;
    if os.hasattr("register_at_fork")? {
        let arguments = PyDict::new(py);
        arguments.set_item("after_in_child", wrap_pyfunction!(after_fork, py)?)?;
        os.call_method("register_at_fork", (), Some(&arguments))?;
    }
    py.import("atexit")?.call_method1("register", (wrap_pyfunction!(at_exit, py)?,))?;
    Ok(())
}

#[pyfunction]
fn after_fork(py: Python<'_>) {
    FORKS.fetch_add(1, Ordering::Relaxed);
    // The threads that listen stayed in the parent: here nobody would answer.
    for socket in serve::fork::inherited() {
        // One that is closed already is as good.
        let _ = py.import("os").and_then(|os| os.call_method1("close", (socket,)));
    }
    // Another thread may have held this lock when the process was forked: it is left as it is, with what it lists, unless free.
    if let Some(mut open) = OPEN.try_lock() {
        std::mem::take(&mut *open).into_iter().for_each(std::mem::forget);
    }
    if let Some(mut threads) = THREADS.try_lock() {
        std::mem::take(&mut *threads).into_iter().for_each(std::mem::forget);
    }
}

#[pyfunction]
fn at_exit(py: Python<'_>) {
    // Other threads may be in the middle of a call: what they would log has no interpreter to go to any more.
    log::set_max_level(log::LevelFilter::Off);
    let open: Vec<_> = OPEN.try_lock().map(|mut open| std::mem::take(&mut *open)).unwrap_or_default();
    let threads: Vec<_> = THREADS.try_lock().map(|mut threads| std::mem::take(&mut *threads)).unwrap_or_default();
    py.detach(|| {
        open.iter().filter_map(Weak::upgrade).for_each(|cluster| cluster.close());
        let began = Instant::now();
        while began.elapsed() < PATIENCE && !threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}
