//! The recipe of fine-tuning, and what it takes from its model.

use simla::config::{ModelConfig, Preset};
use simla::objectives::Objectives;

use crate::inputs::Kind;

use super::{Settings, SettingsError, Train, asked, bad_value, marked};

/// What fine-tuning takes from its model: its preset, and the sizes that it is built with once.
fn of_model() -> impl Iterator<Item = &'static str> {
    ["preset"].into_iter().chain(marked("x-fixed", &["model"]))
}

/// What a run of this kind does not read. Fine-tuning has no word or patch to guess and no tokenizer, and temperature and vocabulary are
/// the model's; tasks with a model of their own have no queue, and grounding crops no picture.
fn unread(kind: Kind) -> impl Iterator<Item = &'static str> {
    let of_others: &[&str] = match kind {
        Kind::Pretraining => &["vqa"],
        Kind::Retrieval => &["vqa", "pretraining"],
        Kind::Grounding => &["vqa", "pretraining", "crops"],
        Kind::Vqa => &["pretraining", "alignment"],
        Kind::TextAssignment | Kind::Nlvr2 | Kind::Entailment => &["vqa", "pretraining", "alignment"],
    };
    marked("x-only", of_others)
}

impl Settings {
    /// Defaults of fine-tuning `model` on a task of this kind (3.1 and the authors' configurations), whose sizes they are, on pictures half as
    /// large again; a model that was tuned on such pictures before keeps its size. The paper's rates are those of base.
    pub fn fine_tuning(kind: Kind, model: &ModelConfig, again: bool) -> Self {
        let preset = Preset::of(model);
        // Epochs, batch, peak rate at base size, steps of warm-up.
        let (epochs, batch_size, lr, warmup_steps) = match kind {
            Kind::Pretraining | Kind::Retrieval => (10, 32, 1e-5, 0),
            Kind::Grounding => (5, 32, 1e-5, 0),
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
        let mut settings = Self::of(preset, model);
        settings.recipe.objectives = Objectives::RETRIEVAL;
        settings.train = Train {
            epochs,
            batch_size,
            lr,
            warmup_lr: if warmup_steps == 0 { lr } else { 1e-5 },
            min_lr: if kind == Kind::TextAssignment { 1e-5 } else { 1e-6 },
            warmup_steps,
            ..settings.train
        };
        settings.data.min_scale = 0.5;
        settings.model.image_size = patches * model.patch_size;
        if matches!(kind, Kind::Nlvr2 | Kind::Entailment) {
            // Statements and hypotheses are not cut off.
            settings.data.max_tokens = model.max_positions as u64;
        }
        settings
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

    /// Refuses objectives that fine-tuning on retrieval does not have, and changes, against `before`, of what fine-tuning of this kind takes
    /// from its model or has no use for.
    ///
    /// # Errors
    /// The first such setting, with what it has to be.
    pub fn check_fine_tuning(&self, kind: Kind, before: &Self) -> Result<(), SettingsError> {
        let (ours, before) = (self.table(), before.table());
        let changed = |name: &&str| ours[*name] != before[*name];
        if let Some(name) = of_model().find(changed) {
            let expected = format!("expected the {} of the model", before[name]);
            return Err(bad_value(name, &ours[name], &expected));
        }
        if let Some(name) = unread(kind).find(changed) {
            return Err(bad_value(name, &ours[name], "does nothing in fine-tuning"));
        }
        let Objectives { mlm, mim, psl, .. } = self.recipe.objectives;
        if mlm || mim || psl {
            let expected = "expected itc, itm or both in fine-tuning on retrieval";
            return Err(bad_value("objectives", &ours["objectives"], expected));
        }
        Ok(())
    }

    /// Whether a run of this kind has a use for a setting, and does not take it from its model.
    pub fn is_read(kind: Kind, name: &str) -> bool {
        let given = of_model().filter(|_| kind != Kind::Pretraining);
        given.chain(unread(kind)).all(|other| other != name)
    }
}
