//! ```text
//!   Cache.metrics  ->  str
//!   Cache.serve    ->  Server: a thread of its own that answers without the GIL
//! ```
//! The cache for those who look at it from outside.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::sync::Arc;

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyRange, PyRangeMethods, PyString};

use super::convert;
use super::errors::{closed, raise};
use super::interrupts::interruptible;
use super::process;
use crate::cluster::Cluster;
use crate::cluster::services::Service;
use crate::monitor::{Values, metrics, serve};
use crate::runtime::embedded::Embedded;
use crate::shown::Quoted;
use crate::values::Packing;

/// OpenMetrics text.
pub(super) fn text<'py>(
    py: Python<'py>,
    cluster: &Cluster<Embedded>,
    packing: &Packing,
) -> PyResult<Bound<'py, PyString>> {
    let gauges = interruptible(py, |go_on| cluster.recent_gauges_while(go_on))?.map_err(raise)?;
    let text = py.detach(|| metrics::openmetrics(cluster, gauges, packing.stats()));
    // Where there is no memory for it, this says so.
    PyString::from_bytes(py, text.as_bytes())
}

/// A server of metrics, reports and the dashboard of one cache, as
/// `Cache.serve` returns it. It goes on when this object is dropped, until
/// it is closed, or the cache is closed or dropped. Usable in a `with`
/// block, at whose end it is closed.
#[pyclass(frozen, weakref, name = "Server", module = "distributed_consistent_cache")]
pub(super) struct ServerHandle {
    server: Option<Arc<serve::Server>>,
    host: String,
    generation: u32,
}

impl ServerHandle {
    pub(super) fn start(
        py: Python<'_>,
        (cluster, packing): (&Arc<Cluster<Embedded>>, &Arc<Packing>),
        host: Option<&Bound<'_, PyAny>>,
        port: Option<&Bound<'_, PyAny>>,
        allow_remote: bool,
    ) -> PyResult<Self> {
        let host = match host.map(|host| (host, host.cast::<PyString>())) {
            None => "127.0.0.1".to_owned(),
            Some((_, Ok(host))) => host.to_string_lossy().into_owned(),
            Some((host, Err(_))) => return Err(convert::wrong_type("host", "str", host)),
        };
        let ports = port.map_or(Ok(0..=0), ports_of)?;
        cluster.check_open().map_err(raise)?;
        // A name may have to be asked for on the network.
        let addresses = py.detach(|| addresses(&host)).map_err(|error| os_error(&error, &host, &ports))?;
        if let Some(remote) = addresses.iter().find(|address| !address.ip().is_loopback())
            && !allow_remote
        {
            return Err(PyValueError::new_err(format!(
                "host {} is {}, which other machines can reach: what they could read includes keys; pass \
                 allow_remote=True if that is meant; nothing was started",
                Quoted(&host),
                remote.ip()
            )));
        }
        let packing = Arc::clone(packing);
        let values: Values = Arc::new(move || packing.stats());
        let server = py.detach(|| {
            let mut taken = None;
            for port in ports.clone() {
                let at: Vec<_> = addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect();
                match serve::serve(cluster, Arc::clone(&values), &at, allow_remote) {
                    Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => taken = Some(error),
                    served => return served,
                }
            }
            Err(taken.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into()))
        });
        let server = server.map_err(|error| os_error(&error, &host, &ports))?;
        Ok(Self { server: Some(server), host, generation: process::generation() })
    }

    fn server(&self) -> PyResult<&Arc<serve::Server>> {
        match &self.server {
            Some(server) if self.generation == process::generation() => Ok(server),
            _ => Err(parents()),
        }
    }

    fn url_of(&self, server: &serve::Server) -> String {
        let (address, port) = (server.address().ip(), server.address().port());
        // What listens everywhere is reached here.
        let host = match address {
            IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
            IpAddr::V6(ip) => format!("[{ip}]"),
            IpAddr::V4(ip) => ip.to_string(),
        };
        format!("http://{host}:{port}/")
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        // In a forked child it is the parent's, and another thread may have had it in its hands.
        if self.generation != process::generation() {
            std::mem::forget(self.server.take());
        }
    }
}

