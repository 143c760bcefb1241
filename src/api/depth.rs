//! ```text
//!   opcodes of a pickle  ->  a stack of depths, not of values  ->  plain, and not nested too deep?
//! ```
//! A look over a pickle before it is read: the reader recurses once for each level and copies what is shared, so a few
//! hundred bytes from elsewhere could end the process. Only plain data passes: no opcode that imports or calls anything.
//!
//! Promise: it takes memory and time in proportion to the pickle, and never recurses; what passes is read in memory in
//! proportion to the pickle, too.

/// Levels of containers that are read. Python's own recursion limit is 1,000 levels of calls.
const DEPTH_MAX: u32 = 128;

/// Strings that are named once and used again are copied: into so many times the bytes of the pickle, and a little more.
/// A table whose columns have names of 100 letters and values of one digit stays below.
const COPIES_MAX: usize = 64;
const COPIED_FREE: usize = 1 << 20;

/// A value, as far as it matters here.
#[derive(Clone, Copy)]
struct Seen {
    /// Levels of containers in it; 0 for a value that holds nothing.
    depth: u32,
    /// Bytes of a string.
    bytes: usize,
    /// The reader has it among what can be used again: whatever it does with it then, it copies it.
    is_named: bool,
}

impl Seen {
    /// A number, or something as small.
    const SMALL: Self = Self { depth: 0, bytes: 0, is_named: false };

    const fn container(depth: u32) -> Self {
        Self { depth, bytes: 0, is_named: false }
    }
}

/// Fails with a reason unless the pickle is plain data of bounded depth.
pub(super) fn check(pickle: &[u8]) -> Result<(), &'static str> {
    let copied_max = pickle.len().saturating_mul(COPIES_MAX).saturating_add(COPIED_FREE);
    let mut scan = Scan { rest: pickle, stack: Vec::new(), marks: Vec::new(), memo: Vec::new(), copied: 0, copied_max };
    while let Some(opcode) = scan.byte() {
        if opcode == b'.' {
            return if scan.stack.len() == 1 { Ok(()) } else { Err(BROKEN) };
        }
        scan.step(opcode).ok_or(BROKEN)??;
        // Each mark is a container that is begun, for which the reader takes four kilobytes.
        let begun = u32::try_from(scan.marks.len()).unwrap_or(u32::MAX);
        if begun > DEPTH_MAX || scan.stack.last().is_some_and(|seen| seen.depth > DEPTH_MAX) {
            return Err("it is nested too deep");
        }
    }
    Err(BROKEN)
}

const BROKEN: &str = "it is no complete pickle";
const NOT_PLAIN: &str = "it is not plain data";
const SHARED: &str = "a container in it is shared";
const GROWS: &str = "it would take many times its bytes when it is read";

struct Scan<'a> {
    rest: &'a [u8],
    /// What is on the pickle's stack.
    stack: Vec<Seen>,
    marks: Vec<usize>,
    memo: Vec<Seen>,
    /// Bytes of strings that were used again.
    copied: usize,
    copied_max: usize,
}

