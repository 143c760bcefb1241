//! ```text
//!   key must be str, not int; put_many stopped at item 2, 5: 2 items are written, it and those after it are not
//!   what went wrong           what became of the many
//! ```
//! How far a call with many entries came, in the error that ends it: in its text, and in a note.
//!
//! Somebody else's exception, as what an iterator raises, stays the object that it is. Its text goes on with what became of
//! the many where only Python's own classes look after that text; otherwise the note says it. `errno`, `filename`, `name`,
//! the key of a `KeyError` and the code of a `SystemExit` stay what they are.

use std::cell::Cell;

use pyo3::exceptions::{
    PyBaseException, PyImportError, PyKeyError, PyMemoryError, PyOSError, PySyntaxError, PySystemExit, PyUnicodeError,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};

use super::codec::has_room;
use super::errors::made;
use super::given::shown;

thread_local! {
    /// Errors that this thread was told how far a call came.
    static TOLD: Cell<u64> = const { Cell::new(0) };
}

/// The words for what a call with many entries does.
pub(super) struct Verb {
    name: &'static str,
    one: &'static str,
    done: &'static str,
}

pub(super) const PUT_MANY: Verb = Verb { name: "put_many", one: "item", done: "written" };
pub(super) const GET_MANY: Verb = Verb { name: "get_many", one: "key", done: "read" };
pub(super) const CLEAR: Verb = Verb { name: "clear", one: "value", done: "removed" };
pub(super) const REMOVE_MANY: Verb = Verb { name: "remove_many", one: "key", done: "done" };

static VERBS: [&Verb; 4] = [&PUT_MANY, &GET_MANY, &CLEAR, &REMOVE_MANY];

/// A call with many entries.
pub(super) struct Call {
    verb: &'static Verb,
    /// What `TOLD` was when it began.
    told: u64,
    /// Entries that were refused so far, because something newer is known.
    refused: Cell<usize>,
}

impl Call {
    pub(super) fn begin(verb: &'static Verb) -> Self {
        Self { verb, told: TOLD.get(), refused: Cell::new(0) }
    }

    /// So many entries were refused so far.
    pub(super) fn refused(&self, count: usize) {
        self.refused.set(count);
    }

    /// The entry with this number is wrong: it was not done, nor was any after it.
    pub(super) fn at(&self, py: Python<'_>, error: PyErr, at: usize, key: &Bound<'_, PyAny>) -> PyErr {
        let (place, rest) = (self.place(at, key), "it and those after it are not");
        let note = format!("{place}: the {}s before it are {}, {rest}", self.verb.one, self.done());
        let text = format!("{} {place}: {}, {rest}", self.verb.name, self.count(at));
        // What one call says became of the cache is true of this one as well.
        self.add(py, error, &text, if at == 0 { Fate::Stays } else { Fate::Goes }, &note)
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
        let text = format!("{} {place}: {} before it, {rest}", self.verb.name, self.count(at));
        let (one, done) = (self.verb.one, self.done());
        let note = format!("{place}: the {one}s before it are {done}, and some of those after it may be");
        self.add(py, error, &text, Fate::Goes, &note)
    }

    /// What the entries came from failed, or Ctrl-C was pressed, after so many.
    pub(super) fn after(&self, py: Python<'_>, error: PyErr, done: usize) -> PyErr {
        let text = format!("{} stopped after {} {}: {}", self.verb.name, done, self.ones(done), self.rest(done));
        self.add(py, error, &text, Fate::Goes, &text)
    }

    fn place(&self, at: usize, key: &Bound<'_, PyAny>) -> String {
        format!("stopped at {} {at}, {}", self.verb.one, shown(key))
    }

    fn count(&self, done: usize) -> String {
        format!("{done} {} {} {}", self.ones(done), if done == 1 { "is" } else { "are" }, self.done())
    }

    fn ones(&self, count: usize) -> String {
        format!("{}{}", self.verb.one, if count == 1 { "" } else { "s" })
    }

    fn done(&self) -> String {
        match self.refused.get() {
            0 => self.verb.done.to_owned(),
            refused => format!("{} or refused ({refused})", self.verb.done),
        }
    }

    fn rest(&self, done: usize) -> String {
        match done {
            0 => format!("nothing is {}", self.verb.done),
            1 => format!("it is {}, and nothing after it", self.done()),
            _ => format!("they are {}, and nothing after them", self.done()),
        }
    }

