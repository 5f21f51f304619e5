//! From a batch on the host to what a step reads on the device.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use simla_data::{Batch, Entry, RecordError};
use simla_image::{Limits, MEAN, STD, evaluation_view};
use tch::{Device, Kind, Tensor};

use crate::objectives::negatives::Negatives;
use crate::step::{Inputs, Masked};
use simla_train::torch::device::upload;

/// Pixels `[B, S, S, 3]` of the host as bytes `[B, 3, S, S]` on the device.
fn bytes(pixels: &[u8], batch: usize, side: usize, device: Device) -> Tensor {
    let (batch, side) = (batch as i64, side as i64);
    let pixels = Tensor::from_slice(pixels).view([batch, side, side, 3]);
    upload(&pixels, device).permute([0, 3, 1, 2])
}

/// The views as E_v reads them: `[B, 3, S, S]`, normalised (spec section 3). Bytes travel to the device, floats are made there.
pub fn normalized(pixels: &[u8], batch: usize, side: usize, device: Device) -> Tensor {
    let channel = |values: [f32; 3]| upload(&Tensor::from_slice(&values).view([1, 3, 1, 1]), device);
    let scale = channel(STD.map(|std| 1.0 / (255.0 * std)));
    let shift = channel([0, 1, 2].map(|c| -MEAN[c] / STD[c]));
    (bytes(pixels, batch, side, device).to_kind(Kind::Float) * scale + shift).contiguous()
}

/// The views of a batch as the visual tokenizer reads them: `[B, 3, S / 2, S / 2]`.
pub fn tokenizer_pixels(batch: &Batch, device: Device) -> Tensor {
    halved(&batch.halves, batch.size, batch.side / 2, device)
}

/// Half-size views `[B, S, S, 3]` as the visual tokenizer reads them: `[B, 3, S, S]`, pixels p in 0 to 1 mapped to 0.8 p + 0.1.
pub fn halved(pixels: &[u8], batch: usize, side: usize, device: Device) -> Tensor {
    let x = bytes(pixels, batch, side, device).to_kind(Kind::Float);
    (x * (0.8 / 255.0) + 0.1).contiguous()
}

/// A whole picture at `side`: RGB bytes `[side, side, 3]`.
///
/// # Errors
/// A file that is missing, or that is not a picture.
pub(crate) fn whole_view(entry: &Entry, side: usize) -> Result<Vec<u8>, RecordError> {
    let (mut bytes, mut view) = (Vec::new(), vec![0; side * side * 3]);
    entry.read_image(&mut bytes)?;
    evaluation_view(&bytes, side as u32, &Limits::default(), &mut view).map_err(|error| entry.unreadable(error))?;
    Ok(view)
}

impl Inputs {
    /// The batch on `device`; `tokens` `[B, P]` are the views' visual tokens where MIM takes part, `noise` seeds the draw of negatives.
    pub fn new(batch: &Batch, tokens: Option<&Tensor>, noise: u64, device: Device) -> Self {
        let (size, length) = (batch.size as i64, batch.length as i64);
        let ints = |values: &[i64]| upload(&Tensor::from_slice(values).view([size, length]), device);
        let masked_words: Vec<bool> = batch.mlm_labels.iter().map(|&label| label >= 0).collect();
        let words = Masked::new(&masked_words, batch.length, device);
        let patches = Masked::new(&batch.masked_patches, batch.patches, device);
        let ids = ints(&batch.ids);
        Self {
            image: normalized(&batch.images, batch.size, batch.side, device),
            mask: ints(&batch.mask),
            mlm_ids: ints(&batch.mlm_ids),
            word_labels: words.pick(&ids),
            patch_labels: tokens.map(|tokens| patches.pick(tokens)),
            ids,
            words,
            patches,
            negatives: Negatives::noise(size, &mut ChaCha8Rng::seed_from_u64(noise), device),
            image_ids: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_normalised_as_the_recipe_says() {
        let pixels: Vec<u8> = (0..12).map(|i| i * 20).collect();
        let x = normalized(&pixels, 1, 2, Device::Cpu);
        for (row, column, channel) in [(0, 0, 0), (0, 1, 2), (1, 0, 1), (1, 1, 2)] {
            let byte = f64::from(pixels[(row * 2 + column) * 3 + channel]);
            let expected = (byte / 255.0 - f64::from(MEAN[channel])) / f64::from(STD[channel]);
            let found = x.double_value(&[0, channel as i64, row as i64, column as i64]);
            assert!((found - expected).abs() < 1e-5, "{found} against {expected}");
        }
    }
}
