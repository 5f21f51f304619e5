//! A task small enough to be checked by hand.
#![allow(dead_code)] // each test takes what it needs

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use simla_train::metrics::StepRecord;
use simla_train::optim::Schedule;
use simla_train::weights::{Gradients, Init, Layout, Leaf, Weights, WeightsError};
use simla_train::{At, Observer, Plan, Scores, Task, Team, TeamError};
use tch::{Device, Kind, Tensor};

/// Mean over a batch of (a . x - 1)^2, with x a row of the batch's ids.
pub struct Regression {
    pub weights: Weights,
    a: Leaf,
    /// Steps whose loss is not a number.
    pub bad: Vec<u64>,
    /// Ends of steps, and whether they were applied.
    pub ended: Vec<bool>,
}

pub const NUMBERS: i64 = 3;

impl Regression {
    pub fn new(bad: &[u64]) -> Self {
        Self::beside(bad, 0)
    }

    /// With so many parameters more, which no loss reaches.
    pub fn beside(bad: &[u64], parameters: i64) -> Self {
        let mut layout = Layout::default();
        let a = layout.leaf("a", &[NUMBERS, 1], Init::Constant(0.5));
        if parameters > 0 {
            layout.leaf("others", &[parameters, 1], Init::Constant(0.5));
        }
        Self { weights: Weights::new(&layout, Kind::Float, Device::Cpu, true), a, bad: bad.to_vec(), ended: vec![] }
    }

    pub fn a(&self) -> Vec<f32> {
        Vec::try_from(self.weights.value(self.a).flatten(0, -1)).unwrap()
    }
}

impl Task for Regression {
    type Batch = Rows;

    fn records(batch: &Rows) -> &[String] {
        &batch.records
    }

    fn name(&self) -> &'static str {
        "regression"
    }

    fn config(&self) -> Value {
        Value::Null
    }

    fn weights(&mut self) -> &mut Weights {
        &mut self.weights
    }

    fn backward(&mut self, batch: &Rows, at: At, gradients: &mut Gradients) -> Scores {
        let x = Tensor::from_slice(&batch.numbers).view([-1, NUMBERS]).to_kind(Kind::Float);
        let loss = (x.matmul(&self.weights[self.a]) - 1.0).square().mean(Kind::Float);
        let loss = match self.bad.contains(&at.step) {
            true => loss * f64::NAN,
            false => loss,
        };
        gradients.backward(&loss, &self.weights);
        Scores {
            losses: vec![("loss/squares", loss.detach())],
            others: vec![("rows", Tensor::from(batch.records.len() as i64))],
        }
    }

    fn end_step(&mut self, applied: bool, _: &Team) -> Result<(), TeamError> {
        self.ended.push(applied);
        Ok(())
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.weights.named()
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
        self.weights.load(tensors, str::to_owned)
    }
}

/// Keeps what it sees.
#[derive(Default)]
pub struct Notes {
    pub records: Vec<StepRecord>,
    pub skipped: Vec<(u64, Vec<String>)>,
    pub saved: Vec<u64>,
}

impl Observer<Regression> for Notes {
    fn stepped(&mut self, _: &mut Regression, record: &mut StepRecord) -> Result<Option<f64>, String> {
        self.records.push(record.clone());
        Ok(None)
    }

    fn skipped(&mut self, step: u64, _reason: &str, records: &[String]) {
        self.skipped.push((step, records.to_vec()));
    }

    fn saved(&mut self, step: u64, _path: &Path) {
        self.saved.push(step);
    }
}

/// Numbers to fit, row by row.
pub struct Rows {
    pub numbers: Vec<i64>,
    pub records: Vec<String>,
}

/// Rows of a batch are functions of its number and their own.
pub fn batch(number: u64, rows: std::ops::Range<i64>) -> Rows {
    Rows {
        numbers: rows.clone().flat_map(|row| [row + 1, number as i64 - row, 2]).collect(),
        records: (0..rows.count()).map(|row| format!("batch {number}, row {row}")).collect(),
    }
}

pub fn plan(steps: u64) -> Plan {
    Plan {
        seed: 1,
        steps,
        steps_per_epoch: 4,
        accumulate: 1,
        wire: Kind::Float,
        schedule: Schedule { lr: 0.1, warmup_lr: 0.01, min_lr: 0.01, warmup_steps: 2, steps },
        clip_norm: 0.0,
        max_bad_steps: 3,
        save_every_steps: 0,
        save_every: Duration::ZERO,
        keep: 2,
        threads: 0,
    }
}
