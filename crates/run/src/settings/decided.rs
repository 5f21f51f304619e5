//! What weights to start from, and the processes that start, decide about a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use simla::config::{ModelConfig, Preset, SpecialIds};
use toml::Value;

/// Sizes that weights fit whatever they are: positions and patch kernels are resampled.
pub(super) const RESAMPLED: &[&str] = &["image_size", "patch_size"];

/// A size, and the weights that have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// The number.
    pub value: i64,
    /// Where they are.
    pub of: String,
}

/// What is decided about a run before its settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// By the names of the settings.
    pub sizes: BTreeMap<String, Size>,
    /// Whether they read text that ends in [SEP], where they have words.
    pub closing_sep: Option<bool>,
    /// Batches of a step, of the processes that a run begins with: one for each.
    pub batches: Option<u64>,
}

impl Decided {
    /// Takes the sizes of weights that lie in `of`. For what is resampled the later ones count.
    ///
    /// # Errors
    /// A size that weights before them have otherwise.
    pub fn add(&mut self, of: &str, sizes: &BTreeMap<String, i64>) -> Result<(), String> {
        for (name, &value) in sizes {
            let size = Size { value, of: of.into() };
            if let Some(before) = self.sizes.insert(name.clone(), size)
                && before.value != value
                && !RESAMPLED.contains(&name.as_str())
            {
                return Err(format!("{name}: {} in {}, {value} in {of}", before.value, before.of));
            }
        }
        match (self.sizes.get("vision_width"), self.sizes.get("text_width")) {
            (Some(vision), Some(text)) if vision.value != text.value => Err(format!(
                "width: {} in {}, {} in {}; patches and words have the same width in SIMLA",
                vision.value, vision.of, text.value, text.of
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn width(&self) -> Option<i64> {
        let width = ["vision_width", "text_width"].iter().find_map(|name| self.sizes.get(*name));
        width.map(|width| width.value)
    }

    /// As settings. An encoder that starts anew beside weights has their width, and its heads and feed-forward layers those of a
    /// published model of it.
    pub(super) fn settings(&self, preset: Preset) -> BTreeMap<String, Value> {
        let mut sizes: BTreeMap<String, i64> = BTreeMap::new();
        let usual = ModelConfig::preset(preset, 1, SpecialIds::default());
        if let Some(width) = self.width().filter(|&width| width != usual.vision_width) {
            let heads = (width / 64).max(1);
            for (name, value) in [
                ("vision_width", width),
                ("vision_heads", heads),
                ("text_width", width),
                ("text_heads", heads),
                ("text_mlp", 4 * width),
            ] {
                sizes.insert(name.into(), value);
            }
        }
        sizes.extend(self.sizes.iter().map(|(name, size)| (name.clone(), size.value)));
        let batches =
            ["accumulate", "dvae_accumulate"].into_iter().filter_map(|name| Some((name.into(), self.batches? as i64)));
        let sizes = sizes.into_iter().chain(batches).map(|(name, value)| (name, Value::Integer(value)));
        sizes.chain(self.closing_sep.map(|closes| ("closing_sep".into(), Value::Boolean(closes)))).collect()
    }
}
