//! ```text
//!   an object of ours, its attributes by name  ->  a dict of plain types
//! ```
//! What every `as_dict` does.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// These attributes of an object, with everything inside them in plain types.
pub(super) fn to_dict<'py>(object: &Bound<'py, PyAny>, names: &[&str]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(object.py());
    for &name in names {
        dict.set_item(name, plain(object.getattr(name)?)?)?;
    }
    Ok(dict)
}

fn plain(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    if let Ok(list) = value.cast::<PyList>() {
        let items: Vec<_> = list.iter().map(plain).collect::<PyResult<_>>()?;
        return items.into_bound_py_any(value.py());
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        let plainer = PyDict::new(value.py());
        for (name, item) in dict.iter() {
            plainer.set_item(name, plain(item)?)?;
        }
        return Ok(plainer.into_any());
    }
    if value.hasattr("as_dict")? { value.call_method0("as_dict") } else { Ok(value) }
}
