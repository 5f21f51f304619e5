//! What people see of a run while it goes on: a line on the terminal, RUN/status.json for its page, RUN/tensorboard/, and for
//! pre-training RUN/evaluation.jsonl and RUN/samples/ of held-out pairs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};
use simla::tasks::pretrain::Pretraining;
use simla::tasks::retrieval::Recalls;
use simla::tasks::samples::{Sample, samples};
use simla_data::{Batch, Pair, TallyReport, Vocabulary};
use simla_pictures::run::{State, Status};
use simla_pictures::samples::{Decoded, Keyword, Prediction, SamplePictures, SampleSet, WordGuess};
use simla_pictures::tensorboard::EventWriter;
use simla_train::metrics::{Metrics, StepRecord};
use simla_train::{Ending, Observer, Task, Team, TrainError};

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
    steps: u64,
    /// Of the first process alone.
    page: Option<Page>,
    /// Whether it was said that the number of threads is adapted.
    adapted: bool,
}

/// What a run's page and TensorBoard read.
struct Page {
    folder: PathBuf,
    status: Status,
    events: EventWriter,
    reported: Option<Instant>,
}

impl Watch {
    /// Of a run in `folder` that has done `first` of its `steps`. The first process of `team` writes into it.
    pub fn start(
        what: &str,
        folder: &Path,
        first: u64,
        steps: u64,
        shown: &'static [&'static str],
        team: &Team,
    ) -> Result<Self> {
        let page = team.is_first().then(|| Page::start(folder, first, steps)).transpose()?;
        Ok(Self { progress: Progress::new(what, first, steps), shown, steps, page, adapted: false })
    }

    /// Says how the run ended, and what was wrong with its data.
    pub fn end(self, ending: &Result<Ending, TrainError>, data: &TallyReport) -> Result<()> {
        if data.bad > 0 {
            console::say(data);
        }
        self.page.map_or(Ok(()), |page| page.end(ending, data))
    }

    /// Whether it is time for something that happens `every` so many steps, and at the end; 0 for the end alone.
    pub fn due(&self, step: u64, every: u64) -> bool {
        step == self.steps || every > 0 && step.is_multiple_of(every)
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
        let left = self.progress.left(record.step);
        self.page.as_mut().map_or(Ok(()), |page| page.note(record, left))
    }
}

impl Page {
    fn start(folder: &Path, first: u64, steps: u64) -> Result<Self> {
        let resumed_at = (first > 0).then_some(first + 1);
        let page = Self {
            folder: folder.into(),
            status: Status { state: State::Running, step: first, steps, ..Status::default() },
            events: EventWriter::create(&folder.join("tensorboard"), resumed_at)?,
            reported: None,
        };
        page.status.save(folder)?;
        Ok(page)
    }

    fn note(&mut self, record: &StepRecord, left: Duration) -> Result<()> {
        let numbers = record.numbers();
        self.events.scalars(record.step, numbers.iter().map(|(name, value)| (name.as_str(), *value)))?;
        self.status.step = record.step;
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            self.status.seconds_left = Some(left.as_secs_f64());
            self.status.pairs_per_s = Some(record.pairs_per_s);
            self.status.save(&self.folder)?;
            self.events.flush()?;
            self.reported = Some(Instant::now());
        }
        Ok(())
    }

    fn end(mut self, ending: &Result<Ending, TrainError>, data: &TallyReport) -> Result<()> {
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
        if let Some(page) = &mut self.page {
            page.status.checkpoint = path.file_name().map(|name| name.to_string_lossy().into());
        }
        say!("step {step} saved in {}", path.display());
    }
}

/// Held-out pairs with what is looked at while a run goes on.
pub struct Looking<'a> {
    held_out: &'a HeldOut,
    /// The same few pairs every time, with the same masks, on the first process; none in fine-tuning, which fills no masks.
    fixed: Option<Batch<Pair>>,
    vocabulary: &'a Vocabulary,
    log: Log,
    eval_every: u64,
    samples_every: u64,
    team: &'a Team,
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
        team: &'a Team,
    ) -> Result<Self> {
        let log = Log::open(folder, first, team)?;
        Ok(Self { held_out, fixed, vocabulary, log, eval_every, samples_every, team })
    }
}

