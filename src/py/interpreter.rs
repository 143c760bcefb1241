//! ```text
//!   runs  ->  has begun to end, by this thread        may this thread ask for the GIL?  may any other?
//! ```
//! Whether the interpreter still runs, and who may call it.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::thread::ThreadId;

use pyo3::ffi;

/// Which thread ends the interpreter, once it has begun to end.
static ENDED_BY: OnceLock<ThreadId> = OnceLock::new();

/// It begins to end, by this thread.
pub(super) fn begin_to_end() {
    let _ = ENDED_BY.set(std::thread::current().id());
}

/// Whether the interpreter has begun to end.
pub(super) fn is_ending() -> bool {
    ENDED_BY.get().is_some()
}

/// Whether the interpreter has begun to end, and this is not the thread that ends it.
pub(super) fn is_too_late() -> bool {
    ENDED_BY.get().is_some_and(|by| *by != std::thread::current().id())
}

/// Whether this thread is Python's own: it may ask for the GIL.
pub(super) fn is_pythons() -> bool {
    // Safety: it may be called at any time.
    #[expect(unsafe_code, reason = "Python has to be asked")]
    unsafe {
        ffi::Py_IsInitialized() != 0 && !ffi::PyGILState_GetThisThreadState().is_null()
    }
}

/// Has the main thread call something with the GIL, as soon as it runs Python code. False if it cannot be had.
pub(super) fn call_soon(call: extern "C" fn(*mut c_void) -> c_int) -> bool {
    if is_ending() {
        return false;
    }
    // Safety: it needs no GIL, and Python has not begun to end.
    #[expect(unsafe_code, reason = "the way to reach the main thread without the GIL")]
    unsafe {
        ffi::Py_AddPendingCall(Some(call), std::ptr::null_mut()) == 0
    }
}
