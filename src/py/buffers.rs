//! ```text
//!   put   value -> pickler -> [ pickle ]  and buffers of 16 KiB and more, copied when the pickler meets them
//!                     stored: [ tag | kind | buffer | buffer .. | pickle | lengths ]
//!   get   each buffer is copied once, from the node's memory into one of its own -> pickle.loads(.., buffers)
//! ```
//! Pickling, with large buffers beside the pickle instead of in it (protocol 5, PEP 574): what numpy arrays and their like
//! are made of. And `memoryview`, which pickle itself refuses.
//!
//! Promise: what the pickler hands over by reference, in a buffer or in a piece of the pickle, is copied before anything else
//! runs: it may be changed before the value is pickled to its end. What is stored begins with a byte that no pickle begins with exactly when there are buffers beside the pickle.
//! What comes out has memory of its own, writable if it was; bytes that were not written here are an error.

use std::ffi::{c_int, c_void};

use crate::lock::Mutex;
use pyo3::buffer::{PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyMemoryView, PyTuple};

use super::codec::{Copying, LARGE_BYTES, byte_array, bytes_object, bytes_of, call};
use super::errors::raise;
use super::plain;
use crate::error::Need;
use crate::message::Kept;
use crate::shortage;

/// The first byte of a pickle with buffers beside it: no pickle begins with it.
const TAG: u8 = 0;
const READ_ONLY: u64 = 1 << 63;

/// Picklers that are kept for the next value: as many as threads are likely to be pickling at once.
const PICKLERS_KEPT: usize = 4;
/// A pickler that wrote more than this is not kept: its memo has grown, and is cleared as a whole.
const KEPT_AFTER_BYTES: usize = 16 * 1024;

/// What the pickle beside the buffers describes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A value whose buffers these are. Their lengths and the pickle come first.
    Value = 0,
    /// Format and shape of a `memoryview`. The same order.
    View = 1,
    /// A value whose buffers these are. They come first, because they are copied before the pickle is there.
    Met = 2,
}

/// What tells buffers and pickle apart: the number of the first, and the length of the second.
const COUNTS_BYTES: usize = 4 + 8;

/// What pickling gave.
pub(super) enum Pickled<'py> {
    Pickle(Bound<'py, PyBytes>),
    /// A pickle of several pieces, or a tagged body with buffers.
    Joined(Vec<u8>),
}

/// Pickles a value, its large buffers beside the pickle.
///
/// # Errors
/// What pickle raises.
#[inline]
pub(super) fn pickle<'py>(value: &Bound<'py, PyAny>) -> PyResult<Pickled<'py>> {
    if let Ok(view) = value.cast_exact::<PyMemoryView>() {
        return pickle_view(view);
    }
    let pickler = Pickler::take(value.py())?;
    let (pickled, met) = pickler.dump(value)?;
    let pickle = match &pickled {
        Pickled::Pickle(bytes) => bytes.as_bytes(),
        Pickled::Joined(bytes) => bytes,
    };
    pickler.keep(pickle.len());
    if met.lengths.is_empty() { Ok(pickled) } else { met.join(pickle).map(Pickled::Joined) }
}

/// A pickler that is used again and again: making one takes longer than pickling a small dict.
struct Pickler {
    dump: Py<PyAny>,
    clear_memo: Py<PyAny>,
    /// What it wrote, in pieces.
    written: Py<PyList>,
    aside: Py<Aside>,
}

static PICKLERS: Mutex<Vec<Pickler>> = Mutex::new(Vec::new());

/// Buffers in the order in which the pickler met them, as they were then.
#[derive(Default)]
struct Met {
    /// The tagged body, as far as it goes.
    bytes: Vec<u8>,
    lengths: Vec<u64>,
}

impl Met {
    fn push(&mut self, memory: Memory) -> PyResult<()> {
        if self.lengths.is_empty() {
            self.bytes.clear();
            self.bytes.extend_from_slice(&[TAG, Kind::Met as u8]);
        }
        memory.append_to(&mut self.bytes)?;
        self.lengths.push(memory.stored_length());
        Ok(())
    }

