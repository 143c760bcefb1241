//! ```text
//!   CacheError
//!    +- ValueTooLargeError, KeyTooLargeError   also ValueError
//!    +- NoLiveNodeError, NodeDownError, QuorumError
//!    +- SerializationError                     raised from the original error
//!    +- SnapshotError
//!    +- ClosedError
//!    +- InternalError                          also RuntimeError: a fault in this package
//!   UserWarning
//!    +- TimestampWarning
//! ```
//! A `MemoryError` is Python's own: there was no memory, and nothing was changed.
//!
//! The one table from what can go wrong to what Python raises.

use pyo3::exceptions::{
    PyAttributeError, PyBufferError, PyEOFError, PyException, PyImportError, PyLookupError, PyMemoryError,
    PyNotImplementedError, PyOSError, PyOverflowError, PyRecursionError, PyRuntimeError, PyTypeError, PyUserWarning,
    PyValueError,
};
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::path::Path;

use super::given::text_of;
use crate::error::{Error, IS_REPLACED};
use crate::shown::{Shown, ShownWhole};

/// The module that users see.
const MODULE: &str = "distributed_consistent_cache";

/// No system has longer names of files, and few have so long ones.
const PATH_BYTES_MAX: usize = 1024;

struct Kind {
    name: &'static str,
    doc: &'static str,
    also_value_error: bool,
    class: PyOnceLock<Py<PyType>>,
}

const fn kind(name: &'static str, doc: &'static str, also_value_error: bool) -> Kind {
    Kind { name, doc, also_value_error, class: PyOnceLock::new() }
}

static CACHE_ERROR: Kind = kind(
    "CacheError",
    "The root of every error of a cache. Its message says what became of the\n\
     cache.",
    false,
);
static VALUE_TOO_LARGE: Kind = kind(
    "ValueTooLargeError",
    "The entry can never fit on its owners. The message names the key, what\n\
     it takes, the most there is room for, and what to raise. Nothing was\n\
     written and nothing was evicted.",
    true,
);
static KEY_TOO_LARGE: Kind =
    kind("KeyTooLargeError", "The key has more than 64 KiB in UTF-8. Nothing was written.", true);
static NO_LIVE_NODE: Kind = kind("NoLiveNodeError", "Every node is down. Nothing was written.", false);
static NODE_DOWN: Kind = kind("NodeDownError", "The node that was addressed is down. Nothing was done.", false);
static QUORUM: Kind = kind(
    "QuorumError",
    "Fewer owners answered than asked for. A write that some hold is not\n\
     undone: it spreads from them.",
    false,
);
static SERIALIZATION: Kind = kind(
    "SerializationError",
    "A value could not be turned into bytes or back; `__cause__` is the\n\
     original error. The cache is as it was.\n\
     \n\
     It is raised for what says something about the value: errors of the\n\
     pickle module, and TypeError, ValueError, AttributeError, LookupError,\n\
     ImportError, EOFError, OverflowError, BufferError, NotImplementedError\n\
     and RecursionError, whoever raised them; a RuntimeError only if pickle\n\
     itself did. Any other exception comes through as it is: a time limit\n\
     that a signal handler raises, MemoryError, KeyboardInterrupt.",
    false,
);
static SNAPSHOT: Kind = kind(
    "SnapshotError",
    "A file is no snapshot of a cache, or is damaged, cut short or of another\n\
     format; the message says at which byte.",
    false,
);
static CLOSED: Kind = kind(
    "ClosedError",
    "The cache is closed, or the server is that of a parent process. Nothing\n\
     was done.",
    false,
);

static TIMESTAMP_WARNING: Kind = kind(
    "TimestampWarning",
    "Writes of one key have timestamps that do not go together: of different\n\
     units, or of a clock that is far ahead, or that is not set. If warnings\n\
     are errors, its text says what became of the write, or of all of a call.",
    false,
);

static KINDS: [&Kind; 10] = [
    &CACHE_ERROR,
    &VALUE_TOO_LARGE,
    &KEY_TOO_LARGE,
    &NO_LIVE_NODE,
    &NODE_DOWN,
    &QUORUM,
    &SERIALIZATION,
    &SNAPSHOT,
    &CLOSED,
    &TIMESTAMP_WARNING,
];

