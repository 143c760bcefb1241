//! ```text
//!   key must be str, not int; put_many stopped at item 2, 5: 2 items are written, it and those after it are not
//!   what went wrong           what became of the many
//! ```
//! How far a call with many entries came, in the error that ends it: in its text, and in a note.
//!
//! Somebody else's exception, as what an iterator raises, stays the object that it is. Its text goes on with what became of
//! the many if it is a single string, or nothing, that only Python's own classes look after; otherwise the note says it.

use pyo3::exceptions::{PyBaseException, PySystemExit, PyUnicodeEncodeError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use super::errors::is_of_value;
use super::given::shown;

/// A call with many entries, and the words for what it does.
pub(super) struct Call {
    name: &'static str,
    one: &'static str,
    done: &'static str,
}

pub(super) const PUT_MANY: Call = Call { name: "put_many", one: "item", done: "written" };
pub(super) const GET_MANY: Call = Call { name: "get_many", one: "key", done: "read" };
pub(super) const CLEAR: Call = Call { name: "clear", one: "value", done: "removed" };
pub(super) const REMOVE_MANY: Call = Call { name: "remove_many", one: "key", done: "done" };

impl Call {
    /// The entry with this number is wrong: it was not done, nor was any after it.
    pub(super) fn at(&self, py: Python<'_>, error: PyErr, at: usize, key: &Bound<'_, PyAny>) -> PyErr {
        let (place, rest) = (self.place(at, key), "it and those after it are not");
        let note = format!("{place}: the {}s before it are {}, {rest}", self.one, self.done);
        let text = match at {
            // What one call says became of the cache is true of this one as well.
            0 if is_of_value(py, &error) => Text::Before(format!("{} {place}", self.name)),
            0 if has_fate(error.value(py)) => Text::Nothing,
            _ => Text::Instead(format!("{} {place}: {}, {rest}", self.name, self.count(at))),
        };
        add(py, error, text, &note)
    }

    /// Too few owners have the entry with this number. So many of those after it were done meanwhile.
    pub(super) fn half_done(
        &self,
        py: Python<'_>,
        error: PyErr,
        (at, after): (usize, usize),
        key: &Bound<'_, PyAny>,
    ) -> PyErr {
        let place = self.place(at, key);
        let rest = match after {
            0 => "those after it are not".to_owned(),
            after => format!("so are {after} of those after it, and the others are not"),
        };
        let text = format!("{} {place}: {} before it, {rest}", self.name, self.count(at));
        let note = format!("{place}: the {}s before it are {}, and some of those after it may be", self.one, self.done);
        add(py, error, Text::Instead(text), &note)
    }

    /// What the entries came from failed, or Ctrl-C was pressed, after so many.
    pub(super) fn after(&self, py: Python<'_>, error: PyErr, done: usize) -> PyErr {
        let text = format!("{} stopped after {} {}: {}", self.name, done, self.ones(done), self.rest(done));
        add(py, error, Text::Instead(text.clone()), &text)
    }

    fn place(&self, at: usize, key: &Bound<'_, PyAny>) -> String {
        format!("stopped at {} {at}, {}", self.one, shown(key))
    }

    fn count(&self, done: usize) -> String {
        format!("{done} {} {} {}", self.ones(done), if done == 1 { "is" } else { "are" }, self.done)
    }

    fn ones(&self, count: usize) -> String {
        format!("{}{}", self.one, if count == 1 { "" } else { "s" })
    }

    fn rest(&self, done: usize) -> String {
        match done {
            0 => format!("nothing is {}", self.done),
            1 => format!("it is {}, and nothing after it", self.done),
            _ => format!("they are {}, and nothing after them", self.done),
        }
    }
}

/// What an error says beside what went wrong.
enum Text {
    /// Nothing more.
    Nothing,
    /// This, before what became of the cache.
    Before(String),
    /// This, instead of what would have become of the cache by a single call.
    Instead(String),
}

/// An error that says this, too. Whatever it cannot take, it is still the error.
fn add(py: Python<'_>, error: PyErr, text: Text, note: &str) -> PyErr {
    let _ = go_on(error.value(py), text);
    let _ = error.value(py).call_method1("add_note", (note,));
    error
}

fn go_on(error: &Bound<'_, PyBaseException>, text: Text) -> PyResult<()> {
    if error.is_instance_of::<PyUnicodeEncodeError>() {
        let reason = error.getattr("reason")?;
        return error.setattr("reason", text.after(&reason.cast::<PyString>()?.to_string_lossy()));
    }
    let Some(said) = plain_text(error)? else { return Ok(()) };
    error.setattr("args", (text.after(&said),))
}

impl Text {
    fn after(self, said: &str) -> String {
        let (what, fate) = split(said);
        let parts = match &self {
            Self::Nothing => return said.to_owned(),
            Self::Before(text) => [what, text.as_str(), fate],
            Self::Instead(text) => [what, text.as_str(), ""],
        };
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

/// The text of an exception, if it is what `args` says and nothing else depends on it.
fn plain_text(error: &Bound<'_, PyBaseException>) -> PyResult<Option<String>> {
    let (class, base) = (error.get_type(), error.py().get_type::<PyBaseException>());
    let is_of_python = |method: &str, kind: &str| Ok::<_, PyErr>(class.getattr(method)?.get_type().name()? == kind);
    let is_plain = class.getattr("__str__")?.is(&base.getattr("__str__")?)
        && is_of_python("__init__", "wrapper_descriptor")?
        && is_of_python("__new__", "builtin_function_or_method")?
        && !error.is_instance_of::<PySystemExit>();
    let args = error.getattr("args")?.cast_into::<PyTuple>()?;
    if !is_plain || args.len() > 1 {
        return Ok(None);
    }
    let Ok(text) = args.get_item(0) else { return Ok(Some(String::new())) };
    Ok(text.cast_exact::<PyString>().ok().map(|text| text.to_string_lossy().into_owned()))
}

/// Whether an error says what became of the cache.
fn has_fate(error: &Bound<'_, PyBaseException>) -> bool {
    let text = error.str().map(|text| text.to_string_lossy().into_owned());
    text.is_ok_and(|text| !split(&text).1.is_empty())
}

/// What went wrong, and what became of the cache, which every message of ours ends with.
fn split(said: &str) -> (&str, &str) {
    match said.rsplit_once("; ") {
        Some((what, fate)) if fate.starts_with("nothing was ") || fate == "the cache is as it was" => (what, fate),
        _ => (said, ""),
    }
}