    fn join(mut self, pickle: &[u8]) -> PyResult<Vec<u8>> {
        let more = pickle.len() + 8 * self.lengths.len() + COUNTS_BYTES;
        // The last there is to come: not twice as much.
        self.bytes.try_reserve_exact(more).map_err(|_| PyMemoryError::new_err(()))?;
        self.bytes.extend_from_slice(pickle);
        self.lengths.iter().for_each(|length| self.bytes.extend_from_slice(&length.to_le_bytes()));
        self.bytes.extend_from_slice(&(self.lengths.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(pickle.len() as u64).to_le_bytes());
        Ok(self.bytes)
    }
}

/// Called with every buffer that offers itself: copies the large ones.
#[pyclass(frozen)]
struct Aside(Mutex<Met>);

#[pymethods]
impl Aside {
    /// True has pickle copy the buffer into the pickle.
    fn __call__(&self, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        let raw = match buffer.call_method0("raw") {
            Ok(raw) => raw,
            // One that is not contiguous is refused by pickle itself, which says why.
            Err(error) if error.is_instance_of::<PyBufferError>(buffer.py()) => return Ok(true),
            Err(error) => return Err(error),
        };
        let bytes = PyBuffer::<u8>::get(&raw)?;
        if bytes.len_bytes() < LARGE_BYTES {
            return Ok(true);
        }
        self.0.lock().push(Memory::of(&bytes))?;
        Ok(false)
    }
}

/// What was written and could change, as it was then. Its memory is not the C library's, which keeps what is long.
#[pyclass(frozen)]
struct Piece(Vec<u8>);

impl Piece {
    /// A copy, or null with an exception set.
    ///
    /// # Safety
    /// An object that is alive, with Python's state attached.
    #[expect(unsafe_code, reason = "called by a function of C")]
    unsafe fn of(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
        // Safety: as the caller says.
        let (py, object) = unsafe {
            let py = Python::assume_attached();
            (py, Bound::from_borrowed_ptr(py, object))
        };
        let mut bytes = Vec::new();
        match append(&mut bytes, &object).and_then(|()| Bound::new(py, Self(bytes))) {
            Ok(piece) => piece.into_ptr(),
            Err(error) => {
                error.restore(py);
                std::ptr::null_mut()
            }
        }
    }
}

/// What a pickler wrote, as one.
fn joined(written: &Bound<'_, PyList>) -> PyResult<Vec<u8>> {
    fn bytes_of<'a>(piece: &'a Bound<'_, PyAny>) -> PyResult<&'a [u8]> {
        match piece.cast_exact::<PyBytes>() {
            Ok(bytes) => Ok(bytes.as_bytes()),
            Err(_) => Ok(&piece.cast_exact::<Piece>()?.get().0),
        }
    }
    let pieces: Vec<_> = written.iter().collect();
    let pieces = pieces.iter().map(bytes_of).collect::<PyResult<Vec<&[u8]>>>()?;
    shortage::joined(Need::Value, &pieces).map_err(raise)
}

/// `write` of the file that a pickler writes to, bound to a list. Pickle hands over what is long as it is, and a `bytearray`,
/// or what else can change, is copied here, before the pickler goes on to run somebody's code.
///
/// # Safety
/// Called by Python with a list and any object.
#[expect(unsafe_code, reason = "a small value is pickled a few percent faster than with a pymethod")]
unsafe extern "C" fn write(list: *mut ffi::PyObject, piece: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // Safety: Python calls with its state attached, and with references that it holds meanwhile; `PyList_Append` takes a
    // reference of its own. Null is returned only where an exception was set.
    unsafe {
        let appended = if ffi::PyBytes_CheckExact(piece) != 0 {
            ffi::PyList_Append(list, piece)
        } else {
            let copy = Piece::of(piece);
            if copy.is_null() {
                return copy;
            }
            let appended = ffi::PyList_Append(list, copy);
            ffi::Py_DECREF(copy);
            appended
        };
        if appended < 0 {
            return std::ptr::null_mut();
        }
        let none = ffi::Py_None();
        ffi::Py_INCREF(none);
        none
    }
}

/// How Python finds [`write`].
struct Definition(ffi::PyMethodDef);

// Safety: its pointers are to constants of this library, and nothing writes to it.
#[expect(unsafe_code, reason = "pointers to constants")]
unsafe impl Sync for Definition {}

static WRITE: Definition = Definition(ffi::PyMethodDef {
    ml_name: c"write".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer { PyCFunction: write },
    ml_flags: ffi::METH_O,
    ml_doc: std::ptr::null(),
});

impl Pickler {
    /// One that nobody uses. Pickling may run code that pickles: it takes another one.
    #[inline]
    fn take(py: Python<'_>) -> PyResult<Self> {
        match PICKLERS.try_lock().and_then(|mut kept| kept.pop()) {
            Some(pickler) => Ok(pickler),
            None => Self::new(py),
        }
    }

