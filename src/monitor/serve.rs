//! ```text
//!   accept  ->  a place  ->  one task a connection:  is the Host ours?  GET or HEAD?  which path?  ->  answer
//!      ^                                        all on one thread of its own
//!      +-- close, or the end of the cache: no new connection, requests under way are answered, the thread ends
//! ```
//! A server of what is known of a cache: read only, over HTTP/1.1.
//!
//! Promise: it needs no GIL, logs nothing, and nothing that a client sends ends it. It answers only to its own names unless
//! it was told to be open to other machines, so that a page elsewhere cannot read it by a name that leads here (DNS
//! rebinding). The cache is used for the length of an answer only: it can be dropped while it is served.

use std::borrow::Cow;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lock::Mutex;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, sleep_until, timeout};

use super::places::{Place, Places};
use super::{Values, hosts, metrics, report};
use crate::cluster::Cluster;
use crate::cluster::services::Service;
use crate::error::Error;
use crate::runtime::Runtime;
use crate::stats::Gauges;

/// Connections at once; for one more, that which has asked for nothing for longest gives way.
const CONNECTIONS_MAX: usize = 64;

/// A request's line and headers, together: room for most of a key of 64 KiB.
const HEADER_BYTES_MAX: usize = 96 * 1024;

/// A client says what it wants within this time, or is hung up on: also one that had an answer before.
const HEADER_TIME: Duration = Duration::from_secs(5);

/// A client has taken its answer, and asked for the next, within this time.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Metrics wait so long for gauges that are being counted; then they have those of before.
const METRICS_TIME: Duration = Duration::from_secs(1);

/// So long does a report, of which the dashboard asks for one each second.
const STATS_TIME: Duration = Duration::from_millis(500);

/// Requests that are under way when the server ends have so long.
const END_TIME: Duration = Duration::from_secs(1);

/// The dashboard. Each `NONCE` in it becomes a number that is used once, so that no other script or style can run there.
const PAGE: &str = include_str!("page.html");

/// A server of one cache.
pub struct Server {
    address: SocketAddr,
    /// Dropping it ends the thread.
    running: Mutex<Option<(watch::Sender<()>, JoinHandle<()>)>>,
    ended: Arc<AtomicBool>,
}

impl Server {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Service for Server {
    fn end(&self) {
        let running = self.running.lock().take();
        if let Some((end, thread)) = running {
            drop(end);
            // The last use of the cache may have been this thread's own, which must not wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                // A panic has told so already.
                let _ = thread.join();
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Serves a cache from a thread of its own, until it is closed or nobody uses it any more. With `any_host` every Host header
/// is answered to; else only the names of the machine itself.
///
/// # Errors
/// When the address cannot be had, or no thread.
pub fn serve<R: Runtime + 'static>(
    cluster: &Arc<Cluster<R>>,
    values: Values,
    addresses: &[SocketAddr],
    any_host: bool,
) -> io::Result<Arc<Server>> {
    let listener = TcpListener::bind(addresses)?;
    let listening = inherited::Listening::new(listener);
    listening.socket.set_nonblocking(true)?;
    let address = listening.socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let site = Site {
        cluster: Arc::downgrade(cluster),
        values,
        listening_at: (!any_host).then(|| address.ip()),
        counting: Arc::new(Semaphore::new(1)),
    };
    let (end, ended) = watch::channel(());
    let has_ended = Arc::new(AtomicBool::new(false));
    let run = {
        let has_ended = Arc::clone(&has_ended);
        move || {
            LocalSet::new().block_on(&runtime, accept(listening, Rc::new(site), ended));
            // Not to wait for gauges that are being counted.
            runtime.shutdown_background();
            has_ended.store(true, Ordering::Relaxed);
        }
    };
    let thread = std::thread::Builder::new().name("cache-server".to_owned()).spawn(run)?;
    let server = Arc::new(Server { address, running: Mutex::new(Some((end, thread))), ended: has_ended });
    cluster.attach(Arc::clone(&server) as Arc<dyn Service>);
    Ok(server)
}

/// What is served.
struct Site<R: Runtime> {
    cluster: Weak<Cluster<R>>,
    values: Values,
    /// It answers to the names of its own machine only, and to this address; without, to any.
    listening_at: Option<IpAddr>,
    /// Whoever counts the gauges has it.
    counting: Arc<Semaphore>,
}

async fn accept<R: Runtime + 'static>(listening: inherited::Listening, site: Rc<Site<R>>, ended: watch::Receiver<()>) {
    let inherited::Listening { entry, socket } = listening;
    let Ok(listener) = tokio::net::TcpListener::from_std(socket) else { return };
    let places = Rc::new(Places::new(CONNECTIONS_MAX));
    let mut talks = JoinSet::new();
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let entry = inherited::Entry::new(&stream);
                    let (place, places) = (places.enter(), Rc::clone(&places));
                    let talk = talk(stream, Rc::clone(&site), Rc::clone(&place), ended.clone());
                    talks.spawn_local(async move {
                        talk.await;
                        drop(entry);
                        places.leave(&place);
                    });
                }
                // The client is gone, or there is no file descriptor left: one of these is given back.
                Err(_) => {
                    places.have_one_give_way();
                    sleep(Duration::from_millis(50)).await;
                }
            }
            // Those that are over.
            while talks.try_join_next().is_some() {}
            // Who came and has asked already is answered before the next one comes: many at once do not push out each other.
            tokio::task::yield_now().await;
        }
    };
    let mut end = ended.clone();
    tokio::select! {
        () = accepting => {}
        // The sender says nothing: it is dropped.
        _ = end.changed() => {}
    }
    // In this order: its number may be another file's as soon as it is closed.
    drop(entry);
    drop(listener);
    // Whoever is not done by then is hung up on.
    let _ = timeout(END_TIME, async { while talks.join_next().await.is_some() {} }).await;
}

