//! Every setting of a run of training: one definition for the file, the command line and the help.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::{Table, Value};

use simla::config::{ModelConfig, Preset, SpecialIds};
use simla::dvae::DvaeConfig;
use simla::dvae::encoder::EncoderConfig;
use simla::objectives::Objectives;
use simla_image::Limits;
use simla_train::optim::{AdamWConfig, Schedule};

use crate::inputs::Kind;

/// The type in which products run; weights, losses and the optimiser are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    F32,
    Bf16,
}

impl Dtype {
    pub fn kind(self) -> tch::Kind {
        match self {
            Self::F32 => tch::Kind::Float,
            Self::Bf16 => tch::Kind::BFloat16,
        }
    }
}

macro_rules! settings {
    ($($field:ident : $kind:ty, $help:literal;)*) => {
        /// The settings of a run, by name.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {
            $(#[doc = $help] pub $field: $kind,)*
        }

        /// Names and explanations, in the order of the help.
        pub const HELP: &[(&str, &str)] = &[$((stringify!($field), $help)),*];
    };
}

settings! {
    preset: Preset, "sizes to start from: tiny, small or base (the paper's)";
    epochs: u64, "times that every pair is seen";
    steps: u64, "optimiser steps in all; 0 takes them from epochs";
    batch_size: u64, "pairs in a micro-batch: negatives come from it";
    accumulate: u64, "micro-batches that make one optimiser step";
    seed: u64, "decides every random choice of the run";
    dtype: Dtype, "type of the matrix products: f32 or bf16";
    recompute: bool, "computes activations again in the backward pass: much less memory, a fifth more time, the same numbers";
    objectives: Objectives, "losses that take part, of itc, itm, mlm, mim, psl";

    lr: f64, "learning rate at the top of the schedule";
    warmup_lr: f64, "learning rate of the first step";
    min_lr: f64, "learning rate of the last step";
    warmup_steps: u64, "steps of linear warm-up (at most a tenth of the run)";
    weight_decay: f64, "AdamW's decay, of matrices only";
    clip_norm: f64, "gradients are scaled down to this global norm; 0 leaves them";
    alpha: f64, "weight of the momentum model's targets, reached after the first epoch";
    max_bad_steps: u64, "steps in a row with a loss or gradient that is not finite, before the run stops";

    image_size: i64, "side of the view in pixels";
    patch_size: i64, "side of a patch in pixels";
    vision_width: i64, "features of a patch";
    vision_depth: i64, "layers of the vision encoder";
    vision_heads: i64, "attention heads of the vision encoder";
    text_width: i64, "features of a word: the same as vision_width";
    text_depth: i64, "layers of the language and multimodal encoder";
    text_heads: i64, "attention heads of the language and multimodal encoder";
    text_mlp: i64, "features of its feed-forward layers";
    max_positions: i64, "position embeddings of words: with mim at least 1 + patches";
    embed_dim: i64, "features of the contrast";
    visual_vocab: i64, "visual tokens: codes of the discrete VAE";
    queue_size: i64, "momentum features of each modality kept as negatives: of a batch or two where the learning rate is high or pictures are few";
    momentum: f64, "share of itself that the momentum model keeps each step";
    temperature: f64, "of the contrast at the start; it learns";
    keywords: i64, "keywords chosen from each caption";
    dropout: f64, "of BERT's hidden states and attention";

    vocab_size: u64, "pieces of a vocabulary that is learned from the captions";
    closing_sep: bool, "ends captions with [SEP], as BERT does; the authors' weights read them without";
    max_tokens: u64, "pieces of a caption at most, [CLS] and [SEP] included";
    min_scale: f64, "smallest share of the picture that a random crop shows";
    flip: bool, "mirrors half of the views: switch it off where captions say left and right";
    augment: bool, "RandAugment without changes of colour";
    masked_share: f64, "share of patches hidden for reconstruction (the paper's 75 of 256)";
    image_column: String, "column of image paths in CSV and TSV files";
    caption_column: String, "column of captions in CSV and TSV files";
    max_bad_share: f64, "share of unusable records above which the run is refused";
    workers: u64, "threads that prepare batches; 0 is one a core";
    threads: u64, "threads that calculate; 0 is one a core, adapted to what the machine does besides: a number repeats a run bit for bit beside other work, too";
    max_pixels: u64, "pixels that a picture may have: decoding takes up to 12 bytes for each";

    dvae_steps: u64, "steps of training a visual tokenizer, where none is given";
    dvae_batch_size: u64, "pictures in a batch of it";
    dvae_width: i64, "features of the tokenizer's first layer (DALL-E's: 256, with visual_vocab=8192)";
    dvae_lr: f64, "its learning rate";

    min_answer_count: u64, "questions whose commonest answer it is at least, for an answer to be one of those to choose among";
    max_answers: u64, "answers to choose among at most: the commonest of the questions";

    save_every_steps: u64, "steps between checkpoints; 0 for none but by time and the last";
    save_every_minutes: f64, "minutes between checkpoints; 0 for none but by steps and the last";
    keep: u64, "checkpoints that stay, newest first; the best stays too";
    eval_every_steps: u64, "steps between retrievals on the held-out file; 0 for one at the end";
    samples_every_steps: u64, "steps between samples of what it makes of held-out pairs; 0 for one at the end";
}

