//! How good a tokenizer is on pictures that it was not trained on.

use rayon::prelude::*;
use serde::Serialize;
use simla_data::{Dataset, RecordError};
use tch::{Kind, Tensor};

use crate::dvae::Dvae;
use crate::inputs::{halved, whole_view};
use crate::tasks::samples::to_bytes;
use simla_train::torch::guard::{TorchError, guarded};
use simla_train::{Team, TeamError};

/// Pictures that are looked at together.
const BATCH: usize = 32;

/// What was measured on a data set.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// Pictures that could be read.
    pub images: usize,
    /// Mean squared error of the reconstruction from one code a patch, as a share of the pixels' variance; none without a
    /// decoder.
    pub error: Option<f64>,
    /// Size of the visual vocabulary.
    pub codes: i64,
    /// Share of the codes that occur.
    pub codes_used: f64,
    /// e to the entropy of the codes: as many codes, used alike, would say as much.
    pub perplexity: f64,
}

/// A picture as the tokenizer sees it and as it comes back: RGB bytes `[side, side, 3]`.
#[derive(Debug, Clone)]
pub struct Reconstruction {
    /// Pixels.
    pub side: usize,
    /// As it is.
    pub original: Vec<u8>,
    /// Decoded from its codes.
    pub restored: Vec<u8>,
}

/// An evaluation with its first reconstructions and the records that could not be used.
#[derive(Debug)]
pub struct Outcome {
    /// The measures.
    pub evaluation: Evaluation,
    /// None without a decoder.
    pub reconstructions: Vec<Reconstruction>,
    /// What is wrong with each.
    pub broken: Vec<String>,
}

/// Encodes and decodes every picture of `dataset`, whole and at the size of training, and keeps `kept` reconstructions, of the first
/// pictures. The processes of `team` share the pictures, and each keeps some of its own: all of them call it. `progress` is told how many records of how many are done. Memory does not grow with the data set.
///
/// # Errors
/// What libtorch could not do.
pub fn evaluate(
    dvae: &Dvae,
    dataset: &Dataset,
    kept: usize,
    team: &Team,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Outcome, TorchError> {
    let mut sums = Sums::new(dvae);
    let (mut reconstructions, mut broken) = (Vec::new(), Vec::new());
    let (all, image_size) = (dataset.len() as usize, dvae.config.image_size);
    for first in team.mine((0..all).step_by(BATCH)) {
        let last = (first + BATCH).min(all);
        let views: Vec<Result<Vec<u8>, RecordError>> =
            (first..last).into_par_iter().map(|index| view(dataset, index as u64, image_size)).collect();
        let mut halves = Vec::new();
        for view in views {
            match view {
                Ok(view) => halves.push(view),
                Err(error) => broken.push(error.to_string()),
            }
        }
        let restored = guarded(|| sums.add(&halves))?;
        let wanted = kept - reconstructions.len();
        let side = sums.side;
        reconstructions.extend(
            halves.into_iter().zip(restored).take(wanted).map(|(original, restored)| Reconstruction {
                side,
                original,
                restored,
            }),
        );
        progress(last, all);
    }
    let broken = team.values(broken)?.concat();
    Ok(Outcome { evaluation: guarded(|| sums.finish(team))??, reconstructions, broken })
}

/// The half-size view of a whole picture, `[side / 2, side / 2, 3]`.
fn view(dataset: &Dataset, index: u64, side: i64) -> Result<Vec<u8>, RecordError> {
    let view = whole_view(&dataset.entry(index)?, side as usize)?;
    let mut half = vec![0; view.len() / 4];
    simla_image::halve(&view, side as u32, &mut half);
    Ok(half)
}

/// Counts over pictures.
struct Sums<'a> {
    dvae: &'a Dvae,
    side: usize,
    images: usize,
    /// `[vocab]`: how often each code occurred.
    codes: Tensor,
    /// Of pixels, over all channels: how many, sum, sum of squares, and sum of squared errors.
    count: f64,
    sum: f64,
    squares: f64,
    errors: f64,
}

impl<'a> Sums<'a> {
    fn new(dvae: &'a Dvae) -> Self {
        Self {
            dvae,
            side: dvae.config.image_size as usize / 2,
            images: 0,
            codes: Tensor::zeros([dvae.vocab()], (Kind::Int64, dvae.weights.device())),
            count: 0.0,
            sum: 0.0,
            squares: 0.0,
            errors: 0.0,
        }
    }

    /// Looks at half-size views, and gives their reconstructions: none without a decoder.
    fn add(&mut self, halves: &[Vec<u8>]) -> Vec<Vec<u8>> {
        if halves.is_empty() {
            return Vec::new();
        }
        let (dvae, total) = (self.dvae, |x: Tensor| x.sum(Kind::Double).double_value(&[]));
        let pixels = halved(&halves.concat(), halves.len(), self.side, dvae.weights.device());
        let tokens = dvae.tokens(&pixels);
        self.images += halves.len();
        self.codes += tokens.flatten(0, -1).bincount::<Tensor>(None, dvae.vocab());
        let Some(restored) = dvae.decode_tokens(&tokens) else {
            return Vec::new();
        };
        self.count += pixels.numel() as f64;
        self.sum += total(pixels.shallow_clone());
        self.squares += total(pixels.square());
        self.errors += total((&restored - &pixels).square());
        let bytes = to_bytes(&restored);
        let picture = |i| Vec::try_from(bytes.get(i).contiguous().flatten(0, -1)).expect("bytes");
        (0..halves.len() as i64).map(picture).collect()
    }

    /// Of all processes.
    fn finish(self, team: &Team) -> Result<Evaluation, TeamError> {
        team.sum(&self.codes, Kind::Int64)?;
        let own = [self.images as f64, self.count, self.sum, self.squares, self.errors];
        let of_all = Tensor::from_slice(&own);
        team.sum(&of_all, Kind::Double)?;
        let of_all = Vec::<f64>::try_from(of_all).expect("numbers");
        let [images, count, sum, squares, errors] = of_all.try_into().expect("as many as were summed");
        let vocab = self.dvae.vocab();
        let share = self.codes.to_kind(Kind::Double) / (self.codes.sum(Kind::Double) + 1e-12);
        let entropy = -(&share * (&share + 1e-12).log()).sum(Kind::Double);
        let used = self.codes.gt(0).sum(Kind::Int64).int64_value(&[]);
        let variance = squares / count - (sum / count).powi(2);
        Ok(Evaluation {
            images: images as usize,
            error: (count > 0.0).then(|| errors / count / variance.max(1e-12)),
            codes: vocab,
            codes_used: used as f64 / vocab as f64,
            perplexity: entropy.exp().double_value(&[]),
        })
    }
}
