//! The trainer: steps, schedule, checkpoints, bad steps and signals. It knows no objective by name and nothing of a batch but the names of
//! its records: a [`Task`] owns both.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tch::{Kind, Tensor};
use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError, Checkpoints, Contents};
use crate::metrics::{Metrics, MetricsError, StepRecord};
use crate::optim::{AdamW, Schedule, norm};
use crate::seed::step_seed;
use crate::task::{At, Observer, Task};
use crate::torch::guard::{TorchError, guarded};
use crate::torch::threads::Threads;
use crate::weights::Gradients;

/// How a run goes, whatever the task.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub steps: u64,
    pub steps_per_epoch: u64,
    /// Batches of one optimiser step.
    pub accumulate: u64,
    pub schedule: Schedule,
    /// 0 leaves gradients as they are.
    pub clip_norm: f64,
    pub max_bad_steps: u64,
    pub save_every_steps: u64,
    /// Zero for never.
    pub save_every: Duration,
    pub keep: usize,
    /// Threads that calculate; 0 for as many as are best (see [`Threads`]).
    pub threads: usize,
}

/// How a run ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Finished,
    /// Asked to stop: saved, to be resumed.
    Stopped,
}

/// How a run ended otherwise.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The batches' own.
    #[error(transparent)]
    Load(Box<dyn Error + Send + Sync>),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error(transparent)]
    Torch(#[from] TorchError),
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

/// A run of a task in a folder.
///
/// ```no_run
/// # use std::{convert::Infallible, path::Path, sync::atomic::AtomicBool};
/// # use simla_train::{Ending, Observer, Plan, Task, TrainError, Trainer, checkpoint::Checkpoint, optim::AdamWConfig};
/// /// Trains `task` in `folder`, from its last checkpoint where there is one.
/// fn train<T: Task>(
///     task: &mut T,
///     batches: &mut dyn Iterator<Item = Result<T::Batch, Infallible>>,
///     observer: &mut dyn Observer<T>,
///     plan: Plan,
///     folder: &Path,
/// ) -> Result<Ending, TrainError> {
///     let last = Checkpoint::open(folder).ok();
///     let mut trainer = Trainer::new(task, AdamWConfig::default(), plan, folder, last.as_ref())?;
///     trainer.run(task, batches, observer, &AtomicBool::new(false))
/// }
/// ```
#[derive(Debug)]
pub struct Trainer {
    plan: Plan,
    optimizer: AdamW,
    gradients: Gradients,
    checkpoints: Checkpoints,
    metrics: Metrics,
    /// Optimiser steps done.
    step: u64,
    best: Option<f64>,
    threads: Threads,
}

impl Trainer {
    /// A run from the start, or from where `resume` left it: the task and the optimiser take its tensors.
    ///
    /// # Errors
    /// If the folder cannot be written, or the checkpoint does not fit the task: with the tensor and the two shapes.
    pub fn new<T: Task>(
        task: &mut T,
        optimizer: crate::optim::AdamWConfig,
        plan: Plan,
        run: &Path,
        resume: Option<&Checkpoint>,
    ) -> Result<Self, TrainError> {
        let mut optimizer = AdamW::new(optimizer, task.weights());
        let (mut step, mut best) = (0, None);
        if let Some(checkpoint) = resume {
            checkpoint.verify()?;
            task.load(&checkpoint.model()?).map_err(|e| checkpoint.blame(e))?;
            optimizer.load(task.weights(), &checkpoint.optimizer()?).map_err(|e| checkpoint.blame(e))?;
            (step, best) = (checkpoint.state.step, checkpoint.state.best);
        }
        Ok(Self {
            gradients: Gradients::new(task.weights()),
            checkpoints: Checkpoints::open(run, plan.keep)?,
            metrics: Metrics::open(&run.join("metrics.jsonl"), step)?,
            threads: Threads::new(plan.threads),
            plan,
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
    /// [`TrainError`]; checkpoints written before are whole.
    pub fn run<T: Task, E: Error + Send + Sync + 'static>(
        &mut self,
        task: &mut T,
        batches: &mut dyn Iterator<Item = Result<T::Batch, E>>,
        observer: &mut dyn Observer<T>,
        stop: &AtomicBool,
    ) -> Result<Ending, TrainError> {
        let (mut saved_at, mut saved_step) = (Instant::now(), self.step);
        let mut bad_in_a_row = 0;
        let mut is_best = false;
        while self.step < self.plan.steps {
            let start = Instant::now();
            let (mut record, records) = self.one_step(task, batches)?;
            let calculated = start.elapsed().saturating_sub(Duration::from_secs_f64(record.waited_s));
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
            let score = observer.stepped(task, &mut record).map_err(TrainError::Observer)?;
            if let Some(score) = score.filter(|score| self.best.is_none_or(|best| *score > best)) {
                self.best = Some(score);
                is_best = true;
            }
            self.metrics.write(&record)?;
            if bad_in_a_row >= self.plan.max_bad_steps {
                return Err(TrainError::BadSteps { count: bad_in_a_row, step: self.step });
            }
            let stopping = stop.load(Ordering::Relaxed);
            let ending = stopping || self.step == self.plan.steps;
            let due = is_best
                || self.plan.save_every_steps > 0 && self.step.is_multiple_of(self.plan.save_every_steps)
                || !self.plan.save_every.is_zero() && saved_at.elapsed() >= self.plan.save_every;
            // While steps go wrong nothing is saved: what is on disk is from before. A step that went well may still have left
            // weights that no checkpoint should hold.
            if (due && bad_in_a_row == 0 || ending) && self.step > saved_step && task.weights().is_finite() {
                self.metrics.sync()?;
                let path = self.checkpoints.save(self.contents(task), is_best)?;
                observer.saved(self.step, &path);
                (saved_at, saved_step, is_best) = (Instant::now(), self.step, false);
            }
            if stopping && self.step < self.plan.steps {
                return Ok(Ending::Stopped);
            }
        }
        if self.step > saved_step {
            return Err(TrainError::BadSteps { count: bad_in_a_row, step: self.step });
        }
        Ok(Ending::Finished)
    }

    /// One optimiser step; also the names of its records.
    fn one_step<T: Task, E: Error + Send + Sync + 'static>(
        &mut self,
        task: &mut T,
        batches: &mut dyn Iterator<Item = Result<T::Batch, E>>,
    ) -> Result<(StepRecord, Vec<String>), TrainError> {
        let start = Instant::now();
        let mut waited = Duration::ZERO;
        let mut records = Vec::new();
        let mut sums: Vec<(&'static str, Tensor, bool)> = Vec::new();
        self.gradients.clear();
        guarded(|| task.begin_step())?;
        for micro in 0..self.plan.accumulate {
            let asked = Instant::now();
            let batch = batches.next().ok_or(TrainError::DataEnded(self.step))?;
            let batch = batch.map_err(|error| TrainError::Load(Box::new(error)))?;
            waited += asked.elapsed();
            let seed = step_seed(self.plan.seed, self.step, micro);
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
            records.extend_from_slice(T::records(&batch));
        }

        let lr = self.plan.schedule.at(self.step);
        let mean = 1.0 / self.plan.accumulate as f64;
        // The one moment of a step at which the host waits for the device.
        let (grad_norm, values) = guarded(|| {
            let mut all: Vec<Tensor> = sums.iter().map(|(_, value, _)| value.to_kind(Kind::Double)).collect();
            all.push(norm(&mut self.gradients).to_kind(Kind::Double));
            let mut values: Vec<f64> = Vec::try_from(Tensor::stack(&all, 0)).expect("scalars");
            let norm = values.pop().expect("the norm") * mean;
            values.iter_mut().for_each(|value| *value *= mean);
            (norm, values)
        })?;
        let loss: f64 = sums.iter().zip(&values).filter(|((_, _, is_loss), _)| *is_loss).map(|(_, value)| value).sum();
        let skipped = match (loss.is_finite(), grad_norm.is_finite()) {
            (true, true) => None,
            (false, _) => Some(format!("loss is {loss}")),
            (_, false) => Some(format!("norm of the gradient is {grad_norm}")),
        };
        let applied = skipped.is_none();
        guarded(|| {
            if applied {
                let clip = self.plan.clip_norm;
                let scale = if clip > 0.0 && grad_norm > clip { mean * clip / grad_norm } else { mean };
                self.optimizer.step(task.weights(), &mut self.gradients, lr, scale);
            }
            task.end_step(applied);
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let step = self.step + 1;
        let record = StepRecord {
            step,
            epoch: step as f64 / self.plan.steps_per_epoch.max(1) as f64,
            loss,
            scores: sums.iter().map(|(name, ..)| (*name).to_owned()).zip(values).collect(),
            lr,
            grad_norm,
            pairs_per_s: records.len() as f64 / seconds,
            waited_s: waited.as_secs_f64(),
            memory_gib: crate::torch::memory::resident_gib(),
            skipped,
            records: Vec::new(),
        };
        Ok((record, records))
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
