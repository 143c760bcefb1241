//! ```text
//!   items -> a batch: pickled with the GIL -> packed and written by all cores without it -> the next batch
//!   keys  -> a batch: one visit a node     -> unpacked by all cores without the GIL      -> decoded with it
//! ```
//! Calls with many entries. Between two batches other Python threads have their turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyMapping, PyString, PyTuple};
use rayon::prelude::*;

use super::decode::{Taken, Unpacker, hit};
use super::encode::{Encoded, Later};
use super::errors::{is_serialization, raise};
use super::serializer::Format;
use super::stopped::{Call, GET_MANY, PUT_MANY, REMOVE_MANY};
use super::{codec, convert, timestamps};
use crate::cluster::Cluster;
use crate::cluster::get::Answer;
use crate::cluster::put::Outcome;
use crate::config::Quorum;
use crate::entry::{Key, Value};
use crate::error::Error;
use crate::hash::KeyHash;
use crate::hybrid_clock;
use crate::lifetime::Ttl;
use crate::message::{Lent, Write};
use crate::runtime::Wait;
use crate::runtime::embedded::Embedded;
use crate::runtime::workers;
use crate::values::Packing;
use crate::version::Timestamp;

/// Entries of a batch: encoding them takes a small part of a millisecond, which is as long as others may wait for the GIL.
const BATCH: usize = 256;

/// Writes of a batch. Waking the workers takes as long as tens of writes.
const WRITES: usize = 2048;

/// Rows of a mapping of no more keys are listed before the first is written, in a millisecond or two: whoever changes it
/// meanwhile does no harm.
const LISTED_MAX: usize = 20_000;

/// The GIL is held for so long before others have their turn: as long as they may wait unnoticed.
const TURN: Duration = Duration::from_millis(1);

/// A batch of large values ends earlier, after so many bytes: they are held twice until they are written.
const BATCH_BYTES: u64 = 4 << 20;

/// So many bytes are unpacked by all cores: fewer take no longer than waking them.
const UNPACKED_BYTES_MIN: usize = 32 * 1024;
/// Values are unpacked before they are decoded, but not more than this at a time: a core's cache has room for it.
const UNPACKED_BYTES_MAX: usize = 256 * 1024;

/// Fewer writes than this are done by the calling thread: handing out work costs more than they do.
const PARALLEL_FROM: usize = 64;

/// One item, encoded; a string is encoded by who writes it.
struct Item<'py> {
    key: Bound<'py, PyString>,
    timestamp: Timestamp,
    by_clock: bool,
    value: Bound<'py, PyAny>,
    /// Boxed, because it has room for a short value and items are moved.
    encoded: Option<Box<Encoded<'py>>>,
}

/// What of it can be written without the GIL.
struct Put<'a> {
    key: Key<'a>,
    timestamp: Timestamp,
    value: Result<Value<'a>, Later<'a>>,
}

impl<'a> Put<'a> {
    /// The value as nodes take it, if need be put together in a buffer.
    fn value<'b>(&self, buffer: &'b mut Vec<u8>) -> Result<Value<'b>, Error>
    where
        'a: 'b,
    {
        match &self.value {
            Ok(value) => Ok(*value),
            Err(later) => later.value(buffer),
        }
    }

    /// How long that will be, or a little more.
    const fn value_bytes(&self) -> usize {
        match &self.value {
            Ok(value) => value.bytes().len(),
            Err(later) => later.len(),
        }
    }
}

