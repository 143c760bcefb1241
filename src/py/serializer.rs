//! ```text
//!   put  value -> dumps -> bytes, bytearray or str -> a node's bytes
//!   get  a node's bytes -> the same kind again     -> loads -> value
//! ```
//! What a cache turns values into: pickles, pickles of plain data only, or what a serializer of the user's own makes, as
//! the modules `json` and `msgpack` are.
//!
//! Promise: `loads` is given what `dumps` returned, byte for byte and of the same kind.

use std::sync::atomic::{AtomicU8, Ordering};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};

use super::buffers;
use super::codec::{self, Encoded, Taken, type_name};
use super::convert;
use super::errors::serialization;
use crate::message::Lent;

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
    /// What `dumps` returns: one of the kinds below.
    kind: AtomicU8,
}

/// Nothing was returned yet: `loads` gets bytes.
const UNKNOWN: u8 = 0;
const BYTES: u8 = 1;
const BYTE_ARRAY: u8 = 2;
const TEXT: u8 = 3;

impl Format {
    /// From the arguments of `Cache`.
    ///
    /// # Errors
    /// `ValueError` or `TypeError` that says what would do.
    pub(super) fn new(serializer: Option<&Bound<'_, PyAny>>, decode: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let plain = match decode.map(|decode| (decode, decode.cast::<PyString>().and_then(|text| Ok(text.to_cow())))) {
            None => false,
            Some((decode, Err(_))) => return Err(convert::wrong_type("decode", "str", decode)),
            Some((decode, Ok(text))) => match text?.as_ref() {
                "pickle" => false,
                "plain" => true,
                _ => return Err(convert::out_of_range("decode", decode, "\"pickle\" or \"plain\"")),
            },
        };
        let by_pickle = if plain { Self::Plain } else { Self::Pickle };
        let expected = "\"pickle\", or an object with dumps and loads, such as the module json";
        let Some(serializer) = serializer else { return Ok(by_pickle) };
        if let Ok(text) = serializer.cast::<PyString>() {
            let is_pickle = text.to_cow()? == "pickle";
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
        Ok(Self::Own(Own { dumps: dumps.unbind(), loads: loads.unbind(), kind: AtomicU8::new(UNKNOWN) }))
    }

    /// True when a serializer of the user's own does it.
    pub(super) const fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// Turns a value into bytes.
    ///
    /// # Errors
    /// `SerializationError` from the original one.
    #[inline]
    pub(super) fn encode<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
        match self {
            Self::Own(own) => own.encode(value),
            Self::Pickle | Self::Plain => codec::encode(value),
        }
    }

    /// Takes what a node lends, while it lends it, with the GIL: see `Taken::take`.
    #[inline]
    pub(super) fn take(&self, py: Python<'_>, lent: Lent<'_>) -> Taken {
        match self {
            Self::Own(_) => Taken::copy(lent),
            Self::Pickle | Self::Plain => Taken::take(py, lent),
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
        taken: Taken,
        key: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let value = match self {
            Self::Own(own) => taken.as_stored(py).and_then(|bytes| own.decode(bytes)),
            Self::Pickle => taken.into_object(py, false),
            Self::Plain => taken.into_object(py, true),
        };
        value.map_err(|error| unreadable(py, key, error))
    }
}

#[cold]
fn unreadable(py: Python<'_>, key: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let key = key.repr().map_or_else(|_| "?".to_owned(), |key| key.to_string());
    serialization(py, &format!("the value stored under {key} cannot be read"), error)
}

impl Own {
    fn encode<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
        let py = value.py();
        let failed = |error| {
            let what = format!("a value of type {} cannot be written by the serializer", type_name(value));
            serialization(py, &what, error)
        };
        let dumped = self.dumps.bind(py).call1((value,)).map_err(failed)?;
        let (encoded, kind) = if let Ok(bytes) = dumped.cast::<PyBytes>() {
            (Encoded::Pickle(bytes.clone()), BYTES)
        } else if let Ok(bytes) = dumped.cast::<PyByteArray>() {
            (Encoded::Long { bytes: bytes.to_vec(), framed: false }, BYTE_ARRAY)
        } else if let Ok(text) = dumped.cast::<PyString>() {
            (Encoded::Long { bytes: text.to_str().map_err(failed)?.as_bytes().to_vec(), framed: false }, TEXT)
        } else {
            let message = format!("dumps must return bytes, bytearray or str, not {}", type_name(&dumped));
            return Err(failed(PyTypeError::new_err(message)));
        };
        match self.kind.compare_exchange(UNKNOWN, kind, Ordering::Relaxed, Ordering::Relaxed) {
            Err(before) if before != kind => {
                // What is stored does not say of which kind it was.
                let message = format!("dumps returned {} now, and another type before", type_name(&dumped));
                Err(failed(PyTypeError::new_err(message)))
            }
            _ => Ok(encoded),
        }
    }

    fn decode<'py>(&self, stored: Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
        let py = stored.py();
        let given = match self.kind.load(Ordering::Relaxed) {
            BYTE_ARRAY => buffers::byte_array(py, stored.as_bytes())?,
            TEXT => PyString::from_bytes(py, stored.as_bytes())?.into_any(),
            _ => stored.into_any(),
        };
        self.loads.bind(py).call1((given,))
    }
}
