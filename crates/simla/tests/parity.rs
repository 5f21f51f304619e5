//! Two optimiser steps of a tiny model against the reference: every activation, loss, gradient, moving average, queue and weight.
//! `SIMLA_PARITY_DIR` names the folder of another case, `SIMLA_PARITY_DEVICE` another device than the CPU.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use simla::config::ModelConfig;
use simla::model::Simla;
use simla::objectives::Objectives;
use simla::objectives::negatives::Negatives;
use simla::step::{Inputs, Masked};
use simla::text::Rows;
use simla_train::optim::{AdamW, AdamWConfig};
use simla_train::weights::Gradients;
use tch::{Device, Kind, Tensor, no_grad};

#[path = "tasks_parity/golden.rs"]
mod golden;

use golden::{Differences, Tensors, read};

const DEVICE: &str = "SIMLA_PARITY_DEVICE";

struct Case {
    config: ModelConfig,
    optimizer: AdamWConfig,
    lr: f64,
    alphas: Vec<f64>,
    weights: Tensors,
    inputs: Tensors,
    outputs: Tensors,
}

impl Case {
    fn open() -> Self {
        let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pretrain-step");
        let dir = std::env::var_os("SIMLA_PARITY_DIR").map_or(default, PathBuf::from);
        let json: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
        let (optimizer, lr) = golden::optimizer(&json);
        Self {
            config: golden::sizes(&json),
            optimizer,
            lr,
            alphas: json["alpha"].as_array().unwrap().iter().map(|alpha| alpha.as_f64().unwrap()).collect(),
            weights: read(dir.join("weights.safetensors")),
            inputs: read(dir.join("inputs.safetensors")),
            outputs: read(dir.join("outputs.safetensors")),
        }
    }

    fn inputs(&self, step: usize, device: Device) -> Inputs {
        let get = |name: &str| self.inputs[&format!("step{step}.{name}")].to(device);
        let host = |name: &str| -> Vec<i64> { Vec::try_from(get(name).to(Device::Cpu).flatten(0, -1)).unwrap() };
        let labels = host("mlm_labels");
        let words: Vec<bool> = labels.iter().map(|&label| label != -100).collect();
        let patches: Vec<bool> = Vec::try_from(get("masked_patches").to(Device::Cpu).flatten(0, -1)).unwrap();
        let length = get("ids").size()[1] as usize;
        Inputs {
            image: get("image"),
            ids: get("ids"),
            mask: get("mask"),
            mlm_ids: get("mlm_ids"),
            words: Masked::new(&words, length, device),
            word_labels: get("mlm_labels").masked_select(&get("mlm_labels").ne(-100)),
            patches: Masked::new(&patches, self.config.patches() as usize, device),
            patch_labels: Some(get("visual_labels")),
            negatives: Negatives::Given { image: get("neg_image"), text: get("neg_text") },
            image_ids: None,
        }
    }
}

#[test]
fn two_steps_agree_with_the_reference() {
    agree_with_the_reference(false);
}

#[test]
fn two_steps_with_recomputed_layers_agree_with_it_too() {
    agree_with_the_reference(true);
}

/// In a process of its own: libtorch decides once whether there is a GPU.
#[test]
fn two_steps_on_a_gpu_agree_with_it_too() {
    if std::env::var_os(DEVICE).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["two_steps", "--test-threads=1"]).env(DEVICE, "cuda:1");
    let output = simla_simulated::on_device(&mut command, &log).output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success() && said.contains("3 passed"), "{said}");
    let counts = simla_simulated::Counts::read(&log);
    assert!(counts.operations["attention"] > 0 && counts.peak_bytes[0] == 0, "{counts:?}");
}

