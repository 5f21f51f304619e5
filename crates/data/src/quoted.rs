//! A file's words in a message.

use std::fmt::{self, Display, Formatter, Write};

/// `text` with what would steer a terminal or turn the reading direction written out: control characters (`\u{1b}`, `\n`), marks of
/// direction, line separators. Quoting what is quoted changes nothing.
pub fn quoted(text: impl Display) -> impl Display {
    Quoted(text)
}

struct Quoted<T>(T);

impl<T: Display> Display for Quoted<T> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(steers) {
            self.0.write_str(&rest[..at])?;
            let mut after = rest[at..].chars();
            after.next().into_iter().try_for_each(|c| write!(self.0, "{}", c.escape_default()))?;
            rest = after.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Whether a terminal would obey the character, or turn what follows around.
pub fn steers(c: char) -> bool {
    let direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || direction || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out_and_the_rest_stays() {
        for (given, expected) in [
            ("a dog, été 犬 🐕 \\ \"x\"", "a dog, été 犬 🐕 \\ \"x\""),
            ("\u{1b}[31mred\u{1b}]0;title\u{7}.jpg", r"\u{1b}[31mred\u{1b}]0;title\u{7}.jpg"),
            ("two\nlines\r\ttab\u{7f}", r"two\nlines\r\ttab\u{7f}"),
            ("\u{9b}31m", r"\u{9b}31m"),
            ("gpj\u{202e}.exe\u{2066}", r"gpj\u{202e}.exe\u{2066}"),
            ("", ""),
        ] {
            assert_eq!(quoted(given).to_string(), expected);
            assert_eq!(quoted(expected).to_string(), expected, "again");
        }
    }
}
