//! CSV and TSV with a column of image paths and a column of captions, named in the first line; `image_id` and `subcategory` are used
//! where there are such columns. Fields may as well be apart by `;` or tabs, as spreadsheets write them.
//!
//! Like JSON, the file is read once as a stream, and then record by record. A record is a line, or several where a quoted field
//! has line breaks; a quote that is not closed as it should be takes no line behind its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder};
use serde_json::Value;

use super::beside::IMAGE_ENDINGS;
use super::{MAX_RECORD_BYTES, Malformed, OpenError, Options, REPORT_EVERY, Records, Watch, fields, too_long};
use crate::record::{Entry, Location, RecordError};
use crate::table::Table;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Bytes that are read at once.
const CHUNK: usize = 4 << 20;
/// Characters of the first line that a message shows: a file that is no CSV may have nothing but a first line.
const SHOWN: usize = 300;
/// The column of image ids, if there is one.
const ID_COLUMN: &str = "image_id";
/// The column of kinds of products, if there is one.
const KIND_COLUMN: &str = "subcategory";

/// A CSV or TSV file of records.
#[derive(Debug)]
pub(crate) struct CsvRecords {
    file: File,
    layout: Layout,
    /// First byte and length of each record.
    places: Table<2>,
}

/// Where things are in a line.
#[derive(Debug)]
struct Layout {
    path: PathBuf,
    root: PathBuf,
    delimiter: u8,
    columns: usize,
    image: usize,
    caption: usize,
    image_id: Option<usize>,
    subcategory: Option<usize>,
}

impl CsvRecords {
    pub(crate) fn open(path: &Path, delimiter: u8, options: &Options, watch: Watch) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io { path: path.into(), error };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut window = Window { file: &file, offset: 0, text: Vec::new(), start: 0, end: false };
        if window.text().map_err(io)?.starts_with(BYTE_ORDER_MARK) {
            window.skip(BYTE_ORDER_MARK.len());
        }
        window.skip_blank_lines().map_err(io)?;
        let header = window.text().map_err(io)?;
        let header_length = record_length(header, delimiter, None).ok_or_else(|| io(io::Error::other(too_long())))?;
        let layout = Layout::of(&header[..header_length], path, delimiter, options)?;
        window.skip(header_length);

        let mut places = options.index()?;
        let mut malformed = Malformed::default();
        let mut record = 0;
        loop {
            window.skip_blank_lines().map_err(io)?;
            let (offset, text) = (window.offset, window.text().map_err(io)?);
            if text.is_empty() {
                break;
            }
            record += 1;
            if record % REPORT_EVERY == 0 {
                watch(offset, length);
            }
            let length = match record_length(text, layout.delimiter, Some(layout.image)) {
                Some(length) => {
                    malformed.note(layout.parse(Ok(&text[..length]), record));
                    window.skip(length);
                    length as u64
                }
                None => {
                    malformed.note(layout.parse(Err(too_long()), record));
                    window.skip_line().map_err(io)?
                }
            };
            places.push([offset, length]).map_err(|e| options.index_error(e))?;
        }
        malformed.check(path, record, options)?;
        let places = places.finish().map_err(|e| options.index_error(e))?;
        Ok(CsvRecords { file, layout, places })
    }
}

impl Records for CsvRecords {
    fn len(&self) -> u64 {
        self.places.len()
    }

    fn entry(&self, index: u64) -> Result<Entry, RecordError> {
        let read = || -> io::Result<Result<Vec<u8>, String>> {
            let [offset, length] = self.places.row(index)?;
            if length > MAX_RECORD_BYTES {
                return Ok(Err(too_long()));
            }
            let mut text = vec![0; length as usize];
            self.file.read_exact_at(&mut text, offset)?;
            Ok(Ok(text))
        };
        let text = read().unwrap_or_else(|e| Err(format!("cannot be read again: {e}")));
        self.layout.parse(text.as_deref().map_err(String::clone), index + 1)
    }
}

