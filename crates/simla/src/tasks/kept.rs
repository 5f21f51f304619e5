//! How much of a picture an index keeps for the matching score: E_v's patch embeddings in half precision, in 8 bits, or not at all.

use std::fmt;
use std::str::FromStr;

use half::f16;

use crate::config::ModelConfig;

/// What is kept of a picture beside its contrastive feature. What is matched starts from patches in half precision
/// ([`Seen::patches`](super::search::Seen::patches)), which [`Kept::pack`] makes smaller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kept {
    /// The patches as they are.
    #[default]
    Half,
    /// Each patch as whole numbers from -127 to 127 and their unit in half precision: its largest value over 127.
    EightBits,
    /// Nothing: what is to be matched is looked at again.
    Nothing,
}

const NAMES: [(&str, Kept); 3] = [("half", Kept::Half), ("8bit", Kept::EightBits), ("none", Kept::Nothing)];
/// The largest whole number of a byte whose negative is one too.
const LARGEST: f32 = 127.0;

impl Kept {
    /// Bytes of a picture, as [`Kept::pack`] makes them.
    pub fn bytes(self, config: &ModelConfig) -> usize {
        let (patches, width) = ((1 + config.patches()) as usize, config.vision_width as usize);
        patches
            * match self {
                Self::Half => size_of::<f16>() * width,
                Self::EightBits => size_of::<f16>() + width,
                Self::Nothing => 0,
            }
    }

    /// What is kept of patches `[1 + P, width]` in half precision.
    pub fn pack(self, patches: Vec<u8>, width: usize) -> Vec<u8> {
        match self {
            Self::Half => patches,
            Self::EightBits => patches.chunks(size_of::<f16>() * width).flat_map(rounded).collect(),
            Self::Nothing => vec![],
        }
    }

    /// Patches `[1 + P, width]` in half precision, of what was kept of them; none where nothing was.
    pub fn unpack(self, kept: &[u8], width: usize) -> Option<Vec<u8>> {
        match self {
            Self::Half => Some(kept.to_vec()),
            Self::EightBits => Some(kept.chunks(size_of::<f16>() + width).flat_map(restored).collect()),
            Self::Nothing => None,
        }
    }
}

/// A patch in 8 bits: its unit, and so many of it.
fn rounded(patch: &[u8]) -> Vec<u8> {
    let values: Vec<f32> = patch.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect();
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let unit = f16::from_f32(largest / LARGEST);
    // The unit that is written, not the one that was meant; of a patch that is all zeros, any.
    let per = if unit.to_f32() > 0.0 { 1.0 / unit.to_f32() } else { 0.0 };
    let whole = values.iter().map(|value| (value * per).round().clamp(-LARGEST, LARGEST) as i8 as u8);
    unit.to_le_bytes().into_iter().chain(whole).collect()
}

fn restored(kept: &[u8]) -> Vec<u8> {
    let (unit, whole) = kept.split_first_chunk().expect("a unit before each patch");
    let unit = f16::from_le_bytes(*unit).to_f32();
    whole.iter().flat_map(|&byte| f16::from_f32(f32::from(byte as i8) * unit).to_le_bytes()).collect()
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = NAMES.iter().find(|(_, kept)| kept == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, kept)| *kept).ok_or_else(|| format!("expected {}", NAMES.map(|(name, _)| name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Preset, SpecialIds};

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect()
    }

    #[test]
    fn eight_bits_are_within_half_a_unit_of_each_patch() {
        // Units of 2 and of 1 / 1024, exact in half precision, and a patch of zeros.
        let values =
            [254.0, -3.0, 1.1, 0.0, -127.0 / 1024.0, 0.5 / 1024.0, 0.4 / 1024.0, 64.0 / 1024.0, 0.0, 0.0, 0.0, 0.0];
        let expected = [254.0, -4.0, 2.0, 0.0, -127.0 / 1024.0, 1.0 / 1024.0, 0.0, 64.0 / 1024.0, 0.0, 0.0, 0.0, 0.0];
        let packed = Kept::EightBits.pack(bytes(&values), 4);
        assert_eq!(packed[2..6], [127, (-2i8) as u8, 1, 0]);
        assert_eq!(Kept::EightBits.unpack(&packed, 4), Some(bytes(&expected)));
    }

    #[test]
    fn what_is_kept_is_as_long_as_is_said() {
        let config = ModelConfig { image_size: 32, ..ModelConfig::preset(Preset::Tiny, 50, SpecialIds::FIRST) };
        let width = config.vision_width as usize;
        let patches = vec![1; (1 + config.patches()) as usize * 2 * width];
        for (name, kept) in NAMES {
            assert_eq!(kept.pack(patches.clone(), width).len(), kept.bytes(&config), "{name}");
            assert_eq!((name.parse(), kept.to_string().as_str()), (Ok(kept), name));
        }
        assert_eq!(Kept::Half.unpack(&patches, width), Some(patches));
        assert_eq!(Kept::Nothing.unpack(&[], width), None);
        assert_eq!("7bit".parse::<Kept>().unwrap_err(), "expected half, 8bit, none");
    }
}
