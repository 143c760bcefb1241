//! Arguments as Python gives them, turned into what the core takes. What is wrong is said by name, with its value and what
//! it must be, and nothing was done.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::Borrowed;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyIterator, PyList, PyString, PyTuple};

use super::errors::{made, raise};
use super::given::{shown, type_name};
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
    Key::new(text.to_str().map_err(|error| no_utf8(key, error))?.as_bytes()).map_err(raise)
}

/// What Python says of a key that UTF-8 cannot encode, and what became of the cache.
#[cold]
fn no_utf8(key: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    if error.is_instance_of::<PyUnicodeEncodeError>(key.py()) {
        // Without its reason the error is still the error.
        let _ = error.value(key.py()).setattr("reason", "surrogates not allowed in a key; nothing was done");
    }
    error
}

/// The same, to be hashed later.
pub(super) fn text_of_key(key: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyString>> {
    let text = key.cast_into::<PyString>().map_err(|error| wrong_type("key", "str", &error.into_inner()))?;
    match text.to_str().map_err(|error| no_utf8(text.as_any(), error))?.len() {
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
    let Some(number) = index(given)? else { return Err(wrong_type("timestamp", "int or None", given)) };
    if let Some(timestamp) = number.extract::<u64>().ok().and_then(Timestamp::new) {
        return Ok(timestamp);
    }
    let said = format!("timestamp is {}, but must be from 0 to 2**63-1; nothing was done", shown(&number));
    let error = if number.lt(0)? { PyValueError::new_err(said) } else { PyOverflowError::new_err(said) };
    Err(made(given.py(), error))
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
        return Err(out_of_range("path", &text, "without null characters"));
    }
    Ok(path)
}

/// A size: bytes, or text such as `"1MiB"`.
pub(super) fn size(argument: &'static str, size: &Bound<'_, PyAny>) -> PyResult<u64> {
    let range = || format!("from {NODE_BYTES_MIN} bytes (16KiB) to {NODE_BYTES_MAX} (1TiB)");
    let example = "bytes, or text such as \"64KiB\", \"1MiB\" or \"2GB\"";
    if let Ok(text) = size.cast::<PyString>() {
        return parse_bytes(&text.to_string_lossy()).ok_or_else(|| out_of_range(argument, size, example));
    }
    let Some(bytes) = index(size)? else { return Err(wrong_type(argument, "int or str", size)) };
    bytes.extract::<u64>().map_err(|_| out_of_range(argument, &bytes, &range()))
}

/// A count: an int. One that is negative or beyond 2**32 is out of any range: `expected` says which.
pub(super) fn count(argument: &'static str, count: &Bound<'_, PyAny>, expected: &str) -> PyResult<usize> {
    whole(argument, count, 0..=u64::from(u32::MAX), expected).map(|count| count as usize)
}

/// An int within a range. `expected` says the range.
pub(super) fn whole(
    argument: &str,
    number: &Bound<'_, PyAny>,
    range: RangeInclusive<u64>,
    expected: &str,
) -> PyResult<u64> {
    let number = int(argument, number)?;
    let within = number.extract::<u64>().ok().filter(|number| range.contains(number));
    within.ok_or_else(|| out_of_range(argument, &number, expected))
}

/// A number within a range, whole or not. `expected` says the range.
pub(super) fn real(
    argument: &str,
    given: &Bound<'_, PyAny>,
    range: RangeInclusive<f64>,
    expected: &str,
) -> PyResult<f64> {
    let Some((number, given)) = number(given)? else { return Err(wrong_type(argument, "float or int", given)) };
    if range.contains(&number) { Ok(number) } else { Err(out_of_range(argument, &given, expected)) }
}

/// The number of a node of this cluster.
pub(super) fn node(cluster: &Cluster<Embedded>, node: &Bound<'_, PyAny>) -> PyResult<usize> {
    let node = int("node", node)?;
    let number = node.extract::<u32>().map_or(usize::MAX, |number| number as usize);
    let view = cluster.view();
    let nodes = || view.members().map(|member| member.address.node).collect();
    view.find(number).map_err(|_| raise(Error::NoSuchNode { node: shown(&node), nodes: nodes() }))?;
    Ok(number)
}

/// A quorum: `"one"`, `"majority"`, `"all"`, or how many.
pub(super) fn quorum(argument: &'static str, quorum: &Bound<'_, PyAny>, replicas: u8) -> PyResult<Quorum> {
    if let Ok(text) = quorum.cast::<PyString>() {
        return match &*text.to_string_lossy() {
            "one" => Ok(Quorum::One),
            "majority" => Ok(Quorum::Majority),
            "all" => Ok(Quorum::All),
            _ => Err(out_of_range(argument, quorum, "\"one\", \"majority\", \"all\" or an int")),
        };
    }
    let Some(quorum) = index(quorum)? else { return Err(wrong_type(argument, "int or str", quorum)) };
    let range = 1..=u64::from(replicas);
    // At most the replicas, of which there are at most 100.
    whole(argument, &quorum, range, &format!("from 1 to {replicas}")).map(|count| Quorum::Count(count as u8))
}

/// An argument as it was given, `None` included; or nothing, when it was not given.
pub(super) struct Given<'py>(pub(super) Option<Bound<'py, PyAny>>);

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = std::convert::Infallible;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Self(Some(given.to_owned())))
    }
}

