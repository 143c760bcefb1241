//! ```text
//!   bytes  ->  requests, one after the other, or no requests at all  ->  what is served  ->  answers
//! ```
//! What a client sends to the server of a cache. Nothing of it ends the server, changes the cache, or is answered to another
//! name than the machine's own; answers are HTTP, and take memory in proportion to how many they are.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use distributed_consistent_cache::Config;
use distributed_consistent_cache::cluster::Cluster;
use distributed_consistent_cache::entry::{Key, Value};
use distributed_consistent_cache::message::Write;
use distributed_consistent_cache::monitor::Values;
use distributed_consistent_cache::monitor::serve::say;
use distributed_consistent_cache::runtime::embedded::Embedded;
use distributed_consistent_cache::values::Packing;
use distributed_consistent_cache::version::Timestamp;
use libfuzzer_sys::fuzz_target;
use measured::{Counting, measure};

mod measured;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An answer is a page of 64 KiB at most, which is made, sent and kept here; and what is read is kept twice.
const BYTES_AN_ANSWER: usize = 512 * 1024;
const BYTES_A_BYTE: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    static SERVED: OnceLock<(Arc<Cluster<Embedded>>, Values)> = OnceLock::new();
    let (cluster, values) = SERVED.get_or_init(|| {
        let config = Config::new(3, Some(2)).expect("valid");
        let packing = Packing::new(&config);
        let cluster = Cluster::new(config, Embedded::default());
        for number in 0..20_u8 {
            let name = format!("user:{number}");
            let key = Key::new(name.as_bytes()).expect("short");
            let body = [number; 30];
            let write = Write::put(key, Timestamp::default(), Value::new(&body).expect("short"));
            cluster.write(write, None, None).expect("written");
        }
        (Arc::new(cluster), Arc::new(move || packing.stats()))
    });
    let Some((&head, asked)) = bytes.split_first() else { return };
    // Most servers are for their own machine only.
    let is_open = head % 8 == 0;
    let at = (!is_open).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let (said, taken) = measure(|| say(cluster, Arc::clone(values), at, asked).expect("a runtime"));
    let answers = check(&said, asked.windows(5).any(|part| part == b"HEAD "));
    assert!(taken.peak <= (1 + answers.len()) * BYTES_AN_ANSWER + BYTES_A_BYTE * asked.len(), "{answers:?}: {taken:?}");
    let lower = asked.to_ascii_lowercase();
    let names = |name: &[u8]| lower.windows(name.len()).any(|part| part == name);
    if !is_open && !names(b"localhost") && !names(b"127.") && !names(b"[") {
        assert!(!answers.contains(&200), "a page elsewhere was told");
    }
    assert_eq!(cluster.len(), 20);
});

/// The status of each answer. One to HEAD says how long its body would be, and has none.
fn check(mut said: &[u8], asks_heads: bool) -> Vec<u16> {
    let mut answers = Vec::new();
    while !said.is_empty() {
        let end = said.windows(4).position(|part| part == b"\r\n\r\n").expect("the end of headers");
        let head = std::str::from_utf8(&said[..end]).expect("headers are text");
        let status = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 ")).expect("a status");
        let status: u16 = status.get(..3).expect("a number").parse().expect("a number");
        assert!([200, 400, 403, 404, 405, 414, 431, 503].contains(&status), "{head}");
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        if status == 200 {
            assert_eq!(header("x-content-type-options: "), Some("nosniff"));
            assert_eq!(header("cache-control: "), Some("no-store"));
        }
        answers.push(status);
        said = &said[end + 4..];
        let length: usize = header("content-length: ").map_or(0, |length| length.parse().expect("a length"));
        if !asks_heads || !(said.is_empty() || said.starts_with(b"HTTP/1.")) {
            said = said.get(length..).expect("a whole body");
        }
    }
    answers
}