pub(super) fn put_many<'py>(
    py: Python<'py>,
    (cluster, packing): (&Cluster<Embedded>, &Packing),
    format: &Format,
    items: &Bound<'py, PyAny>,
    timestamp: Option<&Bound<'py, PyAny>>,
    ttl: Ttl,
    quorum: Option<Quorum>,
) -> PyResult<Bound<'py, PyList>> {
    cluster.check_open().map_err(raise)?;
    // A timestamp that is wrong is wrong before anything is written.
    let timestamp = timestamp.map(|given| convert::timestamp(Some(given))).transpose()?;
    let (call, refused) = (Call::begin(&PUT_MANY), PyList::empty(py));
    let rows = match items.cast::<PyMapping>() {
        Ok(mapping) if mapping.len()? <= LISTED_MAX => mapping.items()?.into_any(),
        Ok(mapping) => mapping.call_method0("items")?,
        Err(_) => items.clone(),
    };
    let mut rows = rows.try_iter()?;
    let mut written = 0;
    loop {
        let (batch, ending) = collect(py, (cluster, packing), format, &mut rows, timestamp);
        let lifetime = cluster.lifetime(ttl);
        let puts = batch.iter().map(Item::put).collect::<PyResult<Vec<_>>>();
        let puts = puts.map_err(|error| call.after(py, error, written))?;
        let write = |put: &Put<'_>, timestamp: Timestamp, buffer: &mut Vec<u8>| {
            let write = Write::put_living(put.key, timestamp, put.value(buffer)?, lifetime);
            if packing.leaves(&write) {
                return cluster.write(write, quorum, None);
            }
            cluster.write(packing.pack(write)?.write(), quorum, None)
        };
        let mut outcomes =
            py.detach(|| each(&puts, |put| put.key.hash(), |put, buffer| write(put, put.timestamp, buffer)));
        let mut warned = Ok(());
        for ((item, put), tried) in batch.iter().zip(&puts).zip(&mut outcomes) {
            let Some(Ok(Outcome { newest: false, .. })) = tried else { continue };
            let (again, told) = timestamps::refused(py, cluster, put.key, put.timestamp, item.by_clock);
            // A warning that is an error ends the call when all of the batch is written.
            warned = warned.and(told);
            if again {
                *tried = Some(py.detach(|| write(put, hybrid_clock::now(), &mut Vec::new())));
            }
        }
        check_all(
            py,
            &call,
            outcomes,
            written,
            |at| batch[at].key.as_any(),
            |at, outcome| {
                if outcome.newest {
                    return Ok(());
                }
                call.refused(refused.len() + 1);
                refused.append(&batch[at].key)
            },
        )?;
        written += batch.len();
        let ended = ending.go_on(py, &call, written)?;
        warned.map_err(|error| call.after(py, error, written))?;
        if ended == Ended::All {
            return Ok(refused);
        }
    }
}

/// Hands over what became of each of a batch, in their order; the first that failed ends it, and says how far it came.
fn check_all<'a, 'py: 'a>(
    py: Python<'py>,
    call: &Call,
    outcomes: Vec<Tried>,
    before: usize,
    key: impl Fn(usize) -> &'a Bound<'py, PyAny>,
    mut done: impl FnMut(usize, Outcome) -> PyResult<()>,
) -> PyResult<()> {
    let after = |at: usize| outcomes[at + 1..].iter().filter(|other| matches!(other, Some(Ok(_)))).count();
    let failed = outcomes.iter().position(|tried| !matches!(tried, Some(Ok(_)))).map(|at| (at, after(at)));
    for (at, tried) in outcomes.into_iter().enumerate() {
        match tried {
            Some(Ok(outcome)) => done(at, outcome).map_err(|error| call.after(py, error, before + at))?,
            Some(Err(error)) => {
                let is_half_done = matches!(error, Error::Quorum { .. });
                let error = raise(error);
                return Err(match failed.map_or(0, |(_, after)| after) {
                    0 if !is_half_done => call.at(py, error, before + at, key(at)),
                    after => call.half_done(py, error, (before + at, after), key(at)),
                });
            }
            // Those before one that failed were tried.
            None => {}
        }
    }
    Ok(())
}

/// Whether a put fits, if need be packed; bytes that it takes.
fn check_fits(py: Python<'_>, (cluster, packing): (&Cluster<Embedded>, &Packing), put: &Put<'_>) -> Result<u64, Error> {
    cluster.check_sizes(put.key, put.value_bytes()).or_else(|_| {
        let fits = py.detach(|| {
            let mut buffer = Vec::new();
            let packed = packing.pack(Write::put(put.key, put.timestamp, put.value(&mut buffer)?))?;
            cluster.check_sizes(put.key, packed.write().value_bytes())
        });
        fits.inspect_err(|error| cluster.tell_refused(put.key, error))
    })
}

/// Why a batch ended.
enum Ending<'py> {
    /// It is full.
    More,
    /// There are no more entries.
    Last,
    /// An entry that is wrong, and its key.
    Wrong(PyErr, Bound<'py, PyAny>),
    /// What the entries come from failed.
    Source(PyErr),
}

/// Whether a call is over.
#[derive(PartialEq, Eq)]
enum Ended {
    All,
    NotYet,
}

