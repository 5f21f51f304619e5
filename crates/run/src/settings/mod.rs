//! Every setting of a run of training, in sections: the struct of a section has names, explanations, ranges and defaults; file, command line,
//! help, checks and schema come from there. Names are unique over all sections, and a file is one flat list of them.

mod answers;
mod data;
mod decided;
mod few;
mod fine_tuning;
mod recipe;
mod saving;
mod shown;
mod tokenizer;
mod train;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::{Table, Value};

use simla::config::{ModelConfig, Preset, SpecialIds};
use simla::dvae::DvaeConfig;
use simla::dvae::encoder::EncoderConfig;
use simla::fields::{self, Field};

pub use answers::Answers;
pub use data::Data;
pub use decided::{Decided, Size};
pub use recipe::Recipe;
pub use saving::Saving;
pub use shown::{help, schema, sections_help};
pub use tokenizer::Tokenizer;
pub use train::{Dtype, Train};

use decided::RESAMPLED;

/// A section: its name, what it is about, and its settings.
#[derive(Debug)]
pub struct Section {
    /// As the schema has it.
    pub name: &'static str,
    /// On one line.
    pub about: String,
    /// In the order in which they are shown.
    pub settings: Vec<Field>,
}

impl Section {
    fn of<T: JsonSchema>(name: &'static str) -> Self {
        let (about, settings) = fields::of::<T>();
        Self { name, about, settings }
    }
}

macro_rules! sections {
    ($($section:ident : $kind:ty,)*) => {
        /// The settings of a run, by sections.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $(#[doc = concat!("Section `", stringify!($section), "`.")] pub $section: $kind,)*
            /// Names of those that were asked for, in place of defaults.
            asked: BTreeSet<String>,
        }

        /// All sections, in the order of help and file.
        pub static SECTIONS: LazyLock<Vec<Section>> =
            LazyLock::new(|| vec![$(Section::of::<$kind>(stringify!($section))),*]);

        impl Settings {
            /// Every setting by its name.
            fn table(&self) -> Table {
                let mut all = Table::new();
                $(all.extend(table(&self.$section));)*
                all.retain(|name, _| setting(name).is_some());
                all
            }

            /// Gives the setting another value.
            fn set(&mut self, name: &str, value: Value) -> Result<(), toml::de::Error> {
                match setting(name).expect("a known name").0.name {
                    $(stringify!($section) => self.$section = with(&self.$section, name, value)?,)*
                    _ => unreachable!("sections are those of the struct"),
                }
                Ok(())
            }
        }
    };
}

sections! {
    recipe: Recipe,
    train: Train,
    model: ModelConfig,
    data: Data,
    tokenizer: Tokenizer,
    answers: Answers,
    saving: Saving,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.table() == other.table()
    }
}

fn table(section: &impl Serialize) -> Table {
    Table::try_from(section).expect("a section is a table")
}

/// A section with another value of one of its settings.
fn with<T: Serialize + DeserializeOwned>(section: &T, name: &str, value: Value) -> Result<T, toml::de::Error> {
    let mut table = table(section);
    table.insert(name.into(), value);
    table.try_into()
}

/// A setting and its section.
pub fn setting(name: &str) -> Option<(&'static Section, &'static Field)> {
    all().find(|(_, field)| field.name == name)
}

/// Every setting with its section.
pub fn all() -> impl Iterator<Item = (&'static Section, &'static Field)> {
    SECTIONS.iter().flat_map(|section| section.settings.iter().map(move |field| (section, field)))
}

/// Names of the settings whose struct marks them so.
fn marked(mark: &'static str, values: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    let marked = all().filter(move |(_, field)| field.mark(mark).is_some_and(|value| values.contains(&value)));
    marked.map(|(_, field)| field.name.as_str())
}

