//! Lines that whole clusters in a bad world rarely need, each held by a test of its own.

use std::borrow::Cow;

use distributed_consistent_cache::clock::{Clock, Dot, Incarnation};
use distributed_consistent_cache::cluster::put::{Put, Step};
use distributed_consistent_cache::cluster::routes::Routes;
use distributed_consistent_cache::cluster::view::{Member, State, View};
use distributed_consistent_cache::entry::{Held, Item, Key, Value};
use distributed_consistent_cache::ids::NodeId;
use distributed_consistent_cache::message::{Address, Known, Reply, Request, Used, Write, Written};
use distributed_consistent_cache::node::Node;
use distributed_consistent_cache::runtime::Unreached;
use distributed_consistent_cache::version::{Timestamp, Version};
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

#[test]
fn who_serves_on_decides_what_is_newest_while_no_owner_can() {
    // Node 0 owned everything; it leaves, and node 1, which comes, has pulled nothing yet.
    let config = Config::new(1, Some(1)).expect("valid");
    let before = View::new(&config, 1, &[Incarnation::new(1, 0)]);
    let (old, new) = (before.address(0), life(2, 1));
    let view = before.with_members(|members| {
        members[1] =
            Some(Member { address: new, state: State::Live, bytes_max: 16 * 1024, leaving: false, is_outgrown: false });
        members[0].as_mut().expect("there").leaving = true;
    });
    let routes = Routes::new(&view);
    assert_eq!((routes.owner(0, 0), routes.owner(0, 1), routes.serving(0, 0)), (Some(new), None, Some(old)));
    let mut nodes = [old, new].map(|address| Node::new(address, 16 * 1024, 1));
    let ask = |node: &mut Node, request: &Request<'_>| node.answer(request).expect("answered");
    ask(&mut nodes[0], &Request::Hold { partition: 0, peers: &[], doubt: false, serves: true });
    let remove = Write::remove(Key::new(b"key").expect("short"), Timestamp::new(20).expect("small"));
    assert!(matches!(
        ask(&mut nodes[0], &Request::Write { write: remove, force: false }),
        Reply::Written(Written::Accepted { .. })
    ));
    for (at, peer, doubt) in [(0, new, false), (1, old, true)] {
        ask(&mut nodes[at], &Request::Meet { lives: view.lives(), epoch: view.epoch() });
        ask(&mut nodes[at], &Request::Hold { partition: 0, peers: &[peer], doubt, serves: true });
    }
    // Node 0 can be asked, but what it is told is lost on the way.
    let mut put = Put::new(put("key", b"late", 5), Quorum::One, &routes);
    while let Step::Send(to, request) = put.next(&routes) {
        let reply = match request {
            Request::Update { .. } if to == old => Err(Unreached::Silent),
            request => Ok(ask(&mut nodes[usize::from(to.node)], &request)),
        };
        put.reply(to, reply).expect("goes on");
    }
    assert!(!put.outcome(&routes, || 0).expect("ended").newest, "it was removed later");
    assert_eq!(known(&mut nodes[1], "key"), Known::Nothing, "no value came to live");
}

#[test]
fn what_was_lost_counts_on_when_a_node_spares_all_it_can() {
    let (mine, peer) = (life(1, 0), life(2, 1));
    let mut node = Node::new(mine, 16 * 1024, 1);
    node.answer(&Request::Hold { partition: 0, peers: &[peer], doubt: false, serves: true }).expect("held");
    // Nobody has seen what is written, and there are more markers than are kept.
    for number in 0..400 {
        let name = format!("key {number}");
        let write = put(&name, &[0; 100], 1000);
        node.answer(&Request::Write { write, force: false }).expect("written");
    }
    assert_eq!(node.floor(0).map(Timestamp::get), Some(1000), "markers were lost");
    // Every other write of the peer arrives, so that what was seen and what was lost of it take all that the node has.
    for counter in (1..900).step_by(2) {
        let name = format!("another {counter}");
        let key = Key::new(name.as_bytes()).expect("short");
        let version = Version::remove(Timestamp::new(counter).expect("small"));
        let item = Item { key, version, dot: Dot { incarnation: peer.incarnation, counter }, held: Held::Removed };
        let update = Request::Update { from: peer, item, stable_upto: 0, used: Used::NONE, epoch: 0 };
        node.answer(&update).expect("answered");
    }
    let clock = Cow::Owned(Clock::new());
    let pull =
        Request::Pull { from: peer, partition: 0, ticket: 1, clock, epoch: 0, after: None, chunk_bytes: 1 << 20 };
    let Ok(Reply::Delta(delta)) = node.answer(&pull) else { panic!("an answer") };
    let lost = delta.lost.expect("whoever pulls hears that markers were lost").lost;
    let first = Dot { incarnation: mine.incarnation, counter: 1 };
    let theirs = Dot { incarnation: peer.incarnation, counter: 899 };
    assert!(lost.dots.has(first) && lost.dots.has(theirs) && lost.floor.get() >= 1000, "{lost:?}");
    assert!(!node.is_outgrown() && node.floor(0).is_some(), "a peer that has seen nothing does not know of it");
}

#[test]
fn a_cut_between_any_two_of_a_hundred_nodes_is_one() {
    let lives: Vec<Incarnation> = (0..100).map(|node| Incarnation::new(1, node)).collect();
    let view = View::new(&Config::new(100, Some(3)).expect("valid"), 16, &lives);
    for (one, other) in [(3, 5), (3, 67), (70, 6), (99, 64)] {
        let routes = Routes::new(&view.with_cuts(|cuts| {
            cuts[usize::from(one)].insert(other);
            cuts[usize::from(other)].insert(one);
        }));
        let cut: Vec<(NodeId, NodeId)> = (0..100)
            .flat_map(|from| (0..100).map(move |to| (from, to)))
            .filter(|&(from, to)| routes.is_cut(from, to))
            .collect();
        assert_eq!(cut, [(one.min(other), one.max(other)), (one.max(other), one.min(other))]);
    }
}