    #[cold]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let written = PyList::empty(py);
        let aside = Bound::new(py, Aside(Mutex::default()))?;
        let file = py.import("types")?.getattr("SimpleNamespace")?;
        let options = PyDict::new(py);
        // Safety: the definition is constant and lives for ever, though Python asks for a pointer that could be written
        // through; the function takes over no reference, and the answer is a new one or null with an exception set.
        #[expect(unsafe_code, reason = "a function of C")]
        let write = unsafe {
            let function =
                ffi::PyCFunction_NewEx((&raw const WRITE.0).cast_mut(), written.as_ptr(), std::ptr::null_mut());
            Bound::from_owned_ptr_or_err(py, function)?
        };
        options.set_item("write", write)?;
        let file = file.call((), Some(&options))?;
        let pickler = py.import("pickle")?.getattr("Pickler")?.call1((file, 5, true, &aside))?;
        Ok(Self {
            dump: pickler.getattr("dump")?.unbind(),
            clear_memo: pickler.getattr("clear_memo")?.unbind(),
            written: written.unbind(),
            aside: aside.unbind(),
        })
    }

    /// The pickle, and what is beside it. After an error this is not to be used again.
    #[inline]
    fn dump<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<(Pickled<'py>, Met)> {
        let py = value.py();
        call(self.dump.bind(py), &[value.as_ptr()])?;
        call(self.clear_memo.bind(py), &[])?;
        let written = self.written.bind(py);
        let pickle = match written.len() {
            1 => Pickled::Pickle(written.get_item(0)?.cast_into()?),
            _ => Pickled::Joined(joined(written)?),
        };
        written.del_slice(0, usize::MAX)?;
        Ok((pickle, std::mem::take(&mut *self.aside.get().0.lock())))
    }

    #[inline]
    fn keep(self, wrote_bytes: usize) {
        if wrote_bytes <= KEPT_AFTER_BYTES
            && let Some(mut kept) = PICKLERS.try_lock()
            && kept.len() < PICKLERS_KEPT
        {
            kept.push(self);
        }
    }
}

/// Memory that a Python object lends while it is kept alive.
#[derive(Clone, Copy)]
struct Memory {
    start: *const u8,
    len: usize,
    read_only: bool,
}

impl Memory {
    fn of(buffer: &PyUntypedBuffer) -> Self {
        Self { start: buffer.buf_ptr().cast(), len: buffer.len_bytes(), read_only: buffer.readonly() }
    }

    const fn stored_length(self) -> u64 {
        self.len as u64 | if self.read_only { READ_ONLY } else { 0 }
    }

