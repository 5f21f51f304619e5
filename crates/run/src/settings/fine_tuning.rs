//! The recipe of fine-tuning, and what it takes from its model.

use simla::config::{ModelConfig, Preset};
use simla::objectives::Objectives;

use super::{Settings, SettingsError, Train, asked, bad_value, marked};

/// What fine-tuning takes from its model: its preset, and the sizes that it is built with once.
fn of_model() -> impl Iterator<Item = &'static str> {
    ["preset"].into_iter().chain(marked("x-fixed", &["model"]))
}

/// What does nothing in fine-tuning: there is no word or patch to guess, no tokenizer, and temperature and vocabulary are the model's.
fn of_pretraining() -> impl Iterator<Item = &'static str> {
    marked("x-only", &["pretraining"])
}

impl Settings {
    /// Defaults of fine-tuning `model` on retrieval, whose sizes they are, on pictures half as large again; a model
    /// that was `fine_tuned` before keeps its size of picture.
    pub fn fine_tuning(model: &ModelConfig, fine_tuned: bool) -> Self {
        let preset = Preset::of(model);
        let lr = match preset {
            Preset::Tiny => 1e-4,
            Preset::Small => 3e-5,
            Preset::Base => 1e-5,
        };
        let patches = if fine_tuned { model.grid() } else { (1.5 * model.grid() as f64).round() as i64 };
        let mut settings = Self::of(preset, model);
        settings.recipe.objectives = Objectives::RETRIEVAL;
        settings.train =
            Train { epochs: 10, batch_size: 32, lr, warmup_lr: lr, min_lr: 1e-6, warmup_steps: 0, ..settings.train };
        settings.data.min_scale = 0.5;
        settings.model.image_size = patches * model.patch_size;
        settings
    }

    /// These defaults of fine-tuning, then the file's settings, then the assignments.
    ///
    /// # Errors
    /// As [`Settings::resolve`]; and what [`Settings::check_fine_tuning`] refuses.
    pub fn resolve_fine_tuning(
        defaults: &Self,
        file: Option<&str>,
        assignments: &[String],
    ) -> Result<Self, SettingsError> {
        let settings = defaults.clone().changed(asked(file, assignments)?)?;
        settings.check_fine_tuning(defaults)?;
        settings.validate()?;
        Ok(settings)
    }

    /// Refuses objectives that fine-tuning on retrieval does not have, and changes, against `before`, of what it takes from its
    /// model or has no use for.
    ///
    /// # Errors
    /// The first such setting, with what it has to be.
    pub fn check_fine_tuning(&self, before: &Self) -> Result<(), SettingsError> {
        let (ours, before) = (self.table(), before.table());
        let changed = |name: &&str| ours[*name] != before[*name];
        if let Some(name) = of_model().find(changed) {
            let expected = format!("expected the {} of the model", before[name]);
            return Err(bad_value(name, &ours[name], &expected));
        }
        if let Some(name) = of_pretraining().find(changed) {
            return Err(bad_value(name, &ours[name], "does nothing in fine-tuning"));
        }
        let Objectives { mlm, mim, psl, .. } = self.recipe.objectives;
        if mlm || mim || psl {
            let expected = "expected itc, itm or both in fine-tuning on retrieval";
            return Err(bad_value("objectives", &ours["objectives"], expected));
        }
        Ok(())
    }

    /// Whether fine-tuning can change a setting.
    pub fn is_of_fine_tuning(name: &str) -> bool {
        of_model().chain(of_pretraining()).all(|other| other != name)
    }
}
