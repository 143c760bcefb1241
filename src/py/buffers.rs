//! ```text
//!   put   value -> pickler -> [ pickle ]  and buffers of 16 KiB and more that stay where they are
//!                     stored: [ tag | kind | lengths | pickle | buffer | buffer .. ]
//!   get   each buffer is copied once, from the node's memory into one of its own -> pickle.loads(.., buffers)
//! ```
//! Pickling, with large buffers beside the pickle instead of in it (protocol 5, PEP 574): what numpy arrays and their like
//! are made of. And `memoryview`, which pickle itself refuses.
//!
//! Promise: what is stored begins with a byte that no pickle begins with exactly when there are buffers beside the pickle.
//! What comes out has memory of its own, writable if it was; bytes that were not written here are an error.

use parking_lot::Mutex;
use pyo3::buffer::{PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PyTuple};

use super::codec::{LARGE_BYTES, bytes_object, call};
use super::plain;

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
    /// A value whose buffers these are.
    Value = 0,
    /// Format and shape of a `memoryview`.
    View = 1,
}

/// What pickling gave.
pub(super) enum Pickled<'py> {
    Pickle(Bound<'py, PyBytes>),
    /// A tagged body with buffers.
    Tagged(Vec<u8>),
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
    let py = value.py();
    let pickler = Pickler::take(py)?;
    let (pickle, buffers) = pickler.dump(value)?;
    pickler.keep(pickle.as_bytes().len());
    if buffers.is_empty() {
        return Ok(Pickled::Pickle(pickle));
    }
    let views: Vec<_> = buffers.iter().map(|buffer| Memory::of(buffer)).collect();
    Ok(Pickled::Tagged(join(py, Kind::Value, pickle.as_bytes(), &views)))
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

/// Called with every buffer that offers itself: keeps the large ones.
#[pyclass(frozen)]
struct Aside(Mutex<Vec<PyBuffer<u8>>>);

#[pymethods]
impl Aside {
    /// True has pickle copy the buffer into the pickle.
    fn __call__(&self, buffer: &Bound<'_, PyAny>) -> bool {
        // One that is not contiguous is refused by pickle itself, and says why.
        let bytes = buffer.call_method0("raw").and_then(|raw| PyBuffer::<u8>::get(&raw));
        match bytes {
            Ok(bytes) if bytes.len_bytes() >= LARGE_BYTES => {
                self.0.lock().push(bytes);
                false
            }
            _ => true,
        }
    }
}

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
        let aside = Bound::new(py, Aside(Mutex::new(Vec::new())))?;
        let file = py.import("types")?.getattr("SimpleNamespace")?;
        let options = PyDict::new(py);
        options.set_item("write", written.getattr("append")?)?;
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
    fn dump<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyBytes>, Vec<PyBuffer<u8>>)> {
        let py = value.py();
        call(self.dump.bind(py), &[value.as_ptr()])?;
        call(self.clear_memo.bind(py), &[])?;
        let written = self.written.bind(py);
        let pickle = match written.len() {
            1 => written.get_item(0)?,
            _ => PyBytes::new(py, b"").call_method1("join", (written,))?,
        };
        written.del_slice(0, usize::MAX)?;
        Ok((pickle.cast_into::<PyBytes>()?, std::mem::take(&mut *self.aside.get().0.lock())))
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

// Safety: the memory is lent for as long as the buffer is held, which is until the copy is done, by any thread.
#[expect(unsafe_code, reason = "a pointer into a held buffer, read by one thread at a time")]
unsafe impl Sync for Memory {}

impl Memory {
    fn of(buffer: &PyUntypedBuffer) -> Self {
        Self { start: buffer.buf_ptr().cast(), len: buffer.len_bytes(), read_only: buffer.readonly() }
    }

    fn append_to(self, bytes: &mut Vec<u8>) {
        bytes.reserve(self.len);
        // Safety: the buffer is contiguous and held, the room was reserved, and fresh memory overlaps nothing. If another
        // thread writes into the buffer meanwhile, the copy has some of both, as with every copy of a buffer.
        #[expect(unsafe_code, reason = "memory that others may write to is not a slice")]
        unsafe {
            std::ptr::copy_nonoverlapping(self.start, bytes.as_mut_ptr().add(bytes.len()), self.len);
            bytes.set_len(bytes.len() + self.len);
        }
    }
}

/// The tagged body, put together without the GIL when it is large.
fn join(py: Python<'_>, kind: Kind, pickle: &[u8], buffers: &[Memory]) -> Vec<u8> {
    let len = 14 + pickle.len() + buffers.iter().map(|buffer| 8 + buffer.len).sum::<usize>();
    let fill = || {
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&[TAG, kind as u8]);
        bytes.extend_from_slice(&(buffers.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(pickle.len() as u64).to_le_bytes());
        for buffer in buffers {
            let read_only = if buffer.read_only { READ_ONLY } else { 0 };
            bytes.extend_from_slice(&(buffer.len as u64 | read_only).to_le_bytes());
        }
        bytes.extend_from_slice(pickle);
        buffers.iter().for_each(|buffer| buffer.append_to(&mut bytes));
        bytes
    };
    if len >= LARGE_BYTES { py.detach(fill) } else { fill() }
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
    /// Nothing when the bytes were not put together by `join`.
    fn of(stored: &'a [u8]) -> Option<Self> {
        let rest = stored.strip_prefix(&[TAG])?;
        let (&kind, rest) = rest.split_first()?;
        let kind = [Kind::Value, Kind::View].into_iter().find(|known| *known as u8 == kind)?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (pickle_len, rest) = rest.split_first_chunk::<8>()?;
        let (lengths, rest) = rest.split_at_checked(8usize.checked_mul(u32::from_le_bytes(*count) as usize)?)?;
        let (pickle, mut rest) = rest.split_at_checked(u64::from_le_bytes(*pickle_len) as usize)?;
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
    if parts.kind == Kind::Value {
        return load(parts.pickle, objects);
    }
    let about = plain::decode(py, parts.pickle).and_then(|about| about.cast_into_exact::<PyTuple>().ok());
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
        return Ok(Pickled::Tagged(join(py, Kind::View, about.as_bytes(), &[Memory::of(&buffer)])));
    }
    let copy = view.call_method0("tobytes")?;
    let memory = Memory { read_only: buffer.readonly(), ..Memory::of(&PyUntypedBuffer::get(&copy)?) };
    Ok(Pickled::Tagged(join(py, Kind::View, about.as_bytes(), &[memory])))
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
    loads.call((PyBytes::new(py, pickle),), Some(&options))
}
