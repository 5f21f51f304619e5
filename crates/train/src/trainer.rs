//! The trainer: steps, schedule, checkpoints, bad steps and signals. It knows no objective by name and nothing of a batch but the names of
//! its records: a [`Task`] owns both.
//!
//! A run does not know how many processes it has: a step is `accumulate` batches, of which each process takes its share, and every random
//! choice belongs to the batch. What all processes of the [`Team`] call together, in every step: [`Team::sum`] of the gradients,
//! [`Task::exchange`], and the sum of losses, flags and counts; after it, alike on all, what the observer does, and a checkpoint if it is
//! due. Whether to stop, to save or to skip is decided by what all know.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tch::{Kind, Tensor};
use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError, Checkpoints, Contents};
use crate::metrics::{Metrics, MetricsError, StepRecord};
use crate::optim::{AdamW, Schedule, norm};
use crate::seed::step_seed;
use crate::task::{At, Observer, Task};
use crate::team::{Team, TeamError};
use crate::torch::device::upload;
use crate::torch::guard::{TorchError, guarded};
use crate::torch::memory::{GIB, held_gib};
use crate::torch::threads::Threads;
use crate::weights::Gradients;
use crate::writer::{Writer, Written};

/// How a run goes, whatever the task.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of every random choice.
    pub seed: u64,
    /// Optimiser steps of the run.
    pub steps: u64,
    /// Optimiser steps of an epoch.
    pub steps_per_epoch: u64,
    /// Batches of one optimiser step, of all processes together.
    pub accumulate: u64,
    /// The type in which gradients go between processes.
    pub wire: Kind,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// 0 leaves gradients as they are.
    pub clip_norm: f64,
    /// Steps in a row without a finite loss or gradient, after which the run ends.
    pub max_bad_steps: u64,
    /// Steps between two checkpoints; 0 for none but the last.
    pub save_every_steps: u64,
    /// Zero for never.
    pub save_every: Duration,
    /// Checkpoints that stay, beside the best.
    pub keep: usize,
    /// Threads that calculate; 0 for as many as are best (see [`Threads`]).
    pub threads: usize,
}

/// How a run ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Finished,
    /// Asked to stop: saved, to be resumed.
    Stopped,
}

/// How a run ended otherwise.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum TrainError {
    /// The batches' own.
    #[error(transparent)]
    Load(Box<dyn Error + Send + Sync>),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("{0}{advice}", advice = relief(.0))]
    Torch(#[from] TorchError),
    #[error(transparent)]
    Team(#[from] TeamError),
    #[error(
        "{count} steps in a row had a loss or gradient that is not finite, the last at step {step}; nothing was saved since. \
         Lower the learning rate (--set lr=...), set clip_norm, or look at the records that metrics.jsonl names"
    )]
    BadSteps { count: u64, step: u64 },
    #[error("the data ended at step {0}")]
    DataEnded(u64),
    #[error("{0}")]
    Observer(String),
}

/// What to do in training where memory is short.
fn relief(error: &TorchError) -> &'static str {
    match error {
        TorchError::OutOfMemory(_) => {
            ". Use a smaller batch_size (with accumulate to keep the pairs of a step), recompute=true, or dtype=bf16"
        }
        _ => "",
    }
}

/// A run of a task in a folder.
///
/// ```no_run
/// # use std::{convert::Infallible, path::Path, sync::{Arc, atomic::AtomicBool}};
/// # use simla_train::{Ending, Observer, Plan, Task, Team, TrainError, Trainer, checkpoint::Checkpoint, optim::AdamWConfig};
/// /// Trains `task` in `folder`, from its last checkpoint where there is one.
/// fn train<T: Task>(
///     task: &mut T,
///     batches: &mut dyn Iterator<Item = Result<T::Batch, Infallible>>,
///     observer: &mut dyn Observer<T>,
///     plan: Plan,
///     folder: &Path,
/// ) -> Result<Ending, TrainError> {
///     let last = Checkpoint::open(folder).ok();
///     let alone = Arc::new(Team::alone());
///     let mut trainer = Trainer::new(task, AdamWConfig::default(), plan, folder, last.as_ref(), &alone)?;
///     trainer.run(task, batches, observer, &AtomicBool::new(false))
/// }
/// ```
#[derive(Debug)]
pub struct Trainer {
    plan: Plan,
    team: Arc<Team>,
    /// Batches of a step that this process takes.
    share: u64,
    optimizer: AdamW,
    gradients: Gradients,
    /// On the first process alone.
    files: Option<Files>,
    /// Optimiser steps done.
    step: u64,
    best: Option<f64>,
    threads: Threads,
}

/// What a run leaves on disk.
#[derive(Debug)]
struct Files {
    writer: Writer,
    metrics: Metrics,
}

