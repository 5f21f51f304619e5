//! Fine-tuning on the tasks that have a model of their own (3.1): what each is made of, and how a run of any of them goes. As every run, it is
//! resumed bit for bit, measured on what is held out, and keeps the best.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use simla::config::ModelConfig;
use simla::import::{StartError, Tensors};
use simla::tasks::classify::{self, Classified, Classifier, Outcome, Tuning};
use simla::tasks::nlvr::{self, Reasoning, TEXT_ASSIGNMENT, TextAssignment};
use simla::tasks::pretrain::{self, Saved, special_ids};
use simla::tasks::score::Share;
use simla::tasks::vqa::{self, Answerer, Answering, answer::K_TEST};
use simla::tasks::vqa_score;
use simla_data::{
    AnswerList, Batch, Dataset, Entailment, Entailments, Format, LoadError, Loader, Options, Pairs, Questions,
    Sentences, Statement, Statements, TallyReport, Vocabulary,
};
use simla_train::checkpoint::Checkpoint;
use simla_train::metrics::StepRecord;
use simla_train::torch::guard::guarded;
use simla_train::weights::Weights;
use simla_train::{Ending, Observer, Task, Team, TrainError, Trainer};

use crate::compute::Compute;
use crate::console::in_full;
use crate::fit::{Run, ended, locked, say_changed};
use crate::inputs::{Inputs, Kind};
use crate::lock::Lock;
use crate::progress::Progress;
use crate::say;
use crate::settings::Settings;
use crate::sources::open_sources;
use crate::watch::{Log, Watch};

/// Records that are judged at once.
const JUDGED_AT_ONCE: usize = 32;

