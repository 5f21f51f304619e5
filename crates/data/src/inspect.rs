//! A look at a data set: how much there is, how long captions are, how large images are, what is broken.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;
use simla_image::Limits;

use crate::dataset::Dataset;
use crate::permutation::Permutation;
use crate::random::{Purpose, stream};
use crate::record::Unreached;
use crate::tally::{Tally, TallyReport};
use crate::text::caption::{self, MAX_WORDS};
use crate::text::vocabulary::{MAX_TOKENS, Vocabulary};

/// How closely to look.
#[derive(Clone, Debug, PartialEq)]
pub struct InspectOptions {
    /// Images to decode, spread over the data set; all captions are read in any case.
    pub images: u64,
    /// Samples to give.
    pub samples: usize,
    /// Pieces of a caption at most, `[CLS]` and `[SEP]` included.
    pub max_tokens: usize,
    /// Decides which images and samples.
    pub seed: u64,
}

impl Default for InspectOptions {
    fn default() -> Self {
        InspectOptions { images: 1000, samples: 16, max_tokens: MAX_TOKENS, seed: 0 }
    }
}

/// What a data set is like.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The sources with their numbers of records.
    pub sources: Vec<(PathBuf, u64)>,
    /// Records.
    pub records: u64,
    /// Records that an epoch shows: not the same where sources have weights.
    pub epoch: u64,
    /// Captions that say something.
    pub captions: u64,
    /// How many captions have so many words; the last number counts those with more than [`MAX_WORDS`].
    pub words: Vec<u64>,
    /// What a vocabulary makes of the captions.
    pub pieces: Option<Pieces>,
    /// The images that were decoded.
    pub images: Images,
    /// What is broken: every record's fields, and of the images those that were decoded.
    pub report: TallyReport,
    /// Some records, spread over the data set.
    pub samples: Vec<Sample>,
}

/// What a vocabulary makes of the captions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pieces {
    /// Pieces in all captions, without special ones.
    pub pieces: u64,
    /// Those that the vocabulary does not know.
    pub unknown: u64,
    /// Captions with more pieces than are kept.
    pub cut: u64,
}

/// Sizes of images.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Images {
    /// Images decoded.
    pub decoded: u64,
    /// Smallest, median and largest width in pixels.
    pub width: [u32; 3],
    /// Smallest, median and largest height in pixels.
    pub height: [u32; 3],
    /// Mean size of a file in bytes.
    pub mean_bytes: f64,
}

/// A record to look at.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Its number in the data set, to read it again.
    pub index: u64,
    /// File and position.
    pub name: String,
    /// Its captions.
    pub captions: Vec<String>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Looks at a data set: at every record's captions, and at some of the images. `one_more` is called for every record, and once
/// more for every image.
///
/// # Errors
/// What was not reached.
pub fn inspect(
    dataset: &Dataset,
    vocabulary: Option<&Vocabulary>,
    options: &InspectOptions,
    one_more: impl Fn() + Sync,
) -> Result<Inspection, Unreached> {
    let records = dataset.len();
    let images = records.min(options.images);
    let tally = Tally::new(records, dataset.max_bad_share());
    let texts = (0..records)
        .into_par_iter()
        .fold(Texts::default, |mut texts, index| {
            let entry = dataset.entry(index);
            one_more();
            tally.note(index, entry.as_ref().err());
            entry.iter().flat_map(|e| &e.captions).for_each(|caption| texts.add(caption, vocabulary, options));
            texts
        })
        .reduce(Texts::default, Texts::join);

    let spread = Permutation::draw(records, &mut stream(Purpose::Preflight, options.seed, 0, 0, 0));
    let looked: Vec<Looked> = (0..images)
        .into_par_iter()
        .filter_map(|nth| {
            one_more();
            let index = spread.get(nth);
            let entry = dataset.entry(index).ok()?; // noted above
            let mut bytes = Vec::new();
            let picture = entry.read_image(&mut bytes).and_then(|()| {
                simla_image::decode(&bytes, &Limits::default()).map_err(|error| entry.unreadable(error))
            });
            tally.note(index, picture.as_ref().err());
            let (width, height) = picture.ok()?.dimensions();
            Some(Looked { index, width, height, bytes: bytes.len() as u32 })
        })
        .collect();

    let quantiles = |of: fn(&Looked) -> u32| {
        let mut values: Vec<u32> = looked.iter().map(of).collect();
        values.sort_unstable();
        let at = |share: usize| values.get(values.len().saturating_sub(1) * share / 2).copied().unwrap_or(0);
        [at(0), at(1), at(2)]
    };
    let bytes: u64 = looked.iter().map(|one| u64::from(one.bytes)).sum();
    let images = Images {
        decoded: looked.len() as u64,
        width: quantiles(|one| one.width),
        height: quantiles(|one| one.height),
        mean_bytes: bytes as f64 / looked.len().max(1) as f64,
    };
    let sample = |one: &Looked| {
        let entry = dataset.entry(one.index).ok()?;
        Some(Sample {
            index: one.index,
            name: entry.name,
            captions: entry.captions,
            width: one.width,
            height: one.height,
        })
    };
    dataset.reached()?;
    Ok(Inspection {
        sources: dataset.sources().map(|(path, n)| (path.to_path_buf(), n)).collect(),
        records,
        epoch: dataset.epoch_len(),
        captions: texts.words.iter().sum(),
        words: texts.words,
        pieces: vocabulary.map(|_| texts.pieces),
        images,
        report: tally.report(),
        samples: looked.iter().filter_map(sample).take(options.samples).collect(),
    })
}

/// An image that was decoded: little, since there may be millions.
struct Looked {
    index: u64,
    width: u32,
    height: u32,
    /// At most [`MAX_IMAGE_BYTES`](crate::record::MAX_IMAGE_BYTES).
    bytes: u32,
}

/// Counts over captions.
struct Texts {
    words: Vec<u64>,
    pieces: Pieces,
}

impl Default for Texts {
    fn default() -> Self {
        Texts { words: vec![0; MAX_WORDS + 2], pieces: Pieces::default() }
    }
}

impl Texts {
    fn add(&mut self, caption: &str, vocabulary: Option<&Vocabulary>, options: &InspectOptions) {
        let words = caption::count_words(caption);
        self.words[words.min(MAX_WORDS + 1)] += 1;
        if let Some(vocabulary) = vocabulary {
            let ids = vocabulary.encode(caption, usize::MAX);
            let Pieces { pieces, unknown, cut } = &mut self.pieces;
            *pieces += ids.len() as u64 - 2;
            *unknown += ids.iter().filter(|id| **id == vocabulary.special().unk).count() as u64;
            *cut += u64::from(ids.len() > options.max_tokens);
        }
    }

    fn join(mut self, other: Self) -> Self {
        self.words.iter_mut().zip(other.words).for_each(|(n, more)| *n += more);
        let Pieces { pieces, unknown, cut } = other.pieces;
        self.pieces.pieces += pieces;
        self.pieces.unknown += unknown;
        self.pieces.cut += cut;
        self
    }
}
