//! Where records come from. Every source is indexed in one pass when it is opened and read record by record afterwards.

mod beside;
mod csv;
mod each_caption;
pub(crate) mod fields;
mod folder;
mod json;
mod limited;
mod pattern;
mod shards;

use std::path::{Path, PathBuf};

pub use beside::{IMAGE_ENDINGS, MAX_TEXT_BYTES};
pub use folder::MAX_IMAGES;
pub use limited::MAX_RECORD_BYTES;
pub use pattern::MAX_PATHS;
pub use shards::{MAX_MEMBERS, MAX_NAME_BYTES};

pub(crate) use each_caption::EachCaption;

use crate::formats::Format;
use crate::formats::pairs::Pairs;
use crate::record::{Entry, RecordError};

/// Records that were found to be malformed while a source was indexed and are kept as examples.
const MALFORMED_EXAMPLES: usize = 5;

/// Records of a file that are indexed between two reports.
const REPORT_EVERY: u64 = 1024;

/// Is told how much of how much of a source is indexed.
pub type Watch<'a> = &'a mut dyn FnMut(u64, u64);

/// A source of records, by default of pairs.
pub trait Records<E = Entry>: Send + Sync + std::fmt::Debug {
    /// Number of records, malformed ones included.
    fn len(&self) -> u64;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record `index` (below the length) without its image.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn entry(&self, index: u64) -> Result<E, RecordError>;

    /// The first record of each shard, where reading is cheap only near the last read; else empty.
    fn shards(&self) -> Vec<u64> {
        Vec::new()
    }

    /// What is wrong with whole files of it that are used all the same.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// How sources are opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder that image paths are relative to; by default that of the file that names them.
    pub image_root: Option<PathBuf>,
    /// The column of image paths in CSV and TSV files.
    pub image_column: String,
    /// The column of captions in CSV and TSV files.
    pub caption_column: String,
    /// Share of bad records above which a data set is refused.
    pub max_bad_share: f64,
    /// Makes a record of each caption: a record with five captions is seen five times an epoch, with each of them once. By default it is
    /// seen once, with one of them at random.
    pub each_caption: bool,
    /// Folder for the temporary index of the records, by default the system's.
    pub index_folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            image_root: None,
            image_column: "image".into(),
            caption_column: "caption".into(),
            max_bad_share: 0.1,
            each_caption: false,
            index_folder: None,
        }
    }
}

