//! How many views a core makes in a second, and what the time goes to.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::error::ImageError;
use crate::recipe::{Recipe, Scratch, Stage};
use crate::views::{normalise, tokenizer_pixels};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of pictures; all its files are read into memory first.
    pub images: PathBuf,
    /// How long each of the two measurements lasts.
    pub seconds: f64,
    /// Worker threads, each with its own share of the pictures.
    pub threads: usize,
    /// The recipe of the views.
    pub recipe: Recipe,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What this line is about.
    pub what: &'static str,
    /// Views with their half-size twins, as bytes: what training needs from the processor.
    pub images_per_s_per_core: f64,
    /// The same followed by normalisation of both to 32 bit numbers, channels first, as a loader in Python does. Training does this on
    /// the device.
    pub images_per_s_per_core_normalised: f64,
    /// Worker threads.
    pub threads: usize,
    /// Pictures in the folder.
    pub files: usize,
    /// Side of the view in pixels.
    pub side: u32,
    /// Milliseconds an image, without waiting for other threads.
    pub ms: Milliseconds,
}

/// Where an image's time goes, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Milliseconds {
    /// Reading the header, drawing the crop, decoding what it needs.
    pub decode: f64,
    /// Resizing, turning upright, flipping.
    pub resize: f64,
    /// RandAugment.
    pub operations: f64,
    /// The half-size view.
    pub half: f64,
    /// Both views to 32 bit numbers.
    pub normalise: f64,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// What could not be read.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder holds no file.
    #[error("{path} holds no file: expected a folder of JPEG, PNG or WebP pictures")]
    NoFiles {
        /// The folder.
        path: PathBuf,
    },
    /// A file is refused: a benchmark with failures would measure something else.
    #[error("{path}: {source}")]
    Image {
        /// The file.
        path: PathBuf,
        /// Why it is refused.
        source: ImageError,
    },
    /// A number is out of its range.
    #[error("{field} is {value}; expected {expected}")]
    Setting {
        /// The field of [`Options`].
        field: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
}

/// One worker's count and times.
#[derive(Default)]
struct Tally {
    images: usize,
    elapsed: f64,
    ms: Milliseconds,
}

/// Measures the making of views from the pictures in a folder: once as training does it, once with normalisation.
///
/// # Errors
/// When the folder holds no pictures, one cannot be read or is refused, or an option is out of range.
pub fn loader(options: &Options) -> Result<Report, BenchError> {
    if !(options.seconds > 0.0 && options.seconds <= 3600.0) {
        return Err(BenchError::Setting {
            field: "seconds",
            value: options.seconds,
            expected: "more than 0 and at most 3600",
        });
    }
    if options.threads == 0 {
        return Err(BenchError::Setting { field: "threads", value: 0.0, expected: "at least 1" });
    }
    let files = read_folder(&options.images)?;
    let bytes = measure(options, &files, false)?;
    let numbers = measure(options, &files, true)?;
    Ok(Report {
        what: "loader, simla",
        images_per_s_per_core: bytes.images as f64 / bytes.elapsed,
        images_per_s_per_core_normalised: numbers.images as f64 / numbers.elapsed,
        threads: options.threads,
        files: files.len(),
        side: options.recipe.side,
        ms: Milliseconds {
            normalise: numbers.ms.normalise / numbers.images as f64,
            decode: bytes.ms.decode / bytes.images as f64,
            resize: bytes.ms.resize / bytes.images as f64,
            operations: bytes.ms.operations / bytes.images as f64,
            half: bytes.ms.half / bytes.images as f64,
        },
    })
}

type File = (PathBuf, Vec<u8>);

fn read_folder(folder: &Path) -> Result<Vec<File>, BenchError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| BenchError::Read { path, source }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.is_file() {
            files.push((path.clone(), std::fs::read(&path).map_err(failed(&path))?));
        }
    }
    if files.is_empty() {
        return Err(BenchError::NoFiles { path: folder.to_owned() });
    }
    files.sort();
    Ok(files)
}

/// All workers together; `elapsed` is summed over them, so that images over it are images per second and core.
fn measure(options: &Options, files: &[File], numbers: bool) -> Result<Tally, BenchError> {
    let tallies = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..options.threads).map(|first| scope.spawn(move || work(options, files, first, numbers))).collect();
        let joined =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<Vec<Tally>, _>>()
    })?;
    Ok(tallies.into_iter().fold(Tally::default(), |sum, one| Tally {
        images: sum.images + one.images,
        elapsed: sum.elapsed + one.elapsed,
        ms: Milliseconds {
            decode: sum.ms.decode + one.ms.decode,
            resize: sum.ms.resize + one.ms.resize,
            operations: sum.ms.operations + one.ms.operations,
            half: sum.ms.half + one.ms.half,
            normalise: sum.ms.normalise + one.ms.normalise,
        },
    }))
}

fn work(options: &Options, files: &[File], first: usize, numbers: bool) -> Result<Tally, BenchError> {
    let recipe = &options.recipe;
    let area = (recipe.side as usize).pow(2) * 3;
    let (mut view, mut half) = (vec![0; area], vec![0; area / 4]);
    let (mut view_numbers, mut half_numbers) = (vec![0.0; area], vec![0.0; area / 4]);
    let mut rng = ChaCha8Rng::seed_from_u64(first as u64);
    let mut scratch = Scratch::default();
    let mut tally = Tally::default();
    let length = Duration::from_secs_f64(options.seconds);
    let start = Instant::now();
    let mut last = start;
    let mut lap = || {
        let now = Instant::now();
        let passed = now - last;
        last = now;
        passed.as_secs_f64() * 1e3
    };
    for (path, bytes) in files.iter().cycle().skip(first * files.len() / options.threads) {
        if start.elapsed() >= length {
            break;
        }
        lap();
        let ms = &mut tally.ms;
        let outcome = recipe.draw_staged(bytes, &mut rng, &mut scratch, &mut view, &mut half, |stage| {
            let passed = lap();
            match stage {
                Stage::Decode => ms.decode += passed,
                Stage::Resize => ms.resize += passed,
                Stage::Operations => ms.operations += passed,
                Stage::Half => ms.half += passed,
            }
        });
        outcome.map_err(|source| BenchError::Image { path: path.clone(), source })?;
        if numbers {
            normalise(&view, &mut view_numbers);
            tokenizer_pixels(&half, &mut half_numbers);
            std::hint::black_box((&view_numbers, &half_numbers));
            tally.ms.normalise += lap();
        }
        tally.images += 1;
    }
    tally.elapsed = start.elapsed().as_secs_f64();
    Ok(tally)
}