/// Sizes that a model is built with once: neither a resumed run nor fine-tuning changes them.
const SIZES: &[&str] = &[
    "patch_size",
    "vision_width",
    "vision_depth",
    "vision_heads",
    "text_width",
    "text_depth",
    "text_heads",
    "text_mlp",
    "max_positions",
    "embed_dim",
    "visual_vocab",
    "closing_sep",
];

/// What a run that has begun cannot change, beside [`SIZES`].
const FIXED: &[&str] = &[
    "batch_size",
    "accumulate",
    "seed",
    "image_size",
    "queue_size",
    "vocab_size",
    "dvae_steps",
    "dvae_batch_size",
    "dvae_width",
];

/// What does nothing in fine-tuning: there is no word or patch to guess, no tokenizer, and temperature and vocabulary are the model's.
const OF_PRETRAINING: &[&str] = &[
    "temperature",
    "keywords",
    "vocab_size",
    "masked_share",
    "dvae_steps",
    "dvae_batch_size",
    "dvae_width",
    "dvae_lr",
    "samples_every_steps",
];

/// What only fine-tuning on questions reads.
const OF_VQA: &[&str] = &["min_answer_count", "max_answers"];
/// What tasks with a model of their own do not read, nor [`OF_VQA`].
const OF_ALIGNMENT: &[&str] = &["objectives", "queue_size", "min_answer_count", "max_answers"];

/// What fine-tuning of this kind does not read, beside [`OF_PRETRAINING`].
fn unread(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pretraining | Kind::Retrieval => OF_VQA,
        Kind::Vqa => &OF_ALIGNMENT[..2],
        Kind::TextAssignment | Kind::Nlvr2 | Kind::Entailment => OF_ALIGNMENT,
    }
}

/// Sizes that weights fit whatever they are: positions and patch kernels are resampled.
const RESAMPLED: &[&str] = &["image_size", "patch_size"];

/// A size, and the weights that have it.
#[derive(Debug, Clone, PartialEq)]
pub struct Size {
    pub value: i64,
    /// Where they are.
    pub of: String,
}

/// What weights to start from decide about a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decided {
    /// By the names of the settings.
    pub sizes: BTreeMap<String, Size>,
    /// Whether they read text that ends in [SEP], where they have words.
    pub closing_sep: Option<bool>,
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

    fn width(&self) -> Option<i64> {
        let width = ["vision_width", "text_width"].iter().find_map(|name| self.sizes.get(*name));
        width.map(|width| width.value)
    }

    /// As settings. An encoder that starts anew beside weights has their width, and its heads and feed-forward layers those of a
    /// published model of it.
    fn settings(&self, preset: Preset) -> BTreeMap<String, Value> {
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
        let sizes = sizes.into_iter().map(|(name, value)| (name, Value::Integer(value)));
        sizes.chain(self.closing_sep.map(|closes| ("closing_sep".into(), Value::Boolean(closes)))).collect()
    }
}

/// A setting that cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    #[error("unknown setting `{name}`{suggestion}; --help lists all")]
    Unknown { name: String, suggestion: String },
    #[error("setting `{name}` = {value}: {expected}")]
    Value { name: String, value: String, expected: String },
    #[error("--set {0}: expected name=value")]
    Assignment(String),
    #[error("configuration file: {0}")]
    File(String),
}

