//! A task of one's own: a line is fitted to points by the engine that trains the paper's models, with its checkpoints, metrics and
//! TensorBoard. What a task has to say is in `impl Task`; everything else is the trainer's.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, atomic::AtomicBool};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use simla_run::watch::Watch;
use simla_train::optim::{AdamWConfig, Schedule};
use simla_train::weights::{Gradients, Init, Layout, Leaf, Weights, WeightsError};
use simla_train::{At, Plan, Scores, Task, Team, Trainer};
use tch::{Device, Kind, Tensor};

/// y = slope * x + height.
struct Line {
    weights: Weights,
    slope: Leaf,
    height: Leaf,
}

/// Places on the x axis, and what each is called where something is wrong with it.
struct Points {
    x: Vec<f32>,
    names: Vec<String>,
}

impl Task for Line {
    type Batch = Points;

    fn records(batch: &Points) -> &[String] {
        &batch.names
    }

    fn name(&self) -> &'static str {
        "line"
    }

    fn config(&self) -> Value {
        json!({"degree": 1})
    }

    fn weights(&mut self) -> &mut Weights {
        &mut self.weights
    }

    fn backward(&mut self, batch: &Points, _: At, gradients: &mut Gradients) -> Scores {
        let x = Tensor::from_slice(&batch.x);
        let found = &x * &self.weights[self.slope] + &self.weights[self.height];
        let loss = (found - (&x * 2.0 + 1.0)).square().mean(Kind::Float);
        gradients.backward(&loss, &self.weights);
        Scores { losses: vec![("loss/squares", loss.detach())], others: vec![] }
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.weights.named()
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
        self.weights.load(tensors, str::to_owned)
    }
}

#[cfg_attr(test, test)]
fn main() -> Result<()> {
    let (folder, steps) = (tempfile::tempdir()?, 300);
    let plan = Plan {
        seed: 0,
        steps,
        steps_per_epoch: 100,
        accumulate: 1,
        wire: Kind::Float,
        schedule: Schedule { lr: 0.1, warmup_lr: 0.01, min_lr: 0.001, warmup_steps: 10, steps },
        clip_norm: 0.0,
        max_bad_steps: 3,
        save_every_steps: 100,
        save_every: Duration::ZERO,
        keep: 1,
        threads: 0,
    };
    let mut layout = Layout::default();
    let [slope, height] = ["slope", "height"].map(|name| layout.leaf(name, &[1], Init::Constant(0.0)));
    let mut line = Line { weights: Weights::new(&layout, Kind::Float, Device::Cpu, true), slope, height };
    let alone = Arc::new(Team::alone());
    let mut trainer = Trainer::new(&mut line, AdamWConfig::default(), plan, folder.path(), None, &alone)?;
    let mut batches = (0..steps).map(|step| {
        let x: Vec<f32> = (0..8).map(|i| ((step * 8 + i) as f32 * 0.37).sin()).collect();
        Ok::<_, Infallible>(Points { names: x.iter().map(|x| format!("the point at {x}")).collect(), x })
    });
    let mut watch = Watch::start("line", folder.path(), 0, steps, &["loss/squares"], &alone)?;
    trainer.run(&mut line, &mut batches, &mut watch, &AtomicBool::new(false))?;
    let [slope, height] = [slope, height].map(|leaf| line.weights.value(leaf).double_value(&[0]));
    println!("y = {slope:.2} x + {height:.2}");
    assert!((slope - 2.0).abs() < 0.1 && (height - 1.0).abs() < 0.1);
    assert!(folder.path().join("checkpoints/latest").exists());
    Ok(())
}