impl Layout {
    /// What the first line says.
    fn of(header: &[u8], path: &Path, delimiter: u8, options: &Options) -> Result<Self, OpenError> {
        let Options { image_column, caption_column, .. } = options;
        let mut missing = None;
        for delimiter in [delimiter, b';', b'\t', b','] {
            let header = split(header, delimiter);
            let column = |name: &str| header.iter().position(|field| field == name.as_bytes());
            let (image, caption) = (column(image_column), column(caption_column));
            if let (Some(image), Some(caption)) = (image, caption) {
                return Ok(Layout {
                    path: path.into(),
                    root: options.root(path),
                    delimiter,
                    columns: header.len(),
                    image,
                    caption,
                    image_id: column(ID_COLUMN),
                    subcategory: column(KIND_COLUMN),
                });
            }
            missing.get_or_insert_with(|| {
                let (setting, column) = match image {
                    None => ("image_column", image_column),
                    Some(_) => ("caption_column", caption_column),
                };
                let found = header.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(", ");
                let found = fields::brief(&found, SHOWN);
                OpenError::Column { path: path.into(), setting, column: column.clone(), found }
            });
        }
        Err(missing.unwrap_or_else(|| OpenError::Empty { path: path.into() }))
    }

    /// Reads one record, counted from 1; its text, or why there is none.
    fn parse(&self, text: Result<&[u8], String>, number: u64) -> Result<Entry, RecordError> {
        let name = format!("{}, record {number}", self.path.display());
        let malformed = |problem: String| RecordError::Malformed { name: name.clone(), problem };
        let text = text.map_err(malformed)?;
        let record = split(text, self.delimiter);
        let closed = quoted_record(text, self.delimiter);
        let field = |column: usize, field: &str| match record.get(column).map(std::str::from_utf8) {
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(malformed(format!("field `{field}` is {}", fields::NOT_UTF8))),
            None => {
                let expected = match closed {
                    Err(Quote::Open) => "a column more (a quote that nothing closes takes the rest of the line, too)",
                    _ => "a column more",
                };
                Err(fields::wrong(&name, field, expected, None))
            }
        };
        let (image, caption) = (field(self.image, "image")?, field(self.caption, "caption")?);
        closed.map_err(|quote| malformed(quote.problem().into()))?;
        if record.iter().skip(self.columns).any(|field| !field.is_empty()) {
            let (found, columns) = (record.len(), self.columns);
            return Err(malformed(format!(
                "{found} fields, but the first line names {columns} columns: expected quotes around a caption with a separator in it"
            )));
        }
        if image.is_empty() {
            return Err(fields::wrong(&name, "image", "the path of an image file", None));
        }
        let image = self.root.join(image);
        let id = self.image_id.map(|column| field(column, ID_COLUMN)).transpose()?;
        let id = id.map(|id| Value::String(id.into()));
        let image_id = fields::image_id(id.as_ref(), image.as_os_str().as_encoded_bytes(), &name)?;
        let subcategory = self.subcategory.map(|column| field(column, KIND_COLUMN)).transpose()?;
        let subcategory = subcategory.filter(|kind| !kind.is_empty()).map(String::from);
        Ok(Entry { subcategory, ..Entry::new(Location::File(image), vec![caption.into()], name.clone(), image_id)? })
    }
}

/// The fields of a record.
fn split(text: &[u8], delimiter: u8) -> ByteRecord {
    let mut reader = ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(text);
    let mut record = ByteRecord::new();
    // From memory, with any number of fields: nothing can fail.
    let _ = reader.read_byte_record(&mut record);
    record
}

/// What is wrong with a quoted field.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Quote {
    Open,
    Inside,
}

impl Quote {
    fn problem(self) -> &'static str {
        match self {
            Quote::Open => "a quote that nothing closes",
            Quote::Inside => r#"a quote inside a quoted field: expected it doubled, "" (\" is not read)"#,
        }
    }
}

