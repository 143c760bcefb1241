//! Whatever bytes a client sends, the server answers what it should, or that it is no request, and goes on.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use distributed_consistent_cache::Config;
use distributed_consistent_cache::cluster::Cluster;
use distributed_consistent_cache::monitor::serve::say;
use distributed_consistent_cache::runtime::embedded::Embedded;
use distributed_consistent_cache::values::Packing;

/// The first lines of all answers to these bytes, of a server for its own machine only.
fn answers(asked: &[u8]) -> Vec<String> {
    let config = Config::new(3, Some(2)).expect("valid");
    let packing = Packing::new(&config);
    let cluster = Arc::new(Cluster::new(config, Embedded::default()));
    let at = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let said = say(&cluster, Arc::new(move || packing.stats()), at, asked).expect("a runtime");
    let said = String::from_utf8(said).expect("text");
    let is_status = |line: &&str| line.starts_with("HTTP/1.1 ") || line.starts_with("HTTP/1.0 ");
    said.lines().filter(is_status).map(|line| line[9..12].to_owned()).collect()
}

fn check(asked: &str, expected: &[&str]) {
    assert_eq!(answers(asked.as_bytes()), expected, "{asked:?}");
}

#[test]
fn requests_of_one_connection_are_answered_one_after_the_other() {
    let one = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    check(&one.repeat(3), &["200"; 3]);
    check(&format!("{one}GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n{one}"), &["200", "404", "200"]);
}

#[test]
fn what_names_another_host_or_none_is_told_nothing() {
    for host in ["Host: evil.example\r\n", "", "Host: localhost\r\nHost: localhost\r\n", "Host: localhost:x\r\n"] {
        check(&format!("GET /metrics HTTP/1.1\r\n{host}\r\n"), &["403"]);
    }
    check("GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", &["403"]);
    check("GET http://localhost/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", &["200"]);
}

#[test]
fn what_is_no_request_is_told_so_or_not_answered() {
    check("", &[]);
    check("GET /", &[]);
    check("\u{0}\u{1}\u{2}\r\n\r\n", &["400"]);
    check("GET / HTTP/9.9\r\n\r\n", &["400"]);
    check("GET /api/explain.json?key=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", &["400"]);
    check(&format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(200_000)), &["431"]);
}
