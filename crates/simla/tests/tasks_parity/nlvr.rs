//! NLVR2, its text assignment and its score.

use std::collections::BTreeMap;

use serde_json::Value;
use simla::tasks::classify::Inputs;
use simla::tasks::nlvr::{Reasoning, TextAssignment, Wrong, score};
use simla_data::Statement;
use simla_train::Task;
use simla_train::weights::Gradients;
use tch::{Device, Kind, no_grad};

use crate::classify::{starts, two_steps};
use crate::common::{Case, Differences, json};

#[test]
fn nlvr2() {
    let case = Case::open("nlvr2");
    two_steps::<Statement>(&case, &["image0", "image1"], false);
    two_steps::<Statement>(&case, &["image0", "image1"], true);
    starts::<Statement>(&case);
}

#[test]
fn nlvr2_pretrain() {
    let case = Case::open("nlvr2-pretrain");
    let fresh = || TextAssignment::new(case.config.clone(), Kind::Float, Device::Cpu, 0, vec![]);
    for recompute in [false, true] {
        let mut model = fresh();
        model.load(&case.weights).unwrap();
        if recompute {
            model.online.recompute_layers();
        }
        let mut optimizer = case.optimizer(&model.online);
        let mut gradients = Gradients::new(&model.online);
        let mut differences = Differences::default();
        for step in 0..case.alphas.len() {
            let get = |name: &str| case.input(step, name);
            let b = Inputs { images: get("image"), ids: get("ids"), mask: get("mask") };
            gradients.clear();
            let weights = no_grad(|| {
                let embeds = model.encoders.image_embeds(&model.online, &b.images);
                model.similarities(&embeds).softmax(-1, Kind::Float).fill_diagonal_(0.0, false)
            });
            let (loss, logits) = model.step(&b, &get("labels"), &Wrong::Given(get("wrong")), &mut gradients);
            for (name, ours) in [("loss", &loss), ("weights", &weights), ("logits", &logits)] {
                differences.compare(&format!("step {step}: {name}"), ours, case.output(step, name), 1e-5, 0.0);
            }
            case.compare_gradients(step, &mut gradients, &mut differences);
            optimizer.step(&mut model.online, &mut gradients, case.lr, 1.0);
        }
        case.compare_after(&model.tensors(), &mut differences);
        differences.none();
    }
    case.compare_start(|pretrained| {
        let mut model = fresh();
        model.start(pretrained).unwrap();
        model.tensors()
    });
}

#[test]
fn nlvr2_score() {
    let file = json("nlvr2-score", "cases.json");
    let list = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    let (identifiers, labels) = (list(&file["identifiers"]), list(&file["labels"]));
    let truth = |said: &String| said.eq_ignore_ascii_case("true");
    let statement = |(identifier, label): (&String, &String)| {
        let [split, set, _, sentence] = identifier.split('-').collect::<Vec<_>>()[..] else { panic!("{identifier}") };
        Statement {
            ids: vec![],
            label: Some(i64::from(truth(label))),
            sentence: String::new(),
            identifier: Some(identifier.clone()),
            group: [split, set, sentence].join("-"),
        }
    };
    let statements: Vec<Statement> = identifiers.iter().zip(&labels).map(statement).collect();
    for case in file["cases"].as_array().unwrap() {
        let said = list(&case["predictions"]);
        let predictions: BTreeMap<String, bool> = identifiers.iter().cloned().zip(said.iter().map(truth)).collect();
        let Reasoning { accuracy, consistency } = score(&predictions, &statements).unwrap();
        for (ours, expected) in [(accuracy, &case["accuracy"]), (consistency, &case["consistency"])] {
            let (ours, expected) = (ours.value(), expected.as_f64().unwrap());
            assert!((ours - expected).abs() < 1e-12, "{}: {ours} against {expected}", case["case"]);
        }
    }
}
