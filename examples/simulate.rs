//! Runs simulated clusters, one for each seed, and says what was found. For Rust programmers; with Python the same is
//! `python -m distributed_consistent_cache simulate`.
//!
//!     cargo run --release --example simulate -- FIRST_SEED SEEDS

use std::time::Instant;

use distributed_consistent_cache::runtime::workers;
use distributed_consistent_cache::simulation::{Options, run};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a number"));
    let (first, seeds) = (arguments.next().unwrap_or(0), arguments.next().unwrap_or(1000));
    let started = Instant::now();
    let of_seed = |seed, _: &_| run(seed, Options::default()).map_err(|violation| (seed, violation));
    let mut results = Vec::new();
    workers::each_alone(first..first + seeds, of_seed, |result| {
        results.extend(result);
        true
    });
    let (mut events, mut outgrown) = (0, 0);
    let mut rounds = Vec::new();
    let mut broken = 0;
    for result in results {
        match result {
            Ok(counts) => {
                events += counts.events;
                outgrown += u64::from(counts.outgrown > 0);
                rounds.push(counts.rounds);
            }
            Err((seed, violation)) => {
                broken += 1;
                if broken <= 12 {
                    println!("seed {seed}: {}", violation.to_string().chars().take(60000).collect::<String>());
                }
            }
        }
    }
    rounds.sort_unstable();
    let seconds = started.elapsed().as_secs_f64();
    println!("{seeds} seeds, {events} events in {seconds:.1} s; rounds at most {:?}; {broken} broken", rounds.last());
    println!("in {outgrown} seeds knowledge outgrew a node");
    std::process::exit(i32::from(broken > 0));
}