impl Kind {
    /// The exception's class, made at its first use.
    fn class<'py>(&'static self, py: Python<'py>) -> PyResult<&'py Bound<'py, PyType>> {
        let make = || {
            let mut bases = Vec::new();
            if self.name == CACHE_ERROR.name {
                bases.push(py.get_type::<PyException>());
            } else if self.name == TIMESTAMP_WARNING.name {
                bases.push(py.get_type::<PyUserWarning>());
            } else {
                bases.push(CACHE_ERROR.class(py)?.clone());
            }
            if self.also_value_error {
                bases.push(py.get_type::<PyValueError>());
            }
            let body = PyDict::new(py);
            body.set_item("__module__", MODULE)?;
            body.set_item("__doc__", self.doc)?;
            let class = py.get_type::<PyType>().call1((self.name, PyTuple::new(py, bases)?, body))?;
            Ok::<_, PyErr>(class.cast_into::<PyType>()?.unbind())
        };
        Ok(self.class.get_or_try_init(py, make)?.bind(py))
    }

    fn error(&'static self, py: Python<'_>, message: String) -> PyErr {
        match self.class(py) {
            Ok(class) => made(py, PyErr::from_type(class.clone(), message)),
            Err(error) => error,
        }
    }
}

/// The class of warnings about timestamps.
pub(super) fn timestamp_warning(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    TIMESTAMP_WARNING.class(py)
}

/// Adds every exception to the module.
pub(super) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    KINDS.iter().try_for_each(|kind| module.add(kind.name, kind.class(module.py())?))?;
    module.add("InternalError", internal_error(module.py())?)
}

/// What Python raises for a panic, wherever it happened: pyo3 catches every one, and raises an exception of a class of its own
/// that is no `Exception`. That class, which is this module's alone, becomes a `CacheError`.
fn internal_error(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let class = py.get_type::<PanicException>();
    // Python lets a class have other bases when its instances look the same in memory, which those of the first must.
    class.setattr("__bases__", (py.get_type::<PyRuntimeError>(), CACHE_ERROR.class(py)?))?;
    for name in ["__name__", "__qualname__"] {
        class.setattr(name, "InternalError")?;
    }
    class.setattr("__module__", MODULE)?;
    class.setattr(
        "__doc__",
        "A fault in this package. What was called may be half done; the cache\n\
         goes on, and is best replaced by a new one.",
    )?;
    let method = py.import("functools")?.getattr("partialmethod")?.call1((wrap_pyfunction!(describe, py)?,))?;
    class.setattr("__str__", method)?;
    Ok(class)
}

#[pyfunction]
fn describe(error: &Bound<'_, PyAny>) -> PyResult<String> {
    let what: String = error.getattr("args")?.get_item(0)?.extract()?;
    Ok(format!(
        "a fault in distributed_consistent_cache: {what}; what was called may be half done; the cache goes on, and is best \
         replaced by a new one"
    ))
}

/// Raises what a fault in this package raises. For tests.
#[pyfunction]
#[pyo3(name = "_break_down")]
pub(super) fn break_down(py: Python<'_>, detached: bool) {
    let fail = || panic!("broken on purpose");
    if detached { py.detach(fail) } else { fail() }
}

/// An error as one that was raised before. pyo3 makes any other when it is first looked at, and asks for the GIL anew to do
/// it, which nobody is given any more when the interpreter ends and only what it takes apart still runs.
#[cold]
pub(super) fn made(py: Python<'_>, error: PyErr) -> PyErr {
    error.restore(py);
    PyErr::fetch(py)
}

/// What Python raises for an error of the core.
#[cold]
pub(super) fn raise(error: Error) -> PyErr {
    let message = error.to_string();
    let mut cause = &error;
    if let Error::BrokenOff { cause: inner, .. } = &error {
        cause = inner;
    }
    let kind = match cause {
        Error::File { path, os_error, why } | Error::FileReplaced { path, os_error, why } => {
            return os_error_of(path, *os_error, why, &error);
        }
        Error::Invalid { .. } | Error::NoSuchNode { .. } => {
            return Python::attach(|py| made(py, PyValueError::new_err(message)));
        }
        Error::OutOfMemory { .. } => return Python::attach(|py| made(py, PyMemoryError::new_err(message))),
        Error::KeyTooLarge { .. } => &KEY_TOO_LARGE,
        Error::ValueTooLarge { .. } | Error::UnpacksTooLarge { .. } => &VALUE_TOO_LARGE,
        Error::NoLiveNode => &NO_LIVE_NODE,
        Error::NodeDown { .. } => &NODE_DOWN,
        Error::Quorum { .. } => &QUORUM,
        Error::Serialization(_) => &SERIALIZATION,
        Error::Snapshot { .. } => &SNAPSHOT,
        // A restore is not within another.
        Error::BrokenOff { .. } => &CACHE_ERROR,
        Error::Closed => &CLOSED,
    };
    Python::attach(|py| kind.error(py, message))
}

