//! Arguments as Python gives them, turned into what the core takes. What is wrong is said by name, with its value and what
//! it must be, and nothing was done.

use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyIterator, PyString};

use super::codec::type_name;
use super::errors::raise;
use crate::config::{Quorum, parse_bytes};
use crate::entry::Key;
use crate::hybrid_clock;
use crate::version::Timestamp;

/// A key: a `str` that UTF-8 can encode, at most 64 KiB of it.
#[inline]
pub(super) fn key<'a>(key: &'a Bound<'_, PyAny>) -> PyResult<Key<'a>> {
    let Ok(text) = key.cast::<PyString>() else { return Err(wrong_type("key", "str", key)) };
    Key::new(text.to_str()?.as_bytes()).map_err(raise)
}

/// A timestamp: a non-negative `int` up to 2**63-1, or the cache's own clock for `None`.
#[inline]
pub(super) fn timestamp(timestamp: Option<&Bound<'_, PyAny>>) -> PyResult<Timestamp> {
    let Some(given) = timestamp else { return Ok(hybrid_clock::now()) };
    if given.is_exact_instance_of::<PyInt>()
        && let Ok(Ok(number)) = given.extract::<i64>().map(u64::try_from)
    {
        return Ok(Timestamp::new(number).unwrap_or(Timestamp::MAX));
    }
    unusual_timestamp(given)
}

#[cold]
fn unusual_timestamp(given: &Bound<'_, PyAny>) -> PyResult<Timestamp> {
    if !given.is_instance_of::<PyInt>() || given.is_instance_of::<PyBool>() {
        return Err(wrong_type("timestamp", "int or None", given));
    }
    if given.lt(0)? {
        return Err(PyValueError::new_err(format!(
            "timestamp is {given}, but must be from 0 to 2**63-1; nothing was done"
        )));
    }
    let number = given.extract::<u64>().ok().and_then(Timestamp::new);
    number.ok_or_else(|| {
        PyOverflowError::new_err(format!("timestamp is {given}, but must be from 0 to 2**63-1; nothing was done"))
    })
}

/// A size: bytes, or text such as `"1MiB"`.
pub(super) fn size(argument: &'static str, size: &Bound<'_, PyAny>) -> PyResult<u64> {
    let wrong = || {
        let expected = "a positive number of bytes, or text such as \"64KiB\", \"1MiB\" or \"2GB\"";
        PyValueError::new_err(format!("{argument} is {}, but must be {expected}; nothing was done", repr(size)))
    };
    if let Ok(text) = size.cast::<PyString>() {
        return parse_bytes(text.to_str()?).ok_or_else(wrong);
    }
    if !size.is_instance_of::<PyInt>() || size.is_instance_of::<PyBool>() {
        return Err(wrong_type(argument, "int or str", size));
    }
    size.extract::<u64>().map_err(|_| wrong())
}

/// A count: an `int` that is no `bool`; one that is negative or beyond 2**32 is out of any range here.
pub(super) fn count(argument: &'static str, count: &Bound<'_, PyAny>) -> PyResult<usize> {
    if !count.is_instance_of::<PyInt>() || count.is_instance_of::<PyBool>() {
        return Err(wrong_type(argument, "int", count));
    }
    let number = count.extract::<u32>();
    number.map(|number| number as usize).map_err(|_| {
        PyValueError::new_err(format!(
            "{argument} is {}, but must not be negative or above 2**32-1; nothing was done",
            repr(count)
        ))
    })
}

/// A quorum: `"one"`, `"majority"`, `"all"`, or how many.
pub(super) fn quorum(argument: &'static str, quorum: &Bound<'_, PyAny>) -> PyResult<Quorum> {
    if let Ok(text) = quorum.cast::<PyString>() {
        return match text.to_str()? {
            "one" => Ok(Quorum::One),
            "majority" => Ok(Quorum::Majority),
            "all" => Ok(Quorum::All),
            _ => {
                let expected = "\"one\", \"majority\", \"all\" or an int";
                Err(PyValueError::new_err(format!(
                    "{argument} is {}, but must be {expected}; nothing was done",
                    repr(quorum)
                )))
            }
        };
    }
    // A count beyond 255 is beyond any number of replicas; the range is checked where the replicas are known.
    Ok(Quorum::Count(count(argument, quorum)?.min(255) as u8))
}

/// Seconds between two rounds of gossip.
pub(super) fn interval(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    let Some(seconds) = seconds else { return Ok(None) };
    let interval = Duration::try_from_secs_f64(seconds).ok();
    let wrong =
        || format!("gossip_interval is {seconds}, but must be from 0.001 to 3600 seconds, or None; nothing was done");
    interval.map(Some).ok_or_else(|| PyValueError::new_err(wrong()))
}

/// Many keys: any iterable, but not a single `str`, whose letters would each be taken for a key.
pub(super) fn keys<'py>(keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyIterator>> {
    if keys.is_instance_of::<PyString>() {
        return Err(wrong_type("keys", "an iterable of str", keys));
    }
    keys.try_iter()
}

fn wrong_type(argument: &str, expected: &str, given: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("{argument} must be {expected}, not {}; nothing was done", type_name(given)))
}

fn repr(value: &Bound<'_, PyAny>) -> String {
    value.repr().map_or_else(|_| type_name(value), |repr| repr.to_string())
}