impl Ending<'_> {
    /// Once the batch is done. Ctrl-C is heard here.
    fn go_on(self, py: Python<'_>, call: &Call, done: usize) -> PyResult<Ended> {
        match self {
            Self::Last => Ok(Ended::All),
            Self::Wrong(error, key) => Err(call.at(py, error, done, &key)),
            Self::Source(error) => Err(call.after(py, error, done)),
            Self::More => py.check_signals().map(|()| Ended::NotYet).map_err(|error| call.after(py, error, done)),
        }
    }
}

/// Takes keys until a batch is full.
fn take_keys<'py>(keys: &mut Bound<'py, PyIterator>) -> (Vec<Bound<'py, PyString>>, Ending<'py>) {
    let mut batch = Vec::with_capacity(BATCH);
    while batch.len() < BATCH {
        let key = match keys.next() {
            Some(Ok(key)) => key,
            Some(Err(error)) => return (batch, Ending::Source(error)),
            None => return (batch, Ending::Last),
        };
        match convert::text_of_key(key.clone()) {
            Ok(key) => batch.push(key),
            Err(error) => return (batch, Ending::Wrong(error, key)),
        }
    }
    (batch, Ending::More)
}

/// Encodes items until a batch is full.
fn collect<'py>(
    py: Python<'py>,
    (cluster, packing): (&Cluster<Embedded>, &Packing),
    format: &Format,
    rows: &mut Bound<'py, PyIterator>,
    timestamp: Option<Timestamp>,
) -> (Vec<Item<'py>>, Ending<'py>) {
    let (mut batch, mut bytes, turn) = (Vec::with_capacity(BATCH), 0, Instant::now());
    while batch.len() < WRITES && bytes < BATCH_BYTES {
        // A look at the clock takes as long as a part of an item.
        if batch.len() % PARALLEL_FROM == PARALLEL_FROM - 1 && turn.elapsed() > TURN {
            break;
        }
        let row = match codec::next(rows) {
            Some(Ok(row)) => row,
            Some(Err(error)) => return (batch, Ending::Source(error)),
            None => return (batch, Ending::Last),
        };
        let item = item(format, &row, timestamp).and_then(|item| {
            let fits = check_fits(py, (cluster, packing), &item.put()?).map_err(raise);
            fits.map(|taken| (item, taken))
        });
        match item {
            Ok((item, taken)) => {
                bytes += taken;
                batch.push(item);
            }
            Err(error) => {
                let key = row.cast::<PyTuple>().ok().and_then(|row| row.get_item(0).ok()).unwrap_or(row);
                return (batch, Ending::Wrong(error, key));
            }
        }
    }
    (batch, Ending::More)
}

/// What becomes of a value that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnError {
    /// It ends the call.
    Raise,
    /// It is left out, as a miss.
    Skip,
    /// Its error takes its place.
    Return,
}

impl OnError {
    pub(super) fn new(given: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let Some(given) = given else { return Ok(Self::Raise) };
        let Ok(text) = given.cast::<PyString>() else { return Err(convert::wrong_type("on_error", "str", given)) };
        match &*text.to_string_lossy() {
            "raise" => Ok(Self::Raise),
            "skip" => Ok(Self::Skip),
            "return" => Ok(Self::Return),
            _ => Err(convert::out_of_range("on_error", given, "\"raise\", \"skip\" or \"return\"")),
        }
    }
}