/// Numbers of an evaluation by the names under which they are kept and shown, in percent; the first says which checkpoint is the best.
pub type Numbers = Vec<(&'static str, f64)>;

/// Rows of a task's batches.
type Row<D> = <<D as Downstream>::Format as Format>::Row;

/// A run of a task: its records, and some that are held out.
pub type TaskRun<D> = Run<<D as Downstream>::Format, Arc<Dataset<<D as Downstream>::Format>>>;

/// A task by its parts.
pub trait Downstream: Sized {
    /// What a run of it is.
    const KIND: Kind;
    /// Checkpoints that it starts from, by the names of their tasks.
    const STARTS: &[&str];
    /// What a record says.
    type Format: Format;
    /// The model in training.
    type Tuned: Task<Batch = Batch<Row<Self>>>;

    /// How records become rows of training.
    fn training(run: &TaskRun<Self>) -> Self::Format;

    /// How held-out ones do.
    fn evaluation(sentences: Sentences) -> Self::Format;

    /// A model with new heads, its vocabulary's file to go with it; `start` fills the rest, once it is there.
    ///
    /// # Errors
    /// What the data or libtorch do not allow, or a start that does not fit.
    fn fresh(run: &TaskRun<Self>, config: ModelConfig, start: Option<Tensors>) -> Result<Self::Tuned>;

    /// The online weights.
    fn online(tuned: &mut Self::Tuned) -> &mut Weights;

    /// How well held-out records are answered, of which `batches` are the share of this process; none where the task is not measured.
    ///
    /// # Errors
    /// What the loader or libtorch could not do.
    fn judge(
        tuned: &Self::Tuned,
        run: &TaskRun<Self>,
        batches: impl Iterator<Item = Result<Batch<Row<Self>>, LoadError>>,
    ) -> Result<Numbers>;
}

/// Sentences of a task as a model reads them, of at most so many pieces.
pub fn sentences(vocabulary: &Arc<Vocabulary>, max_tokens: i64) -> Sentences {
    Sentences { max_tokens: max_tokens as usize, ..Sentences::new(Arc::clone(vocabulary)) }
}

/// Gives `judge` every record of a data set once, with views of `side` pixels, and `progress` their number; also what was seen of the data.
/// The processes of `team` share the records out among themselves.
///
/// # Errors
/// A setting that cannot be, or what `judge` says.
pub fn each_once<F: Format, T>(
    dataset: &Arc<Dataset<F>>,
    format: F,
    (side, workers): (i64, usize),
    team: &Team,
    mut progress: Progress,
    judge: impl FnOnce(&mut dyn Iterator<Item = Result<Batch<F::Row>, LoadError>>) -> Result<T>,
) -> Result<(T, TallyReport)> {
    let (rank, world) = (team.rank(), team.world());
    let dataset = Arc::clone(dataset);
    let mut loader = Loader::share_of_once(dataset, format, side as u32, JUDGED_AT_ONCE, workers, (rank, world))?;
    let mut done = 0;
    let judged = judge(&mut loader.by_ref().inspect(|batch| {
        done += (batch.as_ref().map_or(0, Batch::len) * world) as u64;
        progress.set(done, String::new);
    }))?;
    Ok((judged, loader.report()))
}

/// Visual question answering.
pub struct Vqa;

impl Downstream for Vqa {
    const KIND: Kind = Kind::Vqa;
    const STARTS: &[&str] = &[pretrain::TASK, pretrain::FINE_TUNING, vqa::TASK];
    type Format = Questions;
    type Tuned = Answering;

    fn training(run: &TaskRun<Self>) -> Questions {
        Questions::training(sentences(&run.vocabulary, run.settings.data.max_tokens as i64))
    }

    fn evaluation(sentences: Sentences) -> Questions {
        Questions::evaluation(sentences)
    }

    fn fresh(run: &TaskRun<Self>, config: ModelConfig, start: Option<Tensors>) -> Result<Answering> {
        let list = answers(run)?;
        let s = &run.settings;
        let fresh = || Answerer::new(config, s.train.dtype.kind(), run.compute.device, s.train.seed as i64);
        let mut model = guarded(fresh).map_err(TrainError::from)?;
        start.map_or(Ok(()), |start| model.start(start))?;
        Ok(Answering::new(model, s.recipe.alpha, run.inputs.blind, vocabulary_file(run), Some(list)))
    }

    fn online(tuned: &mut Answering) -> &mut Weights {
        &mut tuned.model.weights.online
    }

    fn judge(
        tuned: &Answering,
        run: &TaskRun<Self>,
        batches: impl Iterator<Item = Result<Batch<Row<Self>>, LoadError>>,
    ) -> Result<Numbers> {
        let (list, blind) = (tuned.candidates.as_ref(), run.inputs.blind);
        let found = vqa::evaluate::evaluate(&tuned.model, batches, &run.vocabulary, list, K_TEST, blind)?;
        let (predictions, truth): (Vec<_>, Vec<_>) =
            run.compute.team.values((found.predictions, found.truth))?.into_iter().unzip();
        let (predictions, truth) = (predictions.concat(), truth.concat());
        if truth.len() < predictions.len() {
            bail!("the held-out questions have no answers to compare with; of VQA v2, --annotations has them");
        }
        let accuracy = |said: &[_]| Ok::<_, vqa_score::ScoreError>(vqa_score::score(said, &truth)?.overall.accuracy);
        Ok(vec![
            ("held_out/accuracy", accuracy(&predictions)?),
            ("held_out/accuracy/commonest", accuracy(&vqa_score::commonest(&truth))?),
        ])
    }
}

/// The answers that a run learns to choose among, as the first process finds them.
fn answers(run: &TaskRun<Vqa>) -> Result<AnswerList> {
    let found = run.compute.team.first(|| Ok::<_, anyhow::Error>(find_answers(run)?.answers().to_vec()))?;
    AnswerList::of(found).map_err(anyhow::Error::msg)
}

/// Those it has saved, or those given, or else the commonest of its data.
fn find_answers(run: &TaskRun<Vqa>) -> Result<AnswerList> {
    if let Ok(saved) = Checkpoint::open(&run.folder)
        && let Some(list) = vqa::answer_list(&saved, None)?
    {
        return Ok(list);
    }
    let s = &run.settings;
    let mut progress = Progress::patient("questions read", run.dataset.len());
    let (list, coverage) = match &run.inputs.answers {
        Some(path) => {
            let list = AnswerList::open(path)?;
            let coverage = list.coverage(&run.dataset);
            (list, coverage)
        }
        None => AnswerList::learn(&run.dataset, s.answers.min_answer_count, s.answers.max_answers as usize, |done| {
            progress.set(done, String::new);
        })?,
    };
    let count = list.answers().len();
    say!("{count} answers, among them the commonest of {:.1} % of the questions", 100.0 * coverage.share());
    if coverage.covered == 0 {
        bail!("none of these answers is the commonest of any question: is it the list of other data?");
    }
    Ok(list)
}

/// Tasks that put a sentence and its pictures into classes.
pub trait Classes: Classified + Sized + Send {
    /// What a record says.
    type Format: Format<Row = Self>;
    /// What a run of it is.
    const KIND: Kind;
    /// Checkpoints that it starts from, by the names of their tasks.
    const STARTS: &[&str];

    /// How records become rows, of training where their class has to be known (`labelled`).
    fn format(sentences: Sentences, labelled: bool) -> Self::Format;

    /// How well held-out records are put into their classes.
    ///
    /// # Errors
    /// What the loader or libtorch could not do.
    fn judge(
        model: &Classifier<Self>,
        batches: impl Iterator<Item = Result<Batch<Self>, LoadError>>,
        blind: bool,
        team: &Team,
    ) -> Result<Numbers>;
}

impl Classes for Entailment {
    type Format = Entailments;
    const KIND: Kind = Kind::Entailment;
    const STARTS: &[&str] = &[pretrain::TASK, pretrain::FINE_TUNING, <Entailment as Classified>::TASK];

    fn format(sentences: Sentences, labelled: bool) -> Entailments {
        Entailments { sentences, labelled }
    }

    fn judge(
        model: &Classifier<Self>,
        batches: impl Iterator<Item = Result<Batch<Self>, LoadError>>,
        blind: bool,
        team: &Team,
    ) -> Result<Numbers> {
        let found = team.values(classify::evaluate(model, batches, blind, |_, _| ())?)?;
        let found = found.iter().fold(Outcome::new(Entailment::CLASSES.len()), Outcome::and);
        Ok(vec![
            ("held_out/accuracy", 100.0 * found.accuracy().value()),
            ("held_out/accuracy/commonest", 100.0 * found.commonest().value()),
        ])
    }
}

impl Classes for Statement {
    type Format = Statements;
    const KIND: Kind = Kind::Nlvr2;
    const STARTS: &[&str] = &[pretrain::TASK, pretrain::FINE_TUNING, TEXT_ASSIGNMENT, <Statement as Classified>::TASK];

    fn format(sentences: Sentences, labelled: bool) -> Statements {
        Statements { sentences, labelled }
    }

    fn judge(
        model: &Classifier<Self>,
        batches: impl Iterator<Item = Result<Batch<Self>, LoadError>>,
        blind: bool,
        team: &Team,
    ) -> Result<Numbers> {
        let mut counts = vec![0u64; Statement::CLASSES.len()];
        let judged = nlvr::judge(model, batches, blind, |statement, _| {
            if let Some(label) = statement.label {
                counts[label as usize] += 1;
            }
        })?;
        let (judged, counts): (Vec<_>, Vec<_>) = team.values((judged, counts))?.into_iter().unzip();
        let judged = judged.concat();
        let found = Reasoning::new(judged.iter().map(|(group, right)| (group.as_str(), *right)));
        let of_class = |class| counts.iter().map(|of: &Vec<u64>| of[class]).sum::<u64>();
        let commonest = (0..Statement::CLASSES.len()).map(of_class).max().unwrap_or_default();
        let commonest = Share { right: commonest, of: judged.len() as u64 };
        Ok(vec![
            ("held_out/accuracy", 100.0 * found.accuracy.value()),
            ("held_out/accuracy/commonest", 100.0 * commonest.value()),
            ("held_out/consistency", 100.0 * found.consistency.value()),
        ])
    }
}

impl<R: Classes> Downstream for R {
    const KIND: Kind = <R as Classes>::KIND;
    const STARTS: &[&str] = <R as Classes>::STARTS;
    type Format = <R as Classes>::Format;
    type Tuned = Tuning<R>;

    fn training(run: &TaskRun<Self>) -> Self::Format {
        R::format(sentences(&run.vocabulary, run.settings.data.max_tokens as i64), true)
    }

    fn evaluation(sentences: Sentences) -> Self::Format {
        R::format(sentences, true)
    }

    fn fresh(run: &TaskRun<Self>, config: ModelConfig, start: Option<Tensors>) -> Result<Tuning<R>> {
        let s = &run.settings;
        let fresh = || Classifier::new(config, s.train.dtype.kind(), run.compute.device, s.train.seed as i64);
        let mut model = guarded(fresh).map_err(TrainError::from)?;
        start.map_or(Ok(()), |start| model.start(start))?;
        Ok(Tuning { model, alpha: s.recipe.alpha, blind: run.inputs.blind, vocabulary: vocabulary_file(run) })
    }

    fn online(tuned: &mut Tuning<R>) -> &mut Weights {
        &mut tuned.model.weights.online
    }

    fn judge(
        tuned: &Tuning<R>,
        run: &TaskRun<Self>,
        batches: impl Iterator<Item = Result<Batch<R>, LoadError>>,
    ) -> Result<Numbers> {
        <R as Classes>::judge(&tuned.model, batches, run.inputs.blind, &run.compute.team)
    }
}

/// The further pre-training for NLVR2, on pairs of an image and its caption.
pub struct Assignment;

impl Downstream for Assignment {
    const KIND: Kind = Kind::TextAssignment;
    const STARTS: &[&str] = &[pretrain::TASK, pretrain::FINE_TUNING];
    type Format = Pairs;
    type Tuned = TextAssignment;

    fn training(run: &TaskRun<Self>) -> Pairs {
        let max_tokens = run.settings.data.max_tokens as usize;
        Pairs { max_tokens, ..Pairs::new(Arc::clone(&run.vocabulary)) }
    }

    fn evaluation(sentences: Sentences) -> Pairs {
        Pairs { max_tokens: sentences.max_tokens, ..Pairs::new(sentences.vocabulary) }
    }

    fn fresh(run: &TaskRun<Self>, config: ModelConfig, start: Option<Tensors>) -> Result<TextAssignment> {
        let s = &run.settings;
        if (s.train.batch_size as usize) < TextAssignment::LEAST_BATCH {
            let least = TextAssignment::LEAST_BATCH;
            bail!(
                "setting `batch_size` = {}: expected at least {least}: a pair and two other images",
                s.train.batch_size
            );
        }
        let vocabulary = vocabulary_file(run);
        let mut model =
            TextAssignment::new(config, s.train.dtype.kind(), run.compute.device, s.train.seed as i64, vocabulary);
        start.map_or(Ok(()), |start| model.start(start))?;
        Ok(model)
    }

    fn online(tuned: &mut TextAssignment) -> &mut Weights {
        &mut tuned.online
    }

    fn judge(
        _: &TextAssignment,
        _: &TaskRun<Self>,
        _: impl Iterator<Item = Result<Batch<Row<Self>>, LoadError>>,
    ) -> Result<Numbers> {
        Ok(vec![])
    }
}

/// Fine-tunes on `D` in `folder`: a new run, or one that goes on from the checkpoint that `last` finds, given the model.
///
/// # Errors
/// What cannot be opened, does not fit, or ends a run.
pub fn finetune<D: Downstream>(
    folder: &Path,
    settings: Settings,
    inputs: Inputs,
    compute: &Compute,
    stop: &AtomicBool,
    last: impl FnOnce(&mut D::Tuned) -> Result<Option<Checkpoint>>,
) -> Result<Ending> {
    let team = &compute.team;
    let mut start = None;
    team.first(|| {
        Lock::check(folder)?;
        // A run that has saved something needs the model that it began with no more; the other processes get theirs of the first.
        if Checkpoint::open(folder).is_err() {
            let model = inputs.fine_tuned.as_deref().context("run.json: fine_tuned: not there")?;
            start = Some(self::start::<D>(model)?);
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let mut run: TaskRun<D> = Run::open(folder, settings, inputs, compute, true, held_out::<D>)?;
    if let Some(held_out) = &run.held_out {
        team.all(run.inputs.know_held_out(held_out))?;
    }
    let s = &run.settings;
    let config = s.model(run.vocabulary.len() as i64, special_ids(&run.vocabulary));
    config.validate()?;
    let tensors = start.as_ref().map(|start| start.checkpoint.model()).transpose()?;
    let fresh =
        guarded(|| D::fresh(&run, config, tensors)).map_err(TrainError::from)?.map_err(|error| match (&start, error) {
            (Some(start), error) if error.is::<StartError>() => {
                error.context(start.checkpoint.path.display().to_string())
            }
            (_, error) => error,
        });
    let mut tuned = team.all(fresh)?;
    if s.train.recompute {
        D::online(&mut tuned).recompute_layers();
    }
    run.begin(locked)?;
    let resume = last(&mut tuned)?;
    run.tune::<D>(tuned, resume.as_ref(), stop)
}

/// The model to start from.
///
/// # Errors
/// If there is none, or it is damaged, or of a task that this one does not start from.
pub fn start<D: Downstream>(path: &Path) -> Result<Saved> {
    let saved = Saved::of(path, D::STARTS, "a model that this task starts from (`simla pretrain` makes one)")?;
    saved.checkpoint.verify()?;
    Ok(saved)
}

fn held_out<D: Downstream>(
    path: &Path,
    options: &Options,
    _: &Vocabulary,
    _: &Settings,
) -> Result<Arc<Dataset<D::Format>>> {
    Ok(Arc::new(open_sources(&[path.display().to_string()], options)?))
}

/// The vocabulary as it goes into checkpoints.
fn vocabulary_file<F: Format, H>(run: &Run<F, H>) -> Vec<u8> {
    run.vocabulary.to_json().into_bytes()
}

impl<F: Format> Run<F, Arc<Dataset<F>>> {
    fn tune<D: Downstream<Format = F>>(
        &self,
        mut task: D::Tuned,
        resume: Option<&Checkpoint>,
        stop: &AtomicBool,
    ) -> Result<Ending> {
        let s = &self.settings;
        let (per_epoch, steps) = self.steps();
        say_changed(resume, per_epoch);
        let (plan, team) = (self.plan(steps, per_epoch), &self.compute.team);
        let mut trainer = Trainer::new(&mut task, s.train.optimizer(), plan, &self.folder, resume, team)?;
        let first = trainer.step();
        let start = || -> Result<_> {
            let (dataset, plan) = (Arc::clone(&self.dataset), self.batches_from(first, steps));
            let loader = Loader::start(dataset, D::training(self), self.recipe(), plan)?;
            let log = self.held_out.as_ref().map(|_| Log::open(&self.folder, first, team)).transpose()?;
            let shown = &["batch/accuracy", "batch/piece_accuracy"];
            let watch = Watch::start("fine-tuning", &self.folder, first, steps, shown, team)?;
            Ok((loader, Judging::<D> { watch, run: self, log }))
        };
        let (mut loader, mut judging) = team.all(start())?;
        let ending = trainer.run(&mut task, &mut loader, &mut judging, stop);
        ended(judging.watch, ending, &loader, team).map_err(|error| self.with_last_checkpoint(error))
    }
}

/// A watch that also measures on held-out records now and then.
struct Judging<'a, D: Downstream> {
    watch: Watch,
    run: &'a TaskRun<D>,
    log: Option<Log>,
}

impl<D: Downstream> Judging<'_, D> {
    fn judge(&mut self, task: &D::Tuned, step: u64) -> Result<Option<f64>> {
        let (Some(log), Some(held_out)) = (&mut self.log, &self.run.held_out) else {
            return Ok(None);
        };
        let s = &self.run.settings;
        if !self.watch.due(step, s.saving.eval_every_steps) {
            return Ok(None);
        }
        let format = D::evaluation(sentences(&self.run.vocabulary, s.model.max_positions));
        let (views, team) = ((s.model.image_size, self.run.workers()), &self.run.compute.team);
        let progress = Progress::patient("evaluation", held_out.len());
        let (numbers, _) =
            each_once(held_out, format, views, team, progress, |batches| D::judge(task, self.run, batches))?;
        let Some((name, best)) = numbers.first().copied() else {
            return Ok(None);
        };
        log.write(step, &numbers)?;
        let name = name.rsplit('/').next().unwrap_or(name);
        say!("step {step}: held-out {name} {best:.2} %");
        Ok(Some(best))
    }
}

impl<D: Downstream> Observer<D::Tuned> for Judging<'_, D> {
    fn stepped(&mut self, task: &mut D::Tuned, record: &mut StepRecord) -> Result<Option<f64>, String> {
        Observer::<D::Tuned>::stepped(&mut self.watch, task, record)?;
        self.judge(task, record.step).map_err(|e| in_full(&e))
    }

    fn skipped(&mut self, step: u64, reason: &str, records: &[String]) {
        Observer::<D::Tuned>::skipped(&mut self.watch, step, reason, records);
    }

    fn adapted(&mut self, threads: usize) {
        Observer::<D::Tuned>::adapted(&mut self.watch, threads);
    }

    fn saved(&mut self, step: u64, path: &Path) {
        Observer::<D::Tuned>::saved(&mut self.watch, step, path);
    }
}
