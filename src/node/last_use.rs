//! ```text
//!   a page's earliest use           a slot's last use             the latest that a number can tell
//!   |-------------------------------|-----------------------------|
//!   base                            base + number * 2^shift ms    base + 65,535 * 2^shift ms
//! ```
//! When the slots of a page were last used, in 16 bits each: as in block floating point, all numbers of a page share their
//! beginning and their unit.
//!
//! Promise: a time is told a unit too early at most, and units are as short as the page's uses lie close: a thirty-thousandth
//! of the time between the first and the last of them, or a millisecond.

/// How the numbers of a page are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uses {
    /// Seconds since 1970.
    base_s: u32,
    shift: u8,
}

impl Uses {
    /// A page whose uses all lie after this time, in milliseconds since 1970.
    pub(super) const fn since(time_ms: u64) -> Self {
        // Seconds of 32 bits last until 2106.
        Self { base_s: (time_ms / 1000) as u32, shift: 0 }
    }

    /// A page of uses at these times, that leaves as much room again for later ones.
    pub(super) fn of(times_ms: &[u64]) -> Self {
        let first = times_ms.iter().min().copied().unwrap_or_default();
        let last = times_ms.iter().max().copied().unwrap_or_default();
        let mut uses = Self::since(first);
        while last.saturating_sub(uses.base_ms()) >> uses.shift > u64::from(u16::MAX / 2) {
            uses.shift += 1;
        }
        uses
    }

    /// The number of a time; nothing if it is too far from the page's other times.
    #[inline]
    pub(super) fn number(self, time_ms: u64) -> Option<u16> {
        u16::try_from(time_ms.checked_sub(self.base_ms())? >> self.shift).ok()
    }

    /// The time of a number.
    pub(super) const fn time_ms(self, number: u16) -> u64 {
        self.base_ms() + ((number as u64) << self.shift)
    }

    #[inline]
    const fn base_ms(self) -> u64 {
        self.base_s as u64 * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_comes_back_a_unit_early_at_most(
            start in 0..4_000_000_000_000_u64,
            offsets in prop::collection::vec((0..40_u32).prop_flat_map(|bits| 0..=1_u64 << bits), 1..33),
        ) {
            let times: Vec<u64> = offsets.iter().map(|offset| start + offset).collect();
            let uses = Uses::of(&times);
            let (first, last) = (times.iter().min().expect("one"), times.iter().max().expect("one"));
            let unit = ((last - first + 1000) / u64::from(u16::MAX / 4)).max(1);
            for &time in &times {
                let back = uses.time_ms(uses.number(time).expect("it is one of the page's"));
                prop_assert!(back <= time && time - back <= unit, "{time} came back as {back} in {uses:?}");
            }
            prop_assert!(uses.number(last + (last - first)).is_some(), "no room for later uses");
        }
    }

    #[test]
    fn what_is_too_far_off_has_no_number() {
        let uses = Uses::since(5_000);
        assert_eq!(uses.number(4_999), None);
        assert_eq!(uses.number(5_000 + 65_535), Some(65_535));
        assert_eq!(uses.number(5_000 + 65_536), None);
    }
}
