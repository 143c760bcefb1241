"""Breaks one rule at a time and asks a test by its name, or the simulator, whether it notices.

    the crate  ->  a copy in target/mutants  ->  one rule broken  ->  build  ->  its test, or more and more seeds
                             ^                                                            |
                             +------------- the rule put back, the next mutant  <---------+

A rule whose mutant survives is a rule that nothing holds in place: either it is not needed, or everybody is blind
there. So every mutant is caught, or says why nobody could. The rules of replication are those of docs/reliability.md;
those of everything else are in mutants_beside.py. Standard library only, and pytest for those that ask tests in Python.

    python tests_rs/mutants.py                      every mutant
    python tests_rs/mutants.py --only floor-ignored-on-fix --seconds 300
    python tests_rs/mutants.py --by test            those that name a test, which take a few seconds each
"""

import argparse
import sys
from collections import Counter
from typing import Final

from mutant import Edit, Mutant, NotApplicableError
from mutants_asked import Caught, ask_seeds, ask_test, ask_unbroken, change, copy_crate
from mutants_beside import BESIDE

# A mutant that nobody can catch is tried for a moment all the same: being caught would prove its reason wrong.
SECONDS_EQUIVALENT: Final = 8.0

NODE: Final = "src/node/mod.rs"
ROOM: Final = "src/node/room.rs"
SLOT: Final = "src/node/slot.rs"
BLOCKS: Final = "src/node/blocks.rs"
MESSAGE: Final = "src/message.rs"
REPLICATE: Final = "src/node/replicate.rs"
PARTITION: Final = "src/node/partition.rs"
AUDIT: Final = "src/node/audit.rs"
PUT: Final = "src/cluster/put.rs"
GET: Final = "src/cluster/get.rs"
EXCHANGE: Final = "src/cluster/exchange.rs"
ROUNDS: Final = "src/cluster/rounds.rs"
VIEW: Final = "src/cluster/view.rs"
VERSION: Final = "src/version.rs"
GOSSIP: Final = "src/gossip/mod.rs"
CLOCK: Final = "src/clock.rs"
ROUTES: Final = "src/cluster/routes.rs"
MEMBERSHIP: Final = "src/cluster/membership.rs"
EMBEDDED: Final = "src/runtime/embedded.rs"
RING: Final = "src/ring/mod.rs"