/// One connection, to its end.
async fn talk<R: Runtime + 'static>(
    stream: TcpStream,
    site: Rc<Site<R>>,
    place: Rc<Place>,
    mut ended: watch::Receiver<()>,
) {
    let of_request = Rc::clone(&place);
    let service = service_fn(move |request| {
        let (site, place) = (Rc::clone(&site), Rc::clone(&of_request));
        async move {
            place.asks();
            let answer = site.answer(&request).await;
            place.is_served();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = pin!(http().serve_connection(TokioIo::new(stream), service));
    let mut ending = false;
    loop {
        tokio::select! {
            // What a client did wrong is its own matter.
            _ = connection.as_mut() => return,
            _ = ended.changed(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = place.is_wanted() => return,
            () = sleep_until(place.asked() + ANSWER_TIME) => {
                if place.asked().elapsed() >= ANSWER_TIME {
                    return;
                }
            }
        }
    }
}

/// How requests are read.
fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_BYTES_MAX);
    http
}

/// What a server that listens at this address, or that answers to every Host header, says to a client that sends these bytes
/// and then no more. Without a socket, for tests and for fuzzing.
///
/// # Errors
/// When there can be no runtime.
pub fn say<R: Runtime + 'static>(
    cluster: &Arc<Cluster<R>>,
    values: Values,
    listening_at: Option<IpAddr>,
    asked: &[u8],
) -> io::Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let site = Site { cluster: Arc::downgrade(cluster), values, listening_at, counting: Arc::new(Semaphore::new(1)) };
    let (mut said, site) = (Vec::new(), &site);
    let service = service_fn(|request| async move { Ok::<_, Infallible>(site.answer(&request).await) });
    // What a client did wrong is its own matter.
    let _ =
        runtime.block_on(http().half_close(true).serve_connection(memory::Talk { asked, said: &mut said }, service));
    runtime.shutdown_background();
    Ok(said)
}

type Answer = Response<Full<Bytes>>;