/// The length of the record that `text` begins with, its line break included, where its quotes are closed as they should be.
fn quoted_record(text: &[u8], delimiter: u8) -> Result<usize, Quote> {
    #[derive(PartialEq)]
    enum State {
        Begin,
        Plain,
        Quoted,
        Closed,
    }
    let mut state = State::Begin;
    for (at, byte) in text.iter().enumerate() {
        state = match (state, *byte) {
            (State::Begin | State::Closed, b'"') => State::Quoted,
            (State::Quoted, b'"') => State::Closed,
            (State::Quoted, _) => State::Quoted,
            (_, b'\n' | b'\r') => return Ok(at + 1),
            (_, byte) if byte == delimiter => State::Begin,
            (State::Closed, _) => return Err(Quote::Inside),
            (State::Begin | State::Plain, _) => State::Plain,
        };
    }
    if state == State::Quoted { Err(Quote::Open) } else { Ok(text.len()) }
}

/// The length of the record that `text` begins with: of its first line alone where a quote would take in other rows. `image` is
/// the column of image paths. None where it is too long.
fn record_length(text: &[u8], delimiter: u8, image: Option<usize>) -> Option<usize> {
    let most = MAX_RECORD_BYTES as usize;
    let length = quoted_record(&text[..text.len().min(most + 1)], delimiter).ok().filter(|length| *length <= most);
    let line = || text.iter().take(most).position(|b| is_line_break(*b)).map(|at| at + 1);
    match length {
        Some(length) if !image.is_some_and(|image| takes_in_rows(&text[..length], delimiter, image)) => Some(length),
        _ => line().or((text.len() <= most).then_some(text.len())),
    }
}

/// Whether a line of a record but the first looks like a row of its own: an image's name stands where one should, before any quote.
fn takes_in_rows(record: &[u8], delimiter: u8, image: usize) -> bool {
    let mut lines = record.split(|b| is_line_break(*b)).skip(1);
    lines.any(|line| {
        let quote = line.iter().position(|b| *b == b'"');
        let mut fields = line[..quote.unwrap_or(line.len())].split(|b| *b == delimiter);
        let field = fields.nth(image).filter(|_| quote.is_none() || fields.next().is_some());
        let ending = field.and_then(|field| Path::new(std::str::from_utf8(field).ok()?).extension()?.to_str());
        ending.is_some_and(|ending| IMAGE_ENDINGS.contains(&ending.to_lowercase().as_str()))
    })
}

fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// What follows in a file.
struct Window<'a> {
    file: &'a File,
    /// The byte that follows.
    offset: u64,
    /// It and what is behind it, from `start` on.
    text: Vec<u8>,
    start: usize,
    /// Whether that is all.
    end: bool,
}

impl Window<'_> {
    /// What follows, longer than a record may be where the file is.
    fn text(&mut self) -> io::Result<&[u8]> {
        if !self.end && self.text.len() - self.start <= MAX_RECORD_BYTES as usize {
            self.text.drain(..self.start);
            self.start = 0;
            let mut filled = self.text.len();
            self.text.resize(CHUNK, 0);
            while filled < CHUNK && !self.end {
                let count = self.file.read_at(&mut self.text[filled..], self.offset + filled as u64)?;
                self.end = count == 0;
                filled += count;
            }
            self.text.truncate(filled);
        }
        Ok(&self.text[self.start..])
    }

    fn skip(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    fn skip_blank_lines(&mut self) -> io::Result<()> {
        while self.text()?.first().is_some_and(|b| is_line_break(*b)) {
            self.skip(1);
        }
        Ok(())
    }

    /// Skips to behind the next line break; how many bytes.
    fn skip_line(&mut self) -> io::Result<u64> {
        let from = self.offset;
        loop {
            let text = self.text()?;
            let (end, all) = (text.iter().position(|b| is_line_break(*b)), text.len());
            self.skip(end.map_or(all, |end| end + 1));
            if end.is_some() || all == 0 {
                return Ok(self.offset - from);
            }
        }
    }
}
