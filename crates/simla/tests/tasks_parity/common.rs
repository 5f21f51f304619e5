//! A case of the reference, and where ours differs from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use simla::config::ModelConfig;
use simla_train::optim::{AdamW, AdamWConfig};
use simla_train::weights::{Gradients, Weights};
use tch::{Device, Kind, Tensor};

use crate::golden;
pub use crate::golden::{Differences, Tensors, read};

/// The folder of a case.
pub fn folder(case: &str) -> PathBuf {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tasks");
    std::env::var_os("SIMLA_TASKS_DIR").map_or(default, PathBuf::from).join(case)
}

pub fn json(case: &str, file: &str) -> Value {
    let path = folder(case).join(file);
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

/// What the reference wrote of a task.
pub struct Case {
    pub name: &'static str,
    pub config: ModelConfig,
    pub optimizer: AdamWConfig,
    pub lr: f64,
    /// The teacher's share in each of the two steps; 0 where there is no teacher.
    pub alphas: [f64; 2],
    pub weights: Tensors,
    pub inputs: Tensors,
    pub outputs: Tensors,
}

impl Case {
    pub fn open(name: &'static str) -> Self {
        let json = json(name, "config.json");
        let (optimizer, lr) = golden::optimizer(&json);
        Self {
            name,
            config: golden::sizes(&json),
            optimizer,
            lr,
            alphas: [0, 1].map(|step| json["alpha"][step].as_f64().unwrap_or(0.0)),
            weights: read(folder(name).join("weights.safetensors")),
            inputs: read(folder(name).join("inputs.safetensors")),
            outputs: read(folder(name).join("outputs.safetensors")),
        }
    }

    pub fn optimizer(&self, weights: &Weights) -> AdamW {
        AdamW::new(self.optimizer, weights)
    }

    /// What a step read.
    pub fn input(&self, step: usize, name: &str) -> Tensor {
        self.inputs[&format!("step{step}.{name}")].shallow_clone()
    }

    /// What it gave.
    pub fn output(&self, step: usize, name: &str) -> &Tensor {
        let name = format!("step{step}.{name}");
        self.outputs.get(&name).unwrap_or_else(|| panic!("no {name} in the reference"))
    }

    /// Every gradient, of each tensor's largest or 0.01. Shared parameters stand there once, under the first of their names.
    pub fn compare_gradients(&self, step: usize, gradients: &mut Gradients, differences: &mut Differences) {
        self.compare_named_gradients(step, gradients.named(), differences);
    }

    /// As [`Case::compare_gradients`], of gradients by their names in the reference.
    pub fn compare_named_gradients(&self, step: usize, mut named: Tensors, differences: &mut Differences) {
        let prefix = format!("step{step}.grad.");
        for (name, expected) in self.outputs.iter().filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?, t))) {
            let ours = named.remove(name).unwrap_or_else(|| panic!("no gradient of {name}"));
            differences.compare(&format!("step {step}: gradient {name}"), &ours, expected, 1e-4, 1e-6);
            named.retain(|_, other| other.data_ptr() != ours.data_ptr());
        }
        assert!(named.is_empty(), "not in the reference: {:?}", named.keys());
    }

    /// Every tensor of a checkpoint after both steps.
    pub fn compare_after(&self, named: &Tensors, differences: &mut Differences) {
        // AdamW divides a gradient by its own size. Where the gradient is zero but for rounding (the biases of keys: softmax does not
        // see them), so is the direction of the step, and all that can be asked is that it is no longer than a step.
        const ROUNDING: f64 = 1e-7;
        let mut compared = 0;
        for (name, expected) in self.outputs.iter().filter_map(|(name, t)| Some((name.strip_prefix("after.")?, t))) {
            let ours = named.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
            let (mut ours, mut expected) = (ours.detach().copy(), expected.copy());
            for step in 0..self.alphas.len() {
                let Some(gradient) = self.gradient(step, name) else { continue };
                let rounding = gradient.abs().lt(ROUNDING);
                let apart = (&ours - &expected).abs() * rounding.to_kind(Kind::Float);
                let longest = 2.0 * self.lr * self.alphas.len() as f64;
                differences.compare(&format!("after: {name}: rounding"), &apart, &apart.zeros_like(), 0.0, longest);
                ours = ours.masked_fill(&rounding, 0.0);
                expected = expected.masked_fill(&rounding, 0.0);
            }
            differences.compare(&format!("after: {name}"), &ours, &expected, 1e-4, 1e-6);
            compared += 1;
        }
        assert_eq!(compared, named.len(), "every tensor of ours is in the reference");
    }

    /// The reference's gradient of a parameter, which a second name of a shared one stands for too.
    fn gradient(&self, step: usize, name: &str) -> Option<&Tensor> {
        let own = self.outputs.get(&format!("step{step}.grad.{name}"));
        own.or_else(|| {
            let (before, layer) = name.strip_prefix("text_encoder.")?.split_once(".layer.")?;
            let (number, part) = layer.split_once('.')?;
            let first = number.parse::<i64>().ok()? - 1;
            part.contains("crossattention.self").then_some(())?;
            self.outputs.get(&format!("step{step}.grad.text_encoder.{before}.layer.{first}.{part}"))
        })
    }

    /// Asks that every tensor of a model which was started from `pretrained` is that which `init.json` names, and that those without a
    /// name are finite. `pretrained` is made up of random tensors.
    pub fn compare_start(&self, start: impl FnOnce(Tensors) -> Tensors) {
        let origins: BTreeMap<String, Option<String>> = serde_json::from_value(json(self.name, "init.json")).unwrap();
        tch::manual_seed(17);
        let random = |name: &String| Tensor::randn(self.weights[name].size(), (Kind::Float, Device::Cpu));
        let pretrained: Tensors =
            origins.iter().filter_map(|(name, origin)| Some((origin.clone()?, random(name)))).collect();
        let kept: Tensors = pretrained.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        let started = start(pretrained);
        let names: Vec<&String> = started.keys().collect();
        assert_eq!(names, origins.keys().collect::<Vec<_>>(), "the names of a checkpoint");
        for (name, origin) in &origins {
            match origin {
                Some(origin) => assert!(started[name].equal(&kept[origin]), "{name} starts from {origin}"),
                None => assert!(started[name].isfinite().all().int64_value(&[]) == 1, "{name}"),
            }
        }
    }
}
