//! The authors' JSON: `[{"image": path, "caption": str | [str], "image_id"?}]` (specification, section 6), or such records one a
//! line.
//!
//! The file is read once as a stream, which finds where each record begins and ends and checks it; a record is then read
//! and parsed when it is asked for. Nothing but one record at a time is in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::elements::{self, Layout};
use super::{MAX_RECORD_BYTES, Malformed, OpenError, Options, REPORT_EVERY, Records, Watch, fields, too_long};
use crate::record::{Entry, Location, RecordError};
use crate::table::Table;

/// Records as they should be, for messages.
pub(super) const EXAMPLE: &str = r#"[{"image": "photos/1.jpg", "caption": "a dog in the snow"}]"#;

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
        let mut places = options.index()?;
        let root = options.root(path);
        let mut malformed = Malformed::default();
        let (mut record, mut reported) = (0, 0);
        let layout = elements::scan(path, &file, |element| {
            let entry = parse(element.text(), path, record + 1, &root);
            let records = match &entry {
                Err(RecordError::Malformed { .. }) => element.records(&file).map_err(io)?,
                _ => 1,
            };
            malformed.note_many(entry, records);
            for _ in 0..records {
                places.push([element.offset, element.length]).map_err(|e| options.index_error(e))?;
            }
            record += records;
            if record - reported >= REPORT_EVERY {
                reported = record;
                watch(element.offset, length);
            }
            Ok(())
        })?;
        if layout == Layout::Lines && malformed.count == record {
            let problem =
                format!("invalid type: map, expected a list, or a record a line: {}", malformed.examples.join("; "));
            return Err(OpenError::Json { path: path.into(), record: 1, problem });
        }
        malformed.check(path, record, options)?;
        let places = places.finish().map_err(|e| options.index_error(e))?;
        Ok(JsonRecords { path: path.into(), file, root, places })
    }
}

impl Records for JsonRecords {
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
        let changed = |e| RecordError::Malformed {
            name: name(&self.path, index + 1),
            problem: format!("cannot be read again: {e}"),
        };
        let text = read().map_err(changed)?;
        parse(text.as_deref().map_err(String::clone), &self.path, index + 1, &self.root)
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

/// Reads one record, counted from 1; its text, or why there is none.
fn parse(text: Result<&[u8], String>, path: &Path, record: u64, root: &Path) -> Result<Entry, RecordError> {
    let name = name(path, record);
    let fields = text.and_then(|text| fields::from_json(text).map_err(|e| e.to_string()));
    let Fields { image, caption, image_id } = fields.map_err(|e| {
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