impl Settings {
    /// A preset's defaults.
    pub fn preset(preset: Preset) -> Self {
        let model = ModelConfig::preset(preset, 1, SpecialIds::default());
        Self::of(preset, &model)
    }

    /// The preset's recipe, for a model of these sizes.
    fn of(preset: Preset, model: &ModelConfig) -> Self {
        let base = Self {
            preset,
            epochs: 30,
            steps: 0,
            batch_size: 64,
            accumulate: 1,
            seed: 0,
            dtype: Dtype::F32,
            recompute: false,
            objectives: Objectives::default(),
            lr: 1e-4,
            warmup_lr: 1e-5,
            min_lr: 1e-5,
            warmup_steps: 2000,
            weight_decay: 0.02,
            clip_norm: 0.0,
            alpha: 0.4,
            max_bad_steps: 20,
            image_size: model.image_size,
            patch_size: model.patch_size,
            vision_width: model.vision_width,
            vision_depth: model.vision_depth,
            vision_heads: model.vision_heads,
            text_width: model.text_width,
            text_depth: model.text_depth,
            text_heads: model.text_heads,
            text_mlp: model.text_mlp,
            max_positions: model.max_positions,
            embed_dim: model.embed_dim,
            visual_vocab: model.visual_vocab,
            queue_size: model.queue_size,
            momentum: model.momentum,
            temperature: model.temperature,
            keywords: model.keywords,
            dropout: model.dropout,
            closing_sep: model.closing_sep,
            vocab_size: 30_522,
            max_tokens: 25,
            min_scale: 0.2,
            flip: true,
            augment: true,
            masked_share: 75.0 / 256.0,
            image_column: "image".into(),
            caption_column: "caption".into(),
            max_bad_share: 0.1,
            workers: 0,
            threads: 0,
            max_pixels: Limits::default().max_pixels,
            dvae_steps: 20_000,
            dvae_batch_size: 64,
            dvae_width: 128,
            dvae_lr: 1e-3,
            min_answer_count: 1,
            max_answers: 3128,
            save_every_steps: 0,
            save_every_minutes: 15.0,
            keep: 3,
            eval_every_steps: 0,
            samples_every_steps: 0,
        };
        match preset {
            Preset::Base => base,
            Preset::Small => Self { lr: 3e-4, vocab_size: 16_000, dvae_steps: 8000, dvae_width: 64, ..base },
            Preset::Tiny => Self {
                batch_size: 32,
                lr: 1e-3,
                warmup_lr: 1e-5,
                clip_norm: 1.0,
                vocab_size: 4000,
                dvae_steps: 1200,
                dvae_batch_size: 32,
                dvae_width: 16,
                dvae_lr: 3e-3,
                ..base
            },
        }
    }

    /// Defaults of fine-tuning `model` on a task of this kind (3.1 and the authors' configurations), whose sizes they are, on pictures half as
    /// large again; a model that was tuned on such pictures before keeps its size. The paper's rates are those of base.
    pub fn fine_tuning(kind: Kind, model: &ModelConfig, again: bool) -> Self {
        let preset = Preset::of(model);
        // Epochs, batch, peak rate at base size, steps of warm-up.
        let (epochs, batch_size, lr, warmup_steps) = match kind {
            Kind::Pretraining | Kind::Retrieval => (10, 32, 1e-5, 0),
            Kind::TextAssignment => (1, 64, 2e-5, 100),
            Kind::Vqa => (8, 32, 2e-5, 400),
            Kind::Nlvr2 => (10, 16, 2e-5, 100),
            Kind::Entailment => (5, 32, 2e-5, 100),
        };
        let lr = lr
            * match preset {
                Preset::Tiny => 10.0,
                Preset::Small => 3.0,
                Preset::Base => 1.0,
            };
        let larger = !again && kind != Kind::TextAssignment;
        let patches = if larger { (1.5 * model.grid() as f64).round() as i64 } else { model.grid() };
        let base = Self::of(preset, model);
        Self {
            epochs,
            batch_size,
            objectives: Objectives::RETRIEVAL,
            lr,
            warmup_lr: if warmup_steps == 0 { lr } else { 1e-5 },
            min_lr: if kind == Kind::TextAssignment { 1e-5 } else { 1e-6 },
            warmup_steps,
            min_scale: 0.5,
            image_size: patches * model.patch_size,
            // Statements and hypotheses are not cut off.
            max_tokens: match kind {
                Kind::Nlvr2 | Kind::Entailment => model.max_positions as u64,
                _ => base.max_tokens,
            },
            ..base
        }
    }

