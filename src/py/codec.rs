//! What `encode`, `decode` and their neighbours share: pickle's opcodes, the plain objects they stand for, and the quickest
//! call into Python.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyIterator, PyString};

/// Values of so many bytes are copied with the GIL released: a copy of 16 KiB takes about as long as letting go of it.
pub(super) const LARGE_BYTES: usize = 16 * 1024;

/// What is stored and is no pickle begins with a tag: 0 for buffers beside a pickle, the others for what a serializer wrote.
/// No pickle begins with so small a byte.
pub(super) const TAG_MAX: u8 = 3;

pub(super) const PROTO_5: [u8; 2] = [0x80, 5];
pub(super) const STOP: u8 = b'.';
pub(super) const MEMOIZE: u8 = 0x94;
pub(super) const SHORT_BINUNICODE: u8 = 0x8c;
pub(super) const BINUNICODE: u8 = b'X';
pub(super) const SHORT_BINBYTES: u8 = b'C';
pub(super) const BINBYTES: u8 = b'B';
pub(super) const BYTEARRAY8: u8 = 0x96;
pub(super) const LONG1: u8 = 0x8a;

/// Whether a long copy may let go of the GIL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Copying {
    Attached,
    Detached,
}

/// Python bytes of these parts, copied without the GIL when they are many.
#[inline]
pub(super) fn bytes_of<'py>(py: Python<'py>, parts: &[&[u8]], copying: Copying) -> PyResult<Bound<'py, PyBytes>> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    // Safety: the object is fresh and nobody else knows it, so it may be filled, with or without the GIL; the parts
    // together have the length it was made with. Made zeroed first, as the safe way does it, a get takes 5 % longer.
    #[expect(unsafe_code, reason = "bytes that are filled once")]
    unsafe {
        let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), len as ffi::Py_ssize_t);
        let object = Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>();
        let start = ffi::PyBytes_AsString(object.as_ptr()) as usize;
        let fill = || {
            let mut to = start as *mut u8;
            for part in parts {
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
                to = to.add(part.len());
            }
        };
        if len >= LARGE_BYTES && copying == Copying::Detached {
            py.detach(fill)
        } else {
            fill()
        }
        Ok(object)
    }
}

#[inline]
pub(super) fn text_object<'py>(py: Python<'py>, text: &[u8]) -> Option<Bound<'py, PyAny>> {
    // Lone surrogates are left to pickle.
    PyString::from_bytes(py, text).ok().map(Bound::into_any)
}

#[inline]
pub(super) fn bytes_object<'py>(py: Python<'py>, text: &[u8]) -> Option<Bound<'py, PyAny>> {
    if text.len() < LARGE_BYTES {
        return bytes_of(py, &[text], Copying::Attached).ok().map(Bound::into_any);
    }
    // So long a value is a share: no node is held.
    bytes_of(py, &[text], Copying::Detached).ok().map(Bound::into_any)
}

#[inline]
pub(super) fn small_int(opcode: u8, rest: &[u8]) -> Option<i64> {
    match (opcode, rest) {
        (b'K', &[a]) => Some(i64::from(a)),
        (b'M', &[a, b]) => Some(i64::from(u16::from_le_bytes([a, b]))),
        (b'J', &[a, b, c, d]) => Some(i64::from(i32::from_le_bytes([a, b, c, d]))),
        _ => None,
    }
}

#[inline]
pub(super) fn long(rest: &[u8]) -> Option<i64> {
    if rest.is_empty() || rest.len() > 8 {
        return None;
    }
    let sign = if rest[rest.len() - 1] >= 0x80 { 0xff } else { 0 };
    let mut bytes = [sign; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    Some(i64::from_le_bytes(bytes))
}

/// A `bytearray` of these bytes, copied without the GIL when they are many.
pub(super) fn byte_array<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if bytes.len() < LARGE_BYTES {
        return Ok(PyByteArray::new(py, bytes).into_any());
    }
    // Safety: the object is fresh and nobody else knows it, so it may be filled without the GIL; it has the length of the
    // bytes. Zeroed first, as the safe way does it, a large array takes 1.5 times as long.
    #[expect(unsafe_code, reason = "memory that is filled once")]
    unsafe {
        let object = ffi::PyByteArray_FromStringAndSize(std::ptr::null(), bytes.len() as ffi::Py_ssize_t);
        let object = Bound::from_owned_ptr_or_err(py, object)?;
        let start = ffi::PyByteArray_AsString(object.as_ptr()) as usize;
        py.detach(|| std::ptr::copy_nonoverlapping(bytes.as_ptr(), start as *mut u8, bytes.len()));
        Ok(object)
    }
}

