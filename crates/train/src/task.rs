//! What can be trained, and what looks on while it is.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tch::Tensor;

use crate::metrics::StepRecord;
use crate::team::{Team, TeamError};
use crate::weights::{Gradients, Weights, WeightsError};

/// Where a batch stands in the run.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// Optimiser steps before this one.
    pub step: u64,
    /// Optimiser steps of an epoch.
    pub steps_per_epoch: u64,
    /// For every random choice of this batch.
    pub seed: u64,
}

/// What a task says of a batch: scalars on the device, each called `group/name` as it will be everywhere: `loss/itc`, `batch/txt_r1`.
#[derive(Debug, Default)]
pub struct Scores {
    /// Their sum was differentiated.
    pub losses: Vec<(&'static str, Tensor)>,
    /// For the log alone.
    pub others: Vec<(&'static str, Tensor)>,
}

/// Something to train: a model, its losses, and what a checkpoint of it needs. `examples/own_task.rs` is one in under 100 lines.
pub trait Task {
    /// What a step reads.
    type Batch;

    /// The names of a batch's records, one for each of its examples.
    fn records(batch: &Self::Batch) -> &[String];

    /// What a checkpoint calls it.
    fn name(&self) -> &'static str;

    /// What is needed to build the model again.
    fn config(&self) -> Value;

    /// Those that are trained.
    fn weights(&mut self) -> &mut Weights;

    /// Before the first batch of an optimiser step.
    fn begin_step(&mut self) {}

    /// Adds the gradients of the sum of the losses on a batch.
    fn backward(&mut self, batch: &Self::Batch, at: At, gradients: &mut Gradients) -> Scores;

    /// After the last batch of a step: what else of the processes' batches has to come together. The scores are the same on all.
    ///
    /// # Errors
    /// If another process is gone or too late.
    fn exchange(&mut self, _team: &Team) -> Result<Vec<(&'static str, Tensor)>, TeamError> {
        Ok(Vec::new())
    }

    /// At the end of a step. What it draws is the same on all processes; `applied` is false where a bad step was skipped.
    ///
    /// # Errors
    /// If another process is gone or too late.
    fn end_step(&mut self, _applied: bool, _team: &Team) -> Result<(), TeamError> {
        Ok(())
    }

    /// Every tensor of a checkpoint but the optimiser's.
    fn tensors(&self) -> BTreeMap<String, Tensor>;

    /// Takes back what [`Task::tensors`] gave.
    ///
    /// # Errors
    /// The first tensor that does not fit.
    fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), WeightsError>;

    /// Small files that go with a checkpoint: name and bytes.
    fn extra(&self) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::new()
    }
}

/// What looks at a run while it goes on: progress, pictures, evaluation. On every process of a run, but for what only one writes.
pub trait Observer<T: Task> {
    /// After every step, with what it gave. May add to the record. A score (higher is better) marks the next checkpoint as the
    /// best where it is; it comes at the same steps on all processes, and that of the first counts.
    ///
    /// # Errors
    /// Ends the run.
    fn stepped(&mut self, task: &mut T, record: &mut StepRecord) -> Result<Option<f64>, String>;

    /// A step was skipped: `records` are those of its batches.
    fn skipped(&mut self, step: u64, reason: &str, records: &[String]);

    /// From the next step on, so many threads calculate.
    fn adapted(&mut self, _threads: usize) {}

    /// A checkpoint was written, by this process.
    fn saved(&mut self, step: u64, path: &Path);
}
