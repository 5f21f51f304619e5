//! From a batch on the host to what a step reads on the device.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use simla_data::masks::words::NOT_MASKED;
use simla_data::{Batch, Entry, Pair, RecordError};
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

/// The views as E_v reads them: `[B, 3, S, S]`, normalised (docs/paper.md, 'Views'). Bytes travel to the device, floats are made there.
pub fn normalized(pixels: &[u8], batch: usize, side: usize, device: Device) -> Tensor {
    let channel = |values: [f32; 3]| upload(&Tensor::from_slice(&values).view([1, 3, 1, 1]), device);
    let scale = channel(STD.map(|std| 1.0 / (255.0 * std)));
    let shift = channel([0, 1, 2].map(|c| -MEAN[c] / STD[c]));
    (bytes(pixels, batch, side, device).to_kind(Kind::Float) * scale + shift).contiguous()
}

/// The views of a batch as the visual tokenizer reads them at `side`: `[B, 3, side, side]`. Half of the views' own side was made with
/// them; another, for patches of 14 pixels say, is resampled here.
pub fn tokenizer_pixels<R>(batch: &Batch<R>, side: i64, device: Device) -> Tensor {
    if 2 * side == batch.side as i64 {
        return halved(&batch.halves, batch.len(), batch.side / 2, device);
    }
    resampled(&batch.pictures, batch.len(), batch.side, side, device)
}

/// Views `[B, S, S, 3]` as the visual tokenizer reads them at another `side`.
fn resampled(pixels: &[u8], batch: usize, from: usize, side: i64, device: Device) -> Tensor {
    let x = bytes(pixels, batch, from, device).to_kind(Kind::Float);
    of_tokenizer(x.internal_upsample_bilinear2d_aa([side, side], false, None, None))
}

/// Half-size views `[B, S, S, 3]` as the visual tokenizer reads them: `[B, 3, S, S]`.
pub fn halved(pixels: &[u8], batch: usize, side: usize, device: Device) -> Tensor {
    of_tokenizer(bytes(pixels, batch, side, device).to_kind(Kind::Float))
}

/// Bytes as the visual tokenizer reads them: pixels p in 0 to 1 mapped to 0.8 p + 0.1.
fn of_tokenizer(bytes: Tensor) -> Tensor {
    (bytes * (0.8 / 255.0) + 0.1).contiguous()
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

/// Rows of numbers as one rectangle `[rows, longest]`, filled up with `filler`.
pub fn padded<'a>(rows: impl ExactSizeIterator<Item = &'a [i64]> + Clone, filler: i64) -> Tensor {
    let (count, longest) = (rows.len(), rows.clone().map(<[i64]>::len).max().unwrap_or(0));
    let fill = |row: &'a [i64]| row.iter().copied().chain(std::iter::repeat(filler)).take(longest);
    Tensor::from_slice(&rows.flat_map(fill).collect::<Vec<_>>()).view([count as i64, longest as i64])
}

/// 1 where a row of [`padded`] has something, 0 where it was filled up.
pub fn padding_mask<'a>(rows: impl ExactSizeIterator<Item = &'a [i64]> + Clone) -> Tensor {
    let ones: Vec<Vec<i64>> = rows.map(|row| vec![1; row.len()]).collect();
    padded(ones.iter().map(Vec::as_slice), 0)
}

impl Inputs {
    /// The batch on `device`, captions filled up with the piece `pad`; `tokens` `[B, P]` are the views' visual tokens where MIM takes
    /// part, `noise` seeds the draw of negatives.
    pub fn new(batch: &Batch<Pair>, tokens: Option<&Tensor>, noise: u64, pad: i64, device: Device) -> Self {
        let rows = &batch.rows;
        let captions = || rows.iter().map(|row| row.ids.as_slice());
        let length = captions().map(<[i64]>::len).max().unwrap_or(0);
        let masked_words =
            rows.iter().flat_map(|row| (0..length).map(|i| *row.mlm_labels.get(i).unwrap_or(&NOT_MASKED) >= 0));
        let masked_patches: Vec<bool> = rows.iter().flat_map(|row| row.masked_patches.iter().copied()).collect();
        let words = Masked::new(&masked_words.collect::<Vec<_>>(), length, device);
        let patches = Masked::new(&masked_patches, rows.first().map_or(0, |row| row.masked_patches.len()), device);
        let ids = upload(&padded(captions(), pad), device);
        Self {
            image: normalized(&batch.pictures, batch.len(), batch.side, device),
            mask: upload(&padding_mask(captions()), device),
            mlm_ids: upload(&padded(rows.iter().map(|row| row.mlm_ids.as_slice()), pad), device),
            word_labels: words.pick(&ids),
            patch_labels: tokens.map(|tokens| patches.pick(tokens)),
            ids,
            words,
            patches,
            negatives: Negatives::noise(rows.len() as i64, &mut ChaCha8Rng::seed_from_u64(noise), device),
            image_ids: None,
        }
    }
}

/// Which image each pair of the batch shows, `[B]`.
pub fn image_ids(batch: &Batch<Pair>, device: Device) -> Tensor {
    let ids: Vec<i64> = batch.rows.iter().map(|row| row.image_id).collect();
    upload(&Tensor::from_slice(&ids), device)
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

    #[test]
    fn the_tokenizer_sees_the_view_at_its_own_side() {
        let side = 28;
        let images: Vec<u8> = (0..side * side * 3).map(|i| (i / (side * 3)) as u8 * 9).collect(); // rows of one shade
        let mut halves = vec![0; images.len() / 4];
        simla_image::halve(&images, side as u32, &mut halves);
        let column = |x: Tensor| x.select(0, 0).select(0, 0).select(1, 0);
        let half = column(halved(&halves, 1, side / 2, Device::Cpu));
        let other = column(resampled(&images, 1, side, 16, Device::Cpu));
        assert_eq!((half.size(), other.size()), (vec![14], vec![16]));
        // Both are the same picture: the ramp's ends and mean, in the tokenizer's units.
        let value = |x: &Tensor, i: i64| x.double_value(&[i]);
        assert!((value(&half, 0) - value(&other, 0)).abs() < 0.01);
        assert!((value(&half, 13) - value(&other, 15)).abs() < 0.01);
        assert!((half.mean(Kind::Float) - other.mean(Kind::Float)).abs().double_value(&[]) < 0.003);
    }

    #[test]
    fn rows_are_filled_up_to_the_longest() {
        let rows = [vec![4, 5], vec![6], vec![]];
        let slices = || rows.iter().map(Vec::as_slice);
        assert_eq!(padded(slices(), 9), Tensor::from_slice2(&[[4i64, 5], [6, 9], [9, 9]]));
        assert_eq!(padding_mask(slices()), Tensor::from_slice2(&[[1i64, 1], [1, 0], [0, 0]]));
    }
}
