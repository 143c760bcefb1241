//! ```text
//!   Cluster: statistics, gauges, explain, view
//!        |                 |
//!        v                 v
//!   metrics.rs: text    report.rs: JSON    page.html: the dashboard
//!        |                 |                   |
//!        +-------> serve.rs: HTTP, one thread, read only <-------+  places.rs: connections at once; hosts.rs: its names
//! ```
//! The cache for those who look at it from outside: scrapers, programs and people.
//!
//! Promise: nothing here changes a cache, counts as a use of an entry, or needs Python's GIL.

mod hosts;
pub mod metrics;
mod places;
mod process;
pub mod report;
pub mod serve;

use std::sync::Arc;

use crate::stats::ValueStats;

/// What became of values, as those tell who turn them into bytes: nodes know nothing of it. It must not keep the cluster alive.
pub type Values = Arc<dyn Fn() -> ValueStats + Send + Sync>;
