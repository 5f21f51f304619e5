//! Visual entailment (SNLI-VE).

use simla::tasks::classify::{Classified, Classifier, Inputs};
use simla_data::Entailment;
use simla_train::weights::Gradients;
use tch::{Device, Kind, Tensor, no_grad};

use crate::common::{Case, Differences};

/// Two steps of a classifier whose pictures are the inputs `images`.
pub fn two_steps<R: Classified>(case: &Case, images: &[&str], recompute: bool) {
    let mut model = Classifier::<R>::new(case.config.clone(), Kind::Float, Device::Cpu, 0);
    model.weights.load(&case.weights).unwrap();
    if recompute {
        model.weights.online.recompute_layers();
    }
    let mut optimizer = case.optimizer(&model.weights.online);
    let mut gradients = Gradients::new(&model.weights.online);
    let mut differences = Differences::default();
    for (step, alpha) in case.alphas.into_iter().enumerate() {
        let images: Vec<Tensor> = images.iter().map(|name| case.input(step, name)).collect();
        let b = Inputs {
            images: Tensor::stack(&images, 1).flatten(0, 1),
            ids: case.input(step, "ids"),
            mask: case.input(step, "mask"),
        };
        gradients.clear();
        model.weights.begin_step();
        let (loss, logits) = model.step(&b, &case.input(step, "labels"), alpha, &mut gradients);
        let teacher = no_grad(|| model.logits(&model.weights.teacher, &b, 0.0));
        for (name, ours) in [("loss", &loss), ("logits", &logits), ("logits_m", &teacher)] {
            differences.compare(&format!("step {step}: {name}"), ours, case.output(step, name), 1e-5, 0.0);
        }
        assert_eq!(&model.probabilities(&b).argmax(1, false), case.output(step, "predictions"), "step {step}");
        case.compare_gradients(step, &mut gradients, &mut differences);
        optimizer.step(&mut model.weights.online, &mut gradients, case.lr, 1.0);
    }
    case.compare_after(&model.weights.named(), &mut differences);
    differences.none();
}

/// A fresh classifier starts from what `init.json` names.
pub fn starts<R: Classified>(case: &Case) {
    case.compare_start(|pretrained| {
        let mut model = Classifier::<R>::new(case.config.clone(), Kind::Float, Device::Cpu, 0);
        let head = |model: &Classifier<R>| model.weights.named()["cls_head.2.weight"].copy();
        let fresh = head(&model);
        model.start(pretrained).unwrap();
        assert!(head(&model).equal(&fresh), "the head is new");
        assert!(model.weights.named()["cls_head_m.2.weight"].equal(&fresh), "and so is the teacher's");
        model.weights.named()
    });
}

#[test]
fn snli_ve() {
    let case = Case::open("snli-ve");
    two_steps::<Entailment>(&case, &["image"], false);
    two_steps::<Entailment>(&case, &["image"], true);
    starts::<Entailment>(&case);
}
