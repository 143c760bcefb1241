//! ```text
//!   items -> a batch: pickled with the GIL -> packed and written by all cores without it -> the next batch
//!   keys  -> a batch: one visit a node     -> unpacked by all cores without the GIL      -> decoded with it
//! ```
//! Calls with many entries. Between two batches other Python threads have their turn.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyMapping, PyString, PyTuple};
use rayon::prelude::*;

use super::convert;
use super::decode::{Taken, Unpacker, hit};
use super::encode::{Encoded, Later};
use super::errors::raise;
use super::serializer::Format;
use crate::cluster::Cluster;
use crate::cluster::get::Answer;
use crate::cluster::put::Outcome;
use crate::config::Quorum;
use crate::entry::{Key, Value};
use crate::error::Error;
use crate::hash::KeyHash;
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
    convert::timestamp(timestamp)?;
    let refused = PyList::empty(py);
    let rows = match items.cast::<PyMapping>() {
        Ok(mapping) => mapping.items()?.into_any(),
        Err(_) => items.clone(),
    };
    let mut rows = rows.try_iter()?;
    let mut written = 0;
    loop {
        let (batch, ending) = collect(py, (cluster, packing), format, &mut rows, timestamp, written);
        let lifetime = cluster.lifetime(ttl);
        let puts = batch.iter().map(Item::put).collect::<PyResult<Vec<_>>>()?;
        let outcomes = py.detach(|| {
            let hash = |put: &Put<'_>| put.key.hash();
            each(&puts, hash, |put, buffer| {
                let write = Write::put_living(put.key, put.timestamp, put.value(buffer)?, lifetime);
                if packing.leaves(&write) {
                    return cluster.write(write, quorum, None);
                }
                cluster.write(packing.pack(write)?.write(), quorum, None)
            })
        });
        for (item, outcome) in batch.iter().zip(outcomes) {
            match outcome {
                Ok(Outcome { newest: true, .. }) => {}
                Ok(_) => refused.append(&item.key)?,
                Err(error) => return Err(note(py, raise(error), written, &item.key, NOT_REACHED)),
            }
            written += 1;
        }
        match ending {
            Ending::Failed(error) => return Err(error),
            Ending::Last => return Ok(refused),
            Ending::More => py.check_signals()?,
        }
    }
}

/// Whether a put fits, if need be packed; bytes that it takes.
fn check_fits(py: Python<'_>, (cluster, packing): (&Cluster<Embedded>, &Packing), put: &Put<'_>) -> Result<u64, Error> {
    let key_bytes = put.key.bytes().len();
    cluster.check_sizes(key_bytes, put.value_bytes()).or_else(|_| {
        let fits = py.detach(|| {
            let mut buffer = Vec::new();
            let packed = packing.pack(Write::put(put.key, put.timestamp, put.value(&mut buffer)?))?;
            cluster.check_sizes(key_bytes, packed.write().value_bytes())
        });
        fits.inspect_err(|error| cluster.tell_refused(put.key, error))
    })
}

/// Why a batch ended.
enum Ending {
    /// It is full.
    More,
    /// There are no more items.
    Last,
    /// An item that cannot be written.
    Failed(PyErr),
}

/// Encodes items until a batch is full.
fn collect<'py>(
    py: Python<'py>,
    (cluster, packing): (&Cluster<Embedded>, &Packing),
    format: &Format,
    rows: &mut Bound<'py, PyIterator>,
    timestamp: Option<&Bound<'py, PyAny>>,
    written: usize,
) -> (Vec<Item<'py>>, Ending) {
    let (mut batch, mut bytes, turn) = (Vec::with_capacity(BATCH), 0, Instant::now());
    while batch.len() < WRITES && bytes < BATCH_BYTES {
        // A look at the clock takes as long as a part of an item.
        if batch.len() % PARALLEL_FROM == PARALLEL_FROM - 1 && turn.elapsed() > TURN {
            break;
        }
        let row = match rows.next() {
            Some(Ok(row)) => row,
            Some(Err(error)) => return (batch, Ending::Failed(error)),
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
                let error = note(py, error, written + batch.len(), &row, NOT_TAKEN);
                return (batch, Ending::Failed(error));
            }
        }
    }
    (batch, Ending::More)
}

