//! A data set: one source or several, mixed.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::formats::Format;
use crate::formats::pairs::Pairs;
use crate::order::{Order, Part};
use crate::record::{Entry, Location, Record, RecordError, Unreached};
use crate::sources::{OpenError, Options, Records};

/// Largest weight of a source.
pub const MAX_WEIGHT: f64 = 1000.0;

/// A source to open.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// A JSON, CSV, TSV or tar file, a brace pattern of tar files, a folder of tar files or of photographs with caption
    /// files of the same names; or the address of tar files on a store.
    pub path: PathBuf,
    /// How many times an epoch shows each record on average; 1 by default.
    pub weight: f64,
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Source { path, weight: 1.0 }
    }
}

/// `PATH` or `PATH@WEIGHT`; a file that is really called so is taken as it is.
impl FromStr for Source {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let weighted = text.rsplit_once('@').and_then(|(path, weight)| Some((path, weight.parse().ok()?)));
        Ok(match weighted {
            Some((path, weight)) if !Path::new(text).exists() => Source { path: path.into(), weight },
            _ => Source::from(PathBuf::from(text)),
        })
    }
}

/// Records of one or several sources, one after the other, each readable by its number; of images with captions, or of another format.
///
/// ```no_run
/// use simla_data::{Dataset, Options, Questions, Source};
///
/// let options = Options { annotations: vec!["annotations.json.gz".into()], ..Options::default() };
/// let questions = Dataset::<Questions>::of(&["questions.json.gz".parse::<Source>()?], &options, &mut |_, _, _| ())?;
/// println!("{} questions; the first: {}", questions.len(), questions.entry(0)?.question);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Dataset<F: Format = Pairs> {
    sources: Vec<Opened<F::Entry>>,
    max_bad_share: f64,
}

#[derive(Debug)]
struct Opened<E> {
    path: PathBuf,
    weight: f64,
    first: u64,
    records: Box<dyn Records<E>>,
}

impl<E> Opened<E> {
    /// Records of it that an epoch shows.
    fn draws(&self) -> u64 {
        ((self.weight * self.records.len() as f64).round() as u64).max(1)
    }
}

impl Dataset {
    /// Opens and indexes images with captions; see [`Dataset::of`].
    ///
    /// ```
    /// use simla_data::{Dataset, Options, Source};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("pairs.json");
    /// std::fs::write(&path, r#"[{"image": "1.jpg", "caption": ["a dog", "a dog in the snow"]}]"#)?;
    /// let dataset = Dataset::open(&[Source::from(path)], &Options::default())?;
    /// assert_eq!(dataset.len(), 1);
    /// assert_eq!(dataset.entry(0)?.captions[1], "a dog in the snow");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`Dataset::of`].
    pub fn open(sources: &[Source], options: &Options) -> Result<Self, OpenError> {
        Self::open_watched(sources, options, &mut |_, _, _| ())
    }

    /// As [`Dataset::open`], which takes a while for millions of records: `watch` is told the path of a source and how much
    /// of how much of it is indexed.
    ///
    /// # Errors
    /// See [`Dataset::of`].
    pub fn open_watched(
        sources: &[Source],
        options: &Options,
        watch: &mut dyn FnMut(&Path, u64, u64),
    ) -> Result<Self, OpenError> {
        Self::of(sources, options, watch)
    }

    /// The record `index`, which is below the length.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn record(&self, index: u64) -> Result<Record, RecordError> {
        let entry = self.entry(index)?;
        let mut image = Vec::new();
        entry.read_image(&mut image)?;
        let Entry { captions, name, image_id, .. } = entry;
        Ok(Record { image, captions, name, image_id })
    }

    /// All captions of all records that have any, in the order of the files. `watch` is told how many records came before.
    pub fn captions(&self, watch: impl FnMut(u64)) -> impl Iterator<Item = String> {
        self.texts(watch)
    }
}

/// By which the records of a data set are known again, wherever they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// How many there are.
    pub records: u64,
    /// Checksum of the names of their pictures, in their order, each relative to its source.
    pub names: String,
}

impl<F: Format> Dataset<F> {
    /// Opens and indexes the sources; image files are not looked at yet. `watch` is told the path of a source and how much of how much
    /// of it is indexed.
    ///
    /// # Errors
    /// A source that cannot be read, is empty, or has too many malformed records.
    pub fn of(
        sources: &[Source],
        options: &Options,
        watch: &mut dyn FnMut(&Path, u64, u64),
    ) -> Result<Self, OpenError> {
        if sources.is_empty() {
            return Err(OpenError::NoSources);
        }
        if !(0.0..=1.0).contains(&options.max_bad_share) {
            return Err(OpenError::BadShare { value: options.max_bad_share });
        }
        let (mut opened, mut first) = (Vec::new(), 0);
        for Source { path, weight } in sources {
            if !(*weight > 0.0 && *weight <= MAX_WEIGHT) {
                return Err(OpenError::Weight { path: path.clone(), weight: *weight });
            }
            let records = F::open(path, options, &mut |done, all| watch(path, done, all))?;
            let next = first + records.len();
            opened.push(Opened { path: path.clone(), weight: *weight, first, records });
            first = next;
        }
        Ok(Dataset { sources: opened, max_bad_share: options.max_bad_share })
    }

