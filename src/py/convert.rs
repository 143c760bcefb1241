//! Arguments as Python gives them, turned into what the core takes. What is wrong is said by name, with its value and what
//! it must be, and nothing was done.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::Borrowed;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyIterator, PyList, PyString, PyTuple};

use super::codec::type_name;
use super::errors::raise;
use crate::cluster::Cluster;
use crate::config::{Compression, NODE_BYTES_MAX, NODE_BYTES_MIN, Quorum, SigningKey, parse_bytes};
use crate::entry::{KEY_BYTES_MAX, Key};
use crate::error::Error;
use crate::hybrid_clock;
use crate::lifetime::{Ttl, check_ttl};
use crate::runtime::embedded::Embedded;
use crate::version::Timestamp;

/// A key: a `str` that UTF-8 can encode, at most 64 KiB of it.
#[inline]
pub(super) fn key<'a>(key: &'a Bound<'_, PyAny>) -> PyResult<Key<'a>> {
    let Ok(text) = key.cast::<PyString>() else { return Err(wrong_type("key", "str", key)) };
    Key::new(text.to_str()?.as_bytes()).map_err(raise)
}

/// The same, to be hashed later.
pub(super) fn text_of_key(key: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyString>> {
    let text = key.cast_into::<PyString>().map_err(|error| wrong_type("key", "str", &error.into_inner()))?;
    match text.to_str()?.len() {
        ..=KEY_BYTES_MAX => Ok(text),
        bytes => Err(raise(Error::KeyTooLarge { bytes, bytes_max: KEY_BYTES_MAX })),
    }
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

/// A path: `str`, `bytes` or `os.PathLike`.
pub(super) fn path(given: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    let os = given.py().import("os")?;
    let is_path = given.is_instance_of::<PyString>() || given.is_instance_of::<PyBytes>();
    if !is_path && !given.hasattr("__fspath__")? {
        return Err(wrong_type("path", "str, bytes or os.PathLike", given));
    }
    // As the system's file names are decoded: any bytes come through.
    let text = os.call_method1("fsdecode", (given,))?;
    let path: PathBuf = text.extract::<OsString>()?.into();
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(out_of_range("path", given, "without null characters"));
    }
    Ok(path)
}

/// A size: bytes, or text such as `"1MiB"`.
pub(super) fn size(argument: &'static str, size: &Bound<'_, PyAny>) -> PyResult<u64> {
    let range = || format!("from {NODE_BYTES_MIN} bytes (16KiB) to {NODE_BYTES_MAX} (1TiB)");
    let example = "bytes, or text such as \"64KiB\", \"1MiB\" or \"2GB\"";
    if let Ok(text) = size.cast::<PyString>() {
        return parse_bytes(text.to_str()?).ok_or_else(|| out_of_range(argument, size, example));
    }
    if !size.is_instance_of::<PyInt>() || size.is_instance_of::<PyBool>() {
        return Err(wrong_type(argument, "int or str", size));
    }
    size.extract::<u64>().map_err(|_| out_of_range(argument, size, &range()))
}

/// A count: an `int` that is no `bool`. One that is negative or beyond 2**32 is out of any range: `expected` says which.
pub(super) fn count(argument: &'static str, count: &Bound<'_, PyAny>, expected: &str) -> PyResult<usize> {
    check_int(argument, count)?;
    let wrong = |_| out_of_range(argument, count, expected);
    count.extract::<u32>().map(|number| number as usize).map_err(wrong)
}

/// A whole number within a range: an `int` that is no `bool`. `expected` says the range.
pub(super) fn whole(
    argument: &str,
    number: &Bound<'_, PyAny>,
    range: RangeInclusive<u64>,
    expected: &str,
) -> PyResult<u64> {
    check_int(argument, number)?;
    let within = number.extract::<u64>().ok().filter(|number| range.contains(number));
    within.ok_or_else(|| out_of_range(argument, number, expected))
}

/// A number within a range, whole or not, that is no `bool`. `expected` says the range.
pub(super) fn real(
    argument: &str,
    number: &Bound<'_, PyAny>,
    range: RangeInclusive<f64>,
    expected: &str,
) -> PyResult<f64> {
    if !is_number(number) {
        return Err(wrong_type(argument, "float or int", number));
    }
    // An int beyond every float is beyond the range as well.
    let within = number.extract::<f64>().ok().filter(|number| range.contains(number));
    within.ok_or_else(|| out_of_range(argument, number, expected))
}

/// The number of a node of this cluster.
pub(super) fn node(cluster: &Cluster<Embedded>, node: &Bound<'_, PyAny>) -> PyResult<usize> {
    check_int("node", node)?;
    let number = node.extract::<u32>().map_or(usize::MAX, |number| number as usize);
    let view = cluster.view();
    let nodes = || view.members().map(|member| member.address.node).collect();
    view.find(number).map_err(|_| raise(Error::NoSuchNode { node: repr(node), nodes: nodes() }))?;
    Ok(number)
}

/// A quorum: `"one"`, `"majority"`, `"all"`, or how many.
pub(super) fn quorum(argument: &'static str, quorum: &Bound<'_, PyAny>, replicas: u8) -> PyResult<Quorum> {
    if let Ok(text) = quorum.cast::<PyString>() {
        return match text.to_str()? {
            "one" => Ok(Quorum::One),
            "majority" => Ok(Quorum::Majority),
            "all" => Ok(Quorum::All),
            _ => Err(out_of_range(argument, quorum, "\"one\", \"majority\", \"all\" or an int")),
        };
    }
    let expected = || format!("from 1 to {replicas}");
    let count = count(argument, quorum, &expected())?;
    match u8::try_from(count) {
        Ok(count) if (1..=replicas).contains(&count) => Ok(Quorum::Count(count)),
        _ => Err(out_of_range(argument, quorum, &expected())),
    }
}

/// An argument as it was given, `None` included; or nothing, when it was not given.
pub(super) struct Given<'py>(pub(super) Option<Bound<'py, PyAny>>);

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = std::convert::Infallible;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Self(Some(given.to_owned())))
    }
}