    /// An error that says this, too. Whatever it cannot take, it is still the error.
    fn add(&self, py: Python<'_>, error: PyErr, text: &str, fate: Fate, note: &str) -> PyErr {
        let error = made(py, error);
        // Without memory not even a note can be made.
        if error.is_instance_of::<PyMemoryError>(py) && !has_room(py) {
            return error;
        }
        let value = error.value(py);
        // What was told since this call began was told by a call within it, and is true beside this.
        if TOLD.get() == self.told {
            let _ = forget(value);
        }
        TOLD.set(TOLD.get() + 1);
        let _ = go_on(value, text, fate);
        let _ = value.call_method1("add_note", (note,));
        error
    }
}

/// An error that also says this, in its text or else in a note.
pub(super) fn saying(py: Python<'_>, error: PyErr, text: &str) -> PyErr {
    let error = made(py, error);
    let value = error.value(py);
    if !go_on(value, text, Fate::Stays).unwrap_or_default() {
        let _ = value.call_method1("add_note", (text,));
    }
    error
}

/// What a message of ours says last: what became of the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    /// It is what would have become of the cache by a single call.
    Goes,
}

/// Has the text of an error go on with this; whether it could.
fn go_on(error: &Bound<'_, PyBaseException>, text: &str, fate: Fate) -> PyResult<bool> {
    let Some((place, said)) = Place::of(error)? else { return Ok(false) };
    let longer = place.with(error, &said, text, fate)?;
    place.set(error, &longer)?;
    if error.str()?.to_string_lossy().contains(text) {
        return Ok(true);
    }
    // It shows something else.
    place.set(error, &said)?;
    Ok(false)
}

/// Takes back what an earlier call told of the same error, which was raised once more.
fn forget(error: &Bound<'_, PyBaseException>) -> PyResult<()> {
    let Some(notes) = error.getattr_opt("__notes__")? else { return Ok(()) };
    let notes = notes.cast_into_exact::<PyList>()?;
    let kept = PyList::empty(error.py());
    for note in &notes {
        if !note.cast::<PyString>().is_ok_and(|note| is_note(&note.to_string_lossy())) {
            kept.append(note)?;
        }
    }
    if kept.len() == notes.len() {
        return Ok(());
    }
    error.setattr("__notes__", kept)?;
    let Some((place, said)) = Place::of(error)? else { return Ok(()) };
    match begin(&said) {
        Some(at) => place.set(error, &said[..at]),
        None => Ok(()),
    }
}

/// Whether a note is of a call with many entries.
fn is_note(note: &str) -> bool {
    let is_at = |verb: &Verb| note.starts_with(&format!("stopped at {} ", verb.one)) && note.contains(verb.done);
    is_begun(note) || VERBS.iter().any(|verb| is_at(verb))
}

/// Whether a text begins with how far a call came.
fn is_begun(text: &str) -> bool {
    let is_of = |verb: &Verb| text.strip_prefix(verb.name).is_some_and(|text| text.starts_with(" stopped a"));
    VERBS.iter().any(|verb| is_of(verb))
}

/// Where in a text it begins to say how far a call came.
fn begin(said: &str) -> Option<usize> {
    let mut joints = ["; ", " ("].iter().flat_map(|joint| said.match_indices(joint)).collect::<Vec<_>>();
    joints.sort_unstable();
    let later = || joints.iter().find(|(at, joint)| is_begun(&said[at + joint.len()..])).map(|(at, _)| *at);
    if is_begun(said) { Some(0) } else { later() }
}

/// What the text of an exception is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Its only argument, or none.
    Argument,
    /// An attribute that is text.
    Attribute(&'static str),
    /// How the key of a `KeyError` is shown.
    Key,
}

