//! Questions in the demo: the model that it has trained learns to answer them, and is measured on scenes that it has never seen.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use simla::tasks::pretrain::{Saved, VOCABULARY};
use simla::tasks::vqa::answer::K_TEST;
use simla::tasks::vqa::evaluate::{Evaluated, evaluate};
use simla::tasks::vqa_score::{self, Scores};
use simla_data::{AskedQuestion, Dataset, Options, Questions};
use simla_pictures::canvas::{BAD, GOOD};
use simla_pictures::heat::{HeatMap, Overlay};
use simla_pictures::sheet::{Cell, Sheet};
use simla_run::asking::Asker;
use simla_run::compute::Compute;
use simla_run::downstream::{Vqa, each_once, finetune, sentences};
use simla_run::inputs::{Inputs, Kind};
use simla_run::progress::Progress;
use simla_run::settings::Settings;
use simla_run::sources::open_sources;
use simla_scenes::Files;
use simla_train::{Ending, Team};

/// As in the demo's pre-training, and at a rate for a model that is still young.
const SETTINGS: &[&str] =
    &["flip=false", "augment=false", "min_scale=0.9", "dropout=0.0", "lr=5e-4", "save_every_minutes=5"];
/// Questions that are shown.
const SHOWN: usize = 12;
/// Pixels of a shown picture's side.
const SIDE: u32 = 180;

/// What was learned about questions.
pub struct Learned {
    pub scores: Scores,
    /// The same model with the pictures hidden, in percent.
    pub blind: f64,
    /// What the commonest answer to a kind of question would reach, in percent.
    pub commonest: f64,
    /// Some questions with answers and where the words looked.
    pub sheet: Sheet,
}

/// Fine-tunes the model of `run` for so many `steps` in `folder`, and looks at what it has learned; none where it was asked to stop.
pub fn learn(
    folder: &Path,
    run: &Path,
    files: &Files,
    steps: u64,
    compute: &Compute,
    stop: &AtomicBool,
) -> Result<Option<Learned>> {
    let model = Saved::open(run)?;
    // Pictures stay as large as they were: larger ones tell no more of a drawn scene.
    let defaults = Settings::fine_tuning(Kind::Vqa, &model.config, true);
    let mut assignments: Vec<String> = SETTINGS.iter().map(|&s| s.to_owned()).collect();
    assignments.push(format!("steps={steps}"));
    let settings = Settings::resolve_fine_tuning(Kind::Vqa, &defaults, None, &assignments)?;
    let inputs = Inputs {
        kind: Some(Kind::Vqa),
        data: vec![files.train_questions.display().to_string()],
        answers: Some(files.answers.clone()),
        vocabulary: Some(model.checkpoint.extra(VOCABULARY)),
        fine_tuned: Some(model.checkpoint.path),
        ..Inputs::default()
    };
    if finetune::<Vqa>(folder, settings, inputs, compute, stop, |_| Ok(None))? == Ending::Stopped {
        return Ok(None);
    }
    let asker = Asker::open(folder, None, tch::Kind::Float, compute.device)?;
    let held_out: Arc<Dataset<Questions>> =
        Arc::new(open_sources(&[files.test_questions.display().to_string()], &Options::default())?);
    let found = answered(&asker, &held_out, false)?;
    let blind = answered(&asker, &held_out, true)?;
    let score = |found: &Evaluated| vqa_score::score(&found.predictions, &found.truth);
    Ok(Some(Learned {
        scores: score(&found)?,
        blind: score(&blind)?.overall.accuracy,
        commonest: commonest(&found),
        sheet: sheet(&asker, &held_out)?,
    }))
}

fn answered(asker: &Asker, questions: &Arc<Dataset<Questions>>, blind: bool) -> Result<Evaluated> {
    let config = &asker.model.config;
    let format = Questions::evaluation(sentences(&asker.vocabulary, config.max_positions));
    let progress = Progress::patient("questions", questions.len());
    let (found, _) = each_once(questions, format, (config.image_size, 0), &Team::alone(), progress, |batches| {
        Ok(evaluate(&asker.model, batches, &asker.vocabulary, asker.answers.as_ref(), K_TEST, blind)?)
    })?;
    Ok(found)
}

/// The share of questions that have the commonest answer of their kind, in percent: what guessing by the first words reaches.
fn commonest(found: &Evaluated) -> f64 {
    let mut kinds: BTreeMap<Option<&str>, HashMap<&str, usize>> = BTreeMap::new();
    for truth in &found.truth {
        let answer = truth.answers.first().map_or("", String::as_str);
        *kinds.entry(truth.question_type.as_deref()).or_default().entry(answer).or_default() += 1;
    }
    let most: usize = kinds.values().map(|answers| answers.values().max().copied().unwrap_or(0)).sum();
    100.0 * most as f64 / found.truth.len().max(1) as f64
}

/// Questions about different scenes, with the best answer and where the words looked for it.
fn sheet(asker: &Asker, questions: &Dataset<Questions>) -> Result<Sheet> {
    let mut cells = Vec::new();
    let step = (questions.len() / SHOWN as u64).max(1);
    for index in (0..questions.len()).step_by(step as usize).take(SHOWN) {
        cells.push(cell(asker, &questions.entry(index)?)?);
    }
    Ok(Sheet {
        note:
            "Questions about held-out scenes. The heat shows where the words looked for the answer; green: it is right."
                .into(),
        cells,
        ..Sheet::default()
    })
}

fn cell(asker: &Asker, asked: &AskedQuestion) -> Result<Cell> {
    let mut photo = Vec::new();
    asked.image.read(&asked.name, &mut photo)?;
    let answers = asker.ask(&photo, &asked.question, false, K_TEST)?;
    let best = answers.first().context("a list of answers is never empty")?;
    let looked = asker.look(&photo, &asked.question, &best.answer)?;
    let grid = asker.model.config.grid() as usize;
    let picture = simla_image::decode(&photo, &simla_image::Limits::default())?;
    let overlay = Overlay {
        picture: &picture,
        heat: &HeatMap::new(grid, grid, looked.maps.phrase)?,
        peak: None,
        boxes: vec![],
        caption: String::new(),
    };
    let truth = asked.answers.first().map_or("", String::as_str);
    let right = best.answer == truth;
    let heading = format!("{} ({:.0} %)", best.answer, 100.0 * best.probability);
    Ok(Cell {
        pictures: vec![picture.clone(), overlay.draw_picture(SIDE)],
        heading: if right { heading } else { format!("{heading}, not {truth}") },
        caption: asked.question.clone(),
        frame: Some(if right { GOOD } else { BAD }),
        ..Cell::default()
    })
}

impl Learned {
    /// In a sentence, beside what guessing reaches.
    pub fn summary(&self) -> String {
        let all = self.scores.overall;
        let types = self.scores.answer_types.iter().map(|(kind, score)| format!("{kind} {:.0} %", score.accuracy));
        format!(
            "{:.0} % of {} questions about held-out scenes are answered right ({}). With the pictures hidden it is {:.0} %, with the commonest \
             answer to each kind of question {:.0} %.",
            all.accuracy,
            all.questions,
            types.collect::<Vec<_>>().join(", "),
            self.blind,
            self.commonest
        )
    }
}