/// What one process knows and all have to.
#[derive(Debug, Clone, Copy)]
struct Flags {
    /// Asked to stop, on any process.
    stop: bool,
    /// Time to save, by the clock of the first.
    due: bool,
}

impl Trainer {
    /// A run from the start, or from where `resume` left it: the task and the optimiser take its tensors. The first process reads and
    /// writes; the others need neither `resume` nor the folder, and begin with what the first has.
    ///
    /// # Errors
    /// If the folder cannot be written, or the checkpoint does not fit the task: with the tensor and the two shapes; or if the processes
    /// cannot share the batches of a step alike.
    pub fn new<T: Task>(
        task: &mut T,
        optimizer: crate::optim::AdamWConfig,
        plan: Plan,
        run: &Path,
        resume: Option<&Checkpoint>,
        team: &Arc<Team>,
    ) -> Result<Self, TrainError> {
        let share = team.share("accumulate", plan.accumulate)?;
        let (mut optimizer, gradients) =
            guarded(|| (AdamW::new(optimizer, task.weights()), Gradients::new(task.weights())))?;
        let mut files = None;
        let (step, best) = team.first(|| {
            let (mut step, mut best) = (0, None);
            if let Some(checkpoint) = resume {
                checkpoint.verify()?;
                let (model, moments) = (checkpoint.model()?, checkpoint.optimizer()?);
                guarded(|| task.load(&model).and_then(|()| optimizer.load(task.weights(), &moments)))?
                    .map_err(|e| checkpoint.blame(e))?;
                (step, best) = (checkpoint.state.step, checkpoint.state.best);
            }
            files = Some(Files {
                writer: Writer::new(Checkpoints::open(run, plan.keep)?),
                metrics: Metrics::open(&run.join("metrics.jsonl"), step)?,
            });
            Ok::<_, TrainError>((step, best))
        })?;
        if team.world() > 1 {
            let fits = "the same tensors on all processes";
            task.load(&team.tensors_of_first(task.tensors())?).expect(fits);
            let moments = team.tensors_of_first(optimizer.named(task.weights()))?;
            optimizer.load(task.weights(), &moments).expect(fits);
        }
        Ok(Self {
            gradients,
            threads: match plan.threads {
                0 => Threads::shared(team.sharers()),
                asked => Threads::new(asked),
            },
            files,
            plan,
            team: Arc::clone(team),
            share,
            optimizer,
            step,
            best,
        })
    }

