//! Fine-tuning on retrieval: pairs that may share an image, in the batch and in the queue.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use simla::model::Simla;
use simla::objectives::negatives::{Negatives, gumbel, sample};
use simla::objectives::{Objectives, itc};
use simla::step::{Inputs, Masked};
use simla_train::weights::Gradients;
use tch::{Device, Kind, Tensor, no_grad};

use crate::common::{Case, Differences, Tensors, json};

/// What only pre-training has: nothing of it moves in fine-tuning.
const OF_PRETRAINING: [&str; 4] = ["mim_head", "concept_head", "mask_token", "cls.predictions"];

/// The name in the authors' fine-tuned checkpoints.
fn theirs(ours: &str) -> String {
    ours.replacen(".bert.", ".", 1)
}

/// A model with the reference's weights; of what the reference does not have, its own.
pub fn model(case: &Case) -> Simla {
    let mut model = Simla::new(case.config.clone(), Kind::Float, Device::Cpu, 0);
    let mut tensors: Tensors = model.named().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
    for (name, tensor) in &mut tensors {
        if let Some(given) = case.weights.get(&theirs(name)) {
            *tensor = given.copy();
        }
    }
    model.load(&tensors).unwrap();
    model
}

/// Under the reference's names, without what it does not have; `checks` is asked about that.
fn translated(named: Tensors, mut checks: impl FnMut(&str, &Tensor)) -> Tensors {
    let is_of_pretraining = |name: &str| OF_PRETRAINING.iter().any(|part| name.contains(part));
    let mut translated = Tensors::new();
    for (name, tensor) in named {
        match is_of_pretraining(&name) {
            true => checks(&name, &tensor),
            false => drop(translated.insert(theirs(&name), tensor)),
        }
    }
    translated
}

fn inputs(case: &Case, step: usize) -> Inputs {
    let get = |name: &str| case.input(step, name);
    let [batch, length] = get("ids").size()[..] else { panic!("[B, L]") };
    let nothing = |tokens: i64| Masked::new(&vec![false; (batch * tokens) as usize], tokens as usize, Device::Cpu);
    Inputs {
        image: get("image"),
        ids: get("ids"),
        mask: get("mask"),
        mlm_ids: get("ids"),
        words: nothing(length),
        word_labels: Tensor::from_slice(&[0i64; 0]),
        patches: nothing(case.config.patches()),
        patch_labels: None,
        negatives: Negatives::Given { image: get("neg_image"), text: get("neg_text") },
        image_ids: Some(get("image_ids")),
    }
}

/// That negatives are drawn in proportion to the reference's weights, row by row, within five standard deviations.
fn assert_drawn_by(weights: &Tensor, similarity: &Tensor, positive: &Tensor, what: &str) {
    const DRAWS: usize = 4000;
    let n = weights.size()[0];
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut counts = vec![vec![0.0; n as usize]; n as usize];
    for _ in 0..DRAWS {
        let drawn = sample(similarity, &gumbel(n, &mut rng, Device::Cpu), Some(positive));
        for (row, column) in Vec::<i64>::try_from(drawn).unwrap().into_iter().enumerate() {
            counts[row][column as usize] += 1.0 / DRAWS as f64;
        }
    }
    let shares = weights / weights.sum_dim_intlist([1].as_slice(), true, Kind::Double);
    for (row, counts) in counts.iter().enumerate() {
        for (column, share) in counts.iter().enumerate() {
            let p = shares.double_value(&[row as i64, column as i64]);
            let allowed = 5.0 * (p * (1.0 - p) / DRAWS as f64).sqrt() + 1e-9;
            assert!((share - p).abs() < allowed, "{what}, row {row} column {column}: {share} against {p}");
        }
    }
}

#[test]
fn retrieval_finetune() {
    let case = Case::open("retrieval-finetune");
    two_steps(&case, false);
    two_steps(&case, true);
}

