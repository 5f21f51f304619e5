//! How good a tokenizer is on pictures that it was not trained on.

use rayon::prelude::*;
use serde::Serialize;
use simla_data::{Dataset, RecordError};
use tch::{Device, Kind, Tensor};

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
        let restored = guarded(|| sums.add(&halves, kept - reconstructions.len()))?;
        let side = sums.side;
        let pictures = halves.into_iter().zip(restored);
        reconstructions.extend(pictures.map(|(original, restored)| Reconstruction { side, original, restored }));
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
    /// Pixels, over all channels.
    count: f64,
    /// Their sum, sum of squares, and sum of squared errors: `[3]`. On the device, like the codes: nobody waits for them before the end.
    of_pixels: Tensor,
}

impl<'a> Sums<'a> {
    fn new(dvae: &'a Dvae) -> Self {
        let device = dvae.weights.device();
        Self {
            dvae,
            side: dvae.config.image_size as usize / 2,
            images: 0,
            codes: Tensor::zeros([dvae.vocab()], (Kind::Int64, device)),
            count: 0.0,
            of_pixels: Tensor::zeros([3], (Kind::Double, device)),
        }
    }

    /// Looks at half-size views, and gives the reconstructions of the first that are `wanted`: none without a decoder.
    fn add(&mut self, halves: &[Vec<u8>], wanted: usize) -> Vec<Vec<u8>> {
        if halves.is_empty() {
            return Vec::new();
        }
        let (dvae, total) = (self.dvae, |x: &Tensor| x.sum(Kind::Double));
        let pixels = halved(&halves.concat(), halves.len(), self.side, dvae.weights.device());
        let tokens = dvae.tokens(&pixels);
        self.images += halves.len();
        // Not `bincount`, for which the host waits to learn how many there are.
        let codes = tokens.flatten(0, -1);
        let _ = self.codes.scatter_add_(0, &codes, &codes.ones_like());
        let Some(restored) = dvae.decode_tokens(&tokens) else {
            return Vec::new();
        };
        self.count += pixels.numel() as f64;
        let errors = (&restored - &pixels).square();
        self.of_pixels += Tensor::stack(&[total(&pixels), total(&pixels.square()), total(&errors)], 0);
        let wanted = wanted.min(halves.len()) as i64;
        if wanted == 0 {
            return Vec::new();
        }
        let bytes = to_bytes(&restored.narrow(0, 0, wanted));
        let picture = |i| Vec::try_from(bytes.get(i).contiguous().flatten(0, -1)).expect("bytes");
        (0..wanted).map(picture).collect()
    }

    /// Of all processes.
    fn finish(self, team: &Team) -> Result<Evaluation, TeamError> {
        team.sum(&self.codes, Kind::Int64)?;
        let counts = Tensor::from_slice(&[self.images as f64, self.count]);
        let of_all = Tensor::cat(&[counts, self.of_pixels.to(Device::Cpu)], 0);
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
