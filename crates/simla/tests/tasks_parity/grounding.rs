//! Grounding: heat maps, and from heat maps to boxes.

use simla::model::Simla;
use simla::tasks::boxes::{Bounds, Heat};
use simla::tasks::gradcam::{attended, of_matching};
use tch::{Kind, Tensor, no_grad};

use crate::common::{Case, Differences, json};
use crate::retrieval::model;

fn rows(boxes: &Tensor) -> Vec<Bounds> {
    let numbers: Vec<f64> = Vec::try_from(boxes.to_kind(Kind::Double).flatten(0, -1)).unwrap();
    numbers.as_chunks().0.iter().map(|&b: &[f64; 4]| b.into()).collect()
}

#[test]
fn grounding() {
    let case = Case::open("grounding");
    let layer = json("grounding", "config.json")["gradcam_layer"].as_u64().unwrap() as usize;
    let mut differences = Differences::default();
    heat_maps(&case, &model(&case), layer, &mut differences);
    boxes(&case, &mut differences);
    differences.none();
}

fn heat_maps(case: &Case, model: &Simla, layer: usize, differences: &mut Differences) {
    let (ids, mask) = (&case.inputs["ids"], &case.inputs["mask"]);
    let grid = case.config.grid();
    for i in 0..ids.size()[0] {
        let length = mask.get(i).sum(Kind::Int64).int64_value(&[]);
        let phrase: Vec<i64> = Vec::try_from(ids.get(i).narrow(0, 0, length)).unwrap();
        let image = case.inputs["image"].narrow(0, i, 1);
        let embeds = no_grad(|| model.towers.vision.forward(&model.online, &image, None));
        // The second is longer: padding changes nothing.
        let longer: Vec<i64> = phrase.iter().chain([&5, &6]).copied().collect();
        let seen = attended(model, &embeds, &[&phrase, &longer], layer);
        let found = of_matching(model, &embeds, &[&phrase, &longer], layer).unwrap().remove(0);
        let of_tokens = |all: &Tensor| all.get(0).narrow(1, 0, length);
        let reference = |name: &str| case.outputs[name].get(i);
        let tokens = |name: &str| reference(name).narrow(1, 0, length);
        let heat = Tensor::from_slice(&found.phrase).view([grid, grid]);
        for (name, ours, reference) in [
            ("score", &Tensor::from(found.logit), &reference("score")),
            ("attention", &of_tokens(&seen.attention), &tokens("attention")),
            ("gradient", &of_tokens(&seen.gradient), &tokens("gradient")),
            ("heat", &heat, &reference("heat")),
        ] {
            differences.compare(&format!("picture {i}: {name}"), ours, reference, 1e-5, 0.0);
        }
    }
}

/// The third map is below 0 throughout; one box of each picture goes over its edge.
fn boxes(case: &Case, differences: &mut Differences) {
    let grid = case.config.grid() as usize;
    for i in 0..3i64 {
        let size: Vec<i64> = Vec::try_from(case.inputs["sizes"].get(i)).unwrap();
        let map: Vec<f32> = Vec::try_from(case.inputs["maps"].get(i).flatten(0, -1)).unwrap();
        let proposals = rows(&case.inputs[&format!("boxes{i}")]);
        let truth = rows(&case.inputs[&format!("truth{i}")])[0];
        let heat = Heat::spread(&map, grid, size[1] as usize, size[0] as usize);
        let reference = |name: &str| &case.outputs[&format!("{name}{i}")];
        let scores: Vec<f64> = proposals.iter().map(|&b| heat.score(b)).collect();
        let overlaps: Vec<f64> = proposals.iter().map(|b| b.iou(truth)).collect();
        for (name, ours) in [
            ("full", Tensor::from_slice(heat.values()).view([size[0], size[1]])),
            ("box_scores", Tensor::from_slice(&scores)),
            ("overlaps", Tensor::from_slice(&overlaps)),
        ] {
            differences.compare(&format!("picture {i}: {name}"), &ours, reference(name), 1e-5, 1e-6);
        }
        let best = heat.best_of(&proposals).unwrap();
        assert_eq!(best as i64, reference("best").int64_value(&[]), "picture {i}");
        assert_eq!(proposals[best].finds(truth), reference("right").int64_value(&[]) == 1, "picture {i}");
    }
}
