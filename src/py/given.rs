//! ```text
//!   3.5 -> 3.5      'text' -> 'text'      10**5000 -> an int of 16610 bits      an object -> a Thing
//! ```
//! What Python gave, as a message shows it.
//!
//! Promise: no code of the user's runs, nothing can fail, and the text is short and has no control characters, whatever
//! was given.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PySlice, PyString, PyTuple, PyType};

use crate::shown::Shown;

/// An int of more bits is not written out: that takes time with the square of its length, and Python refuses it.
const BITS_MAX: usize = 4096;

/// So much of a text, and so many parts of a list.
const LETTERS_MAX: isize = 80;
const PARTS_MAX: usize = 4;

/// A value that was refused.
pub(super) fn shown(value: &Bound<'_, PyAny>) -> String {
    plain(value, 0).unwrap_or_else(|| named(value))
}

fn named(value: &Bound<'_, PyAny>) -> String {
    format!("a {}", type_name(value))
}

/// A type's name for a message; a type that cannot tell it is called what it is.
pub(super) fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "unknown".to_owned(), |name| Shown(&name.to_string_lossy()).to_string())
}

/// What somebody else's error says; its class, where it says nothing that can be read.
pub(super) fn text_of(error: &Bound<'_, PyAny>) -> String {
    error.str().map_or_else(|_| type_name(error), |text| Shown(&text.to_string_lossy()).to_string())
}

/// A value of Python's own types, or of one that is made of them, by the methods of Python's own types.
fn plain<'py>(value: &Bound<'py, PyAny>, depth: usize) -> Option<String> {
    let py = value.py();
    let of = |class: &Bound<'py, PyType>, method: &str| class.call_method1(method, (value,));
    let text =
        |said: PyResult<Bound<'_, PyAny>>| Some(said.ok()?.cast::<PyString>().ok()?.to_string_lossy().into_owned());
    if value.is_none() || value.is_instance_of::<PyBool>() {
        return text(value.repr().map(Bound::into_any));
    }
    if value.is_instance_of::<PyInt>() {
        let int = py.get_type::<PyInt>();
        let bits: usize = of(&int, "bit_length").ok()?.extract().ok()?;
        if bits <= BITS_MAX {
            let digits = text(of(&int, "__repr__"))?;
            let begun = digits.get(..LETTERS_MAX as usize).map(|begun| format!("{begun}... ({} digits)", digits.len()));
            return Some(begun.unwrap_or(digits));
        }
        let is_negative: bool = int.call_method1("__lt__", (value, 0)).ok()?.extract().ok()?;
        return Some(format!("{} of {bits} bits", if is_negative { "a negative int" } else { "an int" }));
    }
    if value.is_instance_of::<PyFloat>() {
        return text(of(&py.get_type::<PyFloat>(), "__repr__"));
    }
    if value.is_instance_of::<PyString>() {
        return cut(value, &py.get_type::<PyString>(), "characters");
    }
    if value.is_instance_of::<PyBytes>() {
        return cut(value, &py.get_type::<PyBytes>(), "bytes");
    }
    let parts = |parts: &mut dyn Iterator<Item = Bound<'_, PyAny>>, count: usize| {
        let mut parts: Vec<String> =
            parts.take(PARTS_MAX).map(|part| plain(&part, depth + 1).unwrap_or_else(|| named(&part))).collect();
        if count > PARTS_MAX {
            parts.push("...".to_owned());
        }
        parts.join(", ")
    };
    if depth > 1 {
        return None;
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        return Some(format!("[{}]", parts(&mut list.iter(), list.len())));
    }
    if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        let comma = if tuple.len() == 1 { "," } else { "" };
        return Some(format!("({}{comma})", parts(&mut tuple.iter(), tuple.len())));
    }
    None
}

/// The beginning of a text as Python writes it, and how long all of it is.
fn cut(value: &Bound<'_, PyAny>, class: &Bound<'_, PyType>, unit: &str) -> Option<String> {
    let length: isize = class.call_method1("__len__", (value,)).ok()?.extract().ok()?;
    let begun = class.call_method1("__getitem__", (value, PySlice::new(value.py(), 0, LETTERS_MAX, 1))).ok()?;
    let said = class.call_method1("__repr__", (begun,)).ok()?;
    let said = said.cast::<PyString>().ok()?.to_string_lossy().into_owned();
    Some(if length > LETTERS_MAX { format!("{said}... ({length} {unit})") } else { said })
}