impl Scan<'_> {
    /// One opcode; `None` when the pickle ends within it or takes what is not there.
    fn step(&mut self, opcode: u8) -> Option<Result<(), &'static str>> {
        match opcode {
            b'N' | 0x88 | 0x89 => self.stack.push(Seen::SMALL),
            b'K' => self.skip_and_push(1)?,
            b'M' => self.skip_and_push(2)?,
            b'J' => self.skip_and_push(4)?,
            b'G' => self.skip_and_push(8)?,
            b'C' | b'U' | 0x8c | 0x8a => self.string(1)?,
            b'B' | b'T' | b'X' | 0x8b => self.string(4)?,
            0x8d | 0x8e | 0x96 => self.string(8)?,
            b']' | b'}' | b')' | 0x8f => self.stack.push(Seen::container(1)),
            b'(' => self.marks.push(self.stack.len()),
            b't' | b'l' | b'd' | 0x91 => {
                let depth = self.pop_to_mark()?;
                self.stack.push(Seen::container(depth + 1));
            }
            b'a' => self.put_in(1)?,
            b's' => self.put_in(2)?,
            b'e' | b'u' | 0x90 => {
                let depth = self.pop_to_mark()?;
                self.deepen(depth + 1)?;
            }
            0x85..=0x87 => {
                let depth = self.pop(usize::from(opcode - 0x84))?;
                self.stack.push(Seen::container(depth + 1));
            }
            0x94 => return self.name(self.memo.len()),
            b'q' => return self.memoize(1),
            b'r' => return self.memoize(4),
            b'h' => return self.recall(1),
            b'j' => return self.recall(4),
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            _ => return Some(Err(NOT_PLAIN)),
        }
        Some(Ok(()))
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn take(&mut self, bytes: usize) -> Option<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        let little = self.take(bytes)?.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        usize::try_from(little).ok()
    }

    fn skip_and_push(&mut self, bytes: usize) -> Option<()> {
        self.take(bytes)?;
        self.stack.push(Seen { bytes, ..Seen::SMALL });
        Some(())
    }

    /// A length of so many bytes, and as many bytes as it says.
    fn string(&mut self, length_bytes: usize) -> Option<()> {
        let bytes = self.number(length_bytes)?;
        self.skip_and_push(bytes)
    }

    /// The greatest depth of the last so many values.
    fn pop(&mut self, count: usize) -> Option<u32> {
        let start = self.stack.len().checked_sub(count)?;
        self.stack.drain(start..).map(|seen| seen.depth).max()
    }

    fn pop_to_mark(&mut self) -> Option<u32> {
        let start = self.marks.pop().filter(|&start| start <= self.stack.len())?;
        Some(self.stack.drain(start..).map(|seen| seen.depth).max().unwrap_or_default())
    }

    fn put_in(&mut self, count: usize) -> Option<()> {
        let depth = self.pop(count)?;
        self.deepen(depth + 1)
    }

    /// Something so deep was put into the container on top.
    fn deepen(&mut self, depth: u32) -> Option<()> {
        let container = self.stack.last_mut()?;
        container.depth = container.depth.max(depth);
        Some(())
    }

    fn memoize(&mut self, bytes: usize) -> Option<Result<(), &'static str>> {
        let at = self.number(bytes)?;
        // Picklers number in order; a gap could ask for any amount of memory.
        if at > self.memo.len() {
            return Some(Err(NOT_PLAIN));
        }
        self.name(at)
    }

    /// The value on top can be used again from now on. One that could already is copied.
    fn name(&mut self, at: usize) -> Option<Result<(), &'static str>> {
        let seen = *self.stack.last()?;
        self.memo.truncate(at);
        self.memo.push(Seen { is_named: true, ..seen });
        self.stack.last_mut()?.is_named = true;
        Some(if seen.is_named { self.copy(seen) } else { Ok(()) })
    }

    /// A value that was met before.
    fn recall(&mut self, bytes: usize) -> Option<Result<(), &'static str>> {
        let at = self.number(bytes)?;
        let seen = *self.memo.get(at)?;
        self.stack.push(seen);
        Some(self.copy(seen))
    }

    /// A string is copied; a container would be copied with all it holds.
    fn copy(&mut self, seen: Seen) -> Result<(), &'static str> {
        if seen.depth > 0 {
            return Err(SHARED);
        }
        self.copied = self.copied.saturating_add(seen.bytes);
        if self.copied > self.copied_max { Err(GROWS) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_data_passes() {
        let plain: [&[u8]; 5] = [
            b"\x80\x05N.",
            b"\x80\x05]\x94(K\x01K\x02e.",
            b"\x80\x05}\x94(\x8c\x01a\x94K\x01\x8c\x01b\x94K\x02u.",
            b"\x80\x03}q\x00(X\x01\x00\x00\x00aq\x01K\x01u.",
            b"\x80\x05\x8c\x01a\x94h\x00\x86\x94.",
        ];
        plain.iter().for_each(|pickle| assert_eq!(check(pickle), Ok(()), "{pickle:?}"));
    }

    #[test]
    fn a_string_used_again_is_not_copied_without_limit() {
        let uses = |bytes: usize, times: usize| -> Vec<u8> {
            let name = [&b"\x80\x05]\x94(X"[..], &(bytes as u32).to_le_bytes(), &b"a".repeat(bytes), b"\x94"];
            [&name.concat()[..], &b"h\x01".repeat(times), b"e."].concat()
        };
        assert_eq!(check(&uses(100, 10_000)), Ok(()));
        assert_eq!(check(&uses(10_000, 150)), Ok(()));
        assert_eq!(check(&uses(10_000, 20_000)), Err(GROWS));
    }

    #[test]
    fn what_can_be_used_again_is_named_once() {
        let nested = |name: &[u8]| [&b"\x80\x05)"[..], &b"\x85".repeat(40), &name.repeat(400), b"."].concat();
        assert_eq!(check(&nested(b"")), Ok(()));
        assert_eq!(check(&nested(b"\x94")), Err(SHARED));
        assert_eq!(check(&nested(b"q\x00")), Err(SHARED));
        let string = |times: usize| [&b"\x80\x05U\xff"[..], &[b'a'; 255], &b"\x94".repeat(times), b"."].concat();
        assert_eq!(check(&string(400)), Ok(()));
        assert_eq!(check(&string(10_000)), Err(GROWS));
    }

    #[test]
    fn containers_that_are_begun_and_never_ended_take_no_memory() {
        let begun = |times: usize| [&b"\x80\x05"[..], &b"(".repeat(times), b"N", &b"t".repeat(times), b"."].concat();
        assert_eq!(check(&begun(100)), Ok(()));
        assert_eq!(check(&begun(10_000)), Err("it is nested too deep"));
        assert_eq!(check(&b"(".repeat(10_000)), Err("it is nested too deep"));
    }

    #[test]
    fn depth_code_sharing_and_broken_pickles_do_not() {
        let deep: Vec<u8> = [&b"\x80\x05"[..], &b"]".repeat(200_000), &b"a".repeat(199_999), b"."].concat();
        assert_eq!(check(&deep), Err("it is nested too deep"));
        assert_eq!(check(b"\x80\x05\x8c\x02os\x94\x8c\x06system\x94\x93."), Err(NOT_PLAIN));
        assert_eq!(check(b"\x80\x05]\x94h\x00h\x00\x86."), Err(SHARED));
        for broken in
            [&b""[..], b"\x80", b"\x80\x05K", b"N", b"a.", b"e.", b"\x85.", b"X\xff\xff\xff\xff.", b"NN.", b"h\x05."]
        {
            assert_eq!(check(broken), Err(BROKEN), "{broken:?}");
        }
    }
}