    /// Defaults of the preset that is asked for, then the file's settings, then the assignments `name=value`.
    ///
    /// # Errors
    /// An unknown name, a value of the wrong kind or out of range: with the name and the value.
    pub fn resolve(file: Option<&str>, assignments: &[String]) -> Result<Self, SettingsError> {
        Self::resolve_from(&Decided::default(), file, assignments)
    }

    /// As [`Settings::resolve`], for a run that starts from weights: sizes are theirs, and the preset is the one of their width.
    ///
    /// # Errors
    /// As [`Settings::resolve`]; and a size that is asked for and is not that of the weights.
    pub fn resolve_from(weights: &Decided, file: Option<&str>, assignments: &[String]) -> Result<Self, SettingsError> {
        let asked = asked(file, assignments)?;
        let preset = match asked.get("preset") {
            Some(value) => {
                value.clone().try_into().map_err(|_| bad_value("preset", value, "expected tiny, small or base"))?
            }
            None => weights.width().map_or(Preset::Tiny, Preset::for_width),
        };
        let settings = Self::preset(preset).changed(weights.settings(preset))?.changed(asked)?;
        let found = settings.table();
        for (name, Size { value, of }) in weights.sizes.iter().filter(|(name, _)| !RESAMPLED.contains(&name.as_str())) {
            if found[name].as_integer() != Some(*value) {
                return Err(bad_value(name, &found[name], &format!("the weights of {of} have {value}")));
            }
        }
        settings.validate()?;
        Ok(settings)
    }

    /// These defaults of fine-tuning, then the file's settings, then the assignments.
    ///
    /// # Errors
    /// As [`Settings::resolve`]; and what [`Settings::check_fine_tuning`] refuses.
    pub fn resolve_fine_tuning(
        kind: Kind,
        defaults: &Self,
        file: Option<&str>,
        assignments: &[String],
    ) -> Result<Self, SettingsError> {
        let settings = defaults.clone().changed(asked(file, assignments)?)?;
        settings.check_fine_tuning(kind, defaults)?;
        settings.validate()?;
        Ok(settings)
    }

    /// With other values in place of its own.
    fn changed(self, asked: BTreeMap<String, Value>) -> Result<Self, SettingsError> {
        let mut table = self.table();
        for (name, value) in asked {
            let Some(default) = table.get(&name) else {
                return Err(SettingsError::Unknown { suggestion: suggestion(&name), name });
            };
            // `lr = 1` is a number too.
            let value = match (default, value) {
                (Value::Float(_), Value::Integer(n)) => Value::Float(n as f64),
                (_, value) => value,
            };
            let previous = table.insert(name.clone(), value.clone());
            if let Err(error) = table.clone().try_into::<Self>() {
                let default = previous.expect("a known name");
                return Err(bad_value(
                    &name,
                    &value,
                    &format!("{} (the default is {default})", error.message().trim()),
                ));
            }
        }
        table.try_into().map_err(|e| SettingsError::File(e.to_string()))
    }

    fn table(&self) -> Table {
        Table::try_from(self).expect("settings are a table")
    }

    /// Refuses objectives that fine-tuning on retrieval does not have, and changes, against `before`, of what fine-tuning of this kind takes
    /// from its model or has no use for.
    ///
    /// # Errors
    /// The first such setting, with what it has to be.
    pub fn check_fine_tuning(&self, kind: Kind, before: &Self) -> Result<(), SettingsError> {
        let (ours, before) = (self.table(), before.table());
        let changed = |name: &&&str| ours[**name] != before[**name];
        if let Some(name) = ["preset"].iter().chain(SIZES).find(changed) {
            let expected = format!("expected the {} of the model", before[*name]);
            return Err(bad_value(name, &ours[*name], &expected));
        }
        if let Some(name) = OF_PRETRAINING.iter().chain(unread(kind)).find(changed) {
            return Err(bad_value(name, &ours[*name], "does nothing in fine-tuning"));
        }
        let Objectives { mlm, mim, psl, .. } = self.objectives;
        if mlm || mim || psl {
            let expected = "expected itc, itm or both in fine-tuning on retrieval";
            return Err(bad_value("objectives", &ours["objectives"], expected));
        }
        Ok(())
    }

