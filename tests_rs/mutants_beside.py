"""Rules of everything but replication, each broken, and the test that notices: walks, snapshots, dictionaries, memory,
locks and forks, what is served, and the Python face."""

from typing import Final

from mutant import Edit, Mutant

WALK: Final = "src/cluster/walk.rs"
CLEAR: Final = "src/cluster/clear.rs"
STAMPS: Final = "src/cluster/stamps.rs"
EXPIRY: Final = "src/cluster/expiry.rs"
MANY: Final = "src/cluster/many.rs"
SAVE: Final = "src/cluster/save.rs"
RESTORE: Final = "src/cluster/restore.rs"
DICTIONARIES: Final = "src/cluster/dictionaries.rs"
WRITING: Final = "src/cluster/writing.rs"
READING: Final = "src/cluster/reading.rs"
ROUTES: Final = "src/cluster/routes.rs"
LAST_USE: Final = "src/node/last_use.rs"
NODE_EXPIRY: Final = "src/node/expiry.rs"
PAYLOAD: Final = "src/node/payload.rs"
AUDIT: Final = "src/node/audit.rs"
BLOCKS: Final = "src/node/blocks.rs"
HOSTS: Final = "src/monitor/hosts.rs"
PLACES: Final = "src/monitor/places.rs"
PROCESS: Final = "src/monitor/process.rs"
SERVE: Final = "src/monitor/serve.rs"
FORK: Final = "src/fork.rs"
LOCK: Final = "src/lock.rs"
HEAP: Final = "src/heap.rs"
SHARED: Final = "src/shared.rs"
HYBRID_CLOCK: Final = "src/hybrid_clock.rs"
FILE: Final = "src/snapshot/file.rs"
CONVERT: Final = "src/py/convert.rs"
PLAIN_TYPES: Final = "src/py/plain_types.rs"
TIMESTAMPS: Final = "src/py/timestamps.rs"

