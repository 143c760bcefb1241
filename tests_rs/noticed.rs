//! Lines that whole clusters in a bad world rarely need, each held by a test of its own.

use distributed_consistent_cache::clock::{Clock, Dot, Incarnation};
use distributed_consistent_cache::cluster::put::{Put, Step};
use distributed_consistent_cache::cluster::routes::Routes;
use distributed_consistent_cache::cluster::view::{State, View};
use distributed_consistent_cache::entry::{Key, NodeId, Value};
use distributed_consistent_cache::message::{Address, Known, Reply, Request, Used, Write, Written};
use distributed_consistent_cache::node::Node;
use distributed_consistent_cache::runtime::Unreached;
use distributed_consistent_cache::version::Timestamp;
use distributed_consistent_cache::{Config, Error, Quorum};

fn life(number: u64, node: NodeId) -> Address {
    Address { node, incarnation: Incarnation::new(number, node) }
}

fn put<'a>(name: &'a str, value: &'a [u8], timestamp: u64) -> Write<'a> {
    let (key, value) = (Key::new(name.as_bytes()).expect("short"), Value::new(value).expect("short"));
    Write::put(key, Timestamp::new(timestamp).expect("small"), value)
}

fn known(node: &mut Node, name: &str) -> Known {
    node.get(Key::new(name.as_bytes()).expect("short"), false, &mut |_, _| {}).known
}

#[test]
fn the_same_write_again_brings_back_a_value_that_was_evicted() {
    let mut node = Node::new(life(1, 0), 16 * 1024, 1);
    // A peer that has seen nothing: what is evicted leaves a marker.
    node.answer(&Request::Hold { partition: 0, peers: &[life(2, 1)], doubt: false, serves: true }).expect("held");
    let write = |node: &mut Node, write: Write<'_>| match node.answer(&Request::Write { write, force: false }) {
        Ok(Reply::Written(written)) => written,
        other => panic!("{other:?}"),
    };
    write(&mut node, put("key", &[1; 3_000], 5));
    for number in 0..4 {
        write(&mut node, put(&format!("other {number}"), &[2; 3_000], 5));
    }
    assert!(matches!(known(&mut node, "key"), Known::Marker(_)), "it was evicted");
    assert!(matches!(write(&mut node, put("key", &[1; 3_000], 5)), Written::Accepted { .. }));
    assert!(matches!(known(&mut node, "key"), Known::Live(_)), "the write was acknowledged, and is read");
    node.check();
}

#[test]
fn a_clock_that_saw_something_above_a_gap_is_not_known_by_one_that_did_not() {
    let (mine, other) = (Incarnation::new(1, 0), Incarnation::new(2, 1));
    let (mut clock, mut stable) = (Clock::new(), Clock::new());
    for counter in [1, 3] {
        clock.see(Dot { incarnation: other, counter });
    }
    clock.see(Dot { incarnation: mine, counter: 7 });
    stable.see(Dot { incarnation: other, counter: 1 });
    assert!(!clock.is_of(mine, &stable));
    stable.see(Dot { incarnation: other, counter: 3 });
    assert!(clock.is_of(mine, &stable));
}

/// Three nodes own everything.
fn view() -> View {
    let config = Config::new(3, Some(3)).expect("valid");
    View::new(&config, 1, &[0, 1, 2].map(|node| Incarnation::new(1, node)))
}

/// What a put asks next, and of whom.
fn next(put: &mut Put<'_>, routes: &Routes) -> Option<(Address, Option<Vec<NodeId>>)> {
    match put.next(routes) {
        Step::Send(to, Request::Settle { seen_by, .. }) => Some((to, Some(seen_by.iter().collect()))),
        Step::Send(to, _) => Some((to, None)),
        Step::Done => None,
    }
}

#[test]
fn a_write_that_begins_again_counts_anew_who_has_seen_it() {
    let (view, write) = (view(), put("key", b"value", 1));
    let routes = Routes::new(&view);
    let mut put = Put::new(write, Quorum::All, &routes);
    let dot = Dot { incarnation: Incarnation::new(1, 0), counter: 1 };
    let accepted = Written::Accepted { dot, stable_upto: 0, before: Known::Nothing, used: Used::NONE, epoch: 0 };
    let seen = || Ok(Reply::Seen { before: Known::Nothing, quiet: true, newer: None });
    let (first, _) = next(&mut put, &routes).expect("asks");
    put.reply(first, Ok(Reply::Written(accepted))).expect("goes on");
    let (second, _) = next(&mut put, &routes).expect("tells");
    put.reply(second, seen()).expect("goes on");
    // The third has another life, so all begins again; and now the second does not answer.
    let (third, _) = next(&mut put, &routes).expect("tells");
    put.reply(third, Ok(Reply::Unknown)).expect("goes on");
    assert!(put.is_outdated(&routes));
    put.restart(&routes);
    let (again, _) = next(&mut put, &routes).expect("asks");
    put.reply(again, Ok(Reply::Written(Written::Same { dot, stable_upto: 0, epoch: 0 }))).expect("goes on");
    let (told, _) = next(&mut put, &routes).expect("tells");
    put.reply(told, Err(Unreached::Silent)).expect("goes on");
    let (told, _) = next(&mut put, &routes).expect("tells");
    put.reply(told, seen()).expect("goes on");
    let (_, seen_by) = next(&mut put, &routes).expect("settles");
    assert_eq!(
        seen_by,
        Some(vec![first.node, third.node].into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect())
    );
}

#[test]
fn a_write_that_may_have_been_accepted_before_it_began_again_is_not_said_to_be_nowhere() {
    let view = view();
    let routes = Routes::new(&view);
    let mut put = Put::new(put("key", b"value", 1), Quorum::All, &routes);
    // The first owner may have accepted it, and the second is another life than the view says.
    let (first, _) = next(&mut put, &routes).expect("asks");
    put.reply(first, Err(Unreached::Silent)).expect("goes on");
    let (second, _) = next(&mut put, &routes).expect("asks");
    put.reply(second, Err(Unreached::Down)).expect("goes on");
    assert!(put.is_outdated(&routes));
    // Nobody is left when it begins again.
    let nobody = Routes::new(&view.with_members(|members| {
        members.iter_mut().flatten().for_each(|member| member.state = State::Failed);
    }));
    put.restart(&nobody);
    assert!(next(&mut put, &nobody).is_none());
    let ended = put.outcome(&nobody, || 0);
    assert!(matches!(ended, Err(Error::Quorum { reached: 0, .. })), "{ended:?}");
}

#[test]
fn the_life_of_a_node_that_failed_is_over_for_all() {
    let view = view();
    let present = view.address(1);
    let life_of = |view: &View| view.lives().iter().find(|life| life.node == 1).expect("known").incarnation;
    assert_eq!(life_of(&view), present.incarnation);
    let with = |state: State| {
        view.with_members(|members| {
            members
                .iter_mut()
                .flatten()
                .filter(|member| member.address == present)
                .for_each(|member| member.state = state);
        })
    };
    assert_eq!(life_of(&with(State::CutOff)), present.incarnation, "it keeps its memory");
    assert!(life_of(&with(State::Failed)) > present.incarnation, "its memory is gone");
}