MUTANTS: tuple[Mutant, ...] = (
    # ---- what ends
    Mutant(
        "end-not-sent",
        "Rule 17: other owners hear of a write without its end.",
        (
            Edit(
                MESSAGE,
                "        Item { key: self.key, version: self.version, dot, held }",
                "        Item { key: self.key, version: self.version.living(Lifetime::NONE), dot, held }",
            ),
        ),
    ),
    Mutant(
        "ended-falls-through",
        "Rule 17: what has ended counts as never seen, and an older copy is the answer.",
        (
            Edit(
                MESSAGE,
                "Self::Live(version) if version.lifetime.has_ended(now_ms) => Self::Marker(version),",
                "Self::Live(version) if version.lifetime.has_ended(now_ms) => Self::Nothing,",
            ),
        ),
    ),
    Mutant(
        "ended-is-served",
        "Rule 17: what has ended is an answer until its space is given back.",
        (
            Edit(
                MESSAGE,
                "Self::Live(version) if version.lifetime.has_ended(now_ms) => Self::Marker(version),",
                "Self::Live(version) if version.lifetime.has_ended(0) => Self::Marker(version),",
            ),
        ),
    ),
    Mutant(
        "shortened-unsaid",
        "Rule 17: a lifetime that ends sooner is accepted though it does not say that it shortens another.",
        (
            Edit(
                NODE,
                "            if known > write.version {",
                "            if known > write.version && !known.is_same_value(write.version) {",
            ),
        ),
    ),
    Mutant(
        "given-back-without-marker",
        "Rule 17: what has ended leaves no marker though not every owner has seen it.",
        (
            Edit(
                ROOM,
                "        self.stats.expired += 1;\n        self.let_fall(at);",
                "        self.stats.expired += 1;\n        self.forget(at);",
            ),
        ),
    ),
    Mutant(
        "given-back-early",
        "Rule 17: space is given back ten seconds before the end.",
        (Edit(ROOM, "self.memory.first_ended(self.now_ms())", "self.memory.first_ended(self.now_ms() + 10_000)"),),
    ),
    Mutant(
        "live-evicted-first",
        "Rule 17: a user's write evicts though something has ended.",
        (
            Edit(
                ROOM,
                "place, bytes, ends) {\n            if self.reclaim_first() {",
                "place, bytes, ends) {\n            if bytes == 0 && self.reclaim_first() {",
            ),
        ),
    ),
    Mutant(
        "ended-evicts",
        "Rule 17: an update that has ended when it comes evicts what is live.",
        (
            Edit(
                REPLICATE,
                "let is_unfit = doubtful || item.version.lifetime.has_ended(self.now_ms());",
                "let is_unfit = doubtful;",
            ),
        ),
    ),
    Mutant(
        "marker-without-lifetime",
        "Rule 17: a marker does not know how long its value was to live.",
        (
            Edit(
                BLOCKS,
                "let has_lifetime = slot.has_lifetime();",
                "let has_lifetime = false;",
            ),
        ),
    ),
    # ---- what is seen, and what a marker is for
    Mutant(
        "removed-without-marker",
        "A removal takes the value away and leaves nothing that refuses an older put.",
        (
            Edit(
                NODE,
                "        self.account(place);\n        let has_memory =",
                "        self.account(place);\n        if matches!(held, Held::Removed) {\n"
                "            at.into_iter().for_each(|at| self.take(at));\n            self.memory.unreserve();\n"
                "            return true;\n        }\n        let has_memory =",
            ),
        ),
    ),
    Mutant(
        "evicted-without-marker",
        "Rule 6: what falls off before every owner has seen it leaves no marker.",
        (
            Edit(
                ROOM,
                "        if partition.is_stable(dot) {\n            self.forget(at);",
                "        if partition.has_authority() || !partition.has_authority() {\n            self.forget(at);",
            ),
        ),
    ),
    Mutant(
        "stable-assumed",
        "Whatever was seen here counts as seen by every owner.",
        (
            Edit(
                PARTITION,
                "self.peers.is_empty() || (self.synced && self.stable.has(dot))",
                "self.peers.is_empty() || self.stable.has(dot) || self.clock.has(dot)",
            ),
        ),
    ),
    Mutant(
        "seen-items-applied",
        "Rule 2: an item of a pull's answer is applied although its dot was seen.",
        (Edit(REPLICATE, "if !self.held[place].1.clock.has(item.dot) {", "if item.dot.counter > 0 {"),),
        equivalent=(
            "an answer leaves out what the asker had seen; what it saw since it holds still, and "
            "compares, or has forgotten, and then the answer is overtaken"
        ),
    ),
    Mutant(
        "seen-updates-applied",
        "Rule 2: an update is applied although its dot was seen.",
        (Edit(REPLICATE, "if self.held[place].1.clock.has(item.dot) {", "if item.dot.counter == 0 {"),),
    ),
    Mutant(
        "refused-without-marker",
        "Rule 4: a repair item that finds no room leaves its dot and no marker.",
        (
            Edit(
                REPLICATE,
                "            self.mark(place, Item { held, ..item }, room);\n",
                "            let _ = Item { held, ..item };\n",
            ),
        ),
    ),
    Mutant(
        "repair-evicts",
        "Rule 4: a repair item pushes out what was used least recently.",
        (
            Edit(
                REPLICATE,
                "if self.is_update() { Room::ByEvicting } else { Room::Free }",
                "if self.is_update() { Room::ByEvicting } else { Room::ByEvicting }",
            ),
        ),
    ),
    Mutant(
        "repair-revives",
        "Rule 3: repair brings back a value that was evicted here.",
        (
            Edit(
                REPLICATE,
                "state == Some(State::Evicted) && via.is_update();",
                "state == Some(State::Evicted);",
            ),
        ),
        test="believed::repair_does_not_bring_back_a_value_that_was_evicted",
    ),
    Mutant(
        "stable-for-me-is-stable-for-all",
        "A coordinator calls stable what all have seen, though something older may still be on its way to one of them.",
        (
            Edit(
                PARTITION,
                "if self.is_quiet_but_for(incarnation) { self.stable.upto_of(incarnation) } else { 0 }",
                "self.stable.upto_of(incarnation)",
            ),
        ),
        test="mistakes::a_coordinator_does_not_call_stable_what_something_older_may_still_reach_a_peer_after",
    ),
    Mutant(
        "second-name-not-noted",
        "A second dot of a version that is here is seen and not kept beside it.",
        (
            Edit(
                REPLICATE,
                "                self.rename(place, at, item.dot);\n                self.tidy_names(place);",
                "                self.tidy_names(place);",
            ),
        ),
        test="believed::a_second_name_of_a_write_is_passed_on_to_who_knows_the_first",
    ),
    Mutant(
        "revived-in-doubt",
        "An update that was seen revives its evicted marker where something was lost.",
        (
            Edit(
                REPLICATE,
                "let is_marked = !partition.is_doubted()\n                && !partition",
                "let is_marked = !partition",
            ),
        ),
        test="believed::an_update_that_comes_twice_revives_no_marker_where_others_were_lost",
    ),
    Mutant(
        "revived-when-stable",
        "An update that was seen revives its evicted marker though all have seen it.",
        (
            Edit(
                REPLICATE,
                "                && !partition.is_stable(item.dot)\n                && self",
                "                && self",
            ),
        ),
        test="believed::an_update_that_comes_twice_revives_no_marker_that_all_have_seen",
    ),
    Mutant(
        "markers-over-budget",
        "Rule 6: markers are kept beyond their part of the memory.",
        (
            Edit(
                ROOM,
                "while self.memory.marker_bytes() > self.marker_bytes_max() && self.drop_marker() {}",
                "while self.memory.marker_bytes() > self.bytes_max && self.drop_marker() {}",
            ),
        ),
    ),
    Mutant(
        "capacity-ignored",
        "Rule 13: an entry is installed whether it fits or not.",
        (
            Edit(
                ROOM,
                "self.memory.bytes_used() + bytes + growth <= bytes_max",
                "self.memory.bytes_used() + bytes + growth <= bytes_max.max(usize::MAX)",
            ),
        ),
    ),
    # ---- who wins
    Mutant(
        "first-come-wins",
        "Rule 3: of two writes of one timestamp the one that is here stays.",
        (
            Edit(
                NODE,
                "if known > write.version {",
                "if known.timestamp >= write.version.timestamp && known != write.version {",
            ),
            Edit(
                REPLICATE,
                "if known > item.version {",
                "if known.timestamp >= item.version.timestamp && known != item.version {",
            ),
        ),
    ),
    Mutant(
        "put-beats-remove",
        "Of a put and a removal of one timestamp the put wins.",
        (
            Edit(VERSION, "    Put,\n", "    Put = 1,\n"),
            Edit(VERSION, "    Remove,\n", "    Remove = 0,\n"),
        ),
    ),
    Mutant(
        "value-before-end",
        "Rule 17: of two puts of one timestamp the larger value wins, also when it has ended.",
        (
            Edit(
                VERSION,
                "by_kind.then(self.lifetime.cmp(&other.lifetime)).then(self.digest.cmp(&other.digest))",
                "by_kind.then(self.digest.cmp(&other.digest)).then(self.lifetime.cmp(&other.lifetime))",
            ),
        ),
    ),
    Mutant(
        "shortened-refuses",
        "Rule 17: what ended because it was shortened refuses another value of its timestamp.",
        (
            Edit(
                VERSION,
                "(self.digest == other.digest || self.lifetime.ends_ms() > other.lifetime.ends_ms())",
                "self.digest == other.digest",
            ),
        ),
    ),
    Mutant(
        "older-write-accepted",
        "Rule 1: a coordinator accepts a write older than what it knows.",
        (
            Edit(
                NODE,
                "if known > write.version {",
                "if known > write.version && known.timestamp < write.version.timestamp {",
            ),
        ),
    ),
    Mutant(
        "older-item-unanswered",
        "Rule 3: who passes on an older version is not told of the newer one, and it is not named anew.",
        (
            Edit(REPLICATE, "newer: self.known_items(item.key) }", "newer: None }"),
            Edit(REPLICATE, "                if is_forgotten {", "                if is_forgotten && at == u32::MAX {"),
        ),
        test="mistakes::a_coordinator_that_forgot_learns_from_one_that_remembers",
    ),
    Mutant(
        "late-update-to-a-new-owner",
        "Rule 9: a write is taken that was accepted before this node came to hold the partition.",
        (Edit(REPLICATE, "if epoch < self.held[place].1.since() {", "if epoch < self.held[place].1.since().min(0) {"),),
        test="believed::a_write_from_before_it_came_to_hold_the_partition_is_not_taken",
    ),
    Mutant(
        "name-given-twice",
        "Rule 14: the last counter of a partition that was given up is not remembered.",
        (
            Edit(
                NODE,
                "1 + clock.last_of(incarnation).max(retired)",
                "1 + clock.last_of(incarnation).max(retired.min(0))",
            ),
        ),
    ),
    Mutant(
        "not-named-anew",
        "What a newer version's holder knows is not named anew when someone has forgotten it.",
        (
            Edit(
                REPLICATE,
                "pub(super) fn name_anew(&mut self, place: usize, at: At) {\n",
                "pub(super) fn name_anew(&mut self, place: usize, at: At) {\n"
                "        if at < u32::MAX {\n            return;\n        }\n",
            ),
        ),
    ),
    Mutant(
        "rounds-without-audits",
        "Rule 12: nodes compare what they have seen and never what they hold.",
        (
            Edit(
                ROUNDS,
                "shared).with_audit()",
                "shared)",
            ),
        ),
    ),
    Mutant(
        "old-writes-are-no-reason",
        "Rule 12: a write is accepted below what was lost, and nobody looks whether that came to others after it.",
        (Edit(NODE, "if may_be_old {", "if may_be_old && false {"),),
        test="believed::a_write_below_what_was_forgotten_is_audited_once_all_have_seen_what_that_was",
    ),
    Mutant(
        "audits-of-what-only-one-has-seen-count",
        "Rule 12: an audit counts although one of the two has seen what the other has not.",
        (Edit(AUDIT, "if self.held[place].1.clock.fingerprint() != brief.seen {", "if false {"),),
        test="believed::an_audit_waits_until_both_have_seen_the_same",
    ),
    Mutant(
        "audits-for-older-reasons-count",
        "Rule 12: a reason that arises while an audit is on its way is settled by it.",
        (
            Edit(
                PARTITION,
                "&& reason.is_none_or(|reason| unrest.audits_since <= reason)",
                "&& (reason.is_none() || true)",
            ),
        ),
        test="mistakes::what_others_come_to_hold_is_audited_with_everybody_and_nothing_else_is",
    ),
    Mutant(
        "one-partner-only",
        "Rule 12: a node gossips with its first partner, not with all in turn.",
        (
            Edit(
                GOSSIP,
                "let first = (turn * most as u64 % of.len().max(1) as u64) as usize;",
                "let first = (turn as usize).min(0);",
            ),
        ),
    ),
    # ---- pulls
    Mutant(
        "ticket-ignored",
        "Rule 7: the answer to one pull is taken for the answer to another.",
        (Edit(PARTITION, "pull.ticket == ticket && !pull.outdated", "pull.ticket >= ticket.min(1) && !pull.outdated"),),
        test="believed::the_answer_to_an_earlier_question_is_not_taken_for_that_to_a_later_one",
    ),
    Mutant(
        "overtaken-answer-applied",
        "Rule 7: an answer is applied although something newer was forgotten since the question.",
        (Edit(PARTITION, "pull.ticket == ticket && !pull.outdated", "pull.ticket == ticket"),),
        test="mistakes::a_late_answer_does_not_bring_back_what_was_written_and_forgotten_since",
    ),
    Mutant(
        "answer-to-another-life",
        "Rule 7: an answer to an earlier life of the asker is applied.",
        (Edit(REPLICATE, "self.place(id).filter(|_| delta.to == self.address)", "self.place(id)"),),
        test="mistakes::the_answer_to_a_pull_does_not_reach_the_next_life_of_the_asker",
    ),
    Mutant(
        "answer-to-anyone",
        "Rule 7: any pull's answer is applied: to an earlier life, to another pull, overtaken.",
        (
            Edit(REPLICATE, "self.place(id).filter(|_| delta.to == self.address)", "self.place(id)"),
            Edit(REPLICATE, "!self.held[place].1.awaits(delta.ticket) || !self", "!self"),
        ),
        test="mistakes::the_answer_to_a_pull_does_not_reach_the_next_life_of_the_asker",
    ),
    Mutant(
        "dead-lives-heard",
        "Rule 9: messages from a life that is over are taken for the present one's.",
        (
            Edit(
                REPLICATE,
                "            && self.lives.get(usize::from(from.node)) == Some(&from.incarnation)",
                "            && self.lives.get(usize::from(from.node)).is_some()",
            ),
        ),
        test="mistakes::a_message_from_a_life_that_is_over_changes_nothing",
    ),
    Mutant(
        "strangers-heard",
        "Rule 9: messages from whomever are believed.",
        (
            Edit(
                REPLICATE,
                "        self.held[place].1.peers().contains(from.node)\n",
                "        place < self.held.len()\n",
            ),
        ),
        test="believed::who_holds_the_partition_no_longer_is_not_believed",
    ),
    Mutant(
        "new-life-not-noticed",
        "Rule 9: what was known of a peer's clock is kept when it begins a new life.",
        (
            Edit(
                REPLICATE,
                "                self.held[place].1.forget_peer(peer.node);\n",
                "                let _ = peer.node;\n",
            ),
        ),
        test="believed::who_is_not_synced_makes_nobody_synced_but_all_of_them_together_and_in_their_present_lives",
    ),
    Mutant(
        "parts-not-noted",
        "Rule 7: what came before the lost end of an answer stays unnoted when clocks are compared.",
        (Edit(REPLICATE, "partition.is_partial |= delta.items", "partition.is_partial &= delta.items"),),
        test="mistakes::what_came_before_the_lost_end_of_an_answer_is_known_to_whoever_compares_notes",
    ),
    Mutant(
        "late-parts-not-noted",
        "Rule 7: what arrives between two chunks of an answer stays unnoted when it comes with the last.",
        (
            Edit(
                REPLICATE,
                "partition.is_partial |= delta.items",
                "partition.is_partial |= delta.next.is_some() && delta.items",
            ),
        ),
        test="mistakes::what_arrives_between_two_chunks_of_an_answer_is_noted_as_seen",
    ),
    Mutant(
        "chunk-taken-for-all",
        "Rule 7: clocks are joined before the last chunk of an answer is in.",
        (
            Edit(
                REPLICATE,
                "if delta.next.is_none() {\n            self.conclude",
                "if delta.ticket > 0 {\n            self.conclude",
            ),
        ),
    ),
    Mutant(
        "last-chunk-clock",
        "Rule 7: the clock of an answer is that of its last chunk, not of its first.",
        (
            Edit(
                EXCHANGE, "pull.seen_at_first.get_or_insert(seen).clone();", "pull.seen_at_first.insert(seen).clone();"
            ),
        ),
    ),
    # ---- what was lost
    Mutant(
        "fixed-on-a-vague-marker",
        "Something newer than a marker counts as news although the marker may be older than what was forgotten.",
        (Edit(REPLICATE, "let is_unfit = low || is_vague", "let is_unfit = low"),),
        test="mistakes::a_late_fix_brings_no_value_to_a_marker_that_may_be_older_than_what_was_lost",
    ),
    Mutant(
        "new-holders-unaudited",
        "Rule 12: that others come to hold a partition is no reason to audit it.",
        (Edit(PARTITION, "        is_changed && !self.clock.is_empty() && !peers.is_empty()", "        false"),),
        test="mistakes::what_others_come_to_hold_is_audited_with_everybody_and_nothing_else_is",
    ),
    Mutant(
        "forgetful-coordinator",
        "Rule 1: who lost markers accepts writes that may be older than those.",
        (
            Edit(
                NODE,
                "if (!partition.has_authority() || may_be_old) && !force {",
                "if !partition.has_authority() && !force {",
            ),
        ),
        test="mistakes::who_lost_a_newer_marker_coordinates_only_if_nobody_else_can",
    ),
    Mutant(
        "loss-not-remembered",
        "Rule 6: an unstable marker is dropped for want of room, and nothing remembers that.",
        (
            Edit(
                ROOM,
                "        partition.lose(partition.lengthen(short), timestamp);\n",
                "        let _ = (short, timestamp);\n",
            ),
        ),
    ),
    Mutant(
        "refusal-not-remembered",
        "Rule 6: an item for which there is not even room for a marker is seen, and nothing remembers that.",
        (Edit(REPLICATE, "            self.held[place].1.lose(item.dot, item.version.timestamp);\n", ""),),
    ),
    Mutant(
        "unconfirmed-kept",
        "Rule 7: who learns of a loss keeps what the sender does not confirm.",
        (
            Edit(
                REPLICATE,
                "            if let Some(at) = found {\n                self.take",
                "            if let Some(at) = found.filter(|_| false) {\n                self.take",
            ),
        ),
    ),
    Mutant(
        "confirmed-by-marker",
        "Rule 7: a marker at the sender confirms what is live here.",
        (
            Edit(
                REPLICATE,
                "let live = partition.table.iter().filter(|&&at| self.memory.state(at) == State::Live);",
                "let live = partition.table.iter();",
            ),
        ),
    ),
    Mutant(
        "loss-not-inherited",
        "Rule 7: who learns of a loss does not take it over.",
        (Edit(REPLICATE, "        self.held[place].1.join_lost(&lost);\n", "        drop(lost);\n"),),
    ),
    Mutant(
        "dropped-not-lost",
        "Rule 7: who drops what was not confirmed does not count its own dots as lost.",
        (
            Edit(
                REPLICATE,
                "            lost.dots.join(&partition.clock);\n",
                "            lost.floor = loss.lost.floor;\n",
            ),
        ),
    ),
    Mutant(
        "loss-after-clocks",
        "Rule 7: clocks are joined before it is asked whether the sender's loss is news.",
        (
            Edit(
                REPLICATE,
                "        if let Some(loss) = delta.lost.as_ref().filter(",
                "        self.held[place].1.conclude(delta.from.node, &delta.clock, delta.synced);\n"
                "        if let Some(loss) = delta.lost.as_ref().filter(",
            ),
        ),
    ),
    Mutant(
        "floor-not-raised",
        "Of two losses the floor of the later one stays, not the higher.",
        (Edit(PARTITION, "lost.floor = lost.floor.max(other.floor);", "lost.floor = other.floor;"),),
    ),
    Mutant(
        "floor-ignored-on-receive",
        "Rule 5: an item at or below the floor from someone who may not know of the loss comes to live.",
        (
            Edit(
                REPLICATE,
                "let doubtful = !was_live\n",
                "let doubtful = !was_live\n            && at == Some(u32::MAX)\n",
            ),
        ),
    ),
    Mutant(
        "floor-ignored-on-fix",
        "Rule 5: a fix at or below the floor comes to live.",
        (
            Edit(
                REPLICATE,
                "let is_unfit = low || is_vague",
                "let is_unfit = low && at == u32::MAX || is_vague",
            ),
        ),
        unseen=("where markers were lost, a fix meets a marker that is in doubt, and comes as one for that"),
    ),
    Mutant(
        "sender-always-knows",
        "Rule 5: every sender is believed to cover what was lost here.",
        (Edit(PARTITION, "clock.covers(dots),", "clock.covers(dots) || !clock.covers(dots),"),),
    ),
    Mutant(
        "lost-cleared-by-one",
        "Rule 8: a loss is forgotten when one owner's clock covers it.",
        (
            Edit(
                PARTITION,
                "if peers.difference(unrest.lost_known).is_empty() {",
                "if !unrest.lost_known.is_empty() || peers.is_empty() {",
            ),
        ),
    ),
    Mutant(
        "lost-cleared-uncovered",
        "Rule 8: a loss is forgotten when all owners were heard, whether they have seen it or not.",
        (
            Edit(
                PARTITION,
                "self.lost_dots().is_some_and(|dots| theirs.covers(dots)) {",
                "self.lost_dots().is_some() {",
            ),
        ),
    ),
    Mutant(
        "lost-cleared-unheard",
        "Rule 8: a peer counts as knowing of a loss although what it accepted before has not arrived.",
        (
            Edit(
                PARTITION,
                "if self.clock.covers(theirs) && self.lost_dots()",
                "if self.lost_dots()",
            ),
        ),
    ),
    # ---- what all have seen
    Mutant(
        "not-quiet-counted",
        "An acknowledgement counts although its owner has seen what the coordinator may not have seen.",
        (Edit(PUT, "                if quiet {\n", "                if quiet || !quiet {\n"),),
    ),
    Mutant(
        "settled-by-some",
        "A write is stable when some of the holders have seen it.",
        (Edit(REPLICATE, "partition.peers().difference(seen_by).is_empty() &&", "!seen_by.is_empty() &&"),),
    ),
    Mutant(
        "census-of-the-unheard",
        "A peer is counted although not all it has seen was seen here.",
        (
            Edit(
                PARTITION,
                "        if !self.clock.covers(theirs) {\n            return is_due;\n        }\n",
                "",
            ),
        ),
    ),
    Mutant(
        "census-of-the-ignorant",
        "A peer is counted although it has not seen what was seen here.",
        (
            Edit(
                PARTITION,
                "if theirs.covers(&census.clock) {",
                "if !theirs.is_empty() || theirs.covers(&census.clock) {",
            ),
        ),
    ),
    Mutant(
        "census-of-one",
        "What one peer has seen is taken for what all have seen.",
        (
            Edit(
                PARTITION,
                "is_some_and(|census| self.peers.difference(census.counted).is_empty());",
                "is_some_and(|census| !census.counted.is_empty());",
            ),
        ),
    ),
    Mutant(
        "older-epochs-counted",
        "A peer is counted by what it said before it knew of a change of the membership that is known here.",
        (
            Edit(
                REPLICATE,
                "if self.is_peer(place, from) && epoch == self.epoch {",
                "if self.is_peer(place, from) && epoch <= self.epoch {",
            ),
        ),
        test="believed::what_a_peer_has_seen_counts_only_if_it_knows_of_the_same_change_of_the_membership",
    ),
    Mutant(
        "newer-epochs-counted",
        "All peers that are known here are counted, while one of them knows of a change that is not known here.",
        (
            Edit(
                REPLICATE,
                "if self.is_peer(place, from) && epoch == self.epoch {",
                "if self.is_peer(place, from) && epoch >= self.epoch {",
            ),
        ),
        test="believed::what_a_peer_has_seen_counts_only_if_it_knows_of_the_same_change_of_the_membership",
    ),
    Mutant(
        "gaps-closed-unseen",
        "A gap is closed although somebody has seen what is in it.",
        (
            Edit(
                PARTITION,
                "if self.clock.down_from(last) == seen_by_all.down_from(last) {",
                "if last.counter > 0 {",
            ),
        ),
        test="believed::what_one_has_not_seen_is_not_stable_though_all_have_seen_what_is_above_it",
    ),
    Mutant(
        "lives-closed-unseen",
        "A life that is over is closed before all of it was seen.",
        (
            Edit(
                PARTITION,
                "up_to(life).all(|&other| self.clock.is_same_of(other, &seen_by_all));",
                "up_to(life).all(|&other| self.clock.is_same_of(other, &seen_by_all) || other.life() > 0);",
            ),
        ),
        test="believed::a_life_that_is_over_is_not_closed_before_all_have_seen_all_of_it",
    ),
    # ---- who speaks with authority
    Mutant(
        "unsynced-coordinator",
        "Rule 1: an owner that has not pulled what it missed accepts writes.",
        (
            Edit(
                NODE,
                "if (!partition.has_authority() || may_be_old) && !force {",
                "if may_be_old && !force {",
            ),
        ),
    ),
    Mutant(
        "new-owner-synced",
        "Rule 10: who holds a partition newly counts as synced at once.",
        (
            Edit(REPLICATE, "Partition::new(!doubt, self.epoch)", "Partition::new(true, self.epoch)"),
            Edit(REPLICATE, "        partition.set_synced(partition.is_synced() && !doubt);\n", ""),
        ),
    ),
    Mutant(
        "returning-owner-synced",
        "Rule 10: who was cut off and returns counts as synced at once.",
        (Edit(REPLICATE, "        partition.set_synced(partition.is_synced() && !doubt);\n", ""),),
        test="believed::an_owner_that_was_away_has_to_pull_before_it_is_synced_again",
    ),
    Mutant(
        "synced-by-anyone",
        "Rule 7: the answer of an owner that is not synced makes the asker synced.",
        (
            Edit(
                PARTITION,
                "        if synced {\n            self.set_synced(true);",
                "        if synced || !synced {\n            self.set_synced(true);",
            ),
        ),
        test="believed::who_is_not_synced_makes_nobody_synced_but_all_of_them_together_and_in_their_present_lives",
    ),
    Mutant(
        "read-ignores-markers",
        "Rule 11: a read gives a value older than a marker it met.",
        (
            Edit(GET, "            && self.live >= self.marker\n", ""),
            Edit(GET, "Some(version) if newest >= self.marker =>", "Some(version) =>"),
        ),
    ),
    Mutant(
        "read-believes-the-unsynced",
        "Rule 11: an owner that is not synced answers with authority.",
        (
            Edit(
                GET,
                "            self.unsynced.insert(from);\n",
                "            let _ = self.unsynced.insert(from) | self.authorities.insert(from);\n",
            ),
            Edit(GET, "Known::Live(version) if read.synced => self.live = ", "Known::Live(version) => self.live = "),
            Edit(GET, "Known::Live(version) if read.synced => Some", "Known::Live(version) => Some"),
        ),
    ),
    # ---- owners change
    Mutant(
        "put-not-restarted",
        "A write is acknowledged although its owners changed meanwhile.",
        (Edit(PUT, " || (self.outcome.newest && !routes.is_still(self.epoch))", ""),),
    ),
    Mutant(
        "handed-over-unseen",
        "A node gives up a partition before every owner has seen what it has.",
        (Edit(ROUNDS, "synced && clock.covers(&held)", "synced && (clock.covers(&held) || !clock.covers(&held))"),),
    ),
    Mutant(
        "released-unseen",
        "A node gives up a partition with what it has seen since it was asked.",
        (
            Edit(
                REPLICATE,
                "if !covered.covers(&self.held[place].1.clock) {",
                "if covered.is_empty() && !covered.covers(&self.held[place].1.clock) {",
            ),
        ),
        test="believed::a_partition_is_not_given_up_with_what_others_have_not_seen",
    ),
    Mutant(
        "counters-given-twice",
        "A node that holds a partition again counts its writes from one again.",
        (Edit(REPLICATE, "            self.retired.push((id, last));\n", ""),),
    ),
    Mutant(
        "no-audits",
        "Rule 12: nothing is audited.",
        (Edit(PARTITION, "            unrest.audits = unrest.audits.union(peers);\n", ""),),
    ),
    Mutant(
        "pulls-unaudited",
        "Rule 12: what is seen by a pull is no reason to audit.",
        (Edit(REPLICATE, "        if is_news {", "        if is_news && false {"),),
    ),
    Mutant(
        "former-owners-forgotten",
        "A node that owns a partition no longer is not asked for what it has.",
        (
            Edit(
                VIEW,
                "if !same_life || view.owners(partition).contains(&node) {",
                "if !same_life || view.owners(partition).contains(&node) || view.replicas > 0 {",
            ),
        ),
    ),
)