impl<R: Runtime + 'static> Site<R> {
    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        if !self.is_ours(request) {
            let why = "This server answers to the names of its own machine only, and the Host header names another.\n";
            return text(StatusCode::FORBIDDEN, why);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD: nothing can be changed here.\n");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let Some(cluster) = self.cluster.upgrade().filter(|cluster| !cluster.is_closed()) else { return gone() };
        match request.uri().path() {
            "/" => page(),
            "/healthz" if cluster.view().live().is_empty() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "Every node is down.\n")
            }
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/metrics" => {
                let said = metrics::openmetrics(&cluster, self.gauges(&cluster, METRICS_TIME).await, (self.values)());
                if wants_openmetrics(request) {
                    answer(StatusCode::OK, metrics::OPENMETRICS, said)
                } else {
                    answer(StatusCode::OK, metrics::PROMETHEUS, metrics::prometheus(&said))
                }
            }
            "/api/stats.json" => {
                let gauges = self.gauges(&cluster, STATS_TIME).await;
                json(StatusCode::OK, &report::stats(&cluster, gauges, (self.values)()))
            }
            "/api/ring.json" => json(StatusCode::OK, &report::ring(&cluster)),
            "/api/explain.json" => match key(request.uri().query().unwrap_or("")) {
                Ok(key) => match report::explain(&cluster, &key) {
                    Ok(explained) => json(StatusCode::OK, &explained),
                    Err(Error::Closed) => gone(),
                    Err(error) => wrong(error.to_string()),
                },
                Err(why) => wrong(why.to_owned()),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "There are /, /metrics, /healthz, /api/stats.json, /api/ring.json and /api/explain.json?key=..\n",
            ),
        }
    }

    /// Whether a request is meant for this server, and not sent here under another name.
    fn is_ours(&self, request: &Request<Incoming>) -> bool {
        let Some(listening_at) = self.listening_at else { return true };
        let ours = |name: &str| hosts::is_own(name, listening_at);
        let mut named = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (named.next(), named.next()) else { return false };
        let authority = request.uri().authority().is_none_or(|authority| ours(authority.as_str()));
        authority && host.to_str().is_ok_and(ours)
    }

    /// The gauges, counted on another thread if it is time: they look at every key. One thread counts at a time. When there can
    /// be none, this one counts.
    async fn gauges(&self, cluster: &Arc<Cluster<R>>, patience: Duration) -> Option<(Gauges, Duration)> {
        let fresh = || cluster.last_gauges().filter(|(_, _, is_due)| !is_due);
        let counting = async {
            let turn = Arc::clone(&self.counting).acquire_owned().await;
            if fresh().is_some() {
                return;
            }
            let (tell, told) = oneshot::channel();
            let count = {
                let cluster = Arc::clone(cluster);
                move || {
                    let _ = cluster.recent_gauges();
                    drop((cluster, turn));
                    let _ = tell.send(());
                }
            };
            match std::thread::Builder::new().name("cache-gauges".to_owned()).spawn(count) {
                // A panic has told so already.
                Ok(_) => drop(told.await),
                Err(_) => drop(cluster.recent_gauges()),
            }
        };
        if fresh().is_none() {
            let _ = timeout(patience, counting).await;
        }
        cluster.last_gauges().map(|(gauges, ago, _)| (gauges, ago))
    }
}

fn wants_openmetrics(request: &Request<Incoming>) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).iter();
    accepted.filter_map(|accept| accept.to_str().ok()).any(|accept| accept.contains("application/openmetrics-text"))
}

/// The key of a query such as `key=user%3A1`.
fn key(query: &str) -> Result<String, &'static str> {
    let given = query.split('&').find_map(|pair| pair.strip_prefix("key="));
    let given = given.ok_or("say which key: /api/explain.json?key=..")?;
    let spaced: Cow<'_, str> = if given.contains('+') { given.replace('+', " ").into() } else { given.into() };
    let key = percent_decode_str(&spaced).decode_utf8().map_err(|_| "the key is not in UTF-8")?;
    Ok(key.into_owned())
}