/// A watch that also ranks held-out pairs and shows what the model makes of some, now and then.
pub struct Evaluating<'a> {
    /// The line, the status, TensorBoard.
    pub watch: Watch,
    /// At what is held out.
    pub looking: Option<Looking<'a>>,
}

/// RUN/evaluation.jsonl, which the first process writes.
pub(crate) struct Log(Option<Metrics>);

impl Log {
    /// Of a run in `folder` that has done `first` steps.
    pub(crate) fn open(folder: &Path, first: u64, team: &Team) -> Result<Self> {
        let open = || Metrics::open(&folder.join("evaluation.jsonl"), first);
        Ok(Self(team.is_first().then(open).transpose()?))
    }

    pub(crate) fn write(&mut self, step: u64, scores: &[(impl ToString, f64)]) -> Result<()> {
        if let Some(file) = &mut self.0 {
            file.write(&Evaluation::new(step, scores))?;
        }
        Ok(())
    }
}

/// A row of evaluation.jsonl: what held-out data gave, by name.
#[derive(Debug, Serialize, Deserialize)]
pub struct Evaluation {
    /// After this step.
    pub step: u64,
    /// As `group/name`.
    #[serde(flatten)]
    pub scores: BTreeMap<String, f64>,
}

impl Evaluation {
    fn new(step: u64, scores: &[(impl ToString, f64)]) -> Self {
        Self { step, scores: scores.iter().map(|(name, score)| (name.to_string(), *score)).collect() }
    }
}

impl Evaluating<'_> {
    fn look(&mut self, task: &mut Pretraining, step: u64) -> Result<Option<f64>> {
        let Some(looking) = &mut self.looking else {
            return Ok(None);
        };
        if let Some(fixed) = &looking.fixed
            && self.watch.due(step, looking.samples_every)
            && let Some(page) = &mut self.watch.page
        {
            let seen = samples(&mut task.simla, task.dvae.as_ref(), looking.vocabulary, fixed, KEYWORDS)?;
            let set =
                SampleSet { step: Some(step), samples: seen.iter().map(in_words).collect(), ..SampleSet::default() };
            let pictures: Vec<SamplePictures> =
                seen.iter().enumerate().map(|(i, sample)| in_pictures(fixed, i, sample)).collect();
            let sheet = set.draw(&pictures);
            set.save(&page.folder.join("samples"), &format!("step-{step:08}"), &sheet)?;
            page.events.image(step, "samples", &sheet)?;
        }
        if !self.watch.due(step, looking.eval_every) {
            return Ok(None);
        }
        let (found, keywords) = looking.held_out.evaluate(&task.simla, 0, looking.team, "evaluation")?;
        let mut scores = found.named();
        let Recalls { txt_r1, img_r1, .. } = found.itc;
        say!("step {step}: held-out R@1 by contrast: text {txt_r1:.1} %, image {img_r1:.1} %");
        if task.objectives().psl {
            scores.extend(keywords.named().map(|(name, score)| (name.to_owned(), score)));
            say!("    keywords: {}", keywords.summary());
        }
        // Of a score, that of the first counts.
        let Some(page) = &mut self.watch.page else {
            return Ok(Some(found.itc.mean()));
        };
        let boxes = looking.held_out.grounding(&task.simla)?;
        if let Some(boxes) = &boxes {
            scores.extend(boxes.named());
            say!("step {step}: held-out expressions found: {:.1} %", boxes.share());
        }
        looking.log.write(step, &scores)?;
        page.events.scalars(step, scores.iter().map(|(name, score)| (name.as_str(), *score)))?;
        Ok(Some(boxes.map_or(found.itc.mean(), |boxes| boxes.share())))
    }
}

impl Observer<Pretraining> for Evaluating<'_> {
    fn stepped(&mut self, task: &mut Pretraining, record: &mut StepRecord) -> Result<Option<f64>, String> {
        Observer::<Pretraining>::stepped(&mut self.watch, task, record)?;
        self.look(task, record.step).map_err(|e| console::in_full(&e))
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
