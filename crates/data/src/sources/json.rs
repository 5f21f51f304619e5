//! The authors' JSON: `[{"image": path, "caption": str | [str], "image_id"?}]` (specification, section 6).
//!
//! The file is read once as a stream, which finds where each record begins and ends and checks it; a record is then read
//! and parsed when it is asked for. Nothing but one record at a time is in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::limited::{Limited, Progress};
use super::{Malformed, OpenError, Options, REPORT_EVERY, Records, Watch, fields};
use crate::record::{Entry, Location, RecordError};
use crate::table::{Table, TableWriter};

/// Records as they should be, for messages.
pub(super) const EXAMPLE: &str = r#"[{"image": "photos/1.jpg", "caption": "a dog in the snow"}]"#;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A JSON file of records.
#[derive(Debug)]
pub(crate) struct JsonRecords {
    path: PathBuf,
    file: File,
    root: PathBuf,
    /// First byte and length of each record.
    places: Table<2>,
}

impl JsonRecords {
    pub fn open(path: &Path, options: &Options, watch: Watch) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io { path: path.into(), error };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut places = TableWriter::start(options.index_folder.as_deref()).map_err(io)?;
        let root = options.root(path);
        let mut malformed = Malformed::default();
        let mut record = 0;
        let scanned = scan(&file, |offset, text| {
            record += 1;
            if record % REPORT_EVERY == 0 {
                watch(offset, length);
            }
            malformed.note(parse(text, path, record, &root));
            places.push([offset, text.len() as u64])
        });
        scanned.map_err(|error| OpenError::Json { path: path.into(), record: record + 1, error })?;
        malformed.check(path, record, options)?;
        Ok(JsonRecords { path: path.into(), file, root, places: places.finish().map_err(io)? })
    }
}

impl Records for JsonRecords {
    fn len(&self) -> u64 {
        self.places.len()
    }

    fn entry(&self, index: u64) -> Result<Entry, RecordError> {
        let read = || -> io::Result<Vec<u8>> {
            let [offset, length] = self.places.row(index)?;
            let mut text = vec![0; length as usize];
            self.file.read_exact_at(&mut text, offset)?;
            Ok(text)
        };
        let changed = |problem: String| RecordError::Malformed { name: name(&self.path, index + 1), problem };
        let text = read().map_err(|e| changed(format!("cannot be read again: {e}")))?;
        let text = String::from_utf8(text).map_err(|_| changed("the file has changed since it was opened".into()))?;
        parse(&text, &self.path, index + 1, &self.root)
    }
}

fn name(path: &Path, record: u64) -> String {
    format!("{}, record {record}", path.display())
}

/// The fields of a record that matter; others are allowed.
#[derive(Deserialize)]
struct Fields {
    image: Option<Value>,
    caption: Option<Value>,
    image_id: Option<Value>,
}

/// Reads one record, counted from 1.
fn parse(text: &str, path: &Path, record: u64, root: &Path) -> Result<Entry, RecordError> {
    let name = name(path, record);
    let Fields { image, caption, image_id } = serde_json::from_str(text).map_err(|e| {
        let one = &EXAMPLE[1..EXAMPLE.len() - 1];
        RecordError::Malformed { name: name.clone(), problem: format!("{e}; expected a record like {one}") }
    })?;
    let image = match &image {
        Some(Value::String(image)) if !image.is_empty() => root.join(image),
        other => {
            return Err(fields::wrong(&name, "image", "the path of an image file", other.as_ref()));
        }
    };
    let captions = fields::captions(caption, &name)?;
    let image_id = fields::image_id(image_id.as_ref(), image.as_os_str().as_encoded_bytes(), &name)?;
    Entry::new(Location::File(image), captions, name, image_id)
}

/// Calls `each` with the offset and the text of every element of the list in `file`.
fn scan(file: &File, each: impl FnMut(u64, &str) -> io::Result<()>) -> Result<(), serde_json::Error> {
    // A byte order mark, which some editors write, is no JSON.
    let mut inner = BufReader::with_capacity(1 << 16, file);
    let mark = inner.fill_buf().is_ok_and(|text| text.starts_with(BYTE_ORDER_MARK));
    let start = if mark { BYTE_ORDER_MARK.len() } else { 0 };
    inner.consume(start);
    // The parser takes one byte at a time, so that the reader stands right behind an element when it is complete.
    let progress = Progress::new(start as u64, 0);
    let reader = Limited { inner, progress: &progress };
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    (&mut deserializer).deserialize_seq(Elements { progress: &progress, each })?;
    deserializer.end()
}

struct Elements<'a, F> {
    progress: &'a Progress,
    each: F,
}

impl<'de, F: FnMut(u64, &str) -> io::Result<()>> Visitor<'de> for Elements<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element::<Box<RawValue>>()? {
            let text = element.get();
            (self.each)(self.progress.at() - text.len() as u64, text).map_err(serde::de::Error::custom)?;
            self.progress.next_record(0);
        }
        Ok(())
    }
}
