//! CSV and TSV with a column of image paths and a column of captions, named in the first line; `image_id` is used where
//! there is such a column. Like JSON, the file is read once as a stream, and then record by record.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder};
use serde_json::Value;

use super::limited::{Limited, Progress};
use super::{Malformed, OpenError, Options, REPORT_EVERY, Records, Watch, fields};
use crate::record::{Entry, Location, RecordError};
use crate::table::{Table, TableWriter};

/// The parser's buffer.
const BUFFER: usize = 1 << 16;
/// Characters of the first line that a message shows: a file that is no CSV may have nothing but a first line.
const SHOWN: usize = 300;
/// The column of image ids, if there is one.
const ID_COLUMN: &str = "image_id";

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
    image: usize,
    caption: usize,
    image_id: Option<usize>,
}

impl CsvRecords {
    pub fn open(path: &Path, delimiter: u8, options: &Options, watch: Watch) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io { path: path.into(), error };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let wrong = |e: csv::Error| io(io::Error::other(e.to_string()));
        let progress = Progress::new(0, BUFFER as u64);
        let reader = Limited { inner: &file, progress: &progress };
        let mut reader =
            ReaderBuilder::new().delimiter(delimiter).flexible(true).buffer_capacity(BUFFER).from_reader(reader);

        let header = reader.byte_headers().map_err(wrong)?.clone();
        let column = |name: &str| header.iter().position(|field| field == name.as_bytes());
        let needed = |setting: &'static str, name: &str| {
            column(name).ok_or_else(|| OpenError::Column {
                path: path.into(),
                setting,
                column: name.into(),
                found: fields::brief(&header.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(", "), SHOWN),
            })
        };
        let layout = Layout {
            path: path.into(),
            root: options.root(path),
            delimiter,
            image: needed("image_column", &options.image_column)?,
            caption: needed("caption_column", &options.caption_column)?,
            image_id: column(ID_COLUMN),
        };

        let mut places = TableWriter::start(options.index_folder.as_deref()).map_err(io)?;
        let mut malformed = Malformed::default();
        let (mut record, mut fields) = (0, ByteRecord::new());
        loop {
            progress.next_record(BUFFER as u64);
            if !reader.read_byte_record(&mut fields).map_err(wrong)? {
                break;
            }
            let Some(start) = fields.position() else {
                break;
            };
            record += 1;
            if record % REPORT_EVERY == 0 {
                watch(start.byte(), length);
            }
            malformed.note(layout.parse(&fields, record));
            places.push([start.byte(), reader.position().byte() - start.byte()]).map_err(io)?;
        }
        malformed.check(path, record, options)?;
        drop(reader);
        Ok(CsvRecords { file, layout, places: places.finish().map_err(io)? })
    }
}

impl Records for CsvRecords {
    fn len(&self) -> u64 {
        self.places.len()
    }

    fn entry(&self, index: u64) -> Result<Entry, RecordError> {
        let read = || -> Result<ByteRecord, Box<dyn std::error::Error>> {
            let [offset, length] = self.places.row(index)?;
            let mut text = vec![0; length as usize];
            self.file.read_exact_at(&mut text, offset)?;
            let mut reader =
                ReaderBuilder::new().delimiter(self.layout.delimiter).has_headers(false).from_reader(&text[..]);
            let mut fields = ByteRecord::new();
            reader.read_byte_record(&mut fields)?;
            Ok(fields)
        };
        match read() {
            Ok(fields) => self.layout.parse(&fields, index + 1),
            Err(e) => Err(RecordError::Malformed {
                name: format!("{}, record {}", self.layout.path.display(), index + 1),
                problem: format!("cannot be read again: {e}"),
            }),
        }
    }
}

impl Layout {
    fn parse(&self, record: &ByteRecord, number: u64) -> Result<Entry, RecordError> {
        let name = format!("{}, record {number}", self.path.display());
        let field = |column: usize, field: &str| match record.get(column).map(std::str::from_utf8) {
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(RecordError::Malformed {
                name: name.clone(),
                problem: format!("field `{field}` is not UTF-8 text"),
            }),
            None => {
                let open_quote = record.iter().any(|text| text.contains(&b'\n'));
                let expected = match open_quote {
                    true => "a column more (a quote that nothing closes takes the lines behind it, too)",
                    false => "a column more",
                };
                Err(fields::wrong(&name, field, expected, None))
            }
        };
        let image = field(self.image, "image")?;
        if image.is_empty() {
            return Err(fields::wrong(&name, "image", "the path of an image file", None));
        }
        let image = self.root.join(image);
        let caption = field(self.caption, "caption")?.to_string();
        let id = self.image_id.map(|column| field(column, ID_COLUMN)).transpose()?;
        let id = id.map(|id| Value::String(id.into()));
        let image_id = fields::image_id(id.as_ref(), image.as_os_str().as_encoded_bytes(), &name)?;
        Entry::new(Location::File(image), vec![caption], name, image_id)
    }
}
