//! ```text
//!   Host: localhost:9000  ->  name, port  ->  is the name one of this machine's own?
//! ```
//! Which Host headers a server answers to that is for its own machine only.
//!
//! The name decides, not the port: behind a forwarded port (ssh -L, kubectl port-forward) a browser names the port that it
//! sees. A page elsewhere cannot have such a name lead here by DNS rebinding: "localhost" and addresses are not looked up.

use std::net::IpAddr;

/// Whether a Host header names this machine: "localhost", a name below it, a loopback address, or the address at which is
/// listened. Names below "localhost" are nobody's (RFC 6761).
pub(super) fn is_own(host: &str, listening_at: IpAddr) -> bool {
    let Some(name) = name_of(host) else { return false };
    match name.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback() || ip == listening_at,
        Err(_) => is_localhost(name.strip_suffix('.').unwrap_or(name)),
    }
}

fn is_localhost(name: &str) -> bool {
    let (below, last) = name.rsplit_once('.').unwrap_or(("x", name));
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    last.eq_ignore_ascii_case("localhost") && below.split('.').all(is_label)
}

/// The name of a Host header, without the port and an address's brackets; `None` for what is no such header.
fn name_of(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(bracketed) => {
            let (name, rest) = bracketed.split_once(']')?;
            // Brackets are for what has colons.
            name.contains(':').then_some((name, rest))?
        }
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok();
    (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, listening_at: &str, expected: bool) {
        let ip = listening_at.parse().expect("an address");
        assert_eq!(is_own(host, ip), expected, "{host:?} at {listening_at}");
    }

    #[test]
    fn the_names_of_this_machine_are_its_own_at_any_port() {
        for name in [
            "localhost",
            "LocalHost",
            "localhost.",
            "cache.localhost",
            "a-1.b.LOCALHOST.",
            "127.0.0.1",
            "127.0.0.2",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
        ] {
            for port in ["", ":80", ":9000", ":65535", ":0"] {
                check(&format!("{name}{port}"), "127.0.0.1", true);
            }
        }
        check("192.0.2.1:9000", "192.0.2.1", true);
    }

    #[test]
    fn what_names_another_machine_or_is_no_name_is_foreign() {
        for host in [
            "",
            " ",
            ":80",
            "evil.example",
            "localhost.evil",
            "127.0.0.1.evil",
            "127.1",
            "0x7f.1",
            "2130706433",
            "0.0.0.0",
            "x@localhost",
            "localhost:",
            "localhost:x",
            "localhost:65536",
            "localhost:1:1",
            "localhost:+1",
            "localhost ",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "[localhost]",
            "[]",
            "192.0.2.1",
            "localhost..",
            ".localhost",
            "x..localhost",
            "x@y.localhost",
            "xlocalhost",
            "localhost/x",
            "\u{ff}",
        ] {
            check(host, "127.0.0.1", false);
        }
    }
}
