//! ```text
//!   "a\nb\x1b[31m" -> a\nb\u{1b}[31m        a name of 70,000 letters -> its beginning...its end
//! ```
//! Text that others wrote, in a message of ours: keys, file names, hosts, what an error of somebody else says.
//!
//! Promise: no character of it controls a terminal or turns the direction of a line, and it is at most [`CHARS_MAX`]
//! characters of the original, however long that was.

use std::fmt::{self, Write};

/// So much of a text is shown: as much as names a file or a key to who knows it.
pub const CHARS_MAX: usize = 240;

/// Of a text that is longer, its beginning and its end.
const HEAD: usize = 160;
const TAIL: usize = CHARS_MAX - HEAD;

/// Text of others, as a message of ours shows it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str);

/// The same, however long it is.
#[derive(Clone, Copy, Debug)]
pub struct ShownWhole<'a>(pub &'a str);

/// The same as [`Shown`], between quotation marks.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, f, stays)
    }
}

impl fmt::Display for ShownWhole<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, f, stays)
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        show(self.0, f, |c| c == '\'')?;
        f.write_char('"')
    }
}

/// What has a meaning between quotation marks only.
const fn stays(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\')
}

fn escape(text: &str, f: &mut fmt::Formatter<'_>, stays: impl Fn(char) -> bool) -> fmt::Result {
    text.chars().try_for_each(|c| if stays(c) { f.write_char(c) } else { escaped(c, f) })
}

fn show(text: &str, f: &mut fmt::Formatter<'_>, stays: impl Fn(char) -> bool) -> fmt::Result {
    let escape = |part: &str, f: &mut fmt::Formatter<'_>| escape(part, f, &stays);
    let (Some((head, _)), Some((tail, _))) =
        (text.char_indices().nth(HEAD), text.char_indices().rev().nth(TAIL.saturating_sub(1)))
    else {
        return escape(text, f);
    };
    if tail <= head {
        return escape(text, f);
    }
    escape(&text[..head], f)?;
    f.write_str("...")?;
    escape(&text[tail..], f)
}

/// A character, or what stands for one that is no sign on a screen. One that belongs to the letter before it is left alone.
fn escaped(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut bytes = [b'a', 0, 0, 0, 0];
    let len = c.encode_utf8(&mut bytes[1..]).len();
    let after_a_letter = std::str::from_utf8(&bytes[..=len]).unwrap_or("a");
    after_a_letter.escape_debug().skip(1).try_for_each(|c| f.write_char(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_escaped_and_letters_are_not() {
        for (text, shown) in [
            ("user:1", "user:1"),
            ("caf\u{e9} e\u{301} \u{1f980} it's \"so\" C:\\x", "caf\u{e9} e\u{301} \u{1f980} it's \"so\" C:\\x"),
            ("a\nb\r\t\0", "a\\nb\\r\\t\\0"),
            ("\u{1b}[31m\u{7f}\u{9b}", "\\u{1b}[31m\\u{7f}\\u{9b}"),
            ("\u{202e}txt\u{2066}\u{2028}\u{feff}", "\\u{202e}txt\\u{2066}\\u{2028}\\u{feff}"),
        ] {
            assert_eq!(Shown(text).to_string(), shown);
            assert_eq!(ShownWhole(text).to_string(), shown);
        }
        assert_eq!(Quoted("a \"b\" c\\d it's\n").to_string(), r#""a \"b\" c\\d it's\n""#);
    }

    #[test]
    fn what_is_long_is_its_beginning_and_its_end() {
        for len in [0, 1, HEAD, CHARS_MAX - 1, CHARS_MAX] {
            let text = "\u{e9}".repeat(len);
            assert_eq!(Shown(&text).to_string(), text);
        }
        let long = format!("begin{}end", "\u{1f980}".repeat(1 << 20));
        let shown = Shown(&long).to_string();
        assert!(shown.starts_with("begin") && shown.ends_with("end"), "{shown}");
        assert_eq!(ShownWhole(&long).to_string(), long);
        assert_eq!(shown.chars().count(), CHARS_MAX + 3);
        assert_eq!(Shown(&"x".repeat(CHARS_MAX + 1)).to_string().len(), CHARS_MAX + 3);
    }
}