#[inline]
pub(super) fn int_object(py: Python<'_>, int: i64) -> Option<Bound<'_, PyAny>> {
    // Safety: it makes an object, or none with an exception set.
    #[expect(unsafe_code, reason = "what pyo3 makes it panics without memory for")]
    made(py, unsafe { ffi::PyLong_FromLongLong(int) })
}

#[inline]
pub(super) fn float_object(py: Python<'_>, float: f64) -> Option<Bound<'_, PyAny>> {
    // Safety: it makes an object, or none with an exception set.
    #[expect(unsafe_code, reason = "what pyo3 makes it panics without memory for")]
    made(py, unsafe { ffi::PyFloat_FromDouble(float) })
}

/// An empty dict.
#[inline]
pub(super) fn dict_object(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    // Safety: it makes an object, or none with an exception set.
    #[expect(unsafe_code, reason = "what pyo3 makes it panics without memory for")]
    made(py, unsafe { ffi::PyDict_New() })
}

/// An empty list.
#[inline]
pub(super) fn list_object(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    // Safety: it makes an object, or none with an exception set.
    #[expect(unsafe_code, reason = "what pyo3 makes it panics without memory for")]
    made(py, unsafe { ffi::PyList_New(0) })
}

/// A tuple of these.
#[inline]
pub(super) fn tuple_object<'py>(
    py: Python<'py>,
    items: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
) -> Option<Bound<'py, PyAny>> {
    // Safety: it makes a tuple of so many places, or none with an exception set; each is given a reference of its own once.
    #[expect(unsafe_code, reason = "what pyo3 makes it panics without memory for")]
    unsafe {
        let tuple = made(py, ffi::PyTuple_New(items.len() as ffi::Py_ssize_t))?;
        for (at, item) in items.enumerate() {
            ffi::PyTuple_SetItem(tuple.as_ptr(), at as ffi::Py_ssize_t, item.into_ptr());
        }
        Some(tuple)
    }
}

/// Whether there is memory for some more small objects, of which Python takes a mebibyte at a time.
#[cold]
pub(super) fn has_room(py: Python<'_>) -> bool {
    // Safety: it makes bytes, which are written by nobody and read by nobody, or none with an exception set.
    #[expect(unsafe_code, reason = "what pyo3 makes it panics without memory for")]
    made(py, unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), 2 << 20) }).is_some()
}

/// An object that was made just now; `None`, and the exception is dropped, when there was no memory for it.
#[inline]
fn made(py: Python<'_>, object: *mut ffi::PyObject) -> Option<Bound<'_, PyAny>> {
    // Safety: it is a reference of its own, or null with an exception set.
    #[expect(unsafe_code, reason = "a new reference")]
    unsafe { Bound::from_owned_ptr_or_err(py, object) }.ok()
}

/// Calls with one argument, or none, that the caller keeps alive: under the stable ABI 10 to 30 ns quicker than `call1`.
#[inline]
pub(super) fn call<'py>(callable: &Bound<'py, PyAny>, arguments: &[*mut ffi::PyObject]) -> PyResult<Bound<'py, PyAny>> {
    let nothing = std::ptr::null_mut::<ffi::PyObject>();
    let first = arguments.first().copied().unwrap_or(nothing);
    // Safety: callable and argument are alive, the list ends with a null pointer, and the answer is a new reference or
    // null with an exception set.
    #[expect(unsafe_code, reason = "the call that pickle's cost is measured with")]
    unsafe {
        let caught = Caught;
        let answer = unwinding::PyObject_CallFunctionObjArgs(callable.as_ptr(), first, nothing);
        std::mem::forget(caught);
        Bound::from_owned_ptr_or_err(callable.py(), answer)
    }
}

/// The next of an iterator, which may be a generator of the caller's.
#[inline]
pub(super) fn next<'py>(iterator: &Bound<'py, PyIterator>) -> Option<PyResult<Bound<'py, PyAny>>> {
    let py = iterator.py();
    // Safety: the iterator is alive, and the answer is a new reference, or null, with an exception set unless it is at its end.
    #[expect(unsafe_code, reason = "a call that may be ended from outside")]
    let item = unsafe {
        let caught = Caught;
        let item = unwinding::PyIter_Next(iterator.as_ptr());
        std::mem::forget(caught);
        Bound::from_owned_ptr_or_opt(py, item)
    };
    match item {
        Some(item) => Some(Ok(item)),
        None => PyErr::take(py).map(Err),
    }
}

/// Calls into code of the user's own. Up to 3.13, Python ends a thread that is not the main one by unwinding its stack, when
/// the process ends and the thread comes to take the GIL.
mod unwinding {
    use pyo3::ffi::PyObject;

    #[expect(unsafe_code, reason = "Python's functions, with the word that they may unwind")]
    unsafe extern "C-unwind" {
        pub(super) fn PyObject_CallFunctionObjArgs(callable: *mut PyObject, ...) -> *mut PyObject;
        pub(super) fn PyIter_Next(iterator: *mut PyObject) -> *mut PyObject;
    }
}

/// On the stack while such a call runs. Rust must not be unwound so: the thread stops here, as from 3.14 on.
struct Caught;

impl Drop for Caught {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}