MUTANTS += (
    # ---- while partitions move
    Mutant(
        "serving-not-read",
        "Rule 11: nobody but owners is asked by a read.",
        (
            Edit(
                GET,
                "if let Some(serving) = routes.serving(self.partition, self.served) {",
                "if let Some(serving) = routes.serving(self.partition, self.served).filter(|_| false) {",
                "next_serving",
            ),
        ),
        test="moves::nodes_that_join_or_leave_as_planned_are_not_noticed",
    ),
    Mutant(
        "serving-does-not-coordinate",
        "Rule 14: while no owner is synced one of them accepts a write all the same.",
        (Edit(PUT, "self.serves_on = next.is_some();", "let next = None; self.serves_on = false;", "next_of_all"),),
        test="noticed::who_serves_on_decides_what_is_newest_while_no_owner_can",
    ),
    Mutant(
        "serving-not-told",
        "Rule 14: who serves on is told of no write.",
        (
            Edit(
                PUT,
                "while let Some(other) = routes.serving(self.partition, self.told) {",
                "while let Some(other) = routes.serving(self.partition, self.told).filter(|_| false) {",
                "next_to_tell",
            ),
        ),
    ),
    Mutant(
        "away-serves-on",
        "Rule 14: who was away serves on when it is back.",
        (
            Edit(
                VIEW,
                "view.live.contains(node) && was_asked.contains(node)",
                "view.live.contains(node) && (was_asked.contains(node) || true)",
            ),
        ),
        test="moves::who_was_away_does_not_speak_for_owners_that_have_yet_to_pull",
    ),
    Mutant(
        "serving-counts",
        "Rule 14: who serves on counts for the quorum of a write.",
        (Edit(PUT, "u8::from(self.told == 0)", "1", "reply"),),
    ),
    # ---- what the seeds rarely need
    Mutant(
        "evicted-not-revived",
        "A write equal to an evicted marker is said to be there already.",
        (
            Edit(
                NODE,
                "if known == write.version && self.memory.state(at) != State::Evicted {",
                "if known == write.version {",
                "write",
            ),
        ),
        test="noticed::the_same_write_again_brings_back_a_value_that_was_evicted",
    ),
    Mutant(
        "gaps-not-compared",
        "What was seen above a gap counts as known by everybody.",
        (
            Edit(
                CLOCK,
                "self.upto.iter().all(known) && self.beyond().iter().all(known_run)",
                "self.upto.iter().all(known) && self.beyond().iter().all(|run| known_run(run) || true)",
                "is_of",
            ),
        ),
        test="noticed::a_clock_that_saw_something_above_a_gap_is_not_known_by_one_that_did_not",
    ),
    Mutant(
        "seen-before-restart",
        "A write that begins again counts who had seen it before.",
        (Edit(PUT, "self.seen_by = NodeSet::new();", "", "restart"),),
        test="noticed::a_write_that_begins_again_counts_anew_who_has_seen_it",
    ),
    Mutant(
        "silence-forgotten",
        "A write that begins again forgets that somebody may have accepted it.",
        (Edit(PUT, "self.told = 0;", "self.told = 0;\nself.silent = false;", "restart"),),
        test="noticed::a_write_that_may_have_been_accepted_before_it_began_again_is_not_said_to_be_nowhere",
    ),
    Mutant(
        "spared-and-forgotten",
        "A node that spares what it can forgets which markers were lost.",
        (Edit(PARTITION, "unrest.lost_is_all = true;", "unrest.lost_is_all = false;", "spare"),),
        test="noticed::what_was_lost_counts_on_when_a_node_spares_all_it_can",
    ),
    Mutant(
        "only-who-doubts-pulls",
        "Rule 14: an owner that has missed nothing does not pull what only one that leaves has.",
        (
            Edit(
                MEMBERSHIP,
                "self.is_unsynced(view, node) || (0..view.partitions()).any(is_handed)",
                "self.is_unsynced(view, node) || (0..0).any(is_handed)",
            ),
        ),
        test="moves::what_only_the_one_that_leaves_has_comes_to_owners_that_stay_what_they_were",
    ),
    Mutant(
        "failed-life-goes-on",
        "The life of a node that failed is not over until it has another.",
        (Edit(VIEW, "Some(member) => Some(over(member)),", "Some(member) => Some(member.address),", "life_after"),),
        test="noticed::the_life_of_a_node_that_failed_is_over_for_all",
    ),
    # ---- knowledge that outgrows a node
    Mutant(
        "outgrown-lives-on",
        "Rule 13: a node whose knowledge does not fit goes on, above its bound.",
        (
            Edit(
                NODE,
                "if self.memory.bytes_used() > self.bytes_max { self.end_if_outgrown(); }",
                "if self.memory.bytes_used() > self.bytes_max { self.keep_bound(); }",
                "answer",
            ),
        ),
        test="outgrown::no_node_uses_more_than_it_has_while_one_is_away_and_another_crashes_again_and_again",
    ),
    Mutant(
        "outgrown-unnoticed",
        "Rule 13: nobody notices that a node was outgrown.",
        (
            Edit(
                EMBEDDED,
                "place.is_some_and(|place| place.node.lock().as_ref().is_some_and(Node::is_outgrown))",
                "place.is_some_and(|place| place.node.lock().as_ref().is_some_and(|node| node.is_outgrown() && false))",
                "has_outgrown",
            ),
        ),
        test="outgrown::no_node_uses_more_than_it_has_while_one_is_away_and_another_crashes_again_and_again",
    ),
    Mutant(
        "outgrown-for-good",
        "Rule 13: a node that was outgrown does not come back.",
        (
            Edit(
                MEMBERSHIP,
                "bytes <= member.bytes_max / 4 * 3",
                "bytes <= member.bytes_max / 4 * 3 && member.bytes_max == 0",
                "can_know_all",
            ),
        ),
        test="outgrown::no_node_uses_more_than_it_has_while_one_is_away_and_another_crashes_again_and_again",
    ),
    Mutant(
        "outgrown-back-too-soon",
        "Rule 13: a node that was outgrown comes back whether what it would have to know fits or not.",
        (
            Edit(
                MEMBERSHIP,
                "bytes <= member.bytes_max / 4 * 3",
                "bytes <= member.bytes_max / 4 * 3 || member.bytes_max > 0",
                "can_know_all",
            ),
        ),
        test="outgrown::a_node_that_was_outgrown_stays_down_while_others_know_too_much_for_it",
    ),
    Mutant(
        "many-copies-as-few",
        "A clock of a hundred copies counts as one of three where partitions are counted.",
        (
            Edit(
                RING,
                "let with_many = CLOCK_BYTES + REPLICA_BYTES * replicas.saturating_sub(3);",
                "let with_many = CLOCK_BYTES;",
                "partition_count",
            ),
        ),
        test="outgrown::what_fits_in_fresh_nodes_fits_in_old_ones_with_many_copies_and_few_timestamps",
    ),
    Mutant(
        "fits-by-what-is-known",
        "Whether an entry fits is decided by what the node knows at the moment.",
        (
            Edit(
                ROOM,
                "if bytes > self.fitting_max {",
                "let known = 2 * self.memory.bytes_beside_entries();"
                " if bytes > self.fitting_max.min(self.bytes_soft().saturating_sub(known) as u64) {",
                "check_fits",
            ),
        ),
        test="outgrown::a_node_that_was_outgrown_stays_down_while_others_know_too_much_for_it",
    ),
    Mutant(
        "no-census-when-short-of-room",
        "Rule 13: where much is known, no census stays either.",
        (Edit(ROOM, "knows_much && partition.has_census()", "!knows_much && partition.has_census()", "keep_bound"),),
    ),
    Mutant(
        "audits-wait-for-their-turn",
        "An audit with a partner waits while there are writes that the partner may not have seen.",
        (
            Edit(ROUNDS, "node.has_audit_due(partner, id)) {", "node.has_unseen(id)) {", "partners_of"),
            Edit(
                ROUNDS,
                "Need::Audit\n                } else if shared.iter().any(|&id| node.has_unseen(id)) {\n"
                "                    Need::Unseen",
                "Need::Unseen\n                } else if shared.iter().any(|&id| node.has_audit_due(partner, id)) {\n"
                "                    Need::Audit",
                "partners_of",
            ),
        ),
    ),
    Mutant(
        "handed-over-across-a-cut",
        "A node gives up a partition though it is cut from an owner.",
        (Edit(ROUNDS, "if !covers || view.is_cut(owner, holder.node) {", "if !covers {", "is_handed_over"),),
        equivalent=(
            "the owner has seen all that the node has, and the cluster, which reaches both, has compared them: nothing "
            "travels across the cut"
        ),
    ),
)