pub(super) fn get_many<'py>(
    py: Python<'py>,
    (cluster, packing): (&Cluster<Embedded>, &Packing),
    format: &Format,
    keys: &Bound<'py, PyAny>,
    on_error: OnError,
    quorum: Option<Quorum>,
) -> PyResult<Bound<'py, PyDict>> {
    cluster.check_open().map_err(raise)?;
    let found = PyDict::new(py);
    let (call, mut keys) = (Call::begin(&GET_MANY), convert::keys(keys)?);
    let unpacker = Unpacker { packing, library: cluster };
    let mut turn = Instant::now();
    let mut done = 0;
    loop {
        let (batch, ending) = take_keys(&mut keys);
        let hashed = batch.iter().map(|key| convert::key(key)).collect::<PyResult<Vec<_>>>();
        let hashed = hashed.map_err(|error| call.after(py, error, done))?;
        let mut taken: Vec<Taken> = Vec::new();
        taken.resize_with(hashed.len(), || Taken::Nothing);
        let mut take = |at: usize, read, lent: Lent<'_>| taken[at] = format.take(py, packing, read, lent);
        let mut answers = cluster.read_many(&hashed, quorum, Wait::Never, &mut take);
        if answers.contains(&Answer::Busy) {
            py.detach(|| read_busy(cluster, &hashed, quorum, &mut answers, &mut taken));
        }
        let mut unpacked = 0;
        for (at, ((key, hash), answer)) in batch.iter().zip(&hashed).zip(answers).enumerate() {
            if at == unpacked {
                unpacked += unpack_some(py, unpacker, &hashed[at..], &mut taken[at..]);
            }
            let stopped = |error| call.at(py, error, done + at, key);
            let Some(timestamp) = answer.found().map_err(raise).map_err(stopped)? else { continue };
            let taken = std::mem::replace(&mut taken[at], Taken::Nothing);
            let value = match format.decode(py, unpacker, taken, *hash) {
                Err(error) if on_error != OnError::Raise && is_serialization(py, &error) => match on_error {
                    OnError::Return => error.into_value(py).into_bound(py).into_any(),
                    _ => continue,
                },
                value => value.map_err(stopped)?,
            };
            hit(py, value, timestamp).and_then(|hit| found.set_item(key, hit)).map_err(stopped)?;
        }
        done += batch.len();
        if ending.go_on(py, &call, done)? == Ended::All {
            return Ok(found);
        }
        if turn.elapsed() > TURN {
            // Whoever waits for the GIL gets it.
            py.detach(|| {});
            turn = Instant::now();
        }
    }
}