    /// Copies it, with the GIL held where there is one, so that no Python code changes it meanwhile.
    fn append_to(self, bytes: &mut Vec<u8>) -> PyResult<()> {
        reserve(bytes, self.len)?;
        // Safety: the buffer is contiguous and held, so that its memory stays; the room was reserved, and fresh memory overlaps
        // nothing. If another thread writes into the buffer without the GIL, or where there is none, the copy has some of
        // both, as every copy of a buffer.
        #[expect(unsafe_code, reason = "memory that others may write to is not a slice")]
        unsafe {
            std::ptr::copy_nonoverlapping(self.start, bytes.as_mut_ptr().add(bytes.len()), self.len);
            bytes.set_len(bytes.len() + self.len);
        }
        Ok(())
    }
}

fn reserve(bytes: &mut Vec<u8>, more: usize) -> PyResult<()> {
    bytes.try_reserve(more).map_err(|_| PyMemoryError::new_err(()))
}

/// Copies all of an object's buffer behind `bytes`. While it is copied the object can be neither resized nor freed.
///
/// # Errors
/// `BufferError` for one that has none or is not contiguous; `MemoryError`.
pub(super) fn append(bytes: &mut Vec<u8>, object: &Bound<'_, PyAny>) -> PyResult<()> {
    let buffer = PyUntypedBuffer::get(object)?;
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err("a buffer that is not contiguous"));
    }
    Memory::of(&buffer).append_to(bytes)
}

/// The tagged body of a view.
fn join_view(pickle: &[u8], memory: Memory) -> PyResult<Vec<u8>> {
    let mut bytes = Vec::new();
    reserve(&mut bytes, 22 + pickle.len() + memory.len)?;
    bytes.extend_from_slice(&[TAG, Kind::View as u8]);
    bytes.extend_from_slice(&1_u32.to_le_bytes());
    bytes.extend_from_slice(&(pickle.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&memory.stored_length().to_le_bytes());
    bytes.extend_from_slice(pickle);
    memory.append_to(&mut bytes)?;
    Ok(bytes)
}

/// True when buffers are beside the pickle.
#[inline]
pub(super) fn is_tagged(stored: &[u8]) -> bool {
    stored.first() == Some(&TAG)
}

/// What was tagged, taken apart.
struct Parts<'a> {
    kind: Kind,
    pickle: &'a [u8],
    /// The bytes of each buffer, and whether they may not be written to.
    buffers: Vec<(&'a [u8], bool)>,
}

impl<'a> Parts<'a> {
    /// Nothing when the bytes were not put together here.
    fn of(stored: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = stored.strip_prefix(&[TAG])?.split_first()?;
        let kind = [Kind::Value, Kind::View, Kind::Met].into_iter().find(|known| *known as u8 == kind)?;
        let (lengths, pickle, mut rest) = if kind == Kind::Met { met_parts(rest) } else { parts(rest) }?;
        let mut buffers = Vec::with_capacity(lengths.len() / 8);
        for length in lengths.as_chunks::<8>().0 {
            let length = u64::from_le_bytes(*length);
            let (buffer, others) = rest.split_at_checked((length & !READ_ONLY) as usize)?;
            buffers.push((buffer, length & READ_ONLY != 0));
            rest = others;
        }
        rest.is_empty().then_some(Self { kind, pickle, buffers })
    }

    fn objects<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let object = |&(bytes, read_only): &(&[u8], bool)| match read_only {
            true => bytes_object(py, bytes).ok_or_else(|| pyo3::exceptions::PyMemoryError::new_err(())),
            false => byte_array(py, bytes),
        };
        self.buffers.iter().map(object).collect()
    }
}

/// Lengths, pickle and buffers in the order in which `Kind::Value` and `Kind::View` have them.
fn parts(rest: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let (pickle_len, rest) = rest.split_first_chunk::<8>()?;
    let (lengths, rest) = rest.split_at_checked(8usize.checked_mul(u32::from_le_bytes(*count) as usize)?)?;
    let (pickle, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*pickle_len)).ok()?)?;
    Some((lengths, pickle, rest))
}

