//! What people see of a run while it goes on: a line on the terminal, RUN/status.json for its page, RUN/tensorboard/, and for
//! pre-training RUN/evaluation.jsonl and RUN/samples/ of held-out pairs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};
use simla::tasks::pretrain::Pretraining;
use simla::tasks::samples::{Sample, samples};
use simla_data::{Batch, Pair, TallyReport, Vocabulary};
use simla_pictures::run::{State, Status};
use simla_pictures::samples::{Decoded, Keyword, Prediction, SamplePictures, SampleSet, WordGuess};
use simla_pictures::tensorboard::EventWriter;
use simla_train::metrics::{Metrics, StepRecord};
use simla_train::{Ending, Observer, Task, TrainError};

use crate::held_out::HeldOut;
use crate::progress::Progress;
use crate::{console, say};

/// Between two reports to the page and to TensorBoard.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Concepts that a sample recommends.
const KEYWORDS: i64 = 6;

/// Shows how training goes.
pub struct Watch {
    progress: Progress,
    /// Scores that the line shows.
    shown: &'static [&'static str],
    folder: PathBuf,
    status: Status,
    events: EventWriter,
    reported: Option<Instant>,
    /// Whether it was said that the number of threads is adapted.
    adapted: bool,
}

impl Watch {
    /// Of a run in `folder` that has done `first` of its `steps`.
    pub fn start(what: &str, folder: &Path, first: u64, steps: u64, shown: &'static [&'static str]) -> Result<Self> {
        let resumed_at = (first > 0).then_some(first + 1);
        let watch = Self {
            progress: Progress::new(what, first, steps),
            shown,
            folder: folder.into(),
            status: Status { state: State::Running, step: first, steps, ..Status::default() },
            events: EventWriter::create(&folder.join("tensorboard"), resumed_at)?,
            reported: None,
            adapted: false,
        };
        watch.status.save(folder)?;
        Ok(watch)
    }

    /// Says how the run ended, and what was wrong with its data.
    pub fn end(mut self, ending: &Result<Ending, TrainError>, data: &TallyReport) -> Result<()> {
        if data.bad > 0 {
            console::say(data);
        }
        (self.status.state, self.status.message) = match ending {
            Ok(Ending::Finished) => (State::Finished, String::new()),
            Ok(Ending::Stopped) => (State::Stopped, String::new()),
            Err(error) => (State::Failed, error.to_string()),
        };
        self.status.seconds_left = None;
        self.status.bad_records = data.bad;
        self.status.first_bad_records = data.examples.clone();
        self.status.save(&self.folder)?;
        Ok(self.events.flush()?)
    }

    /// Whether it is time for something that happens `every` so many steps, and at the end; 0 for the end alone.
    pub fn due(&self, step: u64, every: u64) -> bool {
        step == self.status.steps || every > 0 && step.is_multiple_of(every)
    }

    fn line(&self, record: &StepRecord) -> String {
        let short = |name: &'static str| name.rsplit('/').next().unwrap_or(name);
        let scores =
            self.shown.iter().filter_map(|name| Some(format!("{} {:.3}", short(name), record.scores.get(*name)?)));
        let scores: Vec<String> = scores.collect();
        format!("loss {:.3} ({})  {:.1} pairs/s", record.loss, scores.join(", "), record.pairs_per_s)
    }

    fn note(&mut self, record: &StepRecord) -> Result<()> {
        let line = self.line(record);
        self.progress.set(record.step, || line);
        let numbers = record.numbers();
        self.events.scalars(record.step, numbers.iter().map(|(name, value)| (name.as_str(), *value)))?;
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            self.status.step = record.step;
            self.status.seconds_left = Some(self.progress.left(record.step).as_secs_f64());
            self.status.pairs_per_s = Some(record.pairs_per_s);
            self.status.save(&self.folder)?;
            self.events.flush()?;
            self.reported = Some(Instant::now());
        }
        self.status.step = record.step;
        Ok(())
    }
}

impl<T: Task> Observer<T> for Watch {
    fn stepped(&mut self, _task: &mut T, record: &mut StepRecord) -> Result<Option<f64>, String> {
        self.note(record).map_err(|e| e.to_string())?;
        Ok(None)
    }

    fn skipped(&mut self, step: u64, reason: &str, records: &[String]) {
        const NAMED: usize = 3;
        let named = records.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        say!("step {step} skipped: {reason}; its records: {named}, ... (all in metrics.jsonl)");
    }

    fn adapted(&mut self, threads: usize) {
        if !std::mem::replace(&mut self.adapted, true) {
            say!(
                "other programs compute, too: from now on, as many threads as are fastest, {threads} now (--set threads=N fixes them)"
            );
        }
    }

    fn saved(&mut self, step: u64, path: &Path) {
        self.status.checkpoint = path.file_name().map(|name| name.to_string_lossy().into());
        say!("step {step} saved in {}", path.display());
    }
}

/// Held-out pairs with what is looked at while a run goes on.
pub struct Looking<'a> {
    held_out: &'a HeldOut,
    /// The same few pairs every time, with the same masks; none in fine-tuning, which fills no masks.
    fixed: Option<Batch<Pair>>,
    vocabulary: &'a Vocabulary,
    log: Metrics,
    eval_every: u64,
    samples_every: u64,
}