    /// Number of records.
    pub fn len(&self) -> u64 {
        self.sources.iter().map(|s| s.records.len()).sum()
    }

    /// Records that an epoch shows: each source's as often as its weight says.
    pub fn epoch_len(&self) -> u64 {
        self.sources.iter().map(Opened::draws).sum()
    }

    /// Never: an empty source is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Share of bad records above which the data set is refused.
    pub fn max_bad_share(&self) -> f64 {
        self.max_bad_share
    }

    /// The record `index`, which is below the length, without its pictures' bytes.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn entry(&self, index: u64) -> Result<F::Entry, RecordError> {
        let source = self.source(index);
        source.records.entry(index - source.first)
    }

    /// Says that the record `index` is read soon: what takes a while to fetch is fetched meanwhile.
    pub fn read_soon(&self, index: u64) {
        let source = self.source(index);
        source.records.read_soon(index - source.first);
    }

    /// Whether all that was asked for was reached: else records that were passed over may be good, and nothing that was made since counts.
    ///
    /// # Errors
    /// What was not.
    pub fn reached(&self) -> Result<(), Unreached> {
        match self.sources.iter().find_map(|source| source.records.failure()) {
            Some(failure) => Err(Unreached(failure.into())),
            None => Ok(()),
        }
    }

    fn source(&self, index: u64) -> &Opened<F::Entry> {
        &self.sources[self.sources.partition_point(|s| s.first <= index) - 1]
    }

    /// All texts of all records that have any, in the order of the files, for a vocabulary to learn from. `watch` is told how many records
    /// came before.
    pub fn texts(&self, watch: impl FnMut(u64)) -> impl Iterator<Item = String> {
        let mut watch = watch;
        (0..self.len())
            .inspect(move |index| watch(*index))
            .filter_map(|index| self.entry(index).ok())
            .flat_map(F::texts)
    }

    /// By which the records are known again; `image_root` as they were opened with. Every entry is read; `watch` hears how many were.
    ///
    /// # Errors
    /// What was not reached.
    pub fn fingerprint(&self, image_root: Option<&Path>, watch: impl Fn(u64) + Sync) -> Result<Fingerprint, Unreached> {
        /// Entries that are read in one go.
        const TOGETHER: u64 = 1 << 12;
        let mut names = blake3::Hasher::new();
        for source in &self.sources {
            let folder = match source.path.is_dir() {
                true => &source.path,
                false => source.path.parent().unwrap_or(Path::new("")),
            };
            let named = |location: Location| match &location {
                Location::File(path) => {
                    let roots = image_root.into_iter().chain([folder]);
                    let relative = roots.filter_map(|root| path.strip_prefix(root).ok()).next();
                    relative.unwrap_or(path).to_string_lossy().into_owned()
                }
                Location::Range { name, .. } => name.clone(),
            };
            let records = source.records.len();
            let sums: Vec<blake3::Hash> = (0..records.div_ceil(TOGETHER))
                .into_par_iter()
                .map(|chunk| {
                    let mut sum = blake3::Hasher::new();
                    let together = chunk * TOGETHER..records.min((chunk + 1) * TOGETHER);
                    watch(together.end - together.start);
                    for index in together {
                        // One that cannot be used is a record, too.
                        let pictures = source.records.entry(index).map(|entry| F::pictures(&entry)).unwrap_or_default();
                        for name in pictures.into_iter().map(named) {
                            sum.update(name.as_bytes()).update(&[0]);
                        }
                        sum.update(&[1]);
                    }
                    sum.finalize()
                })
                .collect();
            sums.iter().for_each(|sum| {
                names.update(sum.as_bytes());
            });
        }
        self.reached()?;
        Ok(Fingerprint { records: self.len(), names: names.finalize().to_hex().to_string() })
    }

    /// The sources' paths with their numbers of records.
    pub fn sources(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.sources.iter().map(|s| (s.path.as_path(), s.records.len()))
    }

    /// What is wrong with whole files of the sources that are used all the same (shards that are cut off or damaged, of which
    /// the records before the damage count), and what the sources hold that is not used, by kind.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.sources.iter().map(|s| s.records.warnings());
        warnings.flatten().collect()
    }

    pub(crate) fn order(&self, seed: u64) -> Order {
        let part = |source: &Opened<F::Entry>| Part {
            first: source.first,
            records: source.records.len(),
            draws: source.draws(),
            shards: source.records.shards(),
        };
        Order::new(seed, self.sources.iter().map(part).collect())
    }
}
