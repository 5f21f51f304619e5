//! Where records come from. Every source is indexed in one pass when it is opened and read record by record afterwards.

mod beside;
mod csv;
mod each_caption;
mod elements;
pub(crate) mod fields;
mod folder;
mod json;
mod opened;
mod pattern;
mod pictures;
mod shards;
mod sniff;
mod unread;

use std::path::{Path, PathBuf};

pub use beside::{IMAGE_ENDINGS, MAX_TEXT_BYTES};
pub use folder::{MAX_IMAGES, Walked, walk};
pub use opened::Shard;
pub use pattern::MAX_PATHS;
pub use pictures::Pictures;
pub use shards::{MAX_MEMBERS, MAX_NAME_BYTES};
pub use unread::Unread;

pub(crate) use each_caption::EachCaption;

use crate::formats::Format;
use crate::formats::karpathy::Karpathy;
use crate::formats::pairs::Pairs;
use crate::quoted;
use crate::record::{Entry, RecordError, Unreached};
use crate::table::TableWriter;
use opened::Shards;
use simla_store::{Store, StoreError};

/// Records that were found to be malformed while a source was indexed and are kept as examples.
const MALFORMED_EXAMPLES: usize = 5;

/// Longest record of a JSON or CSV file in bytes. The longest of real ones have a few dozen captions.
pub const MAX_RECORD_BYTES: u64 = 1 << 20;

/// What is wrong with a longer one.
fn too_long() -> String {
    format!("longer than {MAX_RECORD_BYTES} bytes, the most that a record may have")
}

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

    /// Says that the record `index` is read soon, where that takes a while: it may be fetched meanwhile.
    fn read_soon(&self, index: u64) {
        let _ = index;
    }

    /// Why something of it could not be reached, if ever something could not.
    fn failure(&self) -> Option<&str> {
        None
    }

    /// What is wrong with whole files of it that are used all the same, and what it holds that is not used.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// How sources are opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// What image paths are relative to, a folder, or tar shards whose members have those names; by default the folder of the file that
    /// names them.
    pub image_root: Option<PathBuf>,
    /// VQA's files of annotations, which have the answers of a file of questions.
    pub annotations: Vec<PathBuf>,
    /// The column of image paths in CSV and TSV files.
    pub image_column: String,
    /// The column of captions in CSV and TSV files.
    pub caption_column: String,
    /// Share of bad records above which a data set is refused.
    pub max_bad_share: f64,
    /// Makes a record of each caption: a record with five captions is seen five times an epoch, with each of them once. By default it is
    /// seen once, with one of them at random.
    pub each_caption: bool,
    /// Parts of the data that are used, of files whose records say which they belong to (Karpathy's, REFER's); none: all.
    pub splits: Vec<String>,
    /// Whether records are expressions in place of captions: `text` of the authors' files for grounding, or REFER's refs.
    pub expressions: bool,
    /// Folder for the temporary index of the records, by default the system's.
    pub index_folder: Option<PathBuf>,
    /// How objects on a store are read; by default as the environment says.
    pub store: Option<simla_store::Options>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            image_root: None,
            annotations: Vec::new(),
            image_column: "image".into(),
            caption_column: "caption".into(),
            max_bad_share: 0.1,
            each_caption: false,
            splits: Vec::new(),
            expressions: false,
            index_folder: None,
            store: None,
        }
    }
}

impl Options {
    /// Where the pictures are that `file` names.
    pub(crate) fn pictures(&self, file: &Path) -> Result<Pictures, OpenError> {
        match &self.image_root {
            Some(root) => Pictures::open(root),
            None => Ok(Pictures::in_folder(self.root(file))),
        }
    }

    /// The folder that the image paths in `file` are relative to.
    fn root(&self, file: &Path) -> PathBuf {
        match &self.image_root {
            Some(root) => root.clone(),
            None => file.parent().unwrap_or(Path::new("")).to_path_buf(),
        }
    }

