//! The shape of a model: every size (docs/paper.md, 'Architecture'), with the presets that have a name.

use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::fields::{self, Field};

/// Ids of the tokens that mean something to the objectives. The default stands for those of a vocabulary that is not there yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialIds {
    /// `[PAD]`
    pub pad: i64,
    /// `[CLS]`
    pub cls: i64,
    /// `[SEP]`
    pub sep: i64,
    /// `[MASK]`
    pub mask: i64,
}

#[cfg(test)]
impl SpecialIds {
    /// The first ids of a small vocabulary.
    pub(crate) const FIRST: Self = Self { pad: 0, cls: 1, sep: 2, mask: 3 };
}

/// The largest of any size: beyond it, a size is a mistake, and products of sizes would overflow.
const LARGEST: i64 = 1 << 24;

/// Sizes of the model, its queues and its momentum.
// The comments of the fields are what `simla settings model` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// side of the view in pixels
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "run"))]
    pub image_size: i64,
    /// side of a patch in pixels
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "model"))]
    pub patch_size: i64,
    /// features of a patch
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "model"))]
    pub vision_width: i64,
    /// layers of the vision encoder
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "model"))]
    pub vision_depth: i64,
    /// attention heads of the vision encoder
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "model"))]
    pub vision_heads: i64,
    /// features of a word: the same as vision_width
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "model"))]
    pub text_width: i64,
    /// layers of the language and multimodal encoder
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "model"))]
    pub text_depth: i64,
    /// attention heads of the language and multimodal encoder
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "model"))]
    pub text_heads: i64,
    /// features of its feed-forward layers
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "model"))]
    pub text_mlp: i64,
    /// pieces of a vocabulary that is learned from the captions, at least 100
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "run", "x-only" = "pretraining"))]
    pub vocab_size: i64,
    /// position embeddings of words: with mim at least 1 + patches
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "model"))]
    pub max_positions: i64,
    /// features of the contrast
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "model"))]
    pub embed_dim: i64,
    /// visual tokens: codes of the discrete VAE
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "model"))]
    pub visual_vocab: i64,
    /// momentum features of each modality kept as negatives: of a batch or two where the
    /// learning rate is high or pictures are few
    #[schemars(range(min = 1, max = LARGEST), extend("x-fixed" = "run", "x-only" = "alignment"))]
    pub queue_size: i64,
    /// share of itself that the momentum model keeps each step
    #[schemars(range(min = 0, max = 1))]
    pub momentum: f64,
    /// temperature of the contrast at the start; it learns
    #[schemars(range(min = 0.001, max = 0.5), extend("x-only" = "pretraining"))]
    pub temperature: f64,
    /// keywords chosen from each caption
    #[schemars(range(min = 1, max = LARGEST), extend("x-only" = "pretraining"))]
    pub keywords: i64,
    /// factor of the image feature, of length one, before the concept head: with the root of embed_dim the head learns as fast as others do;
    /// the authors' is 1
    #[serde(default = "as_it_is")]
    #[schemars(extend("exclusiveMinimum" = 0, "x-fixed" = "model", "x-before" = 1.0))]
    pub concept_scale: f64,
    /// dropout of BERT's hidden states and attention
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: f64,
    /// ends captions with [SEP], as BERT does; the authors' weights read them without
    #[serde(default = "closes")]
    #[schemars(extend("x-fixed" = "model"))]
    pub closing_sep: bool,
    /// Of the vocabulary that the model reads.
    #[schemars(skip)]
    pub special: SpecialIds,
}

/// Of models that do not say: all but the authors' close their text.
fn closes() -> bool {
    true
}

/// Of models that do not say.
fn as_it_is() -> f64 {
    1.0
}

/// A size that cannot be built, with the field to change.
#[derive(Debug, Error, PartialEq)]
#[error("model.{field} = {value}: {expected}")]
pub struct ConfigError {
    /// Its name.
    pub field: &'static str,
    /// What it was.
    pub value: String,
    /// What it may be.
    pub expected: String,
}

/// What each size may be.
static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| fields::of::<ModelConfig>().1);

/// Named sizes. `Base` is the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // docs would be text of the settings' help
pub enum Preset {
    Tiny,
    Small,
    Base,
}

impl Preset {
    /// The smallest that is no narrower than `model`; `Base` where none is.
    pub fn of(model: &ModelConfig) -> Self {
        Self::for_width(model.vision_width)
    }

    /// The smallest that is no narrower than `width`; `Base` where none is.
    pub fn for_width(width: i64) -> Self {
        let of = |preset| ModelConfig::preset(preset, 1, SpecialIds::default()).vision_width;
        let narrow = [Self::Tiny, Self::Small].into_iter();
        let mut wide_enough = narrow.filter(|&preset| of(preset) >= width);
        wide_enough.next().unwrap_or(Self::Base)
    }
}

