//! The shape of a model: every size of spec section 1, with the presets that have a name.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Ids of the tokens that mean something to the objectives. The default stands for those of a vocabulary that is not there yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialIds {
    pub pad: i64,
    pub cls: i64,
    pub sep: i64,
    pub mask: i64,
}

#[cfg(test)]
impl SpecialIds {
    /// The first ids of a small vocabulary.
    pub(crate) const FIRST: Self = Self { pad: 0, cls: 1, sep: 2, mask: 3 };
}

/// All sizes of a model. Widths in features, sizes in pixels, counts in tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub image_size: i64,
    pub patch_size: i64,
    pub vision_width: i64,
    pub vision_depth: i64,
    pub vision_heads: i64,
    pub text_width: i64,
    pub text_depth: i64,
    pub text_heads: i64,
    pub text_mlp: i64,
    pub vocab_size: i64,
    pub max_positions: i64,
    /// Width of the shared space of the contrastive features.
    pub embed_dim: i64,
    /// Number of visual tokens (codes of the discrete VAE).
    pub visual_vocab: i64,
    /// Momentum features of each modality that are kept as negatives.
    pub queue_size: i64,
    /// Share of the old value that the moving average keeps each step.
    pub momentum: f64,
    /// Temperature of the contrast at the start.
    pub temperature: f64,
    /// Keywords chosen from each caption: k of appendix 3.
    pub keywords: i64,
    /// Of hidden states and attention in BERT, during training.
    pub dropout: f64,
    /// Whether text ends in `[SEP]`; the authors' models read it without.
    #[serde(default = "closes")]
    pub closing_sep: bool,
    pub special: SpecialIds,
}

/// Of models that do not say: all but the authors' close their text.
fn closes() -> bool {
    true
}

/// A size that cannot be built, with the field to change.
#[derive(Debug, Error, PartialEq)]
#[error("model.{field} = {value}: {expected}")]
pub struct ConfigError {
    pub field: &'static str,
    pub value: String,
    pub expected: String,
}

/// Named sizes. `Base` is the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// ([`Settings::resolve`](crate::settings::Settings::resolve)).
    ///
    /// # Errors
    /// The first field that is wrong, its value, and what was expected.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field, value: &dyn std::fmt::Display, expected: String| {
            Err(ConfigError { field, value: value.to_string(), expected })
        };
        let sizes = [
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
            ("vision_width", self.vision_width),
            ("vision_depth", self.vision_depth),
            ("vision_heads", self.vision_heads),
            ("text_width", self.text_width),
            ("text_depth", self.text_depth),
            ("text_heads", self.text_heads),
            ("text_mlp", self.text_mlp),
            ("vocab_size", self.vocab_size),
            ("max_positions", self.max_positions),
            ("embed_dim", self.embed_dim),
            ("visual_vocab", self.visual_vocab),
            ("queue_size", self.queue_size),
            ("keywords", self.keywords),
        ];
        const LARGEST: i64 = 1 << 24;
        for (field, value) in sizes {
            if !(1..=LARGEST).contains(&value) {
                return refuse(field, &value, format!("expected 1 to {LARGEST}"));
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
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", &self.dropout, "expected 0 or more, below 1".into());
        }
        if !(0.0..=1.0).contains(&self.momentum) {
            return refuse("momentum", &self.momentum, "expected 0 to 1".into());
        }
        if !(0.001..=0.5).contains(&self.temperature) {
            return refuse("temperature", &self.temperature, "expected 0.001 to 0.5".into());
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