/// What the operating system says of a file, as the class that Python has for it; a note says what became of the cache.
fn os_error_of(path: &Path, os_error: Option<i32>, why: &str, error: &Error) -> PyErr {
    Python::attach(|py| {
        let path = path.as_os_str();
        let note = match error {
            Error::BrokenOff { .. } => error.to_string(),
            Error::FileReplaced { .. } => IS_REPLACED.to_owned(),
            _ => "nothing was changed".to_owned(),
        };
        let raised = match os_error {
            Some(number) => {
                let said = py.import("os").and_then(|os| os.call_method1("strerror", (number,)));
                let said = said.and_then(|said| said.extract::<String>()).unwrap_or_else(|_| why.to_owned());
                // A name that is longer names no file: it need not come back whole.
                if path.len() > PATH_BYTES_MAX {
                    PyOSError::new_err((number, said, Shown(&path.to_string_lossy()).to_string()))
                } else {
                    PyOSError::new_err((number, said, path.to_owned()))
                }
            }
            None => PyOSError::new_err(error.to_string()),
        };
        noted(py, raised, note)
    })
}

/// An error with a note: what else became of the cache. Without its note the error is still the error.
pub(super) fn noted(py: Python<'_>, error: PyErr, note: impl AsRef<str>) -> PyErr {
    let error = made(py, error);
    let _ = error.value(py).call_method1("add_note", (note.as_ref(),));
    error
}

/// A `SerializationError` raised from an error that says something about the value. Any other error goes through as it is.
#[cold]
pub(super) fn serialization(py: Python<'_>, what: &str, cause: PyErr) -> PyErr {
    let cause = made(py, cause);
    if !is_about_the_value(py, &cause) {
        return cause;
    }
    let message = printable(&format!("{what}: {}", text_of(cause.value(py))));
    let error = SERIALIZATION.error(py, Error::Serialization(message).to_string());
    error.set_cause(py, Some(cause));
    error
}

/// Whether a value could not be turned into bytes or back.
pub(super) fn is_serialization(py: Python<'_>, error: &PyErr) -> bool {
    SERIALIZATION.class(py).is_ok_and(|class| error.is_instance(py, class))
}

/// Whether an error is one of a cache.
pub(super) fn is_cache_error(py: Python<'_>, error: &PyErr) -> bool {
    CACHE_ERROR.class(py).is_ok_and(|class| error.is_instance(py, class))
}

/// Whether an error that was raised while a value was pickled or unpickled says that this value cannot be. Those are the
/// errors of the pickle module and the kinds of errors that it raises, whoever raised them. Another one comes from
/// somewhere else and only met a value that was being pickled: a time limit, Ctrl-C, memory that ran out.
fn is_about_the_value(py: Python<'_>, error: &PyErr) -> bool {
    // Pickle raises it of a value that changes meanwhile. Python code raises it for any reason, and then there is a traceback.
    let is_of_pickle_itself =
        || error.get_type(py).is(py.get_type::<PyRuntimeError>()) && error.traceback(py).is_none();
    let is_a_pickle_error = || {
        let class = py.import("pickle").and_then(|pickle| pickle.getattr("PickleError"));
        class.is_ok_and(|class| error.matches(py, class).unwrap_or_default())
    };
    error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py)
        || error.is_instance_of::<PyAttributeError>(py)
        || error.is_instance_of::<PyLookupError>(py)
        || error.is_instance_of::<PyImportError>(py)
        || error.is_instance_of::<PyEOFError>(py)
        || error.is_instance_of::<PyOverflowError>(py)
        || error.is_instance_of::<PyBufferError>(py)
        || error.is_instance_of::<PyNotImplementedError>(py)
        || error.is_instance_of::<PyRecursionError>(py)
        || is_of_pickle_itself()
        || is_a_pickle_error()
}

/// Text that may come from outside, as a message shows it; all of it.
pub(super) fn printable(text: &str) -> String {
    ShownWhole(text).to_string()
}

/// The error of a cache that a fork brought into another process.
#[cold]
pub(super) fn forked() -> PyErr {
    closed("this was made in another process, and the fork could not bring it here; make a new one; nothing was done")
}

/// A `ClosedError`.
#[cold]
pub(super) fn closed(message: &str) -> PyErr {
    Python::attach(|py| CLOSED.error(py, message.to_owned()))
}
