//! The elements of a JSON file: of a list, of a list in an object, or one a line (JSON lines). Where each begins and ends is found by its brackets and
//! strings alone, so that what is wrong inside of one costs no other.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{MAX_RECORD_BYTES, OpenError, too_long};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One element.
pub(super) struct Element<'a> {
    /// Its first byte in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    text: &'a [u8],
}

impl Element<'_> {
    /// Its text; the error says that it is too long.
    pub(crate) fn text(&self) -> Result<&[u8], String> {
        if self.length > MAX_RECORD_BYTES { Err(too_long()) } else { Ok(self.text) }
    }

    /// How many records a broken element is: more than one where quotes that do not close hide the bounds between several.
    pub(crate) fn records(&self, file: &File) -> io::Result<u64> {
        const KEY: &[u8] = br#""image""#;
        let mut found = 0;
        let mut bytes = vec![0; 1 << 16];
        let (mut at, end) = (self.offset, self.offset + self.length);
        while at < end {
            let count = bytes.len().min((end - at) as usize);
            file.read_exact_at(&mut bytes[..count], at)?;
            found += bytes[..count].windows(KEY.len()).filter(|window| *window == KEY).count() as u64;
            // A key across the bound between two pieces is in the next.
            at += if at + count as u64 == end { count } else { count - KEY.len() + 1 } as u64;
        }
        Ok(found.max(1))
    }
}

/// How the elements of a file lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Layout {
    /// In a list.
    List,
    /// One a line.
    Lines,
}

/// Calls `each` with every element of `file`, which is called `path` and has elements like those of `example`. An object that the file
/// begins with is one of them, or else holds their list under the name `list`.
pub(super) fn scan(
    path: &Path,
    file: &File,
    list: Option<&str>,
    example: &'static str,
    each: impl FnMut(Element) -> Result<(), OpenError>,
) -> Result<Layout, OpenError> {
    let io = |error| OpenError::Io { path: path.into(), error };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut at = 0;
    // A byte order mark, which some editors write, is no JSON.
    if reader.fill_buf().map_err(io)?.starts_with(BYTE_ORDER_MARK) {
        reader.consume(BYTE_ORDER_MARK.len());
        at = BYTE_ORDER_MARK.len() as u64;
    }
    while let Some(count) = blank(reader.fill_buf().map_err(io)?) {
        reader.consume(count);
        at += count as u64;
    }
    let first = reader.fill_buf().map_err(io)?.first().copied();
    let mut scanner = Scanner { path, example, at, each, inside: false, records: 0, text: Vec::new(), length: 0 };
    match (first, list) {
        (Some(b'['), _) => scanner.list(reader).map(|()| Layout::List),
        (Some(b'{'), Some(name)) => {
            scanner.enter(&mut reader, name)?;
            scanner.list(reader).map(|()| Layout::List)
        }
        (Some(b'{'), None) => scanner.lines(reader).map(|()| Layout::Lines),
        (None, _) => Err(scanner.wrong("EOF while parsing a value at line 1 column 0")),
        (Some(_), _) => Err(scanner.wrong("expected `[`")),
    }
}

/// How many bytes of white space `text` begins with, if any.
fn blank(text: &[u8]) -> Option<usize> {
    let count = text.iter().position(|b| !is_space(*b)).unwrap_or(text.len());
    (count > 0).then_some(count)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Whether `text`, the beginning of a file, is an object that has a list called `name`.
pub(super) fn begins_with_list(text: &[u8], name: &str) -> bool {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let text = &text[blank(text).unwrap_or(0)..];
    let mut search = Search::new(name);
    // An object that ends is a record of JSON lines.
    text.first() == Some(&b'{')
        && text
            .iter()
            .map(|&byte| (search.is_at_list(byte), search.depth))
            .take_while(|(_, depth)| *depth > 0)
            .any(|(at, _)| at)
}

/// Looks for a list in an object, byte by byte.
struct Search<'a> {
    name: &'a str,
    depth: u64,
    /// The string so far, no longer than needed.
    string: Option<Vec<u8>>,
    escaped: bool,
    /// Behind the name and its colon.
    is_next: bool,
}

