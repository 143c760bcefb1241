//! ```text
//!   items -> a batch: encoded with the GIL -> packed and written by all cores without it -> the next batch
//!   keys  -> a batch: hashed with the GIL  -> read and unpacked by all cores without it  -> decoded with it
//! ```
//! Calls with many entries. Between two batches other Python threads have their turn.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyMapping, PyString, PyTuple};
use rayon::prelude::*;

use super::cache::Cache;
use super::codec::{Encoded, Taken, encode, hit};
use super::convert;
use super::errors::raise;
use crate::cluster::Cluster;
use crate::cluster::get::Answer;
use crate::cluster::put::Outcome;
use crate::config::Quorum;
use crate::entry::{Key, Value};
use crate::error::Error;
use crate::message::Write;
use crate::runtime::Wait;
use crate::runtime::embedded::Embedded;
use crate::runtime::workers;
use crate::values::Packing;
use crate::version::Timestamp;

/// Entries of a batch: encoding them takes a small part of a millisecond, which is as long as others may wait for the GIL.
const BATCH: usize = 256;

/// A batch of large values ends earlier, after so many bytes: they are held twice until they are written.
const BATCH_BYTES: u64 = 4 << 20;

/// Fewer writes or reads than this are done by the calling thread: handing out work costs more than they do.
const PARALLEL_FROM: usize = 64;

/// One item, encoded.
struct Item<'py> {
    key: Bound<'py, PyString>,
    timestamp: Timestamp,
    encoded: Encoded<'py>,
}

pub(super) fn put_many<'py>(
    py: Python<'py>,
    cache: &Cache,
    items: &Bound<'py, PyAny>,
    timestamp: Option<&Bound<'py, PyAny>>,
    quorum: Option<Quorum>,
) -> PyResult<Bound<'py, PyList>> {
    let (cluster, packing) = (cache.cluster()?, cache.packing());
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
        let (batch, ending) = collect(py, (cluster, packing), &mut rows, timestamp, written);
        let writes = batch.iter().map(Item::write).collect::<PyResult<Vec<_>>>()?;
        let outcomes = py.detach(|| write_each(cluster, Some(packing), &writes, quorum));
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
fn check_fits(py: Python<'_>, cluster: &Cluster<Embedded>, packing: &Packing, put: Write<'_>) -> Result<u64, Error> {
    let fits = cluster.check_fits(&put);
    if fits.is_err() && !packing.leaves(&put) {
        return py.detach(|| cluster.check_fits(&packing.pack(put)?.write()));
    }
    fits
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
    rows: &mut Bound<'py, PyIterator>,
    timestamp: Option<&Bound<'py, PyAny>>,
    written: usize,
) -> (Vec<Item<'py>>, Ending) {
    let (mut batch, mut bytes) = (Vec::with_capacity(BATCH), 0);
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        let row = match rows.next() {
            Some(Ok(row)) => row,
            Some(Err(error)) => return (batch, Ending::Failed(error)),
            None => return (batch, Ending::Last),
        };
        let item = item(&row, timestamp).and_then(|item| {
            let fits = check_fits(py, cluster, packing, item.write()?).map_err(raise);
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
    cache: &Cache,
    keys: &Bound<'py, PyAny>,
    quorum: Option<Quorum>,
) -> PyResult<Bound<'py, PyDict>> {
    let (cluster, packing) = (&**cache.cluster()?, cache.packing());
    cluster.check_open().map_err(raise)?;
    let found = PyDict::new(py);
    let mut keys = convert::keys(keys)?;
    loop {
        let batch = keys.by_ref().take(BATCH).collect::<PyResult<Vec<_>>>()?;
        let hashed = batch.iter().map(convert::key).collect::<PyResult<Vec<_>>>()?;
        let answers = py.detach(|| each(&hashed, |key| read(cluster, packing, *key, quorum)));
        for ((key, hashed), (answer, taken)) in batch.iter().zip(&hashed).zip(answers) {
            if let Some(timestamp) = answer.found().map_err(raise)? {
                found.set_item(key, hit(py, taken.into_object(py, *hashed, packing, cluster)?, timestamp)?)?;
            }
        }
        if batch.len() < BATCH {
            return Ok(found);
        }
        py.check_signals()?;
    }
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
    let outcomes = write_each(cluster, None, writes, quorum);
    outcomes
        .into_iter()
        .try_fold(0, |removed, outcome| outcome.map(|one| removed + usize::from(one.newest && one.was_live)))
}

/// Writes each, by all cores unless a key comes twice: then in their order, which decides between them.
fn write_each(
    cluster: &Cluster<Embedded>,
    packing: Option<&Packing>,
    writes: &[Write<'_>],
    quorum: Option<Quorum>,
) -> Vec<Result<Outcome, Error>> {
    let mut hashes: Vec<_> = writes.iter().map(|write| write.key.hash()).collect();
    hashes.sort_unstable();
    let write = |write: &Write<'_>| match packing.filter(|packing| !packing.leaves(write)) {
        Some(packing) => cluster.write(packing.pack(*write)?.write(), quorum, None),
        None => cluster.write(*write, quorum, None),
    };
    if hashes.windows(2).any(|pair| pair[0] == pair[1]) {
        return writes.iter().map(write).collect();
    }
    each(writes, write)
}

/// Does it for each, by all cores when there are many.
fn each<T: Sync, A: Send>(of: &[T], run: impl Fn(&T) -> A + Send + Sync) -> Vec<A> {
    if of.len() < PARALLEL_FROM {
        return of.iter().map(run).collect();
    }
    workers::divide(|| of.par_iter().with_min_len(PARALLEL_FROM / 2).map(&run).collect())
}

fn read(cluster: &Cluster<Embedded>, packing: &Packing, key: Key<'_>, quorum: Option<Quorum>) -> (Answer, Taken) {
    let mut taken = Taken::Nothing;
    let answer = cluster.read(key, true, quorum, Wait::ForTurn, &mut |read, lent| taken = Taken::keep(read, lent));
    (answer, taken.unpack(key, packing, cluster))
}

impl Item<'_> {
    fn write(&self) -> PyResult<Write<'_>> {
        let key = convert::key(self.key.as_any())?;
        let value: Value<'_> = self.encoded.value()?;
        Ok(Write::put(key, self.timestamp, value))
    }
}

/// A pair or a triple, encoded.
fn item<'py>(row: &Bound<'py, PyAny>, timestamp: Option<&Bound<'py, PyAny>>) -> PyResult<Item<'py>> {
    let wrong = || pyo3::exceptions::PyTypeError::new_err("an item must be (key, value) or (key, value, timestamp)");
    let row = row.cast::<PyTuple>().map_err(|_| wrong())?;
    let (key, value, own) = match row.len() {
        2 => (row.get_item(0)?, row.get_item(1)?, None),
        3 => (row.get_item(0)?, row.get_item(1)?, Some(row.get_item(2)?).filter(|own| !own.is_none())),
        _ => return Err(wrong()),
    };
    convert::key(&key)?;
    let timestamp = convert::timestamp(own.as_ref().or(timestamp))?;
    let encoded = encode(&value)?;
    Ok(Item { key: key.cast_into::<PyString>()?, timestamp, encoded })
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
