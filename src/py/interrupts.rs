//! ```text
//!   what takes long, without the GIL  --a step-->  signals?  --a step-->  signals?  ..
//! ```
//! Ctrl-C while native code runs: it is heard between two steps, each of milliseconds.

use pyo3::prelude::*;

use crate::cluster::walk::GoOn;

/// Runs what takes long without the GIL. It asks now and then whether to go on: that is when a signal is heard, and what its
/// handler raises ends it.
///
/// Returns what it came to, and what was raised.
pub(super) fn heard<T: Send>(py: Python<'_>, run: impl FnOnce(GoOn<'_>) -> T + Send) -> (T, Option<PyErr>) {
    let mut raised = None;
    let done = py.detach(|| {
        run(&mut || {
            // At the end of the interpreter nothing is to be heard any more, and the GIL is not to be had.
            raised = Python::try_attach(|py| py.check_signals().err()).flatten();
            raised.is_none()
        })
    });
    (done, raised)
}

/// The same for what changes nothing: what was raised is all that there is to say.
pub(super) fn interruptible<T: Send>(py: Python<'_>, run: impl FnOnce(GoOn<'_>) -> T + Send) -> PyResult<T> {
    match heard(py, run) {
        (_, Some(raised)) => Err(raised),
        (done, None) => Ok(done),
    }
}
