//! A JSON file of records: a list, a list in an object, or one a line; compressed with gzip or not.
//!
//! The file is read once as a stream, which finds where each record begins and ends and checks it; a record is then read
//! and parsed when it is asked for. Nothing but one record at a time is in memory.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::elements::{self, Layout};
use super::fields::NOT_UTF8;
use super::{MAX_RECORD_BYTES, Malformed, OpenError, Options, Pictures, REPORT_EVERY, Records, Watch, sniff, too_long};
use crate::formats::{Format, Place};
use crate::record::RecordError;
use crate::table::Table;

/// Largest file that is unpacked.
pub(crate) const MAX_UNPACKED_BYTES: u64 = 64 << 30;

/// A JSON file of records.
#[derive(Debug)]
pub(crate) struct JsonRecords<F> {
    path: PathBuf,
    file: File,
    pictures: Pictures,
    splits: Vec<String>,
    /// First byte and length of the element that each record is in, the element's number from 1, and which of its records it is.
    places: Table<4>,
    format: PhantomData<F>,
}

impl<F: Format> JsonRecords<F> {
    pub(crate) fn open(path: &Path, options: &Options, watch: Watch) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io { path: path.into(), error };
        let file = open(path, options)?;
        let length = file.metadata().map_err(io)?.len();
        let mut places = options.index()?;
        let pictures = options.pictures(path)?;
        let mut malformed = Malformed::default();
        let (mut number, mut records, mut reported) = (0, 0, 0);
        let layout = elements::scan(path, &file, F::LIST, F::EXAMPLE, |element| {
            let place = Place { name: name(path, number + 1), pictures: &pictures, splits: &options.splits };
            let found = read::<F>(element.text(), &place);
            // A broken element may be several; each stays, to be counted when it is met.
            let (elements, each) = match &found {
                Ok(found) => (1, found.len() as u64),
                Err(RecordError::Malformed { .. }) => (element.records(&file).map_err(io)?, 1),
                Err(_) => (1, 1),
            };
            malformed.note_many(found, elements);
            for (element_number, nth) in
                (number + 1..=number + elements).flat_map(|e| (0..each).map(move |nth| (e, nth)))
            {
                let place = [element.offset, element.length, element_number, nth];
                places.push(place).map_err(|e| options.index_error(e))?;
            }
            number += elements;
            records += elements * each;
            if number - reported >= REPORT_EVERY {
                reported = number;
                watch(element.offset, length);
            }
            Ok(())
        })?;
        if layout == Layout::Lines && malformed.count == records {
            let problem =
                format!("invalid type: map, expected a list, or a record a line: {}", malformed.examples.join("; "));
            return Err(OpenError::Json { path: path.into(), record: 1, problem, example: F::EXAMPLE });
        }
        if records == 0 && number > 0 && !options.splits.is_empty() {
            return Err(OpenError::Split { path: path.into(), splits: options.splits.clone() });
        }
        malformed.check(path, records, options)?;
        let places = places.finish().map_err(|e| options.index_error(e))?;
        let splits = options.splits.clone();
        Ok(JsonRecords { path: path.into(), file, pictures, splits, places, format: PhantomData })
    }
}

impl<F: Format> Records<F::Entry> for JsonRecords<F> {
    fn len(&self) -> u64 {
        self.places.len()
    }

    fn entry(&self, index: u64) -> Result<F::Entry, RecordError> {
        let unread = |place: &Place, e: io::Error| place.malformed(format!("cannot be read again: {e}"));
        let name_of_file = self.path.display().to_string();
        let mut place = Place { name: name_of_file, pictures: &self.pictures, splits: &self.splits };
        let [offset, length, element, nth] = self.places.row(index).map_err(|e| unread(&place, e))?;
        place.name = name(&self.path, element);
        let mut text = vec![0; if length > MAX_RECORD_BYTES { 0 } else { length as usize }];
        self.file.read_exact_at(&mut text, offset).map_err(|e| unread(&place, e))?;
        let text = if length > MAX_RECORD_BYTES { Err(too_long()) } else { Ok(text.as_slice()) };
        let mut found = read::<F>(text, &place)?;
        if nth >= found.len() as u64 {
            return Err(place.malformed("the file has changed since it was opened".into()));
        }
        Ok(found.swap_remove(nth as usize))
    }
}

fn name(path: &Path, record: u64) -> String {
    format!("{}, record {record}", path.display())
}

/// What an element says, or why there is no text of it.
fn read<F: Format>(text: Result<&[u8], String>, place: &Place) -> Result<Vec<F::Entry>, RecordError> {
    let text = text.and_then(|text| std::str::from_utf8(text).map_err(|_| NOT_UTF8.into()));
    F::read(text.map_err(|problem| place.no_record::<F>(problem))?.as_bytes(), place)
}

/// Whether a file is an object that has a list called `list`, in which a record has the `field`, as far as its first bytes tell.
pub(super) fn has_list(path: &Path, list: &str, field: &str) -> io::Result<bool> {
    const HEAD: u64 = 1 << 16;
    let mut head = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    if sniff::compression(&head).is_some_and(|(kind, _)| kind == "gzip") {
        head.clear();
        // A file that is damaged further on is so when it is opened.
        let _ = MultiGzDecoder::new(File::open(path)?).take(HEAD).read_to_end(&mut head);
    }
    let field = format!("\"{field}\"");
    let has_field = || head.windows(field.len()).any(|window| window == field.as_bytes());
    Ok(elements::begins_with_list(&head, list) && has_field())
}

/// Opens a file whose bytes can be read in any order, unpacked where it is compressed with gzip.
fn open(path: &Path, options: &Options) -> Result<File, OpenError> {
    let io = |error| OpenError::Io { path: path.into(), error };
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        let expected = "a .json or .jsonl file of records, or one compressed with gzip";
        return Err(OpenError::Kind { path: path.into(), found: "not a file".into(), expected });
    }
    let head = sniff::head(path).map_err(io)?;
    if sniff::is_utf16(&head) {
        return Err(OpenError::Utf16 { path: path.into() });
    }
    let file = File::open(path).map_err(io)?;
    match sniff::compression(&head) {
        None => Ok(file),
        Some(("gzip", _)) => {
            let mut unpacked = match &options.index_folder {
                Some(folder) => tempfile::tempfile_in(folder),
                None => tempfile::tempfile(),
            }
            .map_err(|e| options.index_error(e))?;
            let length =
                io::copy(&mut MultiGzDecoder::new(file).take(MAX_UNPACKED_BYTES), &mut unpacked).map_err(io)?;
            if length == MAX_UNPACKED_BYTES {
                return Err(io(io::Error::other(format!("at most {MAX_UNPACKED_BYTES} bytes are unpacked"))));
            }
            unpacked.rewind().map_err(io)?;
            Ok(unpacked)
        }
        Some((kind, command)) => Err(OpenError::Compressed { path: path.into(), kind, command }),
    }
}