    /// Where objects are read.
    fn store(&self) -> Result<Store, StoreError> {
        Store::open(self.store.clone().map_or_else(simla_store::Options::from_environment, Ok)?)
    }

    /// Starts the index of a source's records.
    fn index<const N: usize>(&self) -> Result<TableWriter<N>, OpenError> {
        TableWriter::start(self.index_folder.as_deref()).map_err(|error| self.index_error(error))
    }

    /// The error for an index that cannot be written.
    pub(crate) fn index_error(&self, error: std::io::Error) -> OpenError {
        OpenError::Index { folder: self.index_folder.clone().unwrap_or_else(std::env::temp_dir), error }
    }
}

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OpenError {
    #[error("data {}: {error}", quoted(path.display()))]
    Io { path: PathBuf, error: std::io::Error },
    #[error("temporary folder {}: {error}; it takes the index of the records: set TMPDIR to a folder that can be written", quoted(folder.display()))]
    Index { folder: PathBuf, error: std::io::Error },
    #[error("data {}: {found}; expected {expected}", quoted(path.display()))]
    Kind { path: PathBuf, found: String, expected: &'static str },
    #[error("data {}: compressed with {kind}; expected the file unpacked, since records are read in any order: `{command}`", quoted(path.display()))]
    Compressed { path: PathBuf, kind: &'static str, command: &'static str },
    #[error("data {}: UTF-16 text; expected UTF-8: `iconv -f UTF-16 -t UTF-8 FILE > CONVERTED`", quoted(path.display()))]
    Utf16 { path: PathBuf },
    #[error("data {}: record {record}: {}; expected a list of records like {example}", quoted(path.display()), quoted(problem))]
    Json { path: PathBuf, record: u64, problem: String, example: &'static str },
    #[error("data {}: {error}; expected {expected}", quoted(path.display()))]
    NotJson { path: PathBuf, error: serde_json::Error, expected: &'static str },
    #[error("data {}: there is no column {column:?} (setting `{setting}`); the first line has: {}", quoted(path.display()), quoted(found))]
    Column { path: PathBuf, setting: &'static str, column: String, found: String },
    #[error("data {}: {broken} of {shards} shards cannot be read to the end, more than the share of {max_bad_share} that is allowed (`max_bad_share`), e.g.:\n{}", quoted(path.display()), lines(examples))]
    Shards { path: PathBuf, broken: usize, shards: usize, max_bad_share: f64, examples: Vec<String> },
    #[error("data {}: {}", quoted(path.display()), quoted(problem))]
    Pattern { path: PathBuf, problem: String },
    #[error("data {0}")]
    Record(#[from] RecordError),
    #[error(transparent)]
    Unreached(#[from] Unreached),
    #[error("answers {}: {problem}", quoted(path.display()))]
    Answers { path: PathBuf, problem: String },
    #[error("data {}: {what} is missing; {} needs it", quoted(path.display()), quoted(wanted_by))]
    Missing { path: PathBuf, what: String, wanted_by: String },
    #[error("data {}: no records in it", quoted(path.display()))]
    Empty { path: PathBuf },
    #[error("data {}: no records in it, but {unread}; expected images ({}) with a .txt or .json of the same name each, or .tar files of them, not compressed", quoted(path.display()), IMAGE_ENDINGS.map(|e| format!(".{e}")).join(", "))]
    Unread { path: PathBuf, unread: Unread },
    #[error("data {}: no record of {}", quoted(path.display()), named(splits))]
    Split { path: PathBuf, splits: Vec<String> },
    #[error("data {0}")]
    Pickle(#[from] simla_weights::ReadError),
    #[error("data: no files were given")]
    NoSources,
    #[error("data {}: weight {weight}: expected a number above 0 and at most {}", quoted(path.display()), crate::dataset::MAX_WEIGHT)]
    Weight { path: PathBuf, weight: f64 },
    #[error("setting `max_bad_share` = {value}: expected a number from 0 to 1")]
    BadShare { value: f64 },
    #[error("setting `image_root` = {}: {error}", quoted(path.display()))]
    ImageRoot { path: PathBuf, error: std::io::Error },
    #[error("data {}: {malformed} of {records} records are malformed, more than the share of {max_bad_share} that is allowed (`max_bad_share`), e.g.:\n{}", quoted(path.display()), lines(examples))]
    Malformed { path: PathBuf, malformed: u64, records: u64, max_bad_share: f64, examples: Vec<String> },
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Unreached(error.to_string()).into()
    }
}

/// Each on a line of its own.
fn lines(examples: &[String]) -> String {
    examples.iter().map(|example| quoted(example).to_string()).collect::<Vec<_>>().join("\n")
}

/// Splits for a message.
fn named(splits: &[String]) -> String {
    splits.iter().map(|split| format!("split `{}`", quoted(split))).collect::<Vec<_>>().join(" or ")
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
        self.note_many(entry, 1);
    }

    /// As many as `records`, for one reason.
    fn note_many<T>(&mut self, entry: Result<T, RecordError>, records: u64) {
        if let Err(error @ (RecordError::Field { .. } | RecordError::Malformed { .. })) = entry {
            self.count += records;
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
    if address(path)?.is_some() {
        let expected = "a file on a disk: of what is on a store, .tar shards of images with captions are read";
        return Err(OpenError::Kind { path: path.into(), found: "an address".into(), expected });
    }
    Ok(Box::new(json::JsonRecords::<F>::open(path, options, watch)?))
}

/// Opens images with captions, whatever is at `path`: a JSON, CSV, TSV or tar file, a brace pattern of tar files, a folder of tar files or of
/// photographs; tar files on a store.
pub(crate) fn open(path: &Path, options: &Options, watch: Watch) -> Result<Box<dyn Records>, OpenError> {
    if let Some(address) = address(path)? {
        return open_objects(address, options, watch);
    }
    let kind = |found: String| {
        let expected = "a .json, .csv, .tsv or .tar file, a pattern like {000..041}.tar, or a folder of .tar files or of photographs";
        OpenError::Kind { path: path.into(), found, expected }
    };
    let pattern = path.to_str().filter(|text| text.contains('{') && !path.exists());
    if let Some(pattern) = pattern {
        let paths = pattern::expand(pattern).map_err(|problem| OpenError::Pattern { path: path.into(), problem })?;
        if let Some(other) = paths.iter().find(|p| !p.to_lowercase().ends_with(".tar")) {
            return Err(kind(format!("a pattern that stands for {other}")));
        }
        let shards = Shards::files(paths.into_iter().map(PathBuf::from).collect());
        let opened = shards::ShardRecords::open(path, shards, &Unread::default(), options, watch)?;
        return Ok(Box::new(opened));
    }
    let io = |error| OpenError::Io { path: path.into(), error };
    let about = std::fs::metadata(path).map_err(io)?;
    if about.is_dir() {
        return open_folder(path, options, watch);
    }
    if !about.is_file() {
        return Err(kind("neither a file nor a folder".into()));
    }
    let ending = ending(path);
    if ending == Some("json".into()) {
        // COCO's own files have a list of that name, too.
        return match json::has_list(path, "images", "sentences").map_err(io)? {
            true => open_json::<Karpathy>(path, options, watch),
            false => open_json::<Pairs>(path, options, watch),
        };
    }
    let head = sniff::head(path).map_err(io)?;
    if let Some((kind, command)) = sniff::compression(&head) {
        return Err(OpenError::Compressed { path: path.into(), kind, command });
    }
    if let Some("csv" | "tsv") = ending.as_deref()
        && sniff::is_utf16(&head)
    {
        return Err(OpenError::Utf16 { path: path.into() });
    }
    match ending.as_deref() {
        Some("csv") => Ok(Box::new(csv::CsvRecords::open(path, b',', options, watch)?)),
        Some("tsv") => Ok(Box::new(csv::CsvRecords::open(path, b'\t', options, watch)?)),
        Some("tar") => {
            let shards = Shards::files(vec![path.into()]);
            Ok(Box::new(shards::ShardRecords::open(path, shards, &Unread::default(), options, watch)?))
        }
        Some(other) => Err(kind(format!("a .{} file", quoted(other)))),
        None => Err(kind("a file without an ending".into())),
    }
}

/// A file's ending in lower case; that of JSON lines, and of JSON that is compressed with gzip, is `json`, too.
fn ending(path: &Path) -> Option<String> {
    let ending = path.extension()?.to_string_lossy().to_lowercase();
    match ending.as_str() {
        "jsonl" | "ndjson" => Some("json".into()),
        "gz" if self::ending(Path::new(path.file_stem()?)).as_deref() == Some("json") => Some("json".into()),
        _ => Some(ending),
    }
}

/// A folder of shards where it holds some itself, or else no photographs and some in a folder below; a folder of photographs
/// otherwise.
fn open_folder(path: &Path, options: &Options, watch: Watch) -> Result<Box<dyn Records>, OpenError> {
    let walked = walk(path, MAX_IMAGES).map_err(|error| OpenError::Io { path: path.into(), error })?;
    let at_the_top = |shard: &PathBuf| shard.components().count() == 1;
    if !walked.shards.iter().any(at_the_top) && (walked.shards.is_empty() || !walked.pictures.is_empty()) {
        return Ok(Box::new(folder::FolderRecords::open(path, walked, options, watch)?));
    }
    let shards = Shards::files(walked.shards.iter().map(|shard| path.join(shard)).collect());
    Ok(Box::new(shards::ShardRecords::open(path, shards, &walked.but_shards(), options, watch)?))
}

/// The address that `path` is, if it is one, without anything that nobody is to read.
fn address(path: &Path) -> Result<Option<&str>, StoreError> {
    let address = path.to_str().filter(|_| simla_store::is_url(path));
    address.map(|address| simla_store::check(address).map(|()| address)).transpose()
}

/// Opens shards on a store: those that an address or a pattern of them names, or all below one that ends with a slash.
fn open_objects(address: &str, options: &Options, watch: Watch) -> Result<Box<dyn Records>, OpenError> {
    let path = Path::new(address);
    let kind = |found: String| {
        let expected = ".tar shards: an address that ends with .tar, a pattern like {000..041}.tar, or what is below an address that ends with /";
        OpenError::Kind { path: path.into(), found, expected }
    };
    let urls = pattern::expand(address).map_err(|problem| OpenError::Pattern { path: path.into(), problem })?;
    let is_shard = |name: &str| name.to_lowercase().ends_with(".tar");
    let store = options.store()?;
    let mut beside = Unread::default();
    let objects = match &urls[..] {
        [folder] if folder.ends_with('/') => {
            let mut found = store.below(folder)?;
            found.retain(|(name, _)| !name.split('/').any(|part| part.starts_with('.'))); // hidden, as in a folder
            found.sort_by(|(one, _), (other, _)| Path::new(one).cmp(Path::new(other)));
            let (shards, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|(name, _)| is_shard(name));
            others.iter().for_each(|(name, _)| beside.note_file(Path::new(name)));
            if shards.is_empty() {
                let others = if beside.is_empty() { "nothing".into() } else { beside.to_string() };
                return Err(kind(format!("{others} below it")));
            }
            shards.into_iter().map(|(_, object)| object).collect()
        }
        _ => match urls.iter().find(|url| !is_shard(url)) {
            Some(other) => return Err(kind(format!("the address {other}"))),
            None => store.objects(&urls)?,
        },
    };
    let shards = Shards::objects(store, objects);
    Ok(Box::new(shards::ShardRecords::open(path, shards, &beside, options, watch)?))
}
