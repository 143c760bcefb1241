//! ```text
//!   a trial that breaks a promise  ->  leave out half of the faults, a quarter, .. one  ->  still broken?  keep it so
//! ```
//! From a bad day with many faults to one with few: what is left is needed to break the promise. (Delta debugging, Zeller
//! and Hildebrandt, 2002.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::oracle::Violation;
use super::swarm::{Options, Trial, run_with, trial};

/// The trial of a seed with as few faults as still break a promise, and which; nothing when it breaks none, or when it is over
/// before that is known.
pub fn shrink(seed: u64, options: Options, is_over: &Arc<AtomicBool>) -> Option<(Trial, Violation)> {
    let mut trial = trial(seed, options).ok()?;
    trial.is_over = Arc::clone(is_over);
    let mut violation = run_with(&trial).err()?;
    let faults = std::mem::take(&mut trial.faults);
    let faults = fewest(faults, |faults| {
        trial.faults = faults.to_vec();
        let broken = run_with(&trial).err();
        let is_broken = broken.is_some();
        violation = broken.unwrap_or_else(|| violation.clone());
        is_broken
    });
    trial.faults = faults;
    (!is_over.load(Ordering::Relaxed)).then_some((trial, violation))
}

/// A part of the list that still breaks something, and does not when a part of it is left out.
fn fewest<T: Clone>(mut list: Vec<T>, mut breaks: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut part = list.len().div_ceil(2);
    while part > 0 {
        let mut from = 0;
        while from < list.len() {
            let mut shorter = list.clone();
            shorter.drain(from..list.len().min(from + part));
            if breaks(&shorter) {
                list = shorter;
            } else {
                from += part;
            }
        }
        part /= 2;
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_left() {
        let breaks = |list: &[u32]| list.contains(&7) && list.contains(&31);
        assert_eq!(fewest((0..50).collect(), breaks), [7, 31]);
        assert_eq!(fewest((0..50).collect(), |_| true), [0_u32; 0]);
    }

    #[test]
    fn a_seed_that_keeps_every_promise_has_nothing_to_shrink() {
        assert!(shrink(1, Options::default(), &Arc::default()).is_none());
    }
}