BESIDE: Final[tuple[Mutant, ...]] = (
    # ---- walks, and what is done with all keys
    Mutant(
        "snapshot-asks-owners-only",
        "A snapshot asks those who own a key, and not all who hold it.",
        (
            Edit(
                SAVE,
                "rows.iter().map(|row| view.all_holders(partition(row))).collect()",
                "rows.iter().map(|row| view.owners(partition(row)).iter().copied().collect()).collect()",
            ),
        ),
        test="walks::a_snapshot_asks_all_holders_and_not_owners_only",
    ),
    Mutant(
        "walk-asks-owners-only",
        "Who counts and lists keys asks owners, also those that have yet to pull, and not who serves on for them.",
        (Edit(WALK, "view.asked(id).collect()", "view.owners(id).iter().copied().collect()"),),
        test="walks::a_snapshot_asks_all_holders_and_not_owners_only",
    ),
    Mutant(
        "walk-under-two-views",
        "A partition that changed hands while it was looked over is not looked over again.",
        (
            Edit(WALK, "is_whole &= looked.is_ok() && holds;", "let _ = (looked, holds); is_whole &= true;"),
            Edit(WALK, "if is_whole && self.view().epoch() == view.epoch() {", "if is_whole {"),
        ),
        test="walks::every_live_key_is_met_while_nodes_join_and_leave_with_one_copy",
    ),
    Mutant(
        "keys-of-one-hash-are-one",
        "Two keys of one hash are counted and listed as one.",
        (Edit(WALK, "|&(other, _)| key(other) == key(at))", "|_| true)"),),
        test="walks::keys_of_one_hash_are_two_keys_to_everyone_who_looks_at_all",
    ),
    Mutant(
        "walk-believes-the-unsynced",
        "What a node has that is not synced is a key, though one that is synced does not know it.",
        (
            Edit(
                WALK,
                "is_synced || !heard.has_authority || !known.is_live()",
                "is_synced || !is_synced || known.is_live()",
            ),
        ),
        test="walks::what_only_an_owner_has_that_has_yet_to_pull_is_no_key",
    ),
    Mutant(
        "clear-asks-as-reads-do",
        "A clear removes what a read would find, and leaves what only those have who are not believed.",
        (
            Edit(
                WALK,
                "self.look_over(id, Whom::All, Heard::default",
                "self.look_over(id, Whom::AsReadsDo, Heard::default",
            ),
        ),
        test="walks::a_clear_removes_also_what_only_one_has_that_nobody_believes",
    ),
    Mutant(
        "clear-counts-what-had-no-value",
        "A clear counts a key whose value was gone already.",
        (Edit(CLEAR, "usize::from(outcome.newest && outcome.was_live)", "usize::from(outcome.newest)"),),
        test="expiry::a_clear_counts_no_value_that_had_ended",
    ),
    Mutant(
        "clear-does-not-stop",
        "A clear that is told to stop goes on.",
        (Edit(CLEAR, "if !go_on() {", "if !go_on() && keys.is_empty() && next == 0 {"),),
        test="walks::a_walk_stops_when_it_is_told_to_and_a_clear_says_what_it_did",
    ),
    # ---- timestamps and ends
    Mutant(
        "remove-by-another-unit",
        "A remove without a timestamp has the clock's, also where the entry's is of another unit.",
        (Edit(STAMPS, "Some(known) if !hybrid_clock::is_of_clock(known) => known,", ""),),
        test="clocks::a_remove_by_the_clock_has_the_timestamp_of_what_is_there_if_that_is_of_another_unit",
    ),
    Mutant(
        "two-units-told-each-time",
        "That timestamps of two units meet is told with every write that is refused.",
        (
            Edit(
                STAMPS,
                "self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0",
                "self.0.fetch_or(bit, Ordering::Relaxed) | bit != 0",
            ),
        ),
        test="tests_py/test_timestamps.py::test_timestamps_of_two_units_are_told_once",
    ),
    Mutant(
        "clock-does-not-go-on",
        "A timestamp that is met ahead of the clock leaves the clock where it is.",
        (Edit(HYBRID_CLOCK, "LAST.fetch_max(other.get(), Ordering::Relaxed);", ""),),
        test="src/hybrid_clock.rs::it_goes_on_from_another_clock_and_not_from_what_no_clock_gave",
    ),
    Mutant(
        "touch-counts-from-any-version",
        "A touch is not made to come after the lifetime that it read.",
        (
            Edit(
                EXPIRY,
                "self.lifetime(ttl).after(version.lifetime)",
                "self.lifetime(ttl).after(Lifetime::NONE)",
            ),
        ),
        test="expiry::a_touch_comes_after_what_it_read_also_where_its_coordinator_has_not_heard_of_that",
    ),
    # ---- many at once, and how reads and writes are driven
    Mutant(
        "many-believe-the-unsynced",
        "A read of many is content with an owner that has yet to pull.",
        (
            Edit(
                MANY,
                "Read { known: Known::Live(version), synced: true } if quorum == Quorum::One",
                "Read { known: Known::Live(version), .. } if quorum == Quorum::One",
            ),
        ),
        test="moves::what_was_written_while_a_node_was_away_is_found_when_it_comes_back",
    ),
    Mutant(
        "many-find-what-has-ended",
        "A read of many looks at no clock.",
        (Edit(MANY, "if quorum == Quorum::One && !version.lifetime.ends() =>", "if quorum == Quorum::One =>"),),
        test="expiry::it_is_found_until_its_end_and_not_a_moment_longer",
    ),
    Mutant(
        "many-ask-one",
        "A read of many asks one owner, whatever the quorum.",
        (Edit(MANY, "if quorum == Quorum::One && !version.lifetime.ends() =>", "if !version.lifetime.ends() =>"),),
        test="tests_py/test_bulk.py::test_get_many_asks_as_many_owners_as_get_does",
    ),
    Mutant(
        "busy-write-forgotten",
        "A write that met a busy node goes on with the next thing it wants when it is taken up again.",
        (Edit(WRITING, "writing.pending = Some((to, request));", "let _ = (to, request);"),),
        test="interleavings::a_call_that_does_not_wait_is_taken_up_where_it_stopped",
    ),
    Mutant(
        "worse-answer-kept",
        "A read keeps the value that it heard last, whether it is the newest or not.",
        (Edit(READING, "if improves {", "if improves || !improves {"),),
        test="expiry::an_older_value_of_another_owner_is_no_answer_when_the_newest_has_ended",
    ),
    Mutant(
        "cuts-of-high-nodes-are-none",
        "Cuts of nodes from 64 on are looked up among those of the nodes below.",
        (Edit(ROUTES, "usize::from(to) / 64].load", "usize::from(to) / 128].load", "is_cut"),),
        test="noticed::a_cut_between_any_two_of_a_hundred_nodes_is_one",
    ),
    # ---- snapshots
    Mutant(
        "restored-copies-decide",
        "What is restored wins over a lifetime that was decided since.",
        (
            Edit(
                RESTORE,
                "self.cluster.write_copy(write, Quorum::All)",
                "self.cluster.write(write, Some(Quorum::All), None)",
            ),
        ),
        test="ties::what_has_ended_refuses_no_put_also_when_its_end_was_shortened_or_it_is_found_in_a_snapshot",
    ),
    Mutant(
        "changed-file-restored",
        "A file that changes between verifying and restoring is restored as it is then.",
        (
            Edit(
                RESTORE,
                "find(|(now, then)| now.checksum() != **then)",
                "find(|(now, then)| now.checksum() != **then && **then == 0)",
            ),
        ),
        test="snapshot::a_file_that_becomes_another_snapshot_while_it_is_read_is_noticed",
    ),
    Mutant(
        "restored-for-longer",
        "What was saved by a clock that is ahead lives longer than it did from the save on.",
        (
            Edit(
                RESTORE,
                "self.ahead_ms = if ahead_ms > AHEAD_MIN_MS { ahead_ms } else { 0 };",
                "self.ahead_ms = if ahead_ms > AHEAD_MIN_MS { 0 } else { 0 };",
            ),
        ),
        test="clocks::what_was_saved_by_a_clock_that_was_ahead_lives_no_longer_than_it_did_from_then_on",
    ),
    Mutant(
        "saved-in-no-order",
        "A snapshot forgets what was used most recently.",
        (Edit(SAVE, "workers::divide(|| self.rows.par_sort_unstable());", ""),),
        test="snapshot::the_order_of_use_comes_back",
    ),
    Mutant(
        "saved-while-it-moves",
        "A save does not look again for what was handed over between two looks.",
        (
            Edit(SAVE, "is_whole &= node.clock(partition(&rows[at])).is_some();", ""),
            Edit(WALK, "if is_whole && self.view().epoch() == view.epoch() {", "if is_whole {"),
        ),
        test="snapshot::what_changes_hands_while_it_is_saved_is_not_missed",
    ),
    # ---- dictionaries
    Mutant(
        "forgotten-while-saving",
        "A dictionary is forgotten while a snapshot is written that needs it.",
        (
            Edit(
                DICTIONARIES,
                "if self.keeping.load(Ordering::Acquire) > 0 {",
                "if self.keeping.load(Ordering::Acquire) > 1_000 {",
            ),
        ),
        test="dictionaries::nothing_is_forgotten_while_a_snapshot_is_written",
    ),
    Mutant(
        "only-live-nodes-need-dictionaries",
        "A dictionary is forgotten that values on a node that is cut off need.",
        (
            Edit(
                DICTIONARIES,
                "filter(|member| member.state != State::Failed)",
                "filter(|member| member.state == State::Live)",
            ),
        ),
        test="dictionaries::a_value_on_a_node_that_is_cut_off_keeps_its_dictionary",
    ),
    # ---- the memory of a node
    Mutant(
        "no-room-for-later-uses",
        "A page's times of use leave no room for later ones.",
        (Edit(LAST_USE, "u64::from(u16::MAX / 2)", "u64::from(u16::MAX)"),),
        test="src/node/last_use.rs::a_time_comes_back_a_unit_early_at_most",
    ),
    Mutant(
        "order-of-ends-is-free",
        "The order in which entries end is not counted.",
        (Edit(NODE_EXPIRY, "ROOT_BYTES + PLACE_BYTES * places", "ROOT_BYTES + places"),),
        test="allocator::the_allocator_agrees_while_entries_end",
    ),
    Mutant(
        "blocks-round-down",
        "A block of a node's heap is counted with fewer bytes than it has.",
        (Edit(PAYLOAD, "(len + counts + ALLOCATION_BYTES + 15) & !15", "(len + counts + ALLOCATION_BYTES) & !15"),),
        test="node_memory::an_entry_takes_its_slot_and_a_block_that_is_rounded_up",
    ),
    Mutant(
        "key-names-are-hashes",
        "An audit takes two keys of one hash for one.",
        (Edit(AUDIT, "|bytes| digest(bytes) == key.1)", "|bytes| digest(bytes) == key.1 || true)"),),
        test="mistakes::two_keys_of_one_hash_are_audited_as_two",
    ),
    Mutant(
        "ends-not-audited",
        "Rule 12: an audit does not see that two values end at different times.",
        (
            Edit(
                AUDIT, "let kept = [lifetime.shortened(), lifetime.ends_ms()];", "let kept = [lifetime.shortened(), 0];"
            ),
        ),
        test="believed::an_audit_tells_values_apart_that_end_at_different_times",
    ),
    Mutant(
        "reserved-block-not-told",
        "What is reserved for the next entry is not told that its block was moved.",
        (
            Edit(
                BLOCKS,
                "NONE => *reserved = reserved.map(|_| (bytes, false)),",
                "NONE => *reserved = reserved.map(|(old, is_large)| { let _ = bytes; (old, is_large) }),",
            ),
        ),
        test="node_memory::contents_and_order_agree_with_a_list",
    ),
    Mutant(
        "free-neighbours-stay-apart",
        "A block that is freed does not join the free one before it.",
        (Edit(HEAP, "if *block & FREE_BEFORE != 0 {", "if *block & FREE_BEFORE != 0 && length == 0 {", "free"),),
        test="src/heap.rs::blocks_keep_their_bytes_while_others_come_go_and_move",
    ),
    Mutant(
        "returned-blocks-lost",
        "What readers give back stays lost to the node.",
        (Edit(SHARED, "self.reclaim(head);\n                head = next;", "head = next;"),),
        test="src/shared.rs::readers_on_other_threads_give_blocks_back",
    ),
    # ---- locks and forks
    Mutant(
        "sleeper-not-woken",
        "Whoever sleeps at a lock is not woken when it is free.",
        (
            Edit(
                LOCK,
                "self.state.swap(FREE, Ordering::Release) == WAITED_FOR",
                "self.state.swap(FREE, Ordering::Release) > WAITED_FOR",
            ),
        ),
        test="src/lock.rs::one_at_a_time_has_it_and_all_have_their_turn",
    ),
    Mutant(
        "told-before-it-sleeps",
        "Whoever is about to wait is not at the gate yet when it lets go of the lock.",
        (
            Edit(
                LOCK,
                "drop(self.pass());\n        self.sleepers().woken.notify_one();",
                "self.sleepers().woken.notify_one();",
            ),
        ),
        test="src/lock.rs::who_waits_is_told",
        unseen="a thread must be between two instructions when another lets go: millions of locks may pass without it",
    ),
    Mutant(
        "renewed-lock-is-held",
        "A lock that is made as new in a forked child is still held.",
        (Edit(LOCK, "self.state.store(FREE, Ordering::Release);", ""),),
        test="src/fork.rs::a_child_finds_every_lock_free_and_what_it_guards_whole",
    ),
    Mutant(
        "fork-takes-no-locks",
        "A fork copies what other threads are in the middle of.",
        (Edit(FORK, "if all && try_for(lock, TURN) {", "if all && (lock.is_locked() || try_for(lock, TURN)) {"),),
        test="src/fork.rs::a_child_finds_every_lock_free_and_what_it_guards_whole",
    ),
    Mutant(
        "sockets-stay-open",
        "A forked child keeps the port of its parent's server.",
        (Edit(SERVE, "sockets().0.lock().push(number);", ""),),
        test="tests_py/test_serve.py::test_a_forked_child_has_no_server_and_does_not_keep_its_port",
    ),
    # ---- what is served
    Mutant(
        "any-ip-is-ours",
        "A server for its own machine answers to the address of another.",
        (
            Edit(
                HOSTS,
                "ip.to_canonical().is_loopback() || ip == listening_at",
                "ip.to_canonical().is_loopback() || ip == listening_at || true",
            ),
        ),
        test="src/monitor/hosts.rs::what_names_another_machine_or_is_no_name_is_foreign",
    ),
    Mutant(
        "who-is-answered-gives-way",
        "A connection whose answer is being made gives way for another.",
        (Edit(PLACES, "Stage::IsAnswered => true", "Stage::IsAnswered => false"),),
        test="src/monitor/places.rs::who_has_asked_for_nothing_for_longest_gives_way",
    ),
    Mutant(
        "who-has-just-come-gives-way",
        "A connection has no time to ask before it gives way to one that comes after it.",
        (Edit(PLACES, "self.asked.get().elapsed() < TIME_TO_ASK", "false"),),
        test="src/monitor/places.rs::who_has_just_come_is_not_pushed_out_by_those_who_ask_again_and_again",
    ),
    Mutant(
        "second-host-is-not-looked-at",
        "A request with two Host headers is taken for one of ours by the first.",
        (
            Edit(
                SERVE,
                "let (Some(host), None) = (named.next(), named.next()) else { return false };",
                "let (Some(host), _) = (named.next(), named.next()) else { return false };",
            ),
        ),
        test="tests_py/test_serve.py::test_a_request_that_hides_its_host_is_refused",
    ),
    Mutant(
        "posts-are-answered",
        "A server answers to a POST.",
        (Edit(SERVE, "Method::GET | Method::HEAD)", "Method::GET | Method::HEAD | Method::POST)"),),
        test="tests_py/test_serve.py::test_nothing_can_be_changed",
    ),
    Mutant(
        "arguments-are-shown",
        "A report shows what a program was given after an option.",
        (Edit(PROCESS, "if !script.starts_with('-') =>", "if !script.starts_with('/') =>"),),
        test="src/monitor/process.rs::a_program_is_named_without_folders_and_arguments",
    ),
    # ---- the Python face
    Mutant(
        "true-is-a-number",
        "True is taken for the timestamp 1.",
        (
            Edit(
                CONVERT,
                "given.is_instance_of::<PyBool>() || given.is_instance_of::<PyString>()",
                "given.is_instance_of::<PyString>()",
            ),
        ),
        test="tests_py/test_arguments.py::test_a_timestamp_of_another_type_is_a_type_error",
    ),
    Mutant(
        "letters-are-keys",
        "A single str is taken for many keys.",
        (Edit(CONVERT, "if keys.is_instance_of::<PyString>() {", "if keys.is_none() {"),),
        test="tests_py/test_arguments.py::test_a_call_is_refused_for",
    ),
    Mutant(
        "stand-in-is-plain",
        "A class that stands in the place of a plain one is called.",
        (Edit(PLAIN_TYPES, "if !is_itself {", "if !is_itself && class.is_none() {"),),
        test="tests_py/test_plain_data_only.py::test_a_class_that_stands_in_for_a_plain_one_is_not_used",
    ),
    Mutant(
        "any-arguments-are-plain",
        "A plain class is called with what pickle does not write for it.",
        (Edit(PLAIN_TYPES, "if is_written_by_pickle { callable", "if is_written_by_pickle || true { callable"),),
        test="tests_py/test_plain_data_only.py::test_hostile_bytes_cost_no_more_than_they_justify",
    ),
    Mutant(
        "told-of-every-second-ahead",
        "An entry that is a second ahead of the clock gives a warning.",
        (
            Edit(
                TIMESTAMPS,
                "Refused::ByClockAhead(by) if by_clock && by > AHEAD_MIN =>",
                "Refused::ByClockAhead(by) if by_clock =>",
            ),
        ),
        test="tests_py/test_timestamps.py::test_of_a_clock_that_is_ahead_by_less_than_a_minute_nobody_is_told",
    ),
)