pub(super) fn get_many<'py>(
    py: Python<'py>,
    (cluster, packing): (&Cluster<Embedded>, &Packing),
    format: &Format,
    keys: &Bound<'py, PyAny>,
    quorum: Option<Quorum>,
) -> PyResult<Bound<'py, PyDict>> {
    cluster.check_open().map_err(raise)?;
    let found = PyDict::new(py);
    let mut keys = convert::keys(keys)?;
    let unpacker = Unpacker { packing, library: cluster };
    let mut batch = Vec::with_capacity(BATCH);
    let mut turn = Instant::now();
    loop {
        batch.clear();
        for key in keys.by_ref().take(BATCH) {
            batch.push(key?);
        }
        let hashed = batch.iter().map(convert::key).collect::<PyResult<Vec<_>>>()?;
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
            if let Some(timestamp) = answer.found().map_err(raise)? {
                let taken = std::mem::replace(&mut taken[at], Taken::Nothing);
                found.set_item(key, hit(py, format.decode(py, unpacker, taken, *hash)?, timestamp)?)?;
            }
        }
        if batch.len() < BATCH {
            return Ok(found);
        }
        py.check_signals()?;
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
    convert::timestamp(timestamp)?;
    let mut keys = convert::keys(keys)?;
    let mut removed = 0;
    loop {
        let batch = keys.by_ref().take(BATCH).collect::<PyResult<Vec<_>>>()?;
        let write = |key| Ok(Write::remove(convert::key(key)?, convert::timestamp(timestamp)?));
        let writes = batch.iter().map(write).collect::<PyResult<Vec<_>>>()?;
        removed += py.detach(|| remove_each(cluster, &writes, quorum)).map_err(raise)?;
        if batch.len() < BATCH {
            return Ok(removed);
        }
        py.check_signals()?;
    }
}

pub(super) fn clear(py: Python<'_>, cluster: &Cluster<Embedded>, timestamp: Timestamp) -> PyResult<usize> {
    let removed = py.detach(|| {
        cluster.check_open()?;
        let keys = cluster.keys();
        let writes: Vec<_> =
            keys.iter().filter_map(|key| Key::new(key).ok()).map(|key| Write::remove(key, timestamp)).collect();
        remove_each(cluster, &writes, None)
    });
    removed.map_err(raise)
}

fn remove_each(cluster: &Cluster<Embedded>, writes: &[Write<'_>], quorum: Option<Quorum>) -> Result<usize, Error> {
    let outcomes = write_each(cluster, writes, quorum);
    outcomes
        .into_iter()
        .try_fold(0, |removed, outcome| outcome.map(|one| removed + usize::from(one.newest && one.was_live)))
}

fn write_each(
    cluster: &Cluster<Embedded>,
    writes: &[Write<'_>],
    quorum: Option<Quorum>,
) -> Vec<Result<Outcome, Error>> {
    each(writes, |write| write.key.hash(), |write, _| cluster.write(*write, quorum, None))
}

/// Does it for each, by all cores when there are many. What is of one key is done in its order, which decides between two
/// writes: one core has all of it. Each core has a buffer of its own, which it uses again and again.
fn each<T: Sync>(
    of: &[T],
    hash: impl Fn(&T) -> KeyHash + Sync,
    run: impl Fn(&T, &mut Vec<u8>) -> Result<Outcome, Error> + Sync,
) -> Vec<Result<Outcome, Error>> {
    if of.len() < PARALLEL_FROM {
        let mut buffer = Vec::new();
        return of.iter().map(|one| run(one, &mut buffer)).collect();
    }
    let shares = workers::divide(|| {
        let count = rayon::current_num_threads() as u64;
        let share = |share: u64| {
            let mut buffer = Vec::new();
            let own = of.iter().enumerate().filter(|(_, one)| hash(one).0 % count == share);
            own.map(|(at, one)| (at, run(one, &mut buffer))).collect::<Vec<_>>()
        };
        (0..count).into_par_iter().map(share).collect::<Vec<_>>()
    });
    // Each was in one share.
    let mut outcomes: Vec<_> = of.iter().map(|_| Err(Error::Closed)).collect();
    shares.into_iter().flatten().for_each(|(at, outcome)| outcomes[at] = outcome);
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
fn item<'py>(format: &Format, row: &Bound<'py, PyAny>, timestamp: Option<&Bound<'py, PyAny>>) -> PyResult<Item<'py>> {
    let wrong = || PyTypeError::new_err("an item must be (key, value) or (key, value, timestamp)");
    let row = row.cast::<PyTuple>().map_err(|_| wrong())?;
    let (key, value, own) = match row.len() {
        2 => (row.get_item(0)?, row.get_item(1)?, None),
        3 => (row.get_item(0)?, row.get_item(1)?, Some(row.get_item(2)?).filter(|own| !own.is_none())),
        _ => return Err(wrong()),
    };
    let key = convert::text_of_key(key)?;
    let timestamp = convert::timestamp(own.as_ref().or(timestamp))?;
    let encoded =
        if format.is_own() || Later::of(&value).is_none() { Some(Box::new(format.encode(&value)?)) } else { None };
    Ok(Item { key, timestamp, value, encoded })
}

/// What a note says of an item that cannot be written.
const NOT_TAKEN: &str = "the items before it are written, it and those after it are not";
/// What a note says of an item that too few owners could be reached for.
const NOT_REACHED: &str = "the items before it are written, and some of those after it may be";

/// An error with a note that says at which item it stopped, and what became of the others.
fn note(py: Python<'_>, error: PyErr, at: usize, item: &Bound<'_, PyAny>, others: &str) -> PyErr {
    let item = item.cast::<PyTuple>().ok().and_then(|row| row.get_item(0).ok()).unwrap_or_else(|| item.clone());
    let item = item.repr().map_or_else(|_| "?".to_owned(), |repr| repr.to_string());
    // Without its note the error is still the error.
    let _ = error.value(py).call_method1("add_note", (format!("stopped at item {at}, {item}: {others}"),));
    error
}
