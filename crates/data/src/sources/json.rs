//! A JSON file with a list of records.
//!
//! The file is read once as a stream, which finds where each record begins and ends and checks it; a record is then read
//! and parsed when it is asked for. Nothing but one record at a time is in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::limited::{Limited, Progress};
use super::{Malformed, OpenError, Options, REPORT_EVERY, Records, Watch};
use crate::formats::{Format, Place};
use crate::record::RecordError;
use crate::table::{Table, TableWriter};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A JSON file of records.
#[derive(Debug)]
pub(crate) struct JsonRecords<F> {
    path: PathBuf,
    file: File,
    root: PathBuf,
    /// First byte and length of the element that each record is in, the element's number from 1, and which of its records it is.
    places: Table<4>,
    format: PhantomData<F>,
}

impl<F: Format> JsonRecords<F> {
    pub fn open(path: &Path, options: &Options, watch: Watch) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io { path: path.into(), error };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut places = TableWriter::start(options.index_folder.as_deref()).map_err(io)?;
        let root = options.root(path);
        let mut malformed = Malformed::default();
        let (mut element, mut records) = (0, 0);
        let scanned = scan(&file, |offset, text| {
            element += 1;
            if element % REPORT_EVERY == 0 {
                watch(offset, length);
            }
            let found = F::read(text, &Place { name: name(path, element), root: &root });
            // One that cannot be used stays, to be counted when it is met.
            let count = found.as_ref().map_or(1, Vec::len) as u64;
            malformed.note(found);
            records += count;
            (0..count).try_for_each(|nth| places.push([offset, text.len() as u64, element, nth]))
        });
        let example = F::EXAMPLE;
        scanned.map_err(|error| OpenError::Json { path: path.into(), record: element + 1, error, example })?;
        malformed.check(path, records, options)?;
        Ok(JsonRecords { path: path.into(), file, root, places: places.finish().map_err(io)?, format: PhantomData })
    }
}

impl<F: Format> Records<F::Entry> for JsonRecords<F> {
    fn len(&self) -> u64 {
        self.places.len()
    }

    fn entry(&self, index: u64) -> Result<F::Entry, RecordError> {
        let changed = |place: &Place| place.malformed("the file has changed since it was opened".into());
        let unread = |place: &Place, e: io::Error| place.malformed(format!("cannot be read again: {e}"));
        let mut place = Place { name: self.path.display().to_string(), root: &self.root };
        let [offset, length, element, nth] = self.places.row(index).map_err(|e| unread(&place, e))?;
        place.name = name(&self.path, element);
        let mut text = vec![0; length as usize];
        self.file.read_exact_at(&mut text, offset).map_err(|e| unread(&place, e))?;
        let text = String::from_utf8(text).map_err(|_| changed(&place))?;
        let mut found = F::read(&text, &place)?;
        if nth >= found.len() as u64 {
            return Err(changed(&place));
        }
        Ok(found.swap_remove(nth as usize))
    }
}

fn name(path: &Path, record: u64) -> String {
    format!("{}, record {record}", path.display())
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