/// A setting that cannot be used.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum SettingsError {
    #[error("unknown setting `{name}`{suggestion}; `simla settings` lists all")]
    Unknown { name: String, suggestion: String },
    #[error("`{name}` is neither a section nor a setting: expected one of {sections}, or a setting's name")]
    NoSection { name: String, sections: String },
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
        Self::of(preset, &ModelConfig::preset(preset, 1, SpecialIds::default()))
    }

    /// The preset's recipe, for a model of these sizes.
    fn of(preset: Preset, model: &ModelConfig) -> Self {
        let vocab_size = match preset {
            Preset::Base => 30_522,
            Preset::Small => 16_000,
            Preset::Tiny => 4000,
        };
        Self {
            recipe: Recipe::of(preset),
            train: Train::of(preset),
            model: ModelConfig { vocab_size, special: SpecialIds::default(), ..model.clone() },
            data: Data::default(),
            tokenizer: Tokenizer::of(preset),
            answers: Answers::default(),
            saving: Saving::default(),
            asked: BTreeSet::new(),
        }
    }

    /// Defaults of the preset that is asked for, then the file's settings, then the assignments `name=value`.
    ///
    /// ```no_run
    /// use simla_run::settings::Settings;
    ///
    /// let settings = Settings::resolve(Some("preset = 'small'\nlr = 1e-4"), &["epochs=2".into()])?;
    /// assert_eq!((settings.model.vision_width, settings.train.epochs), (384, 2));
    /// # Ok::<(), simla_run::settings::SettingsError>(())
    /// ```
    ///
    /// # Errors
    /// An unknown name, a value of the wrong kind or out of range: with the name and the value.
    pub fn resolve(file: Option<&str>, assignments: &[String]) -> Result<Self, SettingsError> {
        Self::resolve_from(&Decided::default(), file, assignments)
    }

    /// The settings of a run that has begun, from its own file, and over them the assignments. Where a setting was not there yet when it
    /// began, the run goes on as it was: a field's mark `x-before` says what that is where it is not the default.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub fn resumed(file: &str, assignments: &[String]) -> Result<Self, SettingsError> {
        let told: Table = file.parse().map_err(|e: toml::de::Error| SettingsError::File(e.to_string()))?;
        let before = |field: &Field| {
            let value = field.schema.get("x-before").filter(|_| !told.contains_key(&field.name))?;
            Some(format!("{} = {value}\n", field.name))
        };
        let before: String = all().filter_map(|(_, field)| before(field)).collect();
        Self::resolve(Some(&(before + file)), assignments)
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

    /// With other values in place of its own.
    fn changed(mut self, asked: BTreeMap<String, Value>) -> Result<Self, SettingsError> {
        let defaults = self.table();
        for (name, value) in asked {
            let Some(default) = defaults.get(&name) else {
                return Err(SettingsError::Unknown { suggestion: suggestion(&name), name });
            };
            // `lr = 1` is a number too.
            let value = match (default, value) {
                (Value::Float(_), Value::Integer(n)) => Value::Float(n as f64),
                (_, value) => value,
            };
            self.set(&name, value.clone()).map_err(|error| {
                bad_value(&name, &value, &format!("{} (the default is {default})", error.message().trim()))
            })?;
            self.asked.insert(name);
        }
        Ok(self)
    }

    /// Refuses what a run that has begun cannot change: the sizes of its tensors, and the order of its data.
    ///
    /// # Errors
    /// The first such setting, with both values.
    pub fn check_resumed(&self, before: &Self) -> Result<(), SettingsError> {
        self.check(before, marked("x-fixed", &["run", "model"]))
    }

    /// Refuses every change: runs that are compared are made alike.
    ///
    /// # Errors
    /// The first setting that differs, with both values.
    pub fn check_alike(&self, before: &Self) -> Result<(), SettingsError> {
        self.check(before, all().map(|(_, field)| field.name.as_str()))
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

    fn validate(&self) -> Result<(), SettingsError> {
        let values = self.table();
        for (_, field) in all() {
            let value = &values[&field.name];
            let number = value.as_float().or(value.as_integer().map(|n| n as f64));
            if let Some(Err(expected)) = number.map(|number| field.check(number)) {
                return Err(bad_value(&field.name, value, &expected));
            }
        }
        if self.train.epochs == 0 && self.train.steps == 0 {
            return Err(bad_value("epochs", &self.train.epochs, "expected at least 1, or steps"));
        }
        if self.model.vocab_size < 100 {
            return Err(bad_value("vocab_size", &self.model.vocab_size, "expected at least 100"));
        }
        if !self.recipe.objectives.any() {
            return Err(bad_value("objectives", &"[]", "expected at least one of itc, itm, mlm, mim, psl"));
        }
        let model = &self.model;
        model.validate().map_err(|e| bad_value(e.field, &e.value, &e.expected))?;
        // Patches are queries of E_mm for MIM alone, and have its position embeddings then (appendix 1.2).
        if self.recipe.objectives.mim && model.max_positions < 1 + model.patches() {
            return Err(bad_value(
                "max_positions",
                &model.max_positions,
                &format!("expected at least 1 + {} patches for mim", model.patches()),
            ));
        }
        if self.data.max_tokens as i64 > model.max_positions {
            return Err(bad_value(
                "max_tokens",
                &self.data.max_tokens,
                &format!("expected at most max_positions = {}", model.max_positions),
            ));
        }
        if model.image_size % 2 != 0 {
            return Err(bad_value("image_size", &model.image_size, "expected an even number of pixels"));
        }
        Ok(())
    }

    /// The model's sizes, for a vocabulary.
    pub fn model(&self, vocab_size: i64, special: SpecialIds) -> ModelConfig {
        ModelConfig { vocab_size, special, ..self.model.clone() }
    }

    /// The visual tokenizer's sizes: one code a patch, of half its side or the power of two next to that, at most DALL-E's 8 pixels.
    pub fn tokenizer(&self) -> DvaeConfig {
        let halvings = (self.model.patch_size as f64 / 2.0).log2().round() as i64;
        let encoder = EncoderConfig {
            width: self.tokenizer.dvae_width,
            groups: halvings.clamp(0, EncoderConfig::DALLE.groups - 1) + 1,
            blocks_per_group: 2,
            vocab: self.model.visual_vocab,
        };
        let patches = self.model.image_size / self.model.patch_size;
        DvaeConfig { encoder, image_size: 2 * patches * encoder.factor(), decoder: true }
    }

    /// Patches hidden of each image: none without MIM.
    pub fn masked_patches(&self) -> usize {
        if !self.recipe.objectives.mim {
            return 0;
        }
        let grid = self.model.image_size / self.model.patch_size;
        ((grid * grid) as f64 * self.recipe.masked_share).round().max(1.0) as usize
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
    let near = all().map(|(_, field)| (strsim::jaro_winkler(name, &field.name), &field.name));
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((likeness, known)) if likeness > 0.8 => format!(" (did you mean `{known}`?)"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Kind;

    fn resolve(file: Option<&str>, assignments: &[&str]) -> Result<Settings, String> {
        let assignments: Vec<String> = assignments.iter().map(|&s| s.to_owned()).collect();
        Settings::resolve(file, &assignments).map_err(|e| e.to_string())
    }

    #[test]
    fn assignments_override_the_file_which_overrides_the_preset() {
        let settings = resolve(Some("preset = \"small\"\nlr = 1\nepochs = 7"), &["epochs=2", "dtype=bf16"]).unwrap();
        assert_eq!((settings.recipe.preset, settings.model.vision_width), (Preset::Small, 384));
        assert_eq!((settings.train.lr, settings.train.epochs, settings.train.dtype), (1.0, 2, Dtype::Bf16));
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
    }

    #[test]
    fn fine_tuning_keeps_the_models_sizes_on_larger_pictures() {
        let of = |assignments: &[&str]| {
            let settings = resolve(None, assignments).unwrap();
            settings.model(500, SpecialIds::default())
        };
        let grounding = Settings::fine_tuning(Kind::Grounding, &of(&["preset=base"]), false);
        assert_eq!((grounding.train.epochs, grounding.model.image_size, grounding.train.lr), (5, 384, 1e-5));
        assert!(!Settings::is_read(Kind::Grounding, "min_scale"), "nothing is cropped");
        let base = Settings::fine_tuning(Kind::Retrieval, &of(&["preset=base"]), false);
        assert_eq!(
            (base.recipe.preset, base.model.image_size, base.train.lr, base.train.batch_size),
            (Preset::Base, 384, 1e-5, 32)
        );
        // 5 patches become 7.5, and 8 then.
        let small = of(&["image_size=40", "vision_width=96", "text_width=96"]);
        let small_defaults = Settings::fine_tuning(Kind::Retrieval, &small, false);
        assert_eq!((small_defaults.recipe.preset, small_defaults.model.image_size), (Preset::Tiny, 64));
        assert_eq!(Settings::fine_tuning(Kind::Retrieval, &small, true).model.image_size, 40);

        let tuned = |assignments: &[&str]| {
            let assignments: Vec<String> = assignments.iter().map(|&s| s.to_owned()).collect();
            Settings::resolve_fine_tuning(Kind::Retrieval, &small_defaults, None, &assignments)
                .map_err(|e| e.to_string())
        };
        let settings = tuned(&["lr=1e-3", "image_size=160", "objectives=[\"itc\"]"]).unwrap();
        // 400 patches and 80 positions: no patch is a query.
        assert_eq!((settings.model.image_size, settings.model.max_positions), (160, 80));
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
        let read = |kind, names: &[&str]| names.iter().filter(|name| Settings::is_read(kind, name)).count();
        assert_eq!(
            read(Kind::Retrieval, &["preset", "vision_depth", "dvae_lr", "samples_every_steps", "max_answers"]),
            0
        );
        assert_eq!(read(Kind::Retrieval, &["image_size", "lr", "queue_size", "objectives"]), 4);
        assert_eq!(read(Kind::Vqa, &["max_answers", "queue_size", "objectives", "vocab_size"]), 1);
        assert_eq!(read(Kind::Entailment, &["max_answers", "queue_size", "objectives"]), 0);
        assert_eq!(read(Kind::Pretraining, &["max_answers", "preset", "vision_depth", "objectives"]), 3);
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
        assert_eq!(
            (settings.recipe.preset, settings.model.text_heads, settings.model.max_positions),
            (Preset::Small, 12, 512)
        );
        // A code for each of the 16 x 16 patches, whatever the side of the view.
        let tokenizer = settings.tokenizer();
        assert_eq!((tokenizer.encoder.factor(), tokenizer.image_size), (8, 256));
        assert_eq!(of(&decided, &["image_size=256", "patch_size=16", "vision_depth=12"]).unwrap().model.patch_size, 16);
        let error = of(&decided, &["vision_depth=4"]).unwrap_err();
        assert!(["vision_depth", "4", "vit have 12"].iter().all(|word| error.contains(word)), "{error}");

        // One encoder alone: the other has its width.
        let mut alone = Decided::default();
        alone.add("vit", &sizes(&[("vision_width", 192), ("vision_depth", 12), ("vision_heads", 3)])).unwrap();
        let settings = of(&alone, &[]).unwrap();
        assert_eq!((settings.model.text_width, settings.model.text_heads, settings.model.text_mlp), (192, 3, 768));
        let error = alone.add("bert", &sizes(&bert)).unwrap_err();
        assert!(["192 in vit", "384 in bert"].iter().all(|word| error.contains(word)), "{error}");
        let error = alone.add("other", &sizes(&[("vision_depth", 6)])).unwrap_err();
        assert_eq!(error, "vision_depth: 12 in vit, 6 in other");

        let authors = Decided { closing_sep: Some(false), ..Decided::default() };
        assert!(!of(&authors, &[]).unwrap().model(500, SpecialIds::default()).closing_sep);
        assert!(of(&authors, &["closing_sep=true"]).unwrap().model.closing_sep);
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
        refused("lr=nan", &["lr", "nan", "more than 0"]);
        refused("objectives=[]", &["objectives", "at least one"]);
        refused("alpha", &["alpha", "name=value"]);
        refused("dvae_width=0", &["dvae_width", "0", "4 to 4096"]);
    }

    #[test]
    fn runs_that_have_begun_keep_the_keywords_that_they_had() {
        let of = |s: &Settings| (s.recipe.content_keywords, s.recipe.psl_per_keyword, s.model.concept_scale);
        assert_eq!(of(&Settings::resumed("preset = 'tiny'\nlr = 0.01", &[]).unwrap()), (false, false, 1.0));
        let new = resolve(None, &[]).unwrap();
        assert_eq!(of(&new), (true, true, 12.0));
        assert_eq!(of(&Settings::resumed(&new.to_toml(), &[]).unwrap()), of(&new));
    }

    /// A file as it was written before settings had sections: one list of names, in another order, each with its comment.
    #[test]
    fn files_of_older_runs_are_read() {
        let old = "preset = \"tiny\" # sizes to start from\nbatch_size = 8 # pairs\nlr = 0.01\nimage_size = 32 # side\n\
                   objectives = [\"itc\", \"psl\"] # losses\nvocab_size = 300\ndvae_lr = 0.003\nkeep = 2\n";
        let settings = resolve(Some(old), &[]).unwrap();
        assert_eq!((settings.train.batch_size, settings.model.image_size, settings.model.vocab_size), (8, 32, 300));
        assert_eq!((settings.saving.keep, settings.recipe.objectives.mlm), (2, false));
    }

    #[test]
    fn names_are_unique_over_all_sections_and_have_an_explanation_and_a_default() {
        let mut names: Vec<&str> = all().map(|(_, field)| field.name.as_str()).collect();
        assert!(all().all(|(_, field)| !field.about.is_empty()));
        let defaults = Settings::preset(Preset::Tiny).table();
        assert!(names.iter().all(|name| defaults.contains_key(*name)));
        assert!(!names.contains(&"special"));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(SECTIONS.iter().all(|section| !section.about.is_empty()));
    }
}