/// Unpacks the first few, if there is much to unpack; returns how many.
fn unpack_some(py: Python<'_>, unpacker: Unpacker<'_>, keys: &[Key<'_>], taken: &mut [Taken]) -> usize {
    let (mut count, mut bytes) = (0, 0);
    while count < taken.len() && bytes < UNPACKED_BYTES_MAX {
        bytes += taken[count].unpacked_bytes(unpacker.packing);
        count += 1;
    }
    if bytes >= UNPACKED_BYTES_MIN {
        Taken::unpack_all(py, unpacker, keys, &mut taken[..count]);
    }
    count
}

/// Reads what was not read because its node was busy.
fn read_busy(
    cluster: &Cluster<Embedded>,
    keys: &[Key<'_>],
    quorum: Option<Quorum>,
    answers: &mut [Answer],
    taken: &mut [Taken],
) {
    let busy: Vec<_> = (0..keys.len()).filter(|&at| answers[at] == Answer::Busy).collect();
    let of_busy: Vec<_> = busy.iter().map(|&at| keys[at]).collect();
    let mut keep = |at: usize, read, lent: Lent<'_>| taken[busy[at]] = Taken::keep(read, lent);
    let again = cluster.read_many(&of_busy, quorum, Wait::ForTurn, &mut keep);
    busy.iter().zip(again).for_each(|(&at, answer)| answers[at] = answer);
}

pub(super) fn remove_many(
    py: Python<'_>,
    cluster: &Cluster<Embedded>,
    keys: &Bound<'_, PyAny>,
    timestamp: Option<&Bound<'_, PyAny>>,
    quorum: Option<Quorum>,
) -> PyResult<usize> {
    cluster.check_open().map_err(raise)?;
    let timestamp = timestamp.map(|given| convert::timestamp(Some(given))).transpose()?;
    let (call, mut keys) = (Call::begin(&REMOVE_MANY), convert::keys(keys)?);
    let (mut removed, mut done) = (0, 0);
    loop {
        let (batch, ending) = take_keys(&mut keys);
        let hashed = batch.iter().map(|key| convert::key(key)).collect::<PyResult<Vec<_>>>();
        let hashed = hashed.map_err(|error| call.after(py, error, done))?;
        let outcomes = py.detach(|| remove_each(cluster, &hashed, timestamp, quorum));
        let mut warned = Ok(());
        check_all(
            py,
            &call,
            outcomes,
            done,
            |at| batch[at].as_any(),
            |at, outcome| {
                removed += usize::from(outcome.newest && outcome.was_live);
                if let (false, Some(timestamp)) = (outcome.newest, timestamp) {
                    let (_, told) = timestamps::refused(py, cluster, hashed[at], timestamp, false);
                    // A warning that is an error ends the call when all of the batch is done.
                    warned = std::mem::replace(&mut warned, Ok(())).and(told);
                }
                Ok(())
            },
        )?;
        done += batch.len();
        let ended = ending.go_on(py, &call, done)?;
        warned.map_err(|error| call.after(py, error, done))?;
        if ended == Ended::All {
            return Ok(removed);
        }
    }
}

/// Removes each with this timestamp, or what is there now.
fn remove_each(
    cluster: &Cluster<Embedded>,
    keys: &[Key<'_>],
    timestamp: Option<Timestamp>,
    quorum: Option<Quorum>,
) -> Vec<Tried> {
    let stamp = timestamp.unwrap_or_else(hybrid_clock::now);
    let remove = |key: &Key<'_>, _: &mut Vec<u8>| match timestamp {
        Some(_) => cluster.write(Write::remove(*key, stamp), quorum, None),
        None => cluster.remove_by_clock(*key, stamp, quorum, None),
    };
    each(keys, |key| key.hash(), remove)
}

/// What became of a write; nothing when one before it failed, and it was not tried.
type Tried = Option<Result<Outcome, Error>>;

/// Does it for each, by all cores when there are many. What is of one key is done in its order, which decides between two
/// writes: one core has all of it. Each core has a buffer of its own, which it uses again and again. None is begun after
/// one before it failed; all before that one are done.
fn each<T: Sync>(
    of: &[T],
    hash: impl Fn(&T) -> KeyHash + Sync,
    run: impl Fn(&T, &mut Vec<u8>) -> Result<Outcome, Error> + Sync,
) -> Vec<Tried> {
    let failed = AtomicUsize::new(usize::MAX);
    let try_it = |at: usize, buffer: &mut Vec<u8>| {
        let tried = (at < failed.load(Ordering::Relaxed)).then(|| run(&of[at], buffer));
        if let Some(Err(_)) = tried {
            failed.fetch_min(at, Ordering::Relaxed);
        }
        tried
    };
    if of.len() < PARALLEL_FROM {
        let mut buffer = Vec::new();
        return (0..of.len()).map(|at| try_it(at, &mut buffer)).collect();
    }
    let shares = workers::divide(|| {
        let count = rayon::current_num_threads() as u64;
        let share = |share: u64| {
            let mut buffer = Vec::new();
            let own = of.iter().enumerate().filter(|(_, one)| hash(one).0 % count == share);
            own.map(|(at, _)| (at, try_it(at, &mut buffer))).collect::<Vec<_>>()
        };
        (0..count).into_par_iter().map(share).collect::<Vec<_>>()
    });
    // Each was in one share.
    let mut outcomes: Vec<Tried> = of.iter().map(|_| None).collect();
    shares.into_iter().flatten().for_each(|(at, tried)| outcomes[at] = tried);
    outcomes
}

impl Item<'_> {
    fn put(&self) -> PyResult<Put<'_>> {
        let value = match &self.encoded {
            Some(encoded) => Ok(encoded.value()?),
            None => Err(Later::of(&self.value).ok_or_else(|| PyTypeError::new_err("no string"))?),
        };
        Ok(Put { key: convert::key(self.key.as_any())?, timestamp: self.timestamp, value })
    }
}

/// A pair or a triple, encoded.
fn item<'py>(format: &Format, row: &Bound<'py, PyAny>, timestamp: Option<Timestamp>) -> PyResult<Item<'py>> {
    let wrong = || PyTypeError::new_err("an item must be (key, value) or (key, value, timestamp)");
    let row = row.cast::<PyTuple>().map_err(|_| wrong())?;
    let (key, value, own) = match row.len() {
        2 => (row.get_item(0)?, row.get_item(1)?, None),
        3 => (row.get_item(0)?, row.get_item(1)?, Some(row.get_item(2)?).filter(|own| !own.is_none())),
        _ => return Err(wrong()),
    };
    let key = convert::text_of_key(key)?;
    let by_clock = own.is_none() && timestamp.is_none();
    let timestamp = match own {
        Some(own) => convert::timestamp(Some(&own))?,
        None => timestamp.unwrap_or_else(hybrid_clock::now),
    };
    let encoded =
        if format.is_own() || Later::of(&value).is_none() { Some(Box::new(format.encode(&value)?)) } else { None };
    Ok(Item { key, timestamp, by_clock, value, encoded })
}