    /// Whether fine-tuning of this kind can change a setting.
    pub fn is_of_fine_tuning(kind: Kind, name: &str) -> bool {
        name != "preset" && [SIZES, OF_PRETRAINING, unread(kind)].iter().all(|names| !names.contains(&name))
    }

    /// Refuses what a run that has begun cannot change: the sizes of its tensors, and the order of its data.
    ///
    /// # Errors
    /// The first such setting, with both values.
    pub fn check_resumed(&self, before: &Self) -> Result<(), SettingsError> {
        self.check(before, FIXED.iter().chain(SIZES).copied())
    }

    /// Refuses every change: runs that are compared are made alike.
    ///
    /// # Errors
    /// The first setting that differs, with both values.
    pub fn check_alike(&self, before: &Self) -> Result<(), SettingsError> {
        self.check(before, HELP.iter().map(|(name, _)| *name))
    }

    fn check(&self, before: &Self, mut fixed: impl Iterator<Item = &'static str>) -> Result<(), SettingsError> {
        let (ours, before) = (self.table(), before.table());
        match fixed.find(|&name| ours[name] != before[name]) {
            Some(name) => Err(bad_value(
                name,
                &ours[name],
                &format!("this run began with {} and cannot change it; a new --output can", before[name]),
            )),
            None => Ok(()),
        }
    }

    /// The resolved settings as a commented file.
    pub fn to_toml(&self) -> String {
        let table = self.table();
        let line = |(name, help): &(&str, &str)| format!("{name} = {} # {help}\n", table[*name]);
        HELP.iter().map(line).collect()
    }

