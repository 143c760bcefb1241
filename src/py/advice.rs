//! ```text
//!   Cluster::advise  ->  Advice: one SizeAdvice for each size; prints as a table
//! ```
//! What other sizes of the cache would have brought, as Python objects.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::as_dict::to_dict;
use super::table::{number, size, table};
use crate::cluster::advise;

/// What a cache of another size would have found.
#[pyclass(frozen, eq, get_all, module = "distributed_consistent_cache")]
#[derive(Clone, Copy, PartialEq)]
pub(super) struct SizeAdvice {
    /// Its size, in parts of the present one: 0.25 to 4.
    times: f64,
    /// Bytes of all its nodes together.
    bytes: u64,
    /// The part of reads that it would have found, 0 to 1.
    hit_rate: f64,
}

#[pymethods]
impl SizeAdvice {
    /// The same as a dict of plain numbers.
    fn as_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf.as_any(), &["times", "bytes", "hit_rate"])
    }

    fn __repr__(&self) -> String {
        let Self { times, bytes, hit_rate } = self;
        format!("SizeAdvice(times={times}, bytes={bytes}, hit_rate={hit_rate:.4})")
    }
}

/// What other sizes of the cache would have brought, for the reads since it
/// was made. Prints as a table.
#[pyclass(frozen, get_all, module = "distributed_consistent_cache")]
pub(super) struct Advice {
    /// One for 0.25, 0.5, 1, 2 and 4 times the present size.
    sizes: Vec<Py<SizeAdvice>>,
    /// The part of reads that were found as it is, 0 to 1.
    hit_rate: f64,
    /// Reads since the cache was made.
    gets: u64,
    /// Reads and writes that were watched: with fewer than about 2,000 the
    /// rates may be off by more than two points.
    watched: u64,
}

impl Advice {
    pub(super) fn new(py: Python<'_>, advice: advise::Advice) -> PyResult<Self> {
        let advise::Advice { sizes, hit_rate, gets, watched } = advice;
        let size = |size: advise::Size| {
            Py::new(py, SizeAdvice { times: size.times, bytes: size.bytes, hit_rate: size.hit_rate })
        };
        let sizes = sizes.into_iter().map(size).collect::<PyResult<_>>()?;
        Ok(Self { sizes, hit_rate, gets, watched })
    }
}

#[pymethods]
impl Advice {
    /// The same as a dict of plain types.
    fn as_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(slf.as_any(), &["sizes", "hit_rate", "gets", "watched"])
    }

    fn __repr__(&self) -> String {
        let Self { hit_rate, gets, watched, .. } = self;
        format!("Advice(hit_rate={hit_rate:.4}, gets={gets}, watched={watched})")
    }

    fn __str__(&self) -> String {
        let mut rows = vec![["size", "bytes", "hit rate"].map(str::to_owned).to_vec()];
        Python::attach(|py| {
            for size_of in &self.sizes {
                let SizeAdvice { times, bytes, hit_rate } = *size_of.bind(py).get();
                rows.push(vec![format!("{times} x"), size(bytes), format!("{:.1} %", 100.0 * hit_rate)]);
            }
        });
        let Self { hit_rate, gets, watched, .. } = self;
        let few = if *watched < 2000 { "; few: it may be off by more than two points" } else { "" };
        format!(
            "{}\n\nmeasured at 1 x: {:.1} % of {} gets; {} calls were watched{few}",
            table(&rows),
            100.0 * hit_rate,
            number(*gets),
            number(*watched),
        )
    }
}