/// The same, in the order of `Kind::Met`.
fn met_parts(rest: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (rest, pickle_len) = rest.split_last_chunk::<8>()?;
    let (rest, count) = rest.split_last_chunk::<4>()?;
    let before = |rest: &[u8], len: usize| rest.len().checked_sub(len);
    let lengths_at = before(rest, 8usize.checked_mul(u32::from_le_bytes(*count) as usize)?)?;
    let (rest, lengths) = rest.split_at(lengths_at);
    let pickle_at = before(rest, usize::try_from(u64::from_le_bytes(*pickle_len)).ok()?)?;
    let (rest, pickle) = rest.split_at(pickle_at);
    Some((lengths, pickle, rest))
}

/// The value of a tagged body. `load` reads a pickle with these buffers beside it.
///
/// # Errors
/// A `ValueError` when the bytes are broken, and what `load` raises.
pub(super) fn read<'py>(
    py: Python<'py>,
    stored: &[u8],
    load: impl FnOnce(&[u8], Vec<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let broken = || PyValueError::new_err("its bytes are broken");
    let parts = Parts::of(stored).ok_or_else(broken)?;
    let mut objects = parts.objects(py)?;
    if parts.kind != Kind::View {
        return load(parts.pickle, objects);
    }
    let about = plain::decode(py, parts.pickle)?.and_then(|about| about.cast_into_exact::<PyTuple>().ok());
    let view = PyMemoryView::from(&objects.pop().ok_or_else(broken)?)?;
    view.call_method1("cast", about.ok_or_else(broken)?)
}

/// Format, shape and contents of a view, in the order of C whatever it was.
fn pickle_view<'py>(view: &Bound<'py, PyMemoryView>) -> PyResult<Pickled<'py>> {
    let py = view.py();
    let (format, shape) = (view.getattr("format")?, view.getattr("shape")?);
    let buffer = PyUntypedBuffer::get(view)?;
    // What `cast` refuses cannot be given back: formats of several fields, or of another byte order.
    let sample = PyMemoryView::from(&PyBytes::new(py, &vec![0; buffer.item_size()]))?;
    sample.call_method1("cast", (&format,))?;
    if buffer.len_bytes() == 0 && buffer.dimensions() != 1 {
        return Err(PyValueError::new_err("a memoryview of several dimensions, one of which is 0"));
    }
    let about =
        if buffer.dimensions() == 1 { (format,).into_pyobject(py)? } else { (format, shape).into_pyobject(py)? };
    let Pickled::Pickle(about) = pickle(about.as_any())? else {
        return Err(PyValueError::new_err("a memoryview of too many dimensions"));
    };
    if buffer.is_c_contiguous() {
        return join_view(about.as_bytes(), Memory::of(&buffer)).map(Pickled::Joined);
    }
    let copy = view.call_method0("tobytes")?;
    let memory = Memory { read_only: buffer.readonly(), ..Memory::of(&PyUntypedBuffer::get(&copy)?) };
    join_view(about.as_bytes(), memory).map(Pickled::Joined)
}

/// A value's bytes, lent to whoever reads them as a buffer. They do not change, and stay while somebody has that buffer.
#[pyclass(frozen)]
pub(super) struct Lending(pub(super) Kept);

#[pymethods]
impl Lending {
    #[expect(unsafe_code, reason = "Python's buffers")]
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = slf.get().0.value().bytes();
        // Safety: Python gives a view to be filled. It takes a reference of this object, whose bytes stay where they are, and is
        // refused when it wants to write.
        let filled = unsafe {
            let start = bytes.as_ptr().cast_mut().cast::<c_void>();
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, bytes.len() as ffi::Py_ssize_t, 1, flags)
        };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// `pickle.loads` with buffers beside the pickle.
///
/// # Errors
/// What pickle raises.
pub(super) fn loads<'py>(
    py: Python<'py>,
    pickle: &[u8],
    buffers: Vec<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let loads = LOADS.get_or_try_init(py, || py.import("pickle")?.getattr("loads").map(Bound::unbind))?.bind(py);
    let options = PyDict::new(py);
    options.set_item("buffers", buffers)?;
    loads.call((bytes_of(py, &[pickle], Copying::Detached)?,), Some(&options))
}