    fn validate(&self) -> Result<(), SettingsError> {
        let share = |name: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(bad_value(name, &value, "expected 0 to 1")),
        };
        let positive = |name: &str, value: f64| match value > 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(bad_value(name, &value, "expected more than 0")),
        };
        let not_negative = |name: &str, value: f64| match value >= 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(bad_value(name, &value, "expected 0 or more")),
        };
        if self.batch_size < 2 {
            return Err(bad_value(
                "batch_size",
                &self.batch_size,
                "expected at least 2: every pair needs another as its negative",
            ));
        }
        if self.dvae_batch_size < 2 {
            return Err(bad_value("dvae_batch_size", &self.dvae_batch_size, "expected at least 2"));
        }
        for (name, value) in [
            ("accumulate", self.accumulate),
            ("keep", self.keep),
            ("max_bad_steps", self.max_bad_steps),
            ("dvae_steps", self.dvae_steps),
        ] {
            positive(name, value as f64)?;
        }
        if self.epochs == 0 && self.steps == 0 {
            return Err(bad_value("epochs", &self.epochs, "expected at least 1, or steps"));
        }
        if self.max_tokens < 3 {
            return Err(bad_value("max_tokens", &self.max_tokens, "expected at least 3: [CLS], a word and [SEP]"));
        }
        if self.vocab_size < 100 {
            return Err(bad_value("vocab_size", &self.vocab_size, "expected at least 100"));
        }
        positive("min_answer_count", self.min_answer_count as f64)?;
        positive("max_answers", self.max_answers as f64)?;
        positive("lr", self.lr)?;
        positive("dvae_lr", self.dvae_lr)?;
        positive("min_scale", self.min_scale)?;
        positive("masked_share", self.masked_share)?;
        for (name, value) in [
            ("warmup_lr", self.warmup_lr),
            ("min_lr", self.min_lr),
            ("weight_decay", self.weight_decay),
            ("clip_norm", self.clip_norm),
            ("save_every_minutes", self.save_every_minutes),
        ] {
            not_negative(name, value)?;
        }
        for (name, value) in [
            ("alpha", self.alpha),
            ("min_scale", self.min_scale),
            ("masked_share", self.masked_share),
            ("max_bad_share", self.max_bad_share),
        ] {
            share(name, value)?;
        }
        if !self.objectives.any() {
            return Err(bad_value("objectives", &"[]", "expected at least one of itc, itm, mlm, mim, psl"));
        }
        let model = self.model(self.vocab_size as i64, SpecialIds::default());
        model.validate().map_err(|e| bad_value(e.field, &e.value, &e.expected))?;
        // Patches are queries of E_mm for MIM alone, and have its position embeddings then (appendix 1.2).
        if self.objectives.mim && self.max_positions < 1 + model.patches() {
            return Err(bad_value(
                "max_positions",
                &self.max_positions,
                &format!("expected at least 1 + {} patches for mim", model.patches()),
            ));
        }
        if self.max_tokens as i64 > self.max_positions {
            return Err(bad_value(
                "max_tokens",
                &self.max_tokens,
                &format!("expected at most max_positions = {}", self.max_positions),
            ));
        }
        const WIDTHS: std::ops::RangeInclusive<i64> = 4..=4096;
        if !WIDTHS.contains(&self.dvae_width) {
            return Err(bad_value(
                "dvae_width",
                &self.dvae_width,
                &format!("expected {} to {}", WIDTHS.start(), WIDTHS.end()),
            ));
        }
        if self.image_size % 2 != 0 {
            return Err(bad_value("image_size", &self.image_size, "expected an even number of pixels"));
        }
        Ok(())
    }

    /// The model's sizes, for a vocabulary.
    pub fn model(&self, vocab_size: i64, special: SpecialIds) -> ModelConfig {
        ModelConfig {
            image_size: self.image_size,
            patch_size: self.patch_size,
            vision_width: self.vision_width,
            vision_depth: self.vision_depth,
            vision_heads: self.vision_heads,
            text_width: self.text_width,
            text_depth: self.text_depth,
            text_heads: self.text_heads,
            text_mlp: self.text_mlp,
            vocab_size,
            max_positions: self.max_positions,
            embed_dim: self.embed_dim,
            visual_vocab: self.visual_vocab,
            queue_size: self.queue_size,
            momentum: self.momentum,
            temperature: self.temperature,
            keywords: self.keywords,
            dropout: self.dropout,
            closing_sep: self.closing_sep,
            special,
        }
    }

    /// The visual tokenizer's sizes: one code a patch, of half its side or the power of two next to that, at most DALL-E's 8 pixels.
    pub fn tokenizer(&self) -> DvaeConfig {
        let halvings = (self.patch_size as f64 / 2.0).log2().round() as i64;
        let encoder = EncoderConfig {
            width: self.dvae_width,
            groups: halvings.clamp(0, EncoderConfig::DALLE.groups - 1) + 1,
            blocks_per_group: 2,
            vocab: self.visual_vocab,
        };
        let patches = self.image_size / self.patch_size;
        DvaeConfig { encoder, image_size: 2 * patches * encoder.factor(), decoder: true }
    }

    /// Patches hidden of each image: none without MIM.
    pub fn masked_patches(&self) -> usize {
        if !self.objectives.mim {
            return 0;
        }
        let grid = self.image_size / self.patch_size;
        ((grid * grid) as f64 * self.masked_share).round().max(1.0) as usize
    }

    /// Pairs of one optimiser step.
    pub fn pairs_per_step(&self) -> u64 {
        self.batch_size * self.accumulate
    }

    /// Optimiser steps of the run, for an epoch of so many.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        if self.steps > 0 { self.steps } else { self.epochs * steps_per_epoch }
    }

    pub fn schedule(&self, steps: u64) -> Schedule {
        Schedule {
            lr: self.lr,
            warmup_lr: self.warmup_lr.min(self.lr),
            min_lr: self.min_lr.min(self.lr),
            // A short run would otherwise end before it is warm.
            warmup_steps: self.warmup_steps.min(steps / 10),
            steps,
        }
    }

    pub fn optimizer(&self) -> AdamWConfig {
        AdamWConfig { weight_decay: self.weight_decay, ..AdamWConfig::default() }
    }
}

/// The file's settings, and over them the assignments `name=value`.
fn asked(file: Option<&str>, assignments: &[String]) -> Result<BTreeMap<String, Value>, SettingsError> {
    let mut asked = BTreeMap::new();
    if let Some(file) = file {
        let table: Table = file.parse().map_err(|e: toml::de::Error| SettingsError::File(e.to_string()))?;
        asked.extend(table);
    }
    for assignment in assignments {
        let (name, value) = assignment.split_once('=').ok_or_else(|| SettingsError::Assignment(assignment.clone()))?;
        asked.insert(name.trim().to_owned(), literal(value.trim()));
    }
    Ok(asked)
}