impl<'a> Looking<'a> {
    /// At a run in `folder` that has done `first` steps. An interval of 0 is the whole run.
    ///
    /// # Errors
    /// If evaluation.jsonl cannot be opened.
    pub fn at(
        folder: &Path,
        first: u64,
        held_out: &'a HeldOut,
        fixed: Option<Batch<Pair>>,
        vocabulary: &'a Vocabulary,
        (eval_every, samples_every): (u64, u64),
    ) -> Result<Self> {
        let log = Metrics::open(&folder.join("evaluation.jsonl"), first)?;
        Ok(Self { held_out, fixed, vocabulary, log, eval_every, samples_every })
    }
}

/// A watch that also ranks held-out pairs and shows what the model makes of some, now and then.
pub struct Evaluating<'a> {
    pub watch: Watch,
    pub looking: Option<Looking<'a>>,
}

/// A row of evaluation.jsonl: what held-out data gave, by name.
#[derive(Debug, Serialize, Deserialize)]
pub struct Evaluation {
    pub step: u64,
    #[serde(flatten)]
    pub scores: BTreeMap<String, f64>,
}

impl Evaluation {
    pub(crate) fn new(step: u64, scores: &[(&str, f64)]) -> Self {
        Self { step, scores: scores.iter().map(|(name, score)| ((*name).to_owned(), *score)).collect() }
    }
}

impl Evaluating<'_> {
    fn look(&mut self, task: &mut Pretraining, step: u64) -> Result<Option<f64>> {
        let Some(looking) = &mut self.looking else {
            return Ok(None);
        };
        if let Some(fixed) = &looking.fixed
            && self.watch.due(step, looking.samples_every)
        {
            let seen = samples(&mut task.simla, task.dvae.as_ref(), looking.vocabulary, fixed, KEYWORDS)?;
            let set =
                SampleSet { step: Some(step), samples: seen.iter().map(in_words).collect(), ..SampleSet::default() };
            let pictures: Vec<SamplePictures> =
                seen.iter().enumerate().map(|(i, sample)| in_pictures(fixed, i, sample)).collect();
            let sheet = set.draw(&pictures);
            set.save(&self.watch.folder.join("samples"), &format!("step-{step:08}"), &sheet)?;
            self.watch.events.image(step, "samples", &sheet)?;
        }
        if !self.watch.due(step, looking.eval_every) {
            return Ok(None);
        }
        let (found, keywords) = looking.held_out.evaluate(&task.simla, 0, "evaluation")?;
        let found = found.itc;
        let mut scores = found.named().to_vec();
        say!("step {step}: held-out R@1 by contrast: text {:.1} %, image {:.1} %", found.txt_r1, found.img_r1);
        if task.objectives().psl {
            scores.extend(keywords.named());
            say!("    keywords: {}", keywords.summary());
        }
        looking.log.write(&Evaluation::new(step, &scores))?;
        self.watch.events.scalars(step, scores)?;
        Ok(Some(found.mean()))
    }
}

impl Observer<Pretraining> for Evaluating<'_> {
    fn stepped(&mut self, task: &mut Pretraining, record: &mut StepRecord) -> Result<Option<f64>, String> {
        Observer::<Pretraining>::stepped(&mut self.watch, task, record)?;
        self.look(task, record.step).map_err(|e| e.to_string())
    }

    fn skipped(&mut self, step: u64, reason: &str, records: &[String]) {
        Observer::<Pretraining>::skipped(&mut self.watch, step, reason, records);
    }

    fn adapted(&mut self, threads: usize) {
        Observer::<Pretraining>::adapted(&mut self.watch, threads);
    }

    fn saved(&mut self, step: u64, path: &Path) {
        Observer::<Pretraining>::saved(&mut self.watch, step, path);
    }
}

fn in_words(sample: &Sample) -> Prediction {
    let words = sample.words.iter().map(|(truth, guess)| WordGuess {
        truth: truth.clone(),
        guess: guess.word.clone(),
        probability: guess.probability,
    });
    let keywords = sample.keywords.iter().map(|keyword| Keyword {
        word: keyword.word.clone(),
        score: keyword.probability,
        in_caption: sample.caption.split(' ').any(|word| word == keyword.word),
    });
    Prediction {
        caption: sample.caption.clone(),
        masked: sample.masked.clone(),
        words: words.collect(),
        keywords: keywords.collect(),
    }
}

/// The picture that the RGB bytes `[side, side, 3]` are.
pub fn square(bytes: &[u8], side: usize) -> RgbImage {
    RgbImage::from_raw(side as u32, side as u32, bytes.to_vec()).expect("a square of RGB bytes")
}

/// Side of a square of RGB bytes.
fn side_of(bytes: &[u8]) -> usize {
    (bytes.len() / 3).isqrt()
}

/// The `i`th pair of the batch: its view, the view with hidden patches greyed, and both through the tokenizer.
fn in_pictures(batch: &Batch<Pair>, i: usize, sample: &Sample) -> SamplePictures {
    const HIDDEN: Rgb<u8> = Rgb([128; 3]);
    let original =
        square(&batch.pictures[i * batch.side * batch.side * 3..][..batch.side * batch.side * 3], batch.side);
    let hidden = &batch.rows[i].masked_patches;
    let grid = hidden.len().isqrt();
    let patch = batch.side / grid;
    let mut masked = original.clone();
    for (x, y, pixel) in masked.enumerate_pixels_mut() {
        if hidden[y as usize / patch * grid + x as usize / patch] {
            *pixel = HIDDEN;
        }
    }
    let decoded = sample.decoded.as_ref().map(|decoded| Decoded {
        filled: square(&decoded.filled, side_of(&decoded.filled)),
        whole: square(&decoded.original, side_of(&decoded.original)),
    });
    SamplePictures { original, masked, decoded }
}
