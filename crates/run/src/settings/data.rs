//! What is read, and how it is shown to the model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use simla_image::Limits;

/// Pictures and words: what is read, and how it is varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// pieces of a caption at most, [CLS] and [SEP] included: 3 hold a word
    #[schemars(range(min = 3))]
    pub max_tokens: u64,
    /// smallest share of the picture that a random crop shows
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0, "x-only" = "crops"))]
    pub min_scale: f64,
    /// mirrors half of the views: switch it off where captions say left and right
    pub flip: bool,
    /// RandAugment without changes of colour
    pub augment: bool,
    /// column of image paths in CSV and TSV files
    pub image_column: String,
    /// column of captions in CSV and TSV files
    pub caption_column: String,
    /// share of unusable records above which the run is refused
    #[schemars(range(min = 0, max = 1))]
    pub max_bad_share: f64,
    /// threads that prepare batches; 0 is one a core
    pub workers: u64,
    /// pixels that a picture may have: decoding takes up to 12 bytes for each
    #[schemars(range(min = 1))]
    pub max_pixels: u64,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            max_tokens: 25,
            min_scale: 0.2,
            flip: true,
            augment: true,
            image_column: "image".into(),
            caption_column: "caption".into(),
            max_bad_share: 0.1,
            workers: 0,
            max_pixels: Limits::default().max_pixels,
        }
    }
}