impl ModelConfig {
    /// The preset's sizes, for a vocabulary of `vocab_size` pieces.
    pub fn preset(preset: Preset, vocab_size: i64, special: SpecialIds) -> Self {
        let base = Self {
            image_size: 256,
            patch_size: 16,
            vision_width: 768,
            vision_depth: 12,
            vision_heads: 12,
            text_width: 768,
            text_depth: 12,
            text_heads: 12,
            text_mlp: 3072,
            vocab_size,
            max_positions: 512,
            embed_dim: 256,
            visual_vocab: 8192,
            queue_size: 65_536,
            momentum: 0.995,
            temperature: 0.07,
            keywords: 4,
            concept_scale: 1.0,
            dropout: 0.1,
            closing_sep: true,
            special,
        };
        match preset {
            Preset::Base => base,
            Preset::Small => Self {
                image_size: 128,
                vision_width: 384,
                vision_depth: 8,
                vision_heads: 6,
                text_width: 384,
                text_depth: 6,
                text_heads: 6,
                text_mlp: 1536,
                max_positions: 128,
                visual_vocab: 2048,
                queue_size: 16_384,
                concept_scale: 16.0,
                ..base
            },
            Preset::Tiny => Self {
                image_size: 64,
                patch_size: 8,
                vision_width: 128,
                vision_depth: 4,
                vision_heads: 4,
                text_width: 128,
                text_depth: 4,
                text_heads: 4,
                text_mlp: 512,
                max_positions: 80,
                embed_dim: 128,
                visual_vocab: 256,
                queue_size: 64,
                momentum: 0.98,
                keywords: 3,
                concept_scale: 12.0,
                dropout: 0.0,
                ..base
            },
        }
    }

    /// Patches along one side of the image.
    pub fn grid(&self) -> i64 {
        self.image_size / self.patch_size
    }

    /// Patches of an image.
    pub fn patches(&self) -> i64 {
        self.grid() * self.grid()
    }

    /// Refuses sizes that do not fit each other. Whether the positions suffice for patches as queries is a matter of the objectives
    /// (`Settings::resolve` of simla-run).
    ///
    /// # Errors
    /// The first field that is wrong, its value, and what was expected.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field, value: &dyn std::fmt::Display, expected: String| {
            Err(ConfigError { field, value: value.to_string(), expected })
        };
        let values = serde_json::to_value(self).expect("numbers and names");
        for field in FIELDS.iter().filter(|field| field.range().is_some()) {
            let value = &values[&field.name]; // null where it is not finite
            if let Err(expected) = field.check(value.as_f64().unwrap_or(f64::NAN)) {
                return refuse(&field.name, value, expected);
            }
        }
        if self.image_size % self.patch_size != 0 {
            return refuse(
                "image_size",
                &self.image_size,
                format!("expected a multiple of patch_size = {}", self.patch_size),
            );
        }
        if self.vision_width % self.vision_heads != 0 {
            return refuse(
                "vision_width",
                &self.vision_width,
                format!("expected a multiple of vision_heads = {}", self.vision_heads),
            );
        }
        if self.text_width % self.text_heads != 0 {
            return refuse(
                "text_width",
                &self.text_width,
                format!("expected a multiple of text_heads = {}", self.text_heads),
            );
        }
        if self.text_width != self.vision_width {
            // Patches are queries of E_mm (appendix 1.2), so both live in one space.
            return refuse("text_width", &self.text_width, format!("expected vision_width = {}", self.vision_width));
        }
        let special = [self.special.pad, self.special.cls, self.special.sep, self.special.mask];
        if let Some(id) = special.iter().find(|id| !(0..self.vocab_size).contains(id)) {
            return refuse("special", id, format!("expected ids below vocab_size = {}", self.vocab_size));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: SpecialIds = SpecialIds { pad: 0, cls: 101, sep: 102, mask: 103 };

    #[test]
    fn presets_are_valid() {
        for preset in [Preset::Tiny, Preset::Small, Preset::Base] {
            ModelConfig::preset(preset, 30_522, SPECIAL).validate().unwrap();
        }
    }

    #[test]
    fn models_that_do_not_say_close_their_text() {
        let mut json = serde_json::to_value(ModelConfig::preset(Preset::Tiny, 500, SPECIAL)).unwrap();
        assert_eq!(json.as_object_mut().unwrap().remove("closing_sep"), Some(true.into()));
        assert!(serde_json::from_value::<ModelConfig>(json).unwrap().closing_sep);
    }

    #[test]
    fn refusals_name_the_field_and_the_value() {
        let base = || ModelConfig::preset(Preset::Base, 30_522, SPECIAL);
        let wrong = |config: ModelConfig| config.validate().unwrap_err().to_string();
        assert_eq!(
            wrong(ModelConfig { image_size: 250, ..base() }),
            "model.image_size = 250: expected a multiple of patch_size = 16"
        );
        assert!(wrong(ModelConfig { text_heads: 5, ..base() }).contains("text_width = 768"));
        assert!(wrong(ModelConfig { vision_width: 0, ..base() }).contains("vision_width = 0"));
        assert!(wrong(ModelConfig { dropout: 1.0, ..base() }).contains("dropout = 1"));
        assert!(wrong(ModelConfig { vocab_size: 100, ..base() }).contains("special = 101"));
    }
}