impl Place {
    /// That of an exception, and what it says; nothing where Python code looks after it, or it is no text.
    fn of(error: &Bound<'_, PyBaseException>) -> PyResult<Option<(Self, String)>> {
        let class = error.get_type();
        let is_of = |method: &str, kind: &str| Ok::<_, PyErr>(class.getattr(method)?.get_type().name()? == kind);
        if !is_of("__str__", "wrapper_descriptor")? || error.is_instance_of::<PySystemExit>() {
            return Ok(None);
        }
        let text = |name: &str| {
            let text = error.getattr(name)?;
            Ok::<_, PyErr>(text.cast_exact::<PyString>().ok().map(|text| text.to_string_lossy().into_owned()))
        };
        let attribute = if error.is_instance_of::<PyUnicodeError>() {
            Some("reason").filter(|reason| error.hasattr(*reason).unwrap_or_default())
        } else if error.is_instance_of::<PyImportError>() || error.is_instance_of::<PySyntaxError>() {
            Some("msg")
        } else if error.is_instance_of::<PyOSError>() && !error.getattr("errno")?.is_none() {
            Some("strerror")
        } else {
            None
        };
        if let Some(name) = attribute {
            return Ok(text(name)?.map(|said| (Self::Attribute(name), said)));
        }
        // Whoever makes such an exception again, as pickle does, gives its class what its arguments are.
        let is_made_of_arguments =
            is_of("__init__", "wrapper_descriptor")? && is_of("__new__", "builtin_function_or_method")?;
        let args = error.getattr("args")?.cast_into::<PyTuple>()?;
        if args.len() > 1 || !(is_made_of_arguments || is_of("__reduce__", "function")?) {
            return Ok(None);
        }
        let is_of_key = error.is_instance_of::<PyKeyError>();
        let Ok(argument) = args.get_item(0) else {
            return Ok((!is_of_key).then(|| (Self::Argument, String::new())));
        };
        if is_of_key {
            let is_key = argument.is_exact_instance_of::<PyString>() || argument.get_type().is(shown_key(error.py())?);
            let more = argument.getattr_opt("more")?.map_or(Ok(String::new()), |more| more.extract())?;
            return Ok(is_key.then_some((Self::Key, more)));
        }
        let said = argument.cast_exact::<PyString>().ok().map(|text| text.to_string_lossy().into_owned());
        Ok(said.map(|said| (Self::Argument, said)))
    }

    /// What is said there, and this.
    fn with(self, error: &Bound<'_, PyBaseException>, said: &str, text: &str, fate: Fate) -> PyResult<String> {
        // What is shown after it belongs to what went wrong.
        if self == Self::Attribute("strerror") && !error.getattr("filename")?.is_none() {
            return Ok(format!("{said} ({text})"));
        }
        let (what, became) = split(said);
        let parts = [what, text, if fate == Fate::Stays { became } else { "" }];
        Ok(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; "))
    }

    fn set(self, error: &Bound<'_, PyBaseException>, said: &str) -> PyResult<()> {
        let args = error.getattr("args")?.cast_into::<PyTuple>()?;
        match self {
            Self::Argument if said.is_empty() => error.setattr("args", PyTuple::empty(error.py())),
            Self::Argument => error.setattr("args", (said,)),
            Self::Attribute(name) => {
                let before = error.getattr(name)?;
                error.setattr(name, said)?;
                if args.len() == 1 && args.get_item(0)?.eq(before)? { error.setattr("args", (said,)) } else { Ok(()) }
            }
            Self::Key => {
                let class = error.py().get_type::<PyString>();
                let key = class.call_method1("__str__", (args.get_item(0)?,))?;
                if said.is_empty() {
                    return error.setattr("args", (key,));
                }
                let key = shown_key(error.py())?.call1((key,))?;
                key.setattr("more", said)?;
                error.setattr("args", (key,))
            }
        }
    }
}

/// The class of a key that is shown with something after it. It is that str in all else, and a plain one when it is copied.
fn shown_key(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let make = || {
        let partialmethod = py.import("functools")?.getattr("partialmethod")?;
        let body = PyDict::new(py);
        body.set_item("__module__", "distributed_consistent_cache")?;
        body.set_item("__repr__", partialmethod.call1((wrap_pyfunction!(repr_of_key, py)?,))?)?;
        body.set_item("__reduce__", partialmethod.call1((wrap_pyfunction!(reduce_key, py)?,))?)?;
        let class = py.get_type::<PyType>().call1(("Key", (py.get_type::<PyString>(),), body))?;
        Ok::<_, PyErr>(class.cast_into::<PyType>()?.unbind())
    };
    Ok(CLASS.get_or_try_init(py, make)?.bind(py))
}

#[pyfunction]
fn repr_of_key(key: &Bound<'_, PyAny>) -> PyResult<String> {
    let plain = key.py().get_type::<PyString>().call_method1("__repr__", (key,))?;
    let more = key.getattr("more")?;
    Ok(format!("{}; {}", plain.cast::<PyString>()?.to_string_lossy(), more.cast::<PyString>()?.to_string_lossy()))
}

#[pyfunction]
fn reduce_key<'py>(key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    let class = key.py().get_type::<PyString>();
    let plain = class.call_method1("__str__", (key,))?;
    (class, (plain,)).into_pyobject(key.py())
}

/// What went wrong, and what became of the cache, which every message of ours ends with.
fn split(said: &str) -> (&str, &str) {
    match said.rsplit_once("; ") {
        Some((what, fate)) if fate.starts_with("nothing was ") || fate == "the cache is as it was" => (what, fate),
        _ => (said, ""),
    }
}