/// What was typed, as the kind of value that it looks like; else a string.
fn literal(text: &str) -> Value {
    let parsed: Option<Table> = format!("value = {text}").parse().ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn bad_value(name: &str, value: &dyn std::fmt::Display, expected: &str) -> SettingsError {
    SettingsError::Value { name: name.into(), value: value.to_string(), expected: expected.into() }
}

fn suggestion(name: &str) -> String {
    let near =
        HELP.iter().map(|(known, _)| (strsim::jaro_winkler(name, known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((likeness, known)) if likeness > 0.8 => format!(" (did you mean `{known}`?)"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(file: Option<&str>, assignments: &[&str]) -> Result<Settings, String> {
        let assignments: Vec<String> = assignments.iter().map(|&s| s.to_owned()).collect();
        Settings::resolve(file, &assignments).map_err(|e| e.to_string())
    }

    #[test]
    fn assignments_override_the_file_which_overrides_the_preset() {
        let settings = resolve(Some("preset = \"small\"\nlr = 1\nepochs = 7"), &["epochs=2", "dtype=bf16"]).unwrap();
        assert_eq!((settings.preset, settings.vision_width), (Preset::Small, 384));
        assert_eq!((settings.lr, settings.epochs, settings.dtype), (1.0, 2, Dtype::Bf16));
    }

    #[test]
    fn what_is_saved_is_read_back() {
        for preset in [Preset::Tiny, Preset::Small, Preset::Base] {
            let settings = Settings::preset(preset);
            settings.validate().unwrap();
            assert_eq!(resolve(Some(&settings.to_toml()), &[]).unwrap(), settings);
        }
    }

    #[test]
    fn the_tokenizer_of_dall_e_is_one_setting_away_from_base() {
        let settings = resolve(None, &["preset=base", "dvae_width=256"]).unwrap();
        let tokenizer = settings.tokenizer();
        assert_eq!(tokenizer.encoder, EncoderConfig::DALLE);
        assert_eq!(tokenizer.image_size / 2 / tokenizer.encoder.factor(), 16);
    }

    #[test]
    fn a_run_that_has_begun_keeps_its_sizes_and_the_order_of_its_data() {
        let before = resolve(None, &[]).unwrap();
        let allowed = resolve(None, &["lr=1", "epochs=99", "workers=3", "keep=7"]).unwrap();
        allowed.check_resumed(&before).unwrap();
        for (assignment, words) in [
            ("batch_size=7", ["batch_size", "7", "32"]),
            ("seed=5", ["seed", "5", "0"]),
            ("text_mlp=600", ["text_mlp", "600", "512"]),
        ] {
            let after = resolve(None, &[assignment]).unwrap();
            let error = after.check_resumed(&before).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        let known: Vec<&str> = HELP.iter().map(|(name, _)| *name).collect();
        assert!(FIXED.iter().all(|name| known.contains(name)));
    }

    #[test]
    fn fine_tuning_keeps_the_models_sizes_on_larger_pictures() {
        let of = |assignments: &[&str]| {
            let settings = resolve(None, assignments).unwrap();
            settings.model(500, SpecialIds::default())
        };
        let base = Settings::fine_tuning(Kind::Retrieval, &of(&["preset=base"]), false);
        assert_eq!((base.preset, base.image_size, base.lr, base.batch_size), (Preset::Base, 384, 1e-5, 32));
        // 5 patches become 7.5, and 8 then.
        let small = of(&["image_size=40", "vision_width=96", "text_width=96"]);
        let small_defaults = Settings::fine_tuning(Kind::Retrieval, &small, false);
        assert_eq!((small_defaults.preset, small_defaults.image_size), (Preset::Tiny, 64));
        assert_eq!(Settings::fine_tuning(Kind::Retrieval, &small, true).image_size, 40);

        let tuned = |assignments: &[&str]| {
            let assignments: Vec<String> = assignments.iter().map(|&s| s.to_owned()).collect();
            Settings::resolve_fine_tuning(Kind::Retrieval, &small_defaults, None, &assignments)
                .map_err(|e| e.to_string())
        };
        let settings = tuned(&["lr=1e-3", "image_size=160", "objectives=[\"itc\"]"]).unwrap();
        // 400 patches and 80 positions: no patch is a query.
        assert_eq!((settings.image_size, settings.max_positions), (160, 80));
        assert_eq!(settings.masked_patches(), 0);
        for (assignment, words) in [
            ("vision_width=128", ["vision_width", "96"]),
            ("preset=base", ["preset", "tiny"]),
            ("dvae_steps=3", ["dvae_steps", "does nothing"]),
            ("objectives=[\"itc\", \"mlm\"]", ["objectives", "itm"]),
            ("image_size=41", ["image_size", "multiple"]),
        ] {
            let error = tuned(&[assignment]).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        let known: Vec<&str> = HELP.iter().map(|(name, _)| *name).collect();
        let mut fixed = SIZES.iter().chain(OF_PRETRAINING);
        assert!(fixed.all(|name| known.contains(name)));
    }

    #[test]
    fn weights_decide_the_sizes_and_what_contradicts_them_is_refused() {
        let sizes = |all: &[(&str, i64)]| all.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let vit =
            [("image_size", 224), ("patch_size", 14), ("vision_width", 384), ("vision_depth", 12), ("vision_heads", 6)];
        let bert =
            [("text_width", 384), ("text_depth", 6), ("text_heads", 12), ("text_mlp", 1536), ("max_positions", 512)];
        let mut decided = Decided::default();
        decided.add("vit", &sizes(&vit)).unwrap();
        decided.add("bert", &sizes(&bert)).unwrap();
        let of = |decided: &Decided, asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|&s| s.to_owned()).collect();
            Settings::resolve_from(decided, None, &asked).map_err(|e| e.to_string())
        };
        let settings = of(&decided, &[]).unwrap();
        assert_eq!((settings.preset, settings.text_heads, settings.max_positions), (Preset::Small, 12, 512));
        // A code for each of the 16 x 16 patches, whatever the side of the view.
        let tokenizer = settings.tokenizer();
        assert_eq!((tokenizer.encoder.factor(), tokenizer.image_size), (8, 256));
        assert_eq!(of(&decided, &["image_size=256", "patch_size=16", "vision_depth=12"]).unwrap().patch_size, 16);
        let error = of(&decided, &["vision_depth=4"]).unwrap_err();
        assert!(["vision_depth", "4", "vit have 12"].iter().all(|word| error.contains(word)), "{error}");

        // One encoder alone: the other has its width.
        let mut alone = Decided::default();
        alone.add("vit", &sizes(&[("vision_width", 192), ("vision_depth", 12), ("vision_heads", 3)])).unwrap();
        let settings = of(&alone, &[]).unwrap();
        assert_eq!((settings.text_width, settings.text_heads, settings.text_mlp), (192, 3, 768));
        let error = alone.add("bert", &sizes(&bert)).unwrap_err();
        assert!(["192 in vit", "384 in bert"].iter().all(|word| error.contains(word)), "{error}");
        let error = alone.add("other", &sizes(&[("vision_depth", 6)])).unwrap_err();
        assert_eq!(error, "vision_depth: 12 in vit, 6 in other");

        let authors = Decided { closing_sep: Some(false), ..Decided::default() };
        assert!(!of(&authors, &[]).unwrap().model(500, SpecialIds::default()).closing_sep);
        assert!(of(&authors, &["closing_sep=true"]).unwrap().closing_sep);
    }

    #[test]
    fn positions_must_suffice_for_patches_where_patches_are_queries() {
        let error = resolve(None, &["image_size=128"]).unwrap_err();
        assert!(error.contains("max_positions` = 80") && error.contains("256 patches"), "{error}");
        resolve(None, &["image_size=128", "objectives=[\"itc\", \"itm\"]"]).unwrap();
    }

    #[test]
    fn refusals_name_the_setting_and_the_value() {
        let refused = |assignment: &str, words: &[&str]| {
            let message = resolve(None, &[assignment]).unwrap_err();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        };
        refused("batchsize=4", &["batchsize", "did you mean `batch_size`?"]);
        refused("batch_size=1", &["batch_size", "1", "at least 2"]);
        refused("batch_size=many", &["batch_size", "many", "default is 32"]);
        refused("epochs=-1", &["epochs", "-1"]);
        refused("dtype=f16", &["dtype", "f16"]);
        refused("preset=huge", &["preset", "huge", "tiny, small or base"]);
        refused("image_size=65", &["image_size", "65", "multiple"]);
        refused("lr=0", &["lr", "0", "more than 0"]);
        refused("lr=nan", &["lr", "NaN", "more than 0"]);
        refused("objectives=[]", &["objectives", "at least one"]);
        refused("alpha", &["alpha", "name=value"]);
        refused("dvae_width=0", &["dvae_width", "0", "4 to 4096"]);
    }
}
