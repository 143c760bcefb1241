//! ```text
//!   put  value -> dumps -> bytes, bytearray or str  -> [ which of them | its bytes ]
//!   get  [ which of them | its bytes ] -> the same again -> loads -> value
//! ```
//! What a cache turns values into: pickles, pickles of plain data only, or what a serializer of the user's own makes, as
//! the modules `json` and `msgpack` are.
//!
//! Promise: `loads` is given what `dumps` returned, byte for byte and of the same kind.

use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};
use pyo3::{PyTraverseError, PyVisit};

use super::buffers;
use super::codec::{TAG_MAX, byte_array, bytes_object, call};
use super::convert;
use super::decode::{Taken, Unpacker};
use super::encode::{Encoded, encode};
use super::errors::{raise, serialization};
use super::given::type_name;
use crate::entry::{Form, Key};
use crate::message::{Lent, Read};
use crate::shown::Quoted;
use crate::values::Packing;

/// How a cache's values become bytes and values again.
pub(super) enum Format {
    /// As `pickle` reads and writes them.
    Pickle,
    /// Written as pickles; only those of plain data are read.
    Plain,
    /// As somebody else reads and writes them.
    Own(Own),
}

pub(super) struct Own {
    dumps: Py<PyAny>,
    loads: Py<PyAny>,
}

/// What `dumps` returned: the first byte of what is stored.
const BYTES: u8 = 1;
const BYTE_ARRAY: u8 = 2;
const TEXT: u8 = 3;
const _: () = assert!(TEXT == TAG_MAX);

impl Format {
    /// From the arguments of `Cache`.
    ///
    /// # Errors
    /// `ValueError` or `TypeError` that says what would do.
    pub(super) fn new(serializer: Option<&Bound<'_, PyAny>>, decode: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let plain = match decode {
            None => false,
            Some(decode) => {
                let text = decode.cast::<PyString>().map_err(|_| convert::wrong_type("decode", "str", decode))?;
                match &*text.to_string_lossy() {
                    "pickle" => false,
                    "plain" => true,
                    _ => return Err(convert::out_of_range("decode", decode, "\"pickle\" or \"plain\"")),
                }
            }
        };
        let by_pickle = if plain { Self::Plain } else { Self::Pickle };
        let expected = "\"pickle\", or an object with dumps and loads, such as the module json";
        let Some(serializer) = serializer else { return Ok(by_pickle) };
        if let Ok(text) = serializer.cast::<PyString>() {
            let is_pickle = text.to_string_lossy() == "pickle";
            return if is_pickle {
                Ok(by_pickle)
            } else {
                Err(convert::out_of_range("serializer", serializer, expected))
            };
        }
        let method = |name| serializer.getattr(name).ok().filter(|method| method.is_callable());
        let (Some(dumps), Some(loads)) = (method("dumps"), method("loads")) else {
            return Err(convert::wrong_type("serializer", expected, serializer));
        };
        if plain {
            let message = "decode is 'plain', but must be left out beside a serializer, which decodes by itself; \
                           nothing was done";
            return Err(PyValueError::new_err(message));
        }
        Ok(Self::Own(Own { dumps: dumps.unbind(), loads: loads.unbind() }))
    }

    /// For Python's garbage collector: a serializer may keep the cache that it serves. It is not cleared here: in such a
    /// cycle there is what keeps the cache, which came later and can let go of it.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Self::Own(own) = self else { return Ok(()) };
        visit.call(&own.dumps)?;
        visit.call(&own.loads)
    }

    /// True when a serializer of the user's own does it.
    pub(super) const fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// Turns a value into bytes.
    ///
    /// # Errors
    /// `SerializationError` from the original one.
    // Into both of its callers: numbers are written 3 % faster.
    #[inline(always)]
    pub(super) fn encode<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
        match self {
            Self::Own(own) => own.encode(value),
            Self::Pickle | Self::Plain => encode(value),
        }
    }

    /// Takes what a node lends, while it lends it, with the GIL: see `Taken::take`.
    #[inline]
    pub(super) fn take(&self, py: Python<'_>, packing: &Packing, read: Read, lent: Lent<'_>) -> Taken {
        match self {
            Self::Own(_) => take_written(py, packing, read, lent),
            Self::Pickle | Self::Plain => Taken::take(py, packing, read, lent),
        }
    }

    /// The value that was taken from a node, with no node held. `key` is for the message of an error.
    ///
    /// # Errors
    /// `SerializationError` from the original one.
    #[inline]
    pub(super) fn decode<'py>(
        &self,
        py: Python<'py>,
        unpacker: Unpacker<'_>,
        taken: Taken,
        key: Key<'_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match taken {
            Taken::Object(object) if !self.is_own() => Ok(object.into_bound(py)),
            taken => self.decode_bytes(py, unpacker, taken, key),
        }
    }

    // Not inlined: atoms are read 4 % faster without it.
    #[inline(never)]
    fn decode_bytes<'py>(
        &self,
        py: Python<'py>,
        unpacker: Unpacker<'_>,
        taken: Taken,
        key: Key<'_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let taken = taken.unpacked(py, unpacker, key)?;
        let value = match self {
            Self::Own(own) => own.decode(py, taken),
            Self::Pickle => taken.into_object(py, false),
            Self::Plain => taken.into_object(py, true),
        };
        value.map_err(|error| unreadable(py, key, error))
    }
}