impl<'a> Search<'a> {
    fn new(name: &'a str) -> Self {
        Self { name, depth: 0, string: None, escaped: false, is_next: false }
    }

    /// Whether the list begins with this byte, the next one.
    fn is_at_list(&mut self, byte: u8) -> bool {
        match (&mut self.string, byte) {
            (Some(_), _) if self.escaped => self.escaped = false,
            (Some(_), b'\\') => self.escaped = true,
            (Some(text), b'"') => {
                self.is_next = self.depth == 1 && text == self.name.as_bytes();
                self.string = None;
            }
            (Some(text), _) if text.len() <= self.name.len() => text.push(byte),
            (Some(_), _) => {}
            (None, b'[') if self.is_next => return true,
            (None, b':') => {}
            (None, _) if is_space(byte) => {}
            (None, _) => {
                self.is_next = false;
                match byte {
                    b'"' => self.string = Some(Vec::new()),
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        false
    }
}

struct Scanner<'a, F> {
    path: &'a Path,
    example: &'static str,
    /// The byte that is read next.
    at: u64,
    each: F,
    /// Whether the list is in an object, the rest of which is passed over.
    inside: bool,
    records: u64,
    /// The element so far, at most as long as a record may be, and its length.
    text: Vec<u8>,
    length: u64,
}

/// Where the scanner stands in a list.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Before the list.
    Outside,
    /// Behind `[`.
    First,
    /// Behind a comma.
    Next,
    /// In a number or word.
    Word,
    /// In brackets, so many deep.
    Deep(u64),
    /// In a string, so many brackets deep; behind a backslash.
    Text(u64, bool),
    /// Behind an element.
    Behind,
    /// Behind `]`.
    End,
}

impl<F: FnMut(Element) -> Result<(), OpenError>> Scanner<'_, F> {
    fn wrong(&self, problem: &str) -> OpenError {
        OpenError::Json {
            path: self.path.into(),
            record: self.records + 1,
            problem: problem.into(),
            example: self.example,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.length <= MAX_RECORD_BYTES {
            self.text.extend_from_slice(bytes);
        }
    }

    /// Gives on the element that ends at the byte `end`.
    fn give(&mut self, end: u64) -> Result<(), OpenError> {
        self.records += 1;
        (self.each)(Element { offset: end - self.length, length: self.length, text: &self.text })?;
        self.text.clear();
        self.length = 0;
        Ok(())
    }

    /// Goes on to the list that is called `name` in the object that begins here.
    fn enter(&mut self, reader: &mut impl BufRead, name: &str) -> Result<(), OpenError> {
        let mut search = Search::new(name);
        loop {
            let bytes = reader.fill_buf().map_err(|error| OpenError::Io { path: self.path.into(), error })?;
            let Some(&byte) = bytes.first() else {
                return Err(self.wrong(&format!("an object without a list `{name}`")));
            };
            if search.is_at_list(byte) {
                self.inside = true;
                return Ok(());
            }
            reader.consume(1);
            self.at += 1;
        }
    }

    fn list(mut self, mut reader: impl BufRead) -> Result<(), OpenError> {
        let mut place = Place::Outside;
        loop {
            let chunk = reader.fill_buf().map_err(|error| OpenError::Io { path: self.path.into(), error })?;
            if chunk.is_empty() {
                break;
            }
            let mut used = 0;
            while used < chunk.len() {
                // Most bytes are in strings, or between brackets and mean nothing there.
                let rest = &chunk[used..];
                let plain = match place {
                    Place::Text(_, false) => rest.iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(rest.len()),
                    _ => 0,
                };
                self.take(&rest[..plain]);
                used += plain;
                if let Some(byte) = chunk.get(used) {
                    place = self.step(place, *byte, self.at + used as u64)?;
                    used += 1;
                    if place == Place::End && self.inside {
                        return Ok(());
                    }
                }
            }
            self.at += used as u64;
            reader.consume(used);
        }
        Err(self.wrong(match place {
            Place::End => return Ok(()),
            Place::Text(..) => "EOF while parsing a string: a quote that nothing closes",
            Place::Deep(_) => "EOF while parsing an object: a bracket that nothing closes",
            _ => "EOF while parsing a list",
        }))
    }

    /// The place behind `byte`, which is at `at`.
    fn step(&mut self, place: Place, byte: u8, at: u64) -> Result<Place, OpenError> {
        match place {
            Place::Outside => return Ok(Place::First),
            Place::First | Place::Next | Place::Behind | Place::End if is_space(byte) => return Ok(place),
            Place::Behind | Place::Word if byte == b',' || byte == b']' || is_space(byte) => {
                if place == Place::Word {
                    self.give(at)?;
                }
                return Ok(match byte {
                    b',' => Place::Next,
                    b']' => Place::End,
                    _ => Place::Behind,
                });
            }
            Place::Behind => return Err(self.wrong("expected `,` or `]`")),
            Place::End => return Err(self.wrong("trailing characters")),
            Place::First if byte == b']' => return Ok(Place::End),
            Place::Next if byte == b']' => return Err(self.wrong("trailing comma")),
            Place::First | Place::Next if matches!(byte, b',' | b'}') => return Err(self.wrong("expected value")),
            _ => {}
        }
        self.take(&[byte]);
        let next = match (place, byte) {
            (Place::Text(depth, true), _) => Place::Text(depth, false),
            (Place::Text(depth, _), b'\\') => Place::Text(depth, true),
            (Place::Text(depth, _), b'"') => Place::Deep(depth),
            (Place::Text(..), _) => place,
            (Place::Word, _) => place,
            (Place::Deep(depth), b'"') => Place::Text(depth, false),
            (Place::Deep(depth), b'{' | b'[') => Place::Deep(depth + 1),
            (Place::Deep(depth), b'}' | b']') => Place::Deep(depth - 1),
            (Place::Deep(_), _) => place,
            (_, b'"') => Place::Text(0, false),
            (_, b'{' | b'[') => Place::Deep(1),
            _ => Place::Word,
        };
        if next == Place::Deep(0) {
            self.give(at + 1)?;
            return Ok(Place::Behind);
        }
        Ok(next)
    }

    fn lines(mut self, mut reader: impl BufRead) -> Result<(), OpenError> {
        loop {
            let chunk = reader.fill_buf().map_err(|error| OpenError::Io { path: self.path.into(), error })?;
            let line_end = chunk.iter().position(|b| *b == b'\n');
            let count = line_end.map_or(chunk.len(), |end| end + 1);
            self.take(&chunk[..count]);
            self.at += count as u64;
            reader.consume(count);
            if line_end.is_none() && count > 0 {
                continue;
            }
            if self.length <= MAX_RECORD_BYTES && self.text.iter().all(|b| is_space(*b)) {
                (self.length, self.text) = (0, Vec::new());
            } else {
                self.give(self.at)?;
            }
            if count == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_in_an_object_is_told_from_records_one_a_line() {
        for (text, expected) in [
            (r#"{"images": [{"filename""#, true),
            ("\u{feff} {\n \"dataset\": {\"a\": [1]}, \"images\" :\n [", true),
            (r#"{"image": "images", "caption": ["#, false),
            (r#"{"image": "a.jpg", "images": 3}"#, false),
            ("{\"image\": \"a.jpg\"}\n{\"images\": [", false),
            (r#"{"a": {"images": ["#, false),
            (r#"[{"images": ["#, false),
            ("", false),
        ] {
            assert_eq!(begins_with_list(text.as_bytes(), "images"), expected, "{text}");
        }
    }
}