fn two_steps(case: &Case, recompute: bool) {
    let mut model = model(case);
    model.queues.remember_images();
    if recompute {
        model.online.recompute_layers();
    }
    let mut optimizer = case.optimizer(&model.online);
    let mut gradients = Gradients::new(&model.online);
    let mut differences = Differences::default();
    for (step, alpha) in case.alphas.into_iter().enumerate() {
        let b = inputs(case, step);
        let image_ids = b.image_ids.as_ref().unwrap();
        gradients.clear();
        model.begin_step();
        let temp = model.temp().detach().copy();
        let (losses, seen) = model.step(&b, alpha, Objectives::RETRIEVAL, &mut gradients);

        let [image_all, text_all] = model.queues.after_features(&seen.image_feat_m, &seen.text_feat_m);
        let teacher =
            no_grad(|| itc::Similarities::new(&seen.image_feat_m, &seen.text_feat_m, &image_all, &text_all, &temp));
        let hard = itc::same_image(image_ids, &model.queues.after_images(image_ids));
        let n = image_ids.size()[0];
        let own = |all: &Tensor| all.detach().narrow(1, 0, n);
        let positive = itc::shared_image(image_ids, image_ids);
        let weights = |own: &Tensor| own.softmax(-1, Kind::Float) * positive.logical_not().to_kind(Kind::Float);
        let (t2i, i2t) = (own(&seen.similarities.t2i), own(&seen.similarities.i2t));
        // The reference's order: matched pairs, wrong images, wrong texts.
        let itm = seen.itm_logits.unwrap().chunk(3, 0);
        for (name, ours) in [
            ("loss.itc", losses.itc.as_ref().unwrap()),
            ("loss.itm", losses.itm.as_ref().unwrap()),
            ("image_feat", &seen.image_feat),
            ("text_feat", &seen.text_feat),
            ("image_feat_m", &seen.image_feat_m),
            ("text_feat_m", &seen.text_feat_m),
            ("sim_i2t", &seen.similarities.i2t),
            ("sim_t2i", &seen.similarities.t2i),
            ("target_i2t", &itc::target(&hard, &teacher.i2t, alpha)),
            ("target_t2i", &itc::target(&hard, &teacher.t2i, alpha)),
            ("itm_logits", &Tensor::cat(&[&itm[0], &itm[2], &itm[1]], 0)),
            ("neg_image_weights", &weights(&t2i)),
            ("neg_text_weights", &weights(&i2t)),
        ] {
            differences.compare(&format!("step {step}: {name}"), ours, case.output(step, name), 1e-5, 0.0);
        }
        assert_drawn_by(case.output(step, "neg_image_weights"), &t2i, &positive, "wrong images");
        assert_drawn_by(case.output(step, "neg_text_weights"), &i2t, &positive, "wrong texts");

        let ours = translated(gradients.named(), |name, gradient| {
            assert_eq!(gradient.abs().max().double_value(&[]), 0.0, "the gradient of {name}");
        });
        case.compare_named_gradients(step, ours, &mut differences);
        model.queues.push(&seen.image_feat_m, &seen.text_feat_m, Some(image_ids));
        optimizer.step(&mut model.online, &mut gradients, case.lr, 1.0);
    }
    case.compare_after(&translated(model.named(), |_, _| ()), &mut differences);
    differences.none();
}

/// Every tensor starts from the pre-trained one of the same name, but that the authors leave `bert.` out in fine-tuning; the queue knows
/// no images yet.
#[test]
fn it_starts_from_the_pre_trained_names() {
    let origins: std::collections::BTreeMap<String, Option<String>> =
        serde_json::from_value(json("retrieval-finetune", "init.json")).unwrap();
    let case = Case::open("retrieval-finetune");
    let mut model = model(&case);
    model.queues.remember_images();
    let ours = translated(model.named(), |_, _| ());
    assert_eq!(ours.keys().collect::<Vec<_>>(), origins.keys().collect::<Vec<_>>());
    let names: Vec<String> = model.named().into_keys().collect();
    for (name, origin) in &origins {
        match origin {
            Some(origin) => assert!(names.contains(origin) && theirs(origin) == *name, "{name} from {origin}"),
            None => assert!(name == "idx_queue" && ours[name].eq(-100).all().int64_value(&[]) == 1, "{name}"),
        }
    }
}