#[cold]
fn unreadable(py: Python<'_>, key: Key<'_>, error: PyErr) -> PyErr {
    let key = String::from_utf8_lossy(key.bytes());
    serialization(py, &format!("the value stored under {} cannot be read", Quoted(&key)), error)
}

impl Own {
    #[inline(never)]
    fn encode<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
        let failed = |error| {
            let what = format!("a value of type {} cannot be written by the serializer", type_name(value));
            serialization(value.py(), &what, error)
        };
        let dumped = call(self.dumps.bind(value.py()), &[value.as_ptr()]).map_err(failed)?;
        if let Ok(bytes) = dumped.cast::<PyBytes>() {
            return Encoded::tagged(BYTES, bytes.as_bytes()).map_err(raise);
        }
        if let Ok(text) = dumped.cast::<PyString>() {
            return Encoded::tagged(TEXT, text.to_str().map_err(failed)?.as_bytes()).map_err(raise);
        }
        if dumped.is_instance_of::<PyByteArray>() {
            let mut bytes = Vec::new();
            buffers::append(&mut bytes, &dumped).map_err(failed)?;
            return Encoded::tagged(BYTE_ARRAY, &bytes).map_err(raise);
        }
        let message = format!("dumps must return bytes, bytearray or str, not {}", type_name(&dumped));
        Err(failed(PyTypeError::new_err(message)))
    }

    fn decode<'py>(&self, py: Python<'py>, taken: Taken) -> PyResult<Bound<'py, PyAny>> {
        let written = match &taken {
            Taken::Object(written) => written.bind(py).clone(),
            Taken::Bytes(bytes) => written(py, bytes.bind(py).as_bytes())?,
            Taken::Kept(kept) => written(py, kept.0.value().bytes())?,
            // What is broken was told before.
            Taken::Nothing | Taken::Broken(_) => written(py, &[])?,
        };
        call(self.loads.bind(py), &[written.as_ptr()])
    }
}

/// What `loads` is to be given: none of it is tracked by the garbage collector, so that no Python code can run.
#[inline(never)]
fn take_written(py: Python<'_>, packing: &Packing, read: Read, lent: Lent<'_>) -> Taken {
    match lent {
        Lent::Now(value) if value.form() == Form::Raw && packing.left(Form::Raw) => match written(py, value.bytes()) {
            Ok(written) => Taken::Object(written.unbind()),
            Err(_) => Taken::keep(read, Lent::Now(value)),
        },
        lent => Taken::keep(read, lent),
    }
}

/// What `dumps` returned, as it was stored.
fn written<'py>(py: Python<'py>, stored: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match stored {
        [BYTES, bytes @ ..] => bytes_object(py, bytes).ok_or_else(|| PyMemoryError::new_err(())),
        [BYTE_ARRAY, bytes @ ..] => byte_array(py, bytes),
        [TEXT, text @ ..] => PyString::from_bytes(py, text).map(Bound::into_any),
        _ => Err(PyValueError::new_err("it was not written by a serializer")),
    }
}