ALL: Final = MUTANTS + BESIDE


def main() -> int:
    """Runs the mutants that were asked for; 1 when one survives that should not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="only this mutant; may be given again")
    parser.add_argument("--by", choices=("test", "seeds"), help="only those that are for a test, or for the simulator")
    parser.add_argument("--seconds", type=float, default=60.0, help="of seeds for each mutant, 60 by default")
    parser.add_argument("--seeds-first", type=int, default=0, metavar="SEED", help="the first seed, 0 by default")
    parser.add_argument(
        "--list", action="store_true", help="say which mutants there are, and run none; 1 if one is out of date"
    )
    arguments = parser.parse_args()
    chosen = [mutant for mutant in ALL if not arguments.only or mutant.name in arguments.only]
    chosen = [mutant for mutant in chosen if not arguments.by or bool(mutant.test) == (arguments.by == "test")]
    if unknown := set(arguments.only or ()) - {mutant.name for mutant in ALL}:
        parser.error(f"there is no mutant {', '.join(sorted(unknown))}")
    try:
        # All of them, before the first is built: a run of many minutes shall not end with a mutant that is out of date.
        changed = {mutant.name: mutant.texts() for mutant in ALL}
        for mutant in ALL:
            mutant.check_test()
        if len(changed) < len(ALL):
            twice = Counter(mutant.name for mutant in ALL).most_common(1)[0][0]
            raise NotApplicableError(f"two mutants have the name {twice}")
    except NotApplicableError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.list:
        for mutant in chosen:
            print(f"{mutant.name:<28} {mutant.breaks}")
        return 0
    copy_crate()
    if not is_unbroken(chosen, arguments.seeds_first):
        return 1
    touched = {edit.file for mutant in ALL for edit in mutant.edits}
    caught_by = dict[str, str]()
    wrong = []
    for number, mutant in enumerate(chosen, 1):
        print(f"[{number:>3}/{len(chosen)}] {mutant.name:<28} ", end="", flush=True)
        change(touched, changed[mutant.name])
        if mutant.test:
            caught = ask_test(mutant.test)
        else:
            seconds = min(SECONDS_EQUIVALENT, arguments.seconds) if mutant.may_survive else arguments.seconds
            caught = ask_seeds(arguments.seeds_first, seconds)
        print(verdict(mutant, caught), flush=True)
        caught_by[mutant.name] = caught_how(mutant, caught)
        if bool(mutant.equivalent) if caught.is_caught else not mutant.may_survive:
            wrong.append(mutant.name)
    print(f"== {len(chosen) - len(wrong)} of {len(chosen)} mutants came out as they should")
    for how, count in sorted(Counter(caught_by.values()).items()):
        print(f"== {count} {how}")
    if wrong:
        print(f"not as they should: {', '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


def caught_how(mutant: Mutant, caught: Caught) -> str:
    """Who noticed, for the count."""
    if not caught.is_caught:
        return "survived as an equivalent" if mutant.equivalent else "survived"
    if not mutant.test:
        return "caught by the simulator"
    if mutant.test.startswith("tests_py/"):
        return "caught by a test in Python"
    return "caught by a test beside the code" if mutant.test.startswith("src/") else "caught by a test of tests_rs"


def verdict(mutant: Mutant, caught: Caught) -> str:
    """One line of the report."""
    if mutant.test:
        took = f"after {caught.seconds:.1f} s"
        return f"caught {took} by {caught.by}" if caught.is_caught else f"SURVIVED {mutant.test}: {mutant.breaks}"
    if caught.is_caught:
        wrong = "  BUT IS MARKED AS EQUIVALENT" if mutant.equivalent else ""
        return f"caught at seed {caught.seed} after {caught.seconds:.1f} s by {caught.by}{wrong}"
    if mutant.equivalent:
        return f"survives {caught.seeds} seeds, and must: {mutant.equivalent}"
    if mutant.unseen:
        return f"survives {caught.seeds} seeds, and may: {mutant.unseen}"
    return f"SURVIVED {caught.seeds} seeds: {mutant.breaks}"


def is_unbroken(chosen: list[Mutant], seed: int) -> bool:
    """Whether the code as it is passes the tests that mutants name, and keeps every promise of the simulator."""
    print("[   -   ] unmutated: ", end="", flush=True)
    tests = dict[str, set[str]]()
    for mutant in chosen:
        if mutant.test:
            file, name = mutant.test.split("::", 1)
            tests.setdefault(file, set()).add(name)
    for file, names in tests.items():
        failed = ask_test(f"{file}::{' '.join(sorted(names))}")
        if failed.is_caught:
            print(f"BROKEN, says {failed.by}: mutants say nothing until this is mended")
            return False
    if all(mutant.test for mutant in chosen):
        print(f"{sum(map(len, tests.values()))} tests pass")
        return True
    broken = ask_unbroken(seed)
    if broken.is_caught:
        print(f"BROKEN at seed {broken.seed} by {broken.by}: mutants say nothing until this is mended")
    else:
        kept = f"{broken.seeds} seeds in {broken.seconds:.1f} s keep all promises"
        print(f"{sum(map(len, tests.values()))} tests pass, {kept}")
    return not broken.is_caught


if __name__ == "__main__":
    sys.exit(main())