impl Options {
    /// The folder that the image paths in `file` are relative to.
    fn root(&self, file: &Path) -> PathBuf {
        match &self.image_root {
            Some(root) => root.clone(),
            None => file.parent().unwrap_or(Path::new("")).to_path_buf(),
        }
    }
}

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OpenError {
    #[error("data {}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("data {}: {found}; expected {expected}", path.display())]
    Kind { path: PathBuf, found: String, expected: &'static str },
    #[error("data {}: record {record}: {error}; expected a list of records like {example}", path.display())]
    Json { path: PathBuf, record: u64, error: serde_json::Error, example: &'static str },
    #[error("data {}: there is no column {column:?} (setting `{setting}`); the first line has: {found}", path.display())]
    Column { path: PathBuf, setting: &'static str, column: String, found: String },
    #[error("data {}: {broken} of {shards} shards cannot be read to the end, more than the share of {max_bad_share} that is allowed (`max_bad_share`), e.g.:\n{}", path.display(), examples.join("\n"))]
    Shards { path: PathBuf, broken: usize, shards: usize, max_bad_share: f64, examples: Vec<String> },
    #[error("data {}: {problem}", path.display())]
    Pattern { path: PathBuf, problem: String },
    #[error("data {}: {error}; expected {expected}", path.display())]
    NotJson { path: PathBuf, error: serde_json::Error, expected: &'static str },
    #[error("data {0}")]
    Record(#[from] RecordError),
    #[error("data {}: {what} is missing; {wanted_by} needs it", path.display())]
    Missing { path: PathBuf, what: String, wanted_by: String },
    #[error("data {}: no records in it", path.display())]
    Empty { path: PathBuf },
    #[error("data: no files were given")]
    NoSources,
    #[error("data {}: weight {weight}: expected a number above 0 and at most {}", path.display(), crate::dataset::MAX_WEIGHT)]
    Weight { path: PathBuf, weight: f64 },
    #[error("setting `max_bad_share` = {value}: expected a number from 0 to 1")]
    BadShare { value: f64 },
    #[error("setting `image_root` = {}: {error}", path.display())]
    ImageRoot { path: PathBuf, error: std::io::Error },
    #[error("data {}: {malformed} of {records} records are malformed, more than the share of {max_bad_share} that is allowed (`max_bad_share`), e.g.:\n{}", path.display(), examples.join("\n"))]
    Malformed { path: PathBuf, malformed: u64, records: u64, max_bad_share: f64, examples: Vec<String> },
}

/// Counts malformed records while a source is indexed.
#[derive(Default)]
struct Malformed {
    count: u64,
    examples: Vec<String>,
}

impl Malformed {
    /// An empty caption is no malformed record: it may be one of many and is counted when it is met.
    fn note<T>(&mut self, entry: Result<T, RecordError>) {
        if let Err(error @ (RecordError::Field { .. } | RecordError::Malformed { .. })) = entry {
            self.count += 1;
            if self.examples.len() < MALFORMED_EXAMPLES {
                self.examples.push(error.to_string());
            }
        }
    }

    fn check(self, path: &Path, records: u64, options: &Options) -> Result<(), OpenError> {
        let Malformed { count: malformed, examples } = self;
        if records == 0 {
            return Err(OpenError::Empty { path: path.into() });
        }
        let max_bad_share = options.max_bad_share;
        if malformed == records || malformed as f64 > max_bad_share * records as f64 {
            return Err(OpenError::Malformed { path: path.into(), malformed, records, max_bad_share, examples });
        }
        Ok(())
    }
}

/// Opens a JSON file of records.
pub(crate) fn open_json<F: Format>(
    path: &Path,
    options: &Options,
    watch: Watch,
) -> Result<Box<dyn Records<F::Entry>>, OpenError> {
    Ok(Box::new(json::JsonRecords::<F>::open(path, options, watch)?))
}

/// Opens images with captions, whatever is at `path`: a JSON, CSV, TSV or tar file, a brace pattern of tar files, a folder of tar files or of
/// photographs.
pub(crate) fn open(path: &Path, options: &Options, watch: Watch) -> Result<Box<dyn Records>, OpenError> {
    let kind = |found: String| {
        let expected = "a .json, .csv, .tsv or .tar file, a pattern like {000..041}.tar, or a folder of .tar files or of photographs";
        OpenError::Kind { path: path.into(), found, expected }
    };
    let pattern = path.to_str().filter(|text| text.contains('{') && !path.exists());
    if let Some(pattern) = pattern {
        let paths = pattern::expand(pattern).map_err(|problem| OpenError::Pattern { path: path.into(), problem })?;
        if let Some(other) = paths.iter().find(|p| !p.ends_with(".tar")) {
            return Err(kind(format!("a pattern that stands for {other}")));
        }
        let shards = paths.into_iter().map(PathBuf::from).collect();
        let opened = shards::ShardRecords::open(path, shards, options, watch)?;
        return Ok(Box::new(opened));
    }
    let io = |error| OpenError::Io { path: path.into(), error };
    let about = std::fs::metadata(path).map_err(io)?;
    if about.is_dir() {
        let shards = shards_in(path).map_err(io)?;
        return Ok(match shards.is_empty() {
            true => Box::new(folder::FolderRecords::open(path, options, watch)?),
            false => Box::new(shards::ShardRecords::open(path, shards, options, watch)?),
        });
    }
    if !about.is_file() {
        return Err(kind("neither a file nor a folder".into()));
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("json") => open_json::<Pairs>(path, options, watch),
        Some("csv") => Ok(Box::new(csv::CsvRecords::open(path, b',', options, watch)?)),
        Some("tsv") => Ok(Box::new(csv::CsvRecords::open(path, b'\t', options, watch)?)),
        Some("tar") => Ok(Box::new(shards::ShardRecords::open(path, vec![path.into()], options, watch)?)),
        Some(other) => Err(kind(format!("a .{other} file"))),
        None => Err(kind("a file without an ending".into())),
    }
}

/// The tar files in a folder, sorted; hidden ones, which are unfinished, left out.
fn shards_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut shards = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|e| e == "tar") {
            shards.push(path);
        }
    }
    shards.sort_unstable();
    Ok(shards)
}