/// True or false: a `bool`, also one of numpy's.
pub(super) fn truth(argument: &str, given: &Bound<'_, PyAny>) -> PyResult<bool> {
    if given.is_instance_of::<PyBool>() || is_of_numpy(given, &["bool", "bool_"]) {
        return given.is_truthy();
    }
    Err(wrong_type(argument, "bool", given))
}

/// Seconds between two rounds of gossip, or `None`.
pub(super) fn interval(given: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    if given.is_none() {
        return Ok(None);
    }
    let Some((seconds, given)) = seconds(given)? else {
        return Err(wrong_type("gossip_interval", "float, int or None", given));
    };
    let wrong = || out_of_range("gossip_interval", &given, "from 0.001 to 3600 seconds, or None");
    Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| wrong())
}

/// How values are made smaller: a name, or `None`.
pub(super) fn compression(name: &Bound<'_, PyAny>) -> PyResult<Compression> {
    if name.is_none() {
        return Ok(Compression::None);
    }
    let Ok(text) = name.cast::<PyString>() else {
        return Err(wrong_type("compression", "a str or None", name));
    };
    match &*text.to_string_lossy() {
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

/// A time to live in seconds: a number or a `timedelta`, infinity for ever, or `None` for the cache's own.
#[inline]
pub(super) fn ttl(given: Option<&Bound<'_, PyAny>>) -> PyResult<Ttl> {
    given.map_or(Ok(Ttl::OfCache), |given| given_ttl("ttl", given))
}

/// A time to live that is not `None`.
pub(super) fn given_ttl(argument: &'static str, given: &Bound<'_, PyAny>) -> PyResult<Ttl> {
    let Some((number, given)) = seconds(given)? else {
        return Err(wrong_type(argument, "float, int or None", given));
    };
    if number == f64::INFINITY {
        return Ok(Ttl::Forever);
    }
    // Less than a nanosecond is more than nothing.
    let ttl = Duration::try_from_secs_f64(number).ok().filter(|_| number > 0.0);
    let ttl = ttl.map(|ttl| ttl.max(Duration::from_nanos(1))).filter(|&ttl| check_ttl(argument, ttl).is_ok());
    ttl.map(Ttl::For).ok_or_else(|| out_of_range(argument, &given, TTL_EXPECTED))
}

/// A length of time of 0 or more: seconds, or a `timedelta`.
pub(super) fn duration(argument: &'static str, given: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let Some((number, given)) = seconds(given)? else {
        return Err(wrong_type(argument, "float, int or timedelta", given));
    };
    Duration::try_from_secs_f64(number).map_err(|_| out_of_range(argument, &given, "0 or more seconds"))
}

/// Many keys: any iterable, but not a single `str`, whose letters would each be taken for a key.
pub(super) fn keys<'py>(keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyIterator>> {
    if keys.is_instance_of::<PyString>() {
        return Err(wrong_type("keys", "an iterable of str", keys));
    }
    check_iterable("keys", "an iterable of str", keys)?;
    keys.try_iter()
}

/// Whether something can be iterated over. What that raises is another thing.
pub(super) fn check_iterable(argument: &str, expected: &str, given: &Bound<'_, PyAny>) -> PyResult<()> {
    let class = given.get_type();
    let is_iterable = match class.getattr_opt("__iter__")? {
        Some(method) => !method.is_none(),
        None => class.hasattr("__getitem__")?,
    };
    if is_iterable { Ok(()) } else { Err(wrong_type(argument, expected, given)) }
}

/// An int: one of Python's own, or what has `__index__`; no `bool`.
fn int<'py>(argument: &str, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    index(given)?.ok_or_else(|| wrong_type(argument, "int", given))
}

