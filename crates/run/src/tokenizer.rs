//! What comes back from a visual tokenizer: measured on held-out pictures while it learns, and drawn.

use std::path::Path;

use anyhow::Result;
use simla::dvae::evaluation::{Evaluation, Outcome, Reconstruction, evaluate};
use simla::dvae::training::Training;
use simla_data::Dataset;
use simla_pictures::canvas::save_png;
use simla_pictures::samples::SampleSet;
use simla_pictures::sheet::{Cell, Sheet};
use simla_train::metrics::StepRecord;
use simla_train::{Observer, Team};

use crate::console::in_full;
use crate::progress::Progress;
use crate::say;
use crate::watch::{Watch, square};

/// Pictures of a sheet.
pub const PICTURES: usize = 16;

/// A watch over a tokenizer that also measures it on held-out pictures now and then, and draws some in `folder`.
pub struct Reconstructing<'a> {
    /// The line, the status, TensorBoard.
    pub watch: Watch,
    /// Pictures to measure on.
    pub held_out: Option<&'a Dataset>,
    /// Steps between measurements; 0 for one at the end.
    pub every: u64,
    /// The run's.
    pub folder: &'a Path,
    /// Measures together; the first draws.
    pub team: &'a Team,
}

impl Reconstructing<'_> {
    /// Adds what was measured to the record; the error with its sign changed, if it was time to look.
    fn look(&self, task: &Training, record: &mut StepRecord) -> Result<Option<f64>> {
        let due = self.watch.due(record.step, self.every);
        let Some(held_out) = self.held_out.filter(|_| due) else {
            return Ok(None);
        };
        let mut progress = Progress::patient("held-out pictures", held_out.len());
        let found = evaluate(&task.dvae, held_out, PICTURES, self.team, &mut |done, _| {
            progress.set(done as u64, String::new);
        })?;
        drop(progress);
        let measured = &found.evaluation;
        if self.team.is_first() {
            let set = SampleSet { step: Some(record.step), text: told(measured), ..SampleSet::default() };
            let name = format!("step-{:08}", record.step);
            set.save(&self.folder.join("samples"), &name, &sheet(&found).draw())?;
        }
        let Some(error) = measured.error else {
            return Ok(None); // not one of the pictures could be read
        };
        for (name, value) in [
            ("held_out/error", error),
            ("held_out/codes_used", measured.codes_used),
            ("held_out/perplexity", measured.perplexity),
        ] {
            record.scores.insert(name.into(), value);
        }
        say!(
            "step {}: held out: error {error:.3} of the variance, {:.0} % of the codes used, perplexity {:.0}",
            record.step,
            100.0 * measured.codes_used,
            measured.perplexity
        );
        Ok(Some(-error))
    }
}

impl Observer<Training> for Reconstructing<'_> {
    fn stepped(&mut self, task: &mut Training, record: &mut StepRecord) -> Result<Option<f64>, String> {
        let score = self.look(task, record).map_err(|e| in_full(&e))?;
        Observer::<Training>::stepped(&mut self.watch, task, record)?;
        Ok(score)
    }

    fn skipped(&mut self, step: u64, reason: &str, records: &[String]) {
        Observer::<Training>::skipped(&mut self.watch, step, reason, records);
    }

    fn adapted(&mut self, threads: usize) {
        Observer::<Training>::adapted(&mut self.watch, threads);
    }

    fn saved(&mut self, step: u64, path: &Path) {
        Observer::<Training>::saved(&mut self.watch, step, path);
    }
}

/// Writes a sheet of originals, as the tokenizer sees them, beside what comes back.
///
/// # Errors
/// If the file cannot be written.
pub fn save(found: &Outcome, path: &Path) -> Result<()> {
    Ok(save_png(&sheet(found).draw(), path)?)
}

fn sheet(found: &Outcome) -> Sheet {
    let cell = |one: &Reconstruction| Cell {
        pictures: vec![square(&one.original, one.side), square(&one.restored, one.side)],
        ..Cell::default()
    };
    Sheet {
        title: "Visual tokenizer".into(),
        note: told(&found.evaluation),
        cells: found.reconstructions.iter().map(cell).collect(),
        side: 128,
        ..Sheet::default()
    }
}

fn told(measured: &Evaluation) -> String {
    format!(
        "Original (left), and what comes back from one code a patch (right). {:.0} of {} codes occur in {} pictures, perplexity {:.0}; \
         error {:.3} of the variance.",
        measured.codes_used * measured.codes as f64,
        measured.codes,
        measured.images,
        measured.perplexity,
        measured.error.unwrap_or_default(),
    )
}
