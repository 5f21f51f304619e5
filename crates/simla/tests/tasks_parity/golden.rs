//! What the cases of the reference have in common: sizes, tensors, and where ours differ.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use safetensors::SafeTensors;
use serde_json::Value;
use simla::config::{ModelConfig, SpecialIds};
use simla_train::optim::AdamWConfig;
use tch::{Device, Kind, Tensor};

pub type Tensors = BTreeMap<String, Tensor>;

/// A number; NaN where there is none, as of grounding's optimiser.
fn float(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// The sizes in a case's `config.json`.
pub fn sizes(json: &Value) -> ModelConfig {
    let int = |name: &str| json[name].as_i64().unwrap_or_else(|| panic!("config.json: {name}"));
    ModelConfig {
        closing_sep: true,
        concept_scale: 1.0,
        image_size: int("image_size"),
        patch_size: int("patch_size"),
        vision_width: int("vision_width"),
        vision_depth: int("vision_depth"),
        vision_heads: int("vision_heads"),
        text_width: int("text_width"),
        text_depth: int("text_depth"),
        text_heads: int("text_heads"),
        text_mlp: int("text_mlp"),
        vocab_size: int("vocab_size"),
        max_positions: int("max_positions"),
        embed_dim: int("embed_dim"),
        visual_vocab: int("visual_vocab"),
        queue_size: int("queue_size"),
        momentum: float(&json["momentum"]),
        temperature: float(&json["temperature"]),
        keywords: int("keywords"),
        dropout: float(&json["dropout"]),
        special: SpecialIds { pad: int("pad_id"), cls: int("cls_id"), sep: int("sep_id"), mask: int("mask_id") },
    }
}

/// Its optimiser, and the learning rate.
pub fn optimizer(json: &Value) -> (AdamWConfig, f64) {
    let optimizer = &json["optimizer"];
    let config = AdamWConfig {
        betas: (float(&optimizer["betas"][0]), float(&optimizer["betas"][1])),
        eps: float(&optimizer["eps"]),
        weight_decay: float(&optimizer["weight_decay"]),
    };
    (config, float(&optimizer["lr"]))
}

pub fn read(path: PathBuf) -> Tensors {
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kind = |dtype| match dtype {
        safetensors::Dtype::F32 => Kind::Float,
        safetensors::Dtype::I64 => Kind::Int64,
        safetensors::Dtype::BOOL => Kind::Bool,
        other => panic!("{other:?}"),
    };
    let tensor = |view: &safetensors::tensor::TensorView| {
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        Tensor::from_data_size(view.data(), &shape, kind(view.dtype()))
    };
    file.tensors().iter().map(|(name, view)| (name.clone(), tensor(view))).collect()
}

/// Where ours differs from the reference, gathered so that one run shows all of it.
#[derive(Default)]
pub struct Differences(Vec<String>);

impl Differences {
    /// Largest difference against the larger of `relative` x the reference's largest value and `absolute`.
    pub fn compare(&mut self, name: &str, ours: &Tensor, reference: &Tensor, relative: f64, absolute: f64) {
        let ours = ours.detach().to(Device::Cpu);
        if ours.size() != reference.size() {
            self.0.push(format!("{name}: shape {:?}, reference {:?}", ours.size(), reference.size()));
            return;
        }
        let double = |x: &Tensor| x.to_kind(Kind::Double);
        let difference = (double(&ours) - double(reference)).abs().max().double_value(&[]);
        let allowed = (double(reference).abs().max().double_value(&[]) * relative).max(absolute);
        if difference.is_nan() || difference > allowed {
            self.0.push(format!("{name}: differs by {difference:.3e}, allowed {allowed:.3e}"));
        }
    }

    /// The end of a test: shows all of them, if there are any.
    pub fn none(self) {
        assert!(self.0.is_empty(), "{} differences:\n{}", self.0.len(), self.0.join("\n"));
    }
}
