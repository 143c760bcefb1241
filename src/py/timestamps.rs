//! ```text
//!   a write was refused  ->  why?  ->  a clock that is ahead: written again  |  timestamps of two units: a warning, once
//! ```
//! What Python hears of timestamps: the class `ManualClock`, and warnings where writes vanish for a reason that is hard to
//! see. All of it is off the hot path: only a refused write is looked at.

use std::ffi::CString;
use std::time::Duration;

use pyo3::prelude::*;

use super::convert;
use super::errors::timestamp_warning;
use crate::cluster::Cluster;
use crate::cluster::restore::Ahead;
use crate::cluster::stamps::Refused;
use crate::entry::Key;
use crate::hybrid_clock;
use crate::runtime::embedded::Embedded;
use crate::shown::Quoted;
use crate::version::{Kind, Timestamp};

/// A clock that ahead is told of.
const AHEAD_MIN: Duration = Duration::from_secs(60);

/// What an entry may not have to wait for: a clock that goes only when a
/// test moves it.
///
/// ManualClock()
///
/// `Cache(clock=ManualClock())` measures by it how long entries live and
/// were not used: `advance` has them end without waiting. It begins at the
/// present time. Timestamps are not taken from it.
///
/// >>> from distributed_consistent_cache import ManualClock
/// >>> clock = ManualClock()
/// >>> with Cache(clock=clock) as cache:
/// ...     _ = cache.put("session:1", "Ada", ttl=60)
/// ...     clock.advance(60)
/// ...     cache.get("session:1")
/// (None, -1)
#[pyclass(frozen, module = "distributed_consistent_cache")]
#[derive(Default)]
pub(super) struct ManualClock(pub(super) hybrid_clock::ManualClock);

#[pymethods]
impl ManualClock {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Lets time pass. seconds: a number of 0 or more, or a timedelta.
    /// Raises TypeError or ValueError, and no time passed.
    fn advance(&self, seconds: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.advance(convert::duration("seconds", seconds)?);
        Ok(())
    }

    /// What it says: seconds since 1970.
    fn now(&self) -> f64 {
        self.0.now_ms() as f64 / 1000.0
    }

    fn __repr__(&self) -> String {
        format!("<ManualClock: {:.3} s>", self.now())
    }
}

/// The clock of a cache, if one is given.
pub(super) fn given_clock(clock: Option<&Bound<'_, PyAny>>) -> PyResult<Option<hybrid_clock::ManualClock>> {
    let Some(given) = clock else { return Ok(None) };
    match given.cast::<ManualClock>() {
        Ok(clock) => Ok(Some(clock.get().0.clone())),
        Err(_) => Err(convert::wrong_type("clock", "a ManualClock or None", given)),
    }
}

/// A write was refused: whether it is to be made again with the clock's next timestamp, and what is worth a word, which is
/// told once: an error if warnings are errors.
#[cold]
pub(super) fn refused(
    py: Python<'_>,
    cluster: &Cluster<Embedded>,
    key: Key<'_>,
    tried: Timestamp,
    by_clock: bool,
) -> (bool, PyResult<()>) {
    let refused = py.detach(|| cluster.why_refused(key, tried, by_clock));
    let again = by_clock && matches!(refused, Refused::ByClockAhead(_));
    let name = String::from_utf8_lossy(key.bytes());
    let name = Quoted(&name);
    let what = match refused {
        Refused::ByClockAhead(by) if by_clock && by > AHEAD_MIN => format!(
            "the entry of {name} has a timestamp {} ahead of this machine's clock; writes without a timestamp go on from it",
            told(by)
        ),
        Refused::Older | Refused::ByClockAhead(_) => return (again, Ok(())),
        Refused::ByOtherUnit(known) => format!(
            "the write of {name} with the clock's timestamp {tried} (microseconds since 1970) was refused: {} has {}, of \
             another unit; it changed nothing. Give every write of a key a timestamp, or none",
            what_is_there(known.kind()),
            known.timestamp
        ),
        Refused::ByClock(known) => format!(
            "the write of {name} with timestamp {tried} was refused: {} has the clock's timestamp {} (microseconds since \
             1970); it changed nothing. Give every write of a key a timestamp, or none; cache.now() is the clock's, and a \
             time to live is ttl=",
            what_is_there(known.kind()),
            known.timestamp
        ),
        Refused::ByLater(known, by) => format!(
            "the write of {name} with the clock's timestamp {tried} (microseconds since 1970) was refused: {} has {}, {} ahead \
             of this machine's clock, which is not set; it changed nothing. Set the clock, or give every write of a key a \
             timestamp",
            what_is_there(known.kind()),
            known.timestamp,
            told(by)
        ),
    };
    (again, if cluster.told().is_first(refused) { warn(py, &what) } else { Ok(()) })
}

/// A snapshot came from a machine whose clock was ahead.
pub(super) fn tell_ahead(py: Python<'_>, ahead: &Ahead) -> PyResult<()> {
    let (key, by) = (Quoted(&ahead.key), told(ahead.by));
    let what = format!(
        "the snapshot is of a clock that was ahead: {key} was written {by} from now by this machine's clock, which goes on \
         from there; all of it is restored"
    );
    warn(py, &what)
}

const fn what_is_there(kind: Kind) -> &'static str {
    match kind {
        Kind::Put => "what is there",
        Kind::Remove => "the remove before it",
    }
}

/// A length of time for people.
fn told(by: Duration) -> String {
    match by.as_secs() {
        seconds @ ..120 => format!("{seconds} seconds"),
        seconds @ ..7200 => format!("{} minutes", seconds / 60),
        seconds @ ..172_800 => format!("{:.1} hours", seconds as f64 / 3600.0),
        seconds => format!("{:.1} days", seconds as f64 / 86_400.0),
    }
}

fn warn(py: Python<'_>, what: &str) -> PyResult<()> {
    // What is shown has no zero bytes: they are escaped.
    let what = CString::new(what).unwrap_or_default();
    PyErr::warn(py, timestamp_warning(py)?, &what, 1)
}