    /// Optimiser steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Trains to the end of the plan, or until `stop` is set: then the step is finished and saved.
    ///
    /// # Errors
    /// [`TrainError`]; checkpoints written before are whole, and one that was being written becomes so.
    pub fn run<T: Task, E: Error + Send + Sync + 'static>(
        &mut self,
        task: &mut T,
        batches: &mut dyn Iterator<Item = Result<T::Batch, E>>,
        observer: &mut dyn Observer<T>,
        stop: &AtomicBool,
    ) -> Result<Ending, TrainError> {
        let ending = self.steps(task, batches, observer, stop);
        let written = match &ending {
            Ok(_) => Arc::clone(&self.team).first(|| self.report(observer, true)),
            Err(_) => self.report(observer, true),
        };
        let ending = ending?;
        written.map(|()| ending)
    }

    fn steps<T: Task, E: Error + Send + Sync + 'static>(
        &mut self,
        task: &mut T,
        batches: &mut dyn Iterator<Item = Result<T::Batch, E>>,
        observer: &mut dyn Observer<T>,
        stop: &AtomicBool,
    ) -> Result<Ending, TrainError> {
        let (mut saved_at, mut saved_step) = (Instant::now(), self.step);
        let mut bad_in_a_row = 0;
        let mut is_best = false;
        let save_every = self.plan.save_every;
        while self.step < self.plan.steps {
            let flags = || Flags {
                stop: stop.load(Ordering::Relaxed),
                due: !save_every.is_zero() && saved_at.elapsed() >= save_every,
            };
            let start = Instant::now();
            let (mut record, records, flags) = self.one_step(task, batches, &flags)?;
            let waited = record.waited_s + record.exchange_s.unwrap_or(0.0);
            let calculated = start.elapsed().saturating_sub(Duration::from_secs_f64(waited));
            if let Some(threads) = self.threads.stepped(calculated) {
                observer.adapted(threads);
            }
            self.step += 1;
            if let Some(reason) = &record.skipped {
                bad_in_a_row += 1;
                observer.skipped(self.step, reason, &records);
                record.records = records;
            } else {
                bad_in_a_row = 0;
            }
            if let Some(score) = observer.stepped(task, &mut record).map_err(TrainError::Observer)? {
                let score = f64::from_bits(self.team.first(|| Ok::<_, TrainError>(score.to_bits()))?);
                if self.best.is_none_or(|best| score > best) {
                    self.best = Some(score);
                    is_best = true;
                }
            }
            if let Some(files) = &mut self.files {
                files.metrics.write(&record)?;
            }
            self.report(observer, false)?;
            if bad_in_a_row >= self.plan.max_bad_steps {
                return Err(self.team.fails(TrainError::BadSteps { count: bad_in_a_row, step: self.step }));
            }
            let ending = flags.stop || self.step == self.plan.steps;
            let due = is_best
                || self.plan.save_every_steps > 0 && self.step.is_multiple_of(self.plan.save_every_steps)
                || flags.due;
            // While steps go wrong nothing is saved: what is on disk is from before. A step that went well may still have left
            // weights that no checkpoint should hold.
            if (due && bad_in_a_row == 0 || ending) && self.step > saved_step && task.weights().is_finite() {
                self.report(observer, true)?;
                self.save(task, is_best)?;
                (saved_at, saved_step, is_best) = (Instant::now(), self.step, false);
            }
            if flags.stop && self.step < self.plan.steps {
                return Ok(Ending::Stopped);
            }
        }
        if self.step > saved_step {
            return Err(self.team.fails(TrainError::BadSteps { count: bad_in_a_row, step: self.step }));
        }
        Ok(Ending::Finished)
    }

    /// The first process begins to save, once it is sure that all have the same weights.
    fn save<T: Task>(&mut self, task: &mut T, is_best: bool) -> Result<(), TrainError> {
        if self.team.world() > 1 {
            self.team.agree(&format!("weights {:016x} at step {}", task.weights().sum_of_bits(), self.step))?;
        }
        let team = Arc::clone(&self.team);
        team.first(|| {
            let contents = self.contents(task);
            let files = self.files.as_mut().expect("the first process has the files");
            let log = files.metrics.again()?;
            Ok(guarded(|| files.writer.begin(contents, is_best, log, &team))?)
        })
    }

    /// Tells the observer of a checkpoint that was written meanwhile; where `wait`, of one that is being written.
    fn report<T: Task>(&mut self, observer: &mut dyn Observer<T>, wait: bool) -> Result<(), TrainError> {
        let Some(files) = &mut self.files else {
            return Ok(());
        };
        let written = if wait { files.writer.wait() } else { files.writer.written() };
        if let Some(Written { step, path }) = written? {
            observer.saved(step, &path);
        }
        Ok(())
    }

    /// One optimiser step; also the names of its records, of this process or, where it was skipped, of all; and what all processes know
    /// then of the `flags` of each.
    fn one_step<T: Task, E: Error + Send + Sync + 'static>(
        &mut self,
        task: &mut T,
        batches: &mut dyn Iterator<Item = Result<T::Batch, E>>,
        flags: &dyn Fn() -> Flags,
    ) -> Result<(StepRecord, Vec<String>, Flags), TrainError> {
        let start = Instant::now();
        let before = self.team.spent();
        let (rank, world) = (self.team.rank() as u64, self.team.world() as u64);
        let mut waited = Duration::ZERO;
        let mut records: Vec<Vec<String>> = Vec::new();
        let mut sums: Vec<(&'static str, Tensor, bool)> = Vec::new();
        self.gradients.clear();
        guarded(|| task.begin_step())?;
        for nth in 0..self.share {
            let asked = Instant::now();
            let batch = batches.next().ok_or(TrainError::DataEnded(self.step))?;
            let batch = batch.map_err(|error| TrainError::Load(Box::new(error)))?;
            waited += asked.elapsed();
            let seed = step_seed(self.plan.seed, self.step, nth * world + rank);
            let at = At { step: self.step, steps_per_epoch: self.plan.steps_per_epoch, seed };
            let scores = guarded(|| {
                tch::manual_seed(seed as i64);
                task.backward(&batch, at, &mut self.gradients)
            })?;
            let losses = scores.losses.into_iter().map(|(name, value)| (name, value, true));
            for (i, score) in
                losses.chain(scores.others.into_iter().map(|(name, value)| (name, value, false))).enumerate()
            {
                match sums.get_mut(i) {
                    Some(sum) => sum.1 = &sum.1 + score.1,
                    None => sums.push(score),
                }
            }
            records.push(T::records(&batch).to_vec());
        }

        // Of no batch: what is drawn from here on is the same on all processes.
        const END: u64 = u64::MAX;
        tch::manual_seed(step_seed(self.plan.seed, self.step, END) as i64);
        for gradients in self.gradients.flat().buffers() {
            guarded(|| self.team.sum(gradients, self.plan.wire))??;
        }
        let shared = guarded(|| task.exchange(&self.team))??;
        let Flags { stop, due } = flags();
        let own = [
            f64::from(u8::from(stop)),
            f64::from(u8::from(due && self.team.is_first())),
            records.iter().map(Vec::len).sum::<usize>() as f64,
            waited.as_secs_f64() / world as f64,
        ];
        let lr = self.plan.schedule.at(self.step);
        let mean = 1.0 / self.plan.accumulate as f64;
        // Numbers of one type change it together.
        sums.sort_by_key(|(_, value, _)| value.kind() == Kind::Double);
        let singles = sums.partition_point(|(_, value, _)| value.kind() != Kind::Double);
        // The one moment of a step at which the host waits for the device.
        let values = guarded(|| {
            let device = task.weights().device();
            let norm = match self.team.is_first() {
                true => norm(&mut self.gradients).to_kind(Kind::Double),
                false => Tensor::zeros([0; 0], (Kind::Double, device)),
            };
            let (singles, doubles) = sums.split_at(singles);
            let together = |values: &[(&str, Tensor, bool)]| {
                let values: Vec<&Tensor> = values.iter().map(|(_, value, _)| value).collect();
                (!values.is_empty()).then(|| Tensor::stack(&values, 0).to_kind(Kind::Double))
            };
            let rest = [norm.view(1), upload(&Tensor::from_slice(&own), device)];
            let all: Vec<Tensor> = [together(singles), together(doubles)].into_iter().flatten().chain(rest).collect();
            let all = Tensor::cat(&all, 0);
            self.team.sum(&all, Kind::Double)?;
            let shared = shared.iter().map(|(_, value)| value.to_kind(Kind::Double).view(1));
            let all: Vec<Tensor> = std::iter::once(all).chain(shared).collect();
            Ok::<_, TeamError>(Vec::<f64>::try_from(Tensor::cat(&all, 0)).expect("scalars"))
        })??;
        let (values, rest) = values.split_at(sums.len());
        let (&[grad_norm, stop, due, count, waited], shared_values) =
            rest.split_first_chunk().expect("the norm and what every process has of its own");
        let (grad_norm, flags) = (grad_norm * mean, Flags { stop: stop > 0.0, due: due > 0.0 });
        let values: Vec<f64> = values.iter().map(|value| value * mean).collect();
        let loss: f64 = sums.iter().zip(&values).filter(|((_, _, is_loss), _)| *is_loss).map(|(_, value)| value).sum();
        let skipped = match (loss.is_finite(), grad_norm.is_finite()) {
            (true, true) => None,
            (false, _) => Some(format!("loss is {loss}")),
            (_, false) => Some(format!("norm of the gradient is {grad_norm}")),
        };
        let applied = skipped.is_none();
        let records = match applied {
            true => records.concat(),
            false => self.records_of_all(&records)?,
        };
        guarded(|| {
            if applied {
                let clip = self.plan.clip_norm;
                let scale = if clip > 0.0 && grad_norm > clip { mean * clip / grad_norm } else { mean };
                self.optimizer.step(task.weights(), &mut self.gradients, lr, scale);
            }
            task.end_step(applied, &self.team)
        })??;
        let seconds = start.elapsed().as_secs_f64();
        let spent = self.team.spent();
        let step = self.step + 1;
        let scores = sums.iter().map(|(name, ..)| *name).zip(values);
        let shared = shared.iter().map(|(name, _)| *name).zip(shared_values.iter().copied());
        let record = StepRecord {
            step,
            epoch: step as f64 / self.plan.steps_per_epoch.max(1) as f64,
            loss,
            scores: scores.chain(shared).map(|(name, value)| (name.to_owned(), value)).collect(),
            lr,
            grad_norm,
            pairs_per_s: count / seconds,
            waited_s: waited,
            memory_gib: held_gib(task.weights().device()),
            exchange_s: (world > 1).then(|| (spent.time - before.time).as_secs_f64()),
            sent_gib: (world > 1).then(|| (spent.sent - before.sent) / GIB),
            skipped,
            records: Vec::new(),
        };
        Ok((record, records, flags))
    }

    /// The names of the records of a step's batches, of all processes, in the order of the batches.
    fn records_of_all(&self, own: &[Vec<String>]) -> Result<Vec<String>, TeamError> {
        let all = self.team.values(own.to_vec())?;
        let names = (0..own.len()).flat_map(|nth| all.iter().flat_map(move |of_rank| of_rank[nth].clone()));
        Ok(names.collect())
    }

    fn contents<T: Task>(&self, task: &mut T) -> Contents {
        Contents {
            step: self.step,
            epoch: self.step as f64 / self.plan.steps_per_epoch.max(1) as f64,
            steps_per_epoch: self.plan.steps_per_epoch,
            seed: self.plan.seed,
            best: self.best,
            task: task.name().into(),
            config: task.config(),
            model: task.tensors(),
            optimizer: self.optimizer.named(task.weights()),
            extra: task.extra(),
        }
    }
}