/// Headers of every answer: nothing is kept, nothing is guessed, no other page may use it.
const HEADERS: [(header::HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let same_origin = HeaderValue::from_static("same-origin");
    answer.headers_mut().insert("cross-origin-resource-policy", same_origin);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn text(status: StatusCode, text: &'static str) -> Answer {
    answer(status, "text/plain; charset=utf-8", text)
}

fn json(status: StatusCode, report: &impl Serialize) -> Answer {
    match serde_json::to_vec(report) {
        Ok(body) => answer(status, "application/json", body),
        // Plain numbers and names can be written.
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "The report could not be written.\n"),
    }
}

#[derive(Serialize)]
struct Wrong {
    error: String,
}

fn wrong(error: String) -> Answer {
    json(StatusCode::BAD_REQUEST, &Wrong { error })
}

fn gone() -> Answer {
    text(StatusCode::SERVICE_UNAVAILABLE, "The cache is closed.\n")
}

fn page() -> Answer {
    use std::hash::BuildHasher;
    // Hashers have random keys.
    let nonce = std::hash::RandomState::new();
    let nonce = format!("{:016x}{:016x}", nonce.hash_one(0), nonce.hash_one(1));
    let mut page = answer(StatusCode::OK, "text/html; charset=utf-8", PAGE.replace("NONCE", &nonce));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    page
}

mod memory {
    //! A client whose requests are all there, and that takes every answer.

    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::rt::{Read, ReadBufCursor, Write};

    /// What it asks, and what it was told.
    pub(super) struct Talk<'a> {
        pub(super) asked: &'a [u8],
        pub(super) said: &'a mut Vec<u8>,
    }

    impl Read for Talk<'_> {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
            let (some, rest) = self.asked.split_at(self.asked.len().min(to.remaining()));
            to.put_slice(some);
            self.asked = rest;
            Poll::Ready(Ok(()))
        }
    }

    impl Write for Talk<'_> {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.get_mut().said.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}

mod inherited {
    //! A forked child inherits the sockets of its parent, and not the threads that answer there: while it has them, connections
    //! to the port would be made and never answered, and those that are closed would not end.

    use std::net::TcpListener;
    use std::sync::{Arc, OnceLock, Weak};

    use crate::fork::{Forked, register};
    use crate::lock::OnlyThread;
    use crate::lock::{Mutex, RawLock, raw};

    /// The sockets of this process, by their file descriptors.
    struct Sockets(Mutex<Vec<i32>>);

    impl Forked for Sockets {
        fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
            each(raw(&self.0));
        }

        fn in_child(&self, is_whole: bool, _: &OnlyThread) {
            if !is_whole {
                return;
            }
            for socket in std::mem::take(&mut *self.0.lock()) {
                // Safety: it is a socket of the parent's that nobody uses here.
                #[cfg(unix)]
                #[expect(unsafe_code, reason = "its owner is a thread that is not in this process")]
                unsafe {
                    libc::close(socket);
                }
                #[cfg(not(unix))]
                let _ = socket;
            }
        }
    }

    fn sockets() -> &'static Arc<Sockets> {
        static SOCKETS: OnceLock<Arc<Sockets>> = OnceLock::new();
        SOCKETS.get_or_init(|| {
            let sockets = Arc::new(Sockets(Mutex::new(Vec::new())));
            let weak: Weak<Sockets> = Arc::downgrade(&sockets);
            register(weak);
            sockets
        })
    }

    /// A place among them.
    pub(super) struct Entry(i32);

    impl Entry {
        #[cfg(unix)]
        pub(super) fn new(socket: &impl std::os::fd::AsRawFd) -> Self {
            let number = socket.as_raw_fd();
            sockets().0.lock().push(number);
            Self(number)
        }

        #[cfg(not(unix))]
        pub(super) fn new<T>(_socket: &T) -> Self {
            Self(-1)
        }
    }

    /// A listening socket, and its place among them, which is given up first.
    pub(super) struct Listening {
        pub(super) entry: Entry,
        pub(super) socket: TcpListener,
    }

    impl Listening {
        pub(super) fn new(socket: TcpListener) -> Self {
            Self { entry: Entry::new(&socket), socket }
        }
    }

    impl Drop for Entry {
        fn drop(&mut self) {
            sockets().0.lock().retain(|socket| *socket != self.0);
        }
    }
}
