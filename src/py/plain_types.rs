//! ```text
//!   "datetime", "date"  ->  the class, found once  ->  class(arguments), if they are those that pickle writes
//! ```
//! The few classes whose objects count as plain data: `date`, `time`, `datetime`, `timedelta`, `timezone`, `complex` and
//! `Decimal`. A pickle names a class and the arguments it is called with.
//!
//! Promise: a name is looked for in a list that is written here, never imported as it was read; a class is called with
//! nothing but what pickle writes for it, of the same types and in the same ranges, so that no call takes longer than
//! its arguments, and none makes an object that the class itself would not.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyFloat, PyInt, PyString, PyTuple, PyType};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Date,
    Time,
    DateTime,
    TimeDelta,
    TimeZone,
    Complex,
    Decimal,
}

struct Plain {
    module: &'static str,
    name: &'static str,
    kind: Kind,
    class: PyOnceLock<Py<PyType>>,
}

const fn plain(module: &'static str, name: &'static str, kind: Kind) -> Plain {
    Plain { module, name, kind, class: PyOnceLock::new() }
}

static PLAIN: [Plain; 7] = [
    plain("datetime", "datetime", Kind::DateTime),
    plain("datetime", "date", Kind::Date),
    plain("datetime", "time", Kind::Time),
    plain("datetime", "timedelta", Kind::TimeDelta),
    plain("datetime", "timezone", Kind::TimeZone),
    plain("decimal", "Decimal", Kind::Decimal),
    plain("builtins", "complex", Kind::Complex),
];

/// The longest number in text. Longer ones are hashed and compared in more than the time of reading them.
const DECIMAL_BYTES_MAX: usize = 4300;

impl Plain {
    /// The class, found at its first use. Nothing while something else is in its place, as tests of time do it.
    fn class<'py>(&'static self, py: Python<'py>) -> Option<&'py Bound<'py, PyType>> {
        if let Some(class) = self.class.get(py) {
            return Some(class.bind(py));
        }
        let class = py.import(self.module).ok()?.getattr(self.name).ok()?.cast_into::<PyType>().ok()?;
        let is_itself = class.module().is_ok_and(|module| module == self.module)
            && class.qualname().is_ok_and(|name| name == self.name)
            && class.get_type().is(py.get_type::<PyType>());
        if !is_itself {
            return None;
        }
        Some(self.class.get_or_init(py, || class.unbind()).bind(py))
    }
}

/// The class of a name, if its objects are plain data.
pub(super) fn find<'py>(py: Python<'py>, module: &str, name: &str) -> Option<Bound<'py, PyAny>> {
    let plain = PLAIN.iter().find(|plain| plain.name == name && plain.module == module)?;
    plain.class(py).map(|class| class.clone().into_any())
}

/// What the class makes of these arguments; nothing when it is another object, or they are not those that pickle writes.
pub(super) fn call<'py>(callable: &Bound<'py, PyAny>, arguments: &Bound<'py, PyTuple>) -> Option<Bound<'py, PyAny>> {
    let py = callable.py();
    let kind = PLAIN.iter().find(|plain| plain.class.get(py).is_some_and(|class| class.is(callable)))?.kind;
    let first = arguments.get_borrowed_item(0).ok()?;
    let second = arguments.get_borrowed_item(1).ok();
    let is_written_by_pickle = match kind {
        Kind::Date => arguments.len() == 1 && is_date(first.cast_exact::<PyBytes>().ok()?.as_bytes()),
        Kind::Time => is_time(first.cast_exact::<PyBytes>().ok()?.as_bytes()) && has_zone(arguments),
        Kind::DateTime => {
            let state = first.cast_exact::<PyBytes>().ok()?;
            let (date, time) = state.as_bytes().split_at_checked(4)?;
            // The fold is in the month of a datetime, and in the hour of a time.
            let unfolded = [date[0], date[1], date[2] & 0x7f, date[3]];
            is_date(&unfolded) && time.first()? < &24 && is_time(time) && has_zone(arguments)
        }
        Kind::TimeDelta => {
            arguments.len() == 3 && arguments.iter_borrowed().all(|one| one.is_exact_instance_of::<PyInt>())
        }
        Kind::TimeZone => {
            let name_is_text = second.is_none_or(|name| name.is_exact_instance_of::<PyString>());
            is_a(&first, Kind::TimeDelta) && arguments.len() <= 2 && name_is_text
        }
        Kind::Complex => {
            arguments.len() == 2 && arguments.iter_borrowed().all(|one| one.is_exact_instance_of::<PyFloat>())
        }
        Kind::Decimal => {
            let text = first.cast_exact::<PyString>().ok()?;
            arguments.len() == 1 && text.len().is_ok_and(|length| length <= DECIMAL_BYTES_MAX)
        }
    };
    // What goes wrong yet, as a timezone of more than a day, is told by pickle.
    if is_written_by_pickle { callable.call1(arguments).ok() } else { None }
}

/// Whether this is a number of `decimal`.
pub(super) fn is_decimal(object: &Bound<'_, PyAny>) -> bool {
    is_a(object, Kind::Decimal)
}

fn is_a(object: &Bound<'_, PyAny>, kind: Kind) -> bool {
    let class = |plain: &&Plain| plain.kind == kind && plain.class.get(object.py()).is_some();
    PLAIN
        .iter()
        .find(class)
        .and_then(|plain| plain.class.get(object.py()))
        .is_some_and(|class| object.get_type().is(class))
}

/// At most a timezone follows.
fn has_zone(arguments: &Bound<'_, PyTuple>) -> bool {
    match (arguments.len(), arguments.get_item(1)) {
        (1, _) => true,
        (2, Ok(zone)) => is_a(&zone, Kind::TimeZone),
        _ => false,
    }
}

/// Year (two bytes), month, day. The class takes what it is given.
fn is_date(state: &[u8]) -> bool {
    let &[high, low, month @ 1..=12, day] = state else { return false };
    let year = u16::from_be_bytes([high, low]);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u8::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (1..=9999).contains(&year) && (1..=days).contains(&day)
}

/// Hour, minute, second, microsecond (three bytes).
fn is_time(state: &[u8]) -> bool {
    let &[hour, minute, second, a, b, c] = state else { return false };
    hour & 0x7f < 24 && minute < 60 && second < 60 && u32::from_be_bytes([0, a, b, c]) < 1_000_000
}