/// One port, or several of which the first that is free is taken.
fn ports_of(port: &Bound<'_, PyAny>) -> PyResult<RangeInclusive<u16>> {
    let Ok(range) = port.cast::<PyRange>() else { return port_of(port).map(|port| port..=port) };
    if range.step()? != 1 || range.stop()? <= range.start()? {
        return Err(convert::out_of_range(
            "port",
            port,
            "a range of ports that goes up by 1, such as range(9100, 9110)",
        ));
    }
    let (first, last) = (range.start()?.into_pyobject(port.py())?, (range.stop()? - 1).into_pyobject(port.py())?);
    Ok(port_of(first.as_any())?..=port_of(last.as_any())?)
}

fn port_of(port: &Bound<'_, PyAny>) -> PyResult<u16> {
    // Within the range of a `u16`.
    convert::whole("port", port, 0..=u64::from(u16::MAX), "from 0 to 65535").map(|port| port as u16)
}

#[cold]
fn parents() -> PyErr {
    closed("this server was started before a fork, and is the parent's; call Cache.serve here; nothing was done")
}

fn addresses(host: &str) -> std::io::Result<Vec<SocketAddr>> {
    let unknown = |why: &str| std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, why.to_owned());
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // A resolver may take no name for every address of this machine, and does not expect null characters.
    if bare.is_empty() || bare.contains('\0') {
        return Err(unknown("no host is named so"));
    }
    let mut addresses: Vec<SocketAddr> = (bare, 0).to_socket_addrs()?.collect();
    // The older kind first, as most programs try it first.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    if addresses.is_empty() { Err(unknown("the host has no address")) } else { Ok(addresses) }
}

fn os_error(error: &std::io::Error, host: &str, ports: &RangeInclusive<u16>) -> PyErr {
    let (first, last) = (ports.start(), ports.end());
    let ports = if first == last { format!("port {first}") } else { format!("ports {first} to {last}") };
    let message = format!("cannot serve at {}, {ports}: {error}; nothing was started", Quoted(host));
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, message)),
        None => PyOSError::new_err(message),
    }
}

#[pymethods]
impl ServerHandle {
    /// Where to point a browser: "http://127.0.0.1:41735/". Raises
    /// ClosedError in a forked child, which has no server.
    #[getter]
    fn url(&self) -> PyResult<String> {
        self.server().map(|server| self.url_of(server))
    }

    /// The host that it was started with.
    #[getter]
    fn host(&self) -> PyResult<String> {
        self.server().map(|_| self.host.clone())
    }

    /// The port at which it listens, 1 to 65535.
    #[getter]
    fn port(&self) -> PyResult<u16> {
        self.server().map(|server| server.address().port())
    }

    /// True once it has ended: it was closed, or its cache was. Also true
    /// in a forked child.
    #[getter]
    fn closed(&self) -> bool {
        self.server().map_or(true, |server| server.has_ended())
    }

    /// Ends it: no new connection is taken, requests under way are
    /// answered, for at most a second, and the port is free. The cache goes
    /// on. A second time does nothing.
    fn close(&self, py: Python<'_>) {
        // A forked child has nothing to end: the thread is in the other process.
        if let Ok(server) = self.server() {
            py.detach(|| server.end());
        }
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().server()?;
        Ok(slf)
    }

    #[pyo3(signature = (kind, error, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) {
        let _ = (kind, error, traceback);
        self.close(py);
    }

    fn __repr__(&self) -> String {
        let Ok(server) = self.server() else { return "<Server of another process>".to_owned() };
        let closed = if server.has_ended() { ", closed" } else { "" };
        format!("<Server at {}{closed}>", self.url_of(server))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a Server cannot be pickled: it lives in this process"))
    }
}