fn agree_with_the_reference(recompute: bool) {
    let device = std::env::var(DEVICE).unwrap_or_else(|_| "cpu".into());
    let device = simla_train::torch::device::open(&device).unwrap();
    let case = Case::open();
    let mut model = Simla::new(case.config.clone(), Kind::Float, device, 0);
    model.load(&case.weights).unwrap();
    if recompute {
        model.online.recompute_layers();
    }
    let mut optimizer = AdamW::new(case.optimizer, &model.online);
    let mut gradients = Gradients::new(&model.online);
    let mut differences = Differences::default();
    // Elsewhere sums have another order. Where gradients are small, AdamW makes whole steps of that.
    let apart = if device == Device::Cpu { 1e-5 } else { 2e-5 };

    for (step, &alpha) in case.alphas.iter().enumerate() {
        let b = case.inputs(step, device);
        let reference = |name: &str| &case.outputs[&format!("step{step}.{name}")];
        gradients.clear();
        model.begin_step();
        let (_, mim_logits) = no_grad(|| model.reconstruct(&b, alpha));
        let text_embeds = no_grad(|| {
            let bias =
                Tensor::zeros(b.mask.size(), (Kind::Float, device)).masked_fill(&b.mask.eq(0), f64::NEG_INFINITY);
            let words = model.towers.text.embed_words(&model.online, &b.ids, 0.0);
            model.towers.text_embeds(&model.online, &words, &bias.unsqueeze(1).unsqueeze(1), Rows::All, 0.0)
        });
        let (losses, seen) = model.step(&b, alpha, Objectives::default(), &mut gradients);
        model.queues.push(&seen.image_feat_m, &seen.text_feat_m, None);

        // The reference's order: matched pairs, wrong images, wrong texts.
        let itm = seen.itm_logits.unwrap().chunk(3, 0);
        let keywords = seen.keywords.unwrap();
        let itm_logits = Tensor::cat(&[&itm[0], &itm[2], &itm[1]], 0);
        let activations = [
            ("image_embeds", &seen.image_embeds),
            ("text_embeds", &text_embeds),
            ("image_feat", &seen.image_feat),
            ("text_feat", &seen.text_feat),
            ("image_feat_m", &seen.image_feat_m),
            ("text_feat_m", &seen.text_feat_m),
            ("sim_i2t", &seen.similarities.i2t),
            ("sim_t2i", &seen.similarities.t2i),
            ("itm_logits", &itm_logits),
            ("mlm_logits", &seen.mlm_logits.unwrap()),
            ("mim_logits", &mim_logits),
            ("keyword_targets", &keywords.targets),
            ("keyword_logits", &keywords.logits),
        ];
        for (name, ours) in activations {
            differences.compare(&format!("step {step}: {name}"), ours, reference(name), apart, 1e-6);
        }
        let cls_row = reference("keyword_attention").select(2, 0);
        differences.compare(&format!("step {step}: keyword_attention"), &keywords.attention, &cls_row, 1e-5, 1e-6);
        for (name, loss) in losses.named() {
            differences.compare(
                &format!("step {step}: loss {name}"),
                &loss,
                reference(&name.replace('/', ".")),
                1e-5,
                0.0,
            );
        }
        let named = gradients.named();
        let prefix = format!("step{step}.grad.");
        let mut compared = 0;
        for (name, expected) in case.outputs.iter().filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?, t))) {
            let ours = named.get(name).unwrap_or_else(|| panic!("no gradient of {name}"));
            differences.compare(&format!("step {step}: gradient {name}"), ours, expected, 1e-4, 1e-6);
            compared += 1;
        }
        assert_eq!(compared, named.len(), "every parameter has a gradient in the reference");
        optimizer.step(&mut model.online, &mut gradients, case.lr, 1.0);
    }

    // AdamW divides a gradient by its own size. Where the gradient is zero but for rounding (the biases of keys: softmax does not
    // see them), so is the direction of the step, and all that can be asked is that it is no longer than a step.
    const ROUNDING: f64 = 1e-7;
    let named = model.named();
    let mut compared = 0;
    for (name, expected) in case.outputs.iter().filter_map(|(name, t)| Some((name.strip_prefix("after.")?, t))) {
        let ours = named.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
        let (mut ours, mut expected) = (ours.to(Device::Cpu).detach().copy(), expected.copy());
        for step in 0..case.alphas.len() {
            let Some(gradient) = case.outputs.get(&format!("step{step}.grad.{name}")) else {
                continue;
            };
            let rounding = gradient.abs().lt(ROUNDING);
            let apart = (&ours - &expected).abs() * rounding.to_kind(Kind::Float);
            differences.compare(
                &format!("after: {name}: rounding"),
                &apart,
                &apart.zeros_like(),
                0.0,
                2.0 * case.lr * case.alphas.len() as f64,
            );
            ours = ours.masked_fill(&rounding, 0.0);
            expected = expected.masked_fill(&rounding, 0.0);
        }
        differences.compare(&format!("after: {name}"), &ours, &expected, 1e-4, 1e-6);
        compared += 1;
    }
    assert_eq!(compared, named.len(), "every tensor of ours is in the reference");
    differences.none();
}
