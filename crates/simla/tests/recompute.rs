//! A step whose layers are computed again in the backward pass. Alone in its process: torch's generator is everybody's.

use std::collections::BTreeMap;

use simla::config::{ModelConfig, Preset, SpecialIds};
use simla::model::Simla;
use simla::objectives::Objectives;
use simla::objectives::negatives::Negatives;
use simla::step::{Inputs, Masked};
use simla_train::weights::Gradients;
use tch::{Device, Kind, Tensor};

const BATCH: i64 = 3;
const TOKENS: i64 = 5;

fn config() -> ModelConfig {
    let special = SpecialIds { pad: 0, cls: 1, sep: 2, mask: 3 };
    ModelConfig {
        image_size: 32,
        patch_size: 8,
        vision_depth: 2,
        text_depth: 3,
        visual_vocab: 8,
        queue_size: 10,
        dropout: 0.1,
        ..ModelConfig::preset(Preset::Tiny, 20, special)
    }
}

fn inputs(c: &ModelConfig) -> Inputs {
    let device = Device::Cpu;
    let integers = |values: &[i64]| Tensor::from_slice(values);
    let ids = integers(&[1, 9, 7, 8, 2, 1, 12, 13, 2, 0, 1, 5, 6, 2, 0]).view([BATCH, TOKENS]);
    let hidden = ids.eq(7).logical_or(&ids.eq(12)).logical_or(&ids.eq(6));
    let words: Vec<bool> = Vec::try_from(hidden.flatten(0, 1)).unwrap();
    let patches: Vec<bool> = (0..BATCH * c.patches()).map(|i| i % 4 == 0).collect();
    let words = Masked::new(&words, TOKENS as usize, device);
    let patches = Masked::new(&patches, c.patches() as usize, device);
    let visual = Tensor::randint(c.visual_vocab, [BATCH, c.patches()], (Kind::Int64, device));
    Inputs {
        image: Tensor::randn([BATCH, 3, c.image_size, c.image_size], (Kind::Float, device)),
        mask: ids.ne(c.special.pad).to_kind(Kind::Int64),
        mlm_ids: ids.masked_fill(&hidden, c.special.mask),
        word_labels: words.pick(&ids),
        patch_labels: Some(patches.pick(&visual)),
        words,
        patches,
        negatives: Negatives::Given { image: integers(&[1, 2, 0]), text: integers(&[2, 0, 1]) },
        image_ids: None,
        ids,
    }
}

/// What two steps on the same pairs give, with dropout.
fn gradients(recompute: bool) -> BTreeMap<String, Tensor> {
    let mut model = Simla::new(config(), Kind::Float, Device::Cpu, 3);
    let b = inputs(&model.config);
    if recompute {
        model.online.recompute_layers();
    }
    let mut gradients = Gradients::new(&model.online);
    for _ in 0..2 {
        model.step(&b, 0.4, Objectives::default(), &mut gradients);
    }
    gradients.named()
}

#[test]
fn layers_that_are_computed_again_draw_the_same_and_give_the_same_gradients() {
    let (kept, again) = (gradients(false), gradients(true));
    for (name, kept) in kept {
        let apart = (&again[&name] - &kept).abs().max().double_value(&[]);
        let largest = kept.abs().max().double_value(&[]);
        assert!(apart <= 1e-5 * largest + 1e-7, "{name}: {apart} of {largest}");
    }
}