/// The same, as one of Python's own; nothing when it is no int.
fn index<'py>(given: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if given.is_exact_instance_of::<PyInt>() {
        return Ok(Some(given.clone()));
    }
    if is_none_of_ours(given) || !given.get_type().hasattr("__index__")? {
        return Ok(None);
    }
    let py = given.py();
    let index = match py.import("operator")?.call_method1("index", (given,)) {
        // As an array of two numbers does.
        Err(error) if error.is_instance_of::<PyTypeError>(py) => return Ok(None),
        index => index?,
    };
    // One of a class of the user's own may say what it likes of itself.
    py.get_type::<PyInt>().call_method1("__int__", (index,)).map(Some)
}

/// A number, whole or not, and what to show of it; nothing when it is none. One beyond every float, or that is no float, is not
/// a number, which is out of every range.
fn number<'py>(given: &Bound<'py, PyAny>) -> PyResult<Option<(f64, Bound<'py, PyAny>)>> {
    if let Ok(float) = given.cast_exact::<PyFloat>() {
        return Ok(Some((float.value(), given.clone())));
    }
    if let Some(int) = index(given)? {
        return Ok(Some((int.extract().unwrap_or(f64::NAN), int)));
    }
    if is_none_of_ours(given) || !given.get_type().hasattr("__float__")? {
        return Ok(None);
    }
    let py = given.py();
    match py.get_type::<PyFloat>().call1((given,)) {
        Err(error) if error.is_instance_of::<PyTypeError>(py) => Ok(None),
        Err(error) if error.is_instance_of::<PyOverflowError>(py) || error.is_instance_of::<PyValueError>(py) => {
            Ok(Some((f64::NAN, given.clone())))
        }
        float => {
            let float = float?;
            let number: f64 = float.extract()?;
            // A `Decimal` beyond every float becomes infinity without a word. What cannot be compared is what it says.
            let is = |inside: PyResult<bool>| inside.unwrap_or(false);
            let is_beyond = number.is_infinite() && (is(given.lt(&float)) || is(given.gt(&float)));
            Ok(Some(if is_beyond { (f64::NAN, given.clone()) } else { (number, float) }))
        }
    }
}

/// Seconds: a number, or a `timedelta`, also one of numpy's.
fn seconds<'py>(given: &Bound<'py, PyAny>) -> PyResult<Option<(f64, Bound<'py, PyAny>)>> {
    if let Some(number) = number(given)? {
        return Ok(Some(number));
    }
    let py = given.py();
    let class = py.import("datetime")?.getattr("timedelta")?;
    let item = if is_of_numpy(given, &["timedelta64"]) {
        // Without a unit it is a number of nobody knows what.
        if given.getattr("dtype")?.getattr("name")?.eq("timedelta64")? {
            return Ok(None);
        }
        given.call_method1("astype", ("timedelta64[us]",))?.call_method0("item")?
    } else {
        given.clone()
    };
    if !item.is_instance(&class)? {
        return Ok(None);
    }
    let seconds = class.call_method1("total_seconds", (item,))?;
    Ok(Some((seconds.extract()?, seconds)))
}

/// What can be turned into a number and is none: a `bool`, text of numpy's, and what numpy turns into one with a warning, or
/// without its unit.
fn is_none_of_ours(given: &Bound<'_, PyAny>) -> bool {
    const OF_NUMPY: [&str; 7] =
        ["bool", "bool_", "timedelta64", "datetime64", "complex64", "complex128", "clongdouble"];
    given.is_instance_of::<PyBool>()
        || given.is_instance_of::<PyString>()
        || given.is_instance_of::<PyBytes>()
        || is_of_numpy(given, &OF_NUMPY)
}

fn is_of_numpy(given: &Bound<'_, PyAny>, names: &[&str]) -> bool {
    let class = given.get_type();
    class.module().is_ok_and(|module| module == "numpy")
        && class.name().is_ok_and(|name| names.contains(&&*name.to_string_lossy()))
}

pub(super) fn out_of_range(argument: &str, given: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    let said = format!("{argument} is {}, but must be {expected}; nothing was done", shown(given));
    made(given.py(), PyValueError::new_err(said))
}

pub(super) fn wrong_type(argument: &str, expected: &str, given: &Bound<'_, PyAny>) -> PyErr {
    let said = format!("{argument} must be {expected}, not {}; nothing was done", type_name(given));
    made(given.py(), PyTypeError::new_err(said))
}