/// Seconds between two rounds of gossip: a number that is no `bool`, or `None`.
pub(super) fn interval(seconds: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    if seconds.is_none() {
        return Ok(None);
    }
    if !is_number(seconds) {
        return Err(wrong_type("gossip_interval", "float, int or None", seconds));
    }
    let interval = seconds.extract::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let wrong = || out_of_range("gossip_interval", seconds, "from 0.001 to 3600 seconds, or None");
    interval.map(Some).ok_or_else(wrong)
}

/// How values are made smaller: a name, or `None`.
pub(super) fn compression(name: &Bound<'_, PyAny>) -> PyResult<Compression> {
    if name.is_none() {
        return Ok(Compression::None);
    }
    let Ok(text) = name.cast::<PyString>() else {
        return Err(wrong_type("compression", "a str or None", name));
    };
    match text.to_str()? {
        "lz4" => Ok(Compression::Lz4),
        "zstd" => Ok(Compression::Zstd),
        "zstd-dict" => Ok(Compression::ZstdDict),
        _ => Err(out_of_range("compression", name, "\"lz4\", \"zstd\", \"zstd-dict\" or None")),
    }
}

/// Keys to sign with: `bytes`, a list or tuple of one or two, or `None`. What they are is never repeated in a message.
pub(super) fn signing_keys(given: &Bound<'_, PyAny>) -> PyResult<Vec<SigningKey>> {
    let key = |given: &Bound<'_, PyAny>| {
        let kind = type_name(given);
        let wrong = || {
            let said =
                format!("signing_key must be bytes, a list or tuple of bytes, or None, not {kind}; nothing was done");
            PyTypeError::new_err(said)
        };
        SigningKey::new(given.cast::<PyBytes>().map_err(|_| wrong())?.as_bytes()).map_err(raise)
    };
    if given.is_none() {
        return Ok(Vec::new());
    }
    let keys = if let Ok(list) = given.cast::<PyList>() {
        list.iter().map(|given| key(&given)).collect::<PyResult<Vec<_>>>()?
    } else if let Ok(tuple) = given.cast::<PyTuple>() {
        tuple.iter().map(|given| key(&given)).collect::<PyResult<Vec<_>>>()?
    } else {
        vec![key(given)?]
    };
    if keys.is_empty() {
        return Err(PyValueError::new_err(
            "signing_key is empty, but must have one key or two, or be None; nothing was done",
        ));
    }
    Ok(keys)
}

/// What a time to live must be.
const TTL_EXPECTED: &str = "above 0 and at most 3153600000 seconds (100 years), or math.inf for ever";

/// A time to live in seconds: a number that is no `bool`, infinity for ever, or `None` for the cache's own.
#[inline]
pub(super) fn ttl(seconds: Option<&Bound<'_, PyAny>>) -> PyResult<Ttl> {
    seconds.map_or(Ok(Ttl::OfCache), |seconds| given_ttl("ttl", seconds))
}

/// A time to live that is not `None`.
pub(super) fn given_ttl(argument: &'static str, seconds: &Bound<'_, PyAny>) -> PyResult<Ttl> {
    if !is_number(seconds) {
        return Err(wrong_type(argument, "float, int or None", seconds));
    }
    let wrong = || out_of_range(argument, seconds, TTL_EXPECTED);
    // An int beyond every float is beyond the range as well.
    let number = seconds.extract::<f64>().map_err(|_| wrong())?;
    if number == f64::INFINITY {
        return Ok(Ttl::Forever);
    }
    // Less than a nanosecond is more than nothing.
    let ttl = Duration::try_from_secs_f64(number).ok().filter(|_| number > 0.0);
    let ttl = ttl.map(|ttl| ttl.max(Duration::from_nanos(1))).filter(|&ttl| check_ttl(argument, ttl).is_ok());
    ttl.map(Ttl::For).ok_or_else(wrong)
}

/// Many keys: any iterable, but not a single `str`, whose letters would each be taken for a key.
pub(super) fn keys<'py>(keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyIterator>> {
    if keys.is_instance_of::<PyString>() {
        return Err(wrong_type("keys", "an iterable of str", keys));
    }
    keys.try_iter()
}

fn check_int(argument: &str, given: &Bound<'_, PyAny>) -> PyResult<()> {
    let is_int = given.is_instance_of::<PyInt>() && !given.is_instance_of::<PyBool>();
    if is_int { Ok(()) } else { Err(wrong_type(argument, "int", given)) }
}

fn is_number(given: &Bound<'_, PyAny>) -> bool {
    (given.is_instance_of::<PyFloat>() || given.is_instance_of::<PyInt>()) && !given.is_instance_of::<PyBool>()
}

pub(super) fn out_of_range(argument: &str, given: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    PyValueError::new_err(format!("{argument} is {}, but must be {expected}; nothing was done", repr(given)))
}

pub(super) fn wrong_type(argument: &str, expected: &str, given: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("{argument} must be {expected}, not {}; nothing was done", type_name(given)))
}

fn repr(value: &Bound<'_, PyAny>) -> String {
    value.repr().map_or_else(|_| type_name(value), |repr| repr.to_string())
}
