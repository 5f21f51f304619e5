//! A published ViT as the vision encoder: DeiT's, timm's, DINOv2's.

use std::collections::BTreeMap;
use std::path::Path;

use simla_weights::TensorRef;
use tch::Tensor;

use super::files::{Published, renamed};
use super::{ImportError, Tensors, load, require, require_whole, sizes};
use crate::vision::VisionEncoder;
use simla_train::weights::Layout;

const KIND: &str = "a DeiT or ViT checkpoint";
const REGISTERS: &str = ": register tokens, which SIMLA's encoder has not (take the weights without registers)";
const DISTILLED: &str = ": a distillation token, which SIMLA's encoder has not (take the weights without distillation)";
const GATED: &str = ": gated feed-forward layers (SwiGLU), which SIMLA's encoder has not";

/// Reads a ViT as `visual_encoder.*`, under the names of DeiT and timm, of DINOv2, or of transformers (`embeddings.`,
/// `encoder.layer.`), also as the backbone of something larger.
///
/// Classifier and pooler are dropped; LayerScale is folded into the layers that it scales, which is exact; a [CLS] without
/// position gets one of zeros. The mask token, which only DINOv2 has, stays as it starts where there is none.
///
/// # Errors
/// A file that cannot be read, that is not a whole ViT, or that has a part which our vision encoder has not (register or
/// distillation tokens, say).
pub fn vit(path: &Path) -> Result<Tensors, ImportError> {
    let published = Published::open(path)?;
    let (path, tensors) = (published.path(), published.tensors()?);
    let tensors = backbone(tensors);
    let tensors = renamed(path, tensors, our_name)?;
    for name in ["cls_token", "pos_embed", "patch_embed.proj.weight"] {
        require(path, &tensors, KIND, name)?;
    }
    let mut weights = Tensors::new();
    for (name, tensor) in &tensors {
        let hint = match name.split('.').next().unwrap_or_default() {
            "head" | "pooler" | "classifier" => continue,
            "register_tokens" | "reg_token" => REGISTERS,
            "dist_token" | "head_dist" => DISTILLED,
            "pos_embed" | "cls_token" | "mask_token" | "patch_embed" | "norm" => "",
            "blocks" if name.contains(".mlp.w12.") => GATED,
            "blocks" => "",
            _ => return Err(unknown(path, name, "")),
        };
        if !hint.is_empty() {
            return Err(unknown(path, name, hint));
        }
        weights.insert(name.clone(), load(path, name, tensor)?);
    }
    join_heads(&mut weights);
    fold_layer_scale(&mut weights);
    let width = weights["cls_token"].numel() as i64;
    if let Some(mask) = weights.remove("mask_token")
        && mask.numel() as i64 == width
    {
        weights.insert("mask_token".into(), mask.view([1, 1, width]));
    }
    if let Some(positions) = with_cls(&weights["pos_embed"]) {
        weights.insert("pos_embed".into(), positions);
    }
    let weights = weights.into_iter().map(|(name, value)| (format!("visual_encoder.{name}"), value)).collect();
    check(path, &weights)?;
    Ok(weights)
}

fn unknown(path: &Path, name: &str, hint: &'static str) -> ImportError {
    ImportError::Unknown { path: path.into(), expected: KIND, name: name.into(), hint }
}

/// Refuses what is not all of a vision encoder of its sizes, or more than that.
fn check(path: &Path, weights: &Tensors) -> Result<(), ImportError> {
    let wanted = wanted(path, weights, KIND)?;
    require_whole(path, KIND, weights, &wanted)?;
    const MASK: &str = "visual_encoder.mask_token";
    match weights.keys().find(|name| !wanted.contains_key(*name) && *name != MASK) {
        Some(name) => Err(unknown(path, name.trim_start_matches("visual_encoder."), "")),
        None => Ok(()),
    }
}

/// Names and shapes of the vision encoder that `weights` are of; the mask token aside, which others have not.
pub(super) fn wanted(
    path: &Path,
    weights: &Tensors,
    kind: &'static str,
) -> Result<BTreeMap<String, Vec<i64>>, ImportError> {
    let config = sizes::model_of(path, kind, weights)?;
    let shape = weights["visual_encoder.pos_embed"].size();
    if shape != [1, 1 + config.patches(), config.vision_width] {
        return Err(ImportError::Shape {
            path: path.into(),
            name: "pos_embed".into(),
            found: shape,
            expected: "[1, 1 + a square number of patches, width]".into(),
        });
    }
    let mut layout = Layout::default();
    VisionEncoder::new(&mut layout, "visual_encoder", &config);
    let mut wanted = layout.shapes();
    wanted.remove("visual_encoder.mask_token");
    Ok(wanted)
}

/// The tensors of the ViT in a file: those beside its [CLS] token, without what stands before its name.
fn backbone(tensors: BTreeMap<String, TensorRef<'_>>) -> BTreeMap<String, TensorRef<'_>> {
    let prefix = tensors.keys().find_map(|name| {
        let prefix = name.strip_suffix("cls_token")?;
        Some(prefix.strip_suffix("embeddings.").unwrap_or(prefix).to_owned())
    });
    let Some(prefix) = prefix.filter(|prefix| !prefix.is_empty()) else {
        return tensors;
    };
    let inner = |(name, tensor): (String, _)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor));
    tensors.into_iter().filter_map(inner).collect()
}

/// A name of transformers' or DINOv2's as timm has it.
fn our_name(name: &str) -> String {
    const OUTSIDE: [(&str, &str); 3] = [
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
        ("layernorm.", "norm."),
    ];
    for (theirs, ours) in OUTSIDE {
        if let Some(rest) = name.strip_prefix(theirs) {
            return format!("{ours}{rest}");
        }
    }
    if let Some(rest) = name.strip_prefix("embeddings.") {
        return rest.to_owned();
    }
    if let Some((number, part)) = name.strip_prefix("encoder.layer.").and_then(|rest| rest.split_once('.')) {
        const INSIDE: [(&str, &str); 8] = [
            ("layernorm_before.", "norm1."),
            ("layernorm_after.", "norm2."),
            ("attention.attention.", "attn."),
            ("attention.output.dense.", "attn.proj."),
            ("intermediate.dense.", "mlp.fc1."),
            ("output.dense.", "mlp.fc2."),
            ("layer_scale1.lambda1", "ls1.gamma"),
            ("layer_scale2.lambda1", "ls2.gamma"),
        ];
        let ours = INSIDE.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", part.strip_prefix(theirs)?)));
        return format!("blocks.{number}.{}", ours.unwrap_or_else(|| part.to_owned()));
    }
    // DINOv2 trains its blocks in chunks: `blocks.1.7.norm1` is block 7.
    if let Some((_, rest)) = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'))
        && rest.starts_with(|first: char| first.is_ascii_digit())
    {
        return format!("blocks.{rest}");
    }
    name.to_owned()
}

/// `attn.query`, `attn.key` and `attn.value` become `attn.qkv`.
fn join_heads(weights: &mut Tensors) {
    let queries: Vec<String> = weights.keys().filter(|name| name.contains(".attn.query.")).cloned().collect();
    for query in queries {
        let parts = ["query", "key", "value"].map(|part| query.replace(".query.", &format!(".{part}.")));
        if parts.iter().all(|name| weights.get(name).is_some_and(|part| part.dim() > 0)) {
            let parts = parts.map(|name| weights.remove(&name).expect("looked up"));
            weights.insert(query.replace(".query.", ".qkv."), Tensor::cat(&parts, 0));
        }
    }
}

/// Scales the outputs of attention and feed-forward by LayerScale's factors `[D]`, which then are not needed.
fn fold_layer_scale(weights: &mut Tensors) {
    let scales: Vec<String> = weights.keys().filter(|name| name.ends_with(".gamma")).cloned().collect();
    for scale in scales {
        let Some((block, layer)) = [("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2")]
            .iter()
            .find_map(|(suffix, layer)| Some((scale.strip_suffix(suffix)?.to_owned(), layer)))
        else {
            continue;
        };
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{block}{layer}.{part}"));
        let gamma = weights[&scale].shallow_clone();
        let fits = |name: &String, dims| {
            weights.get(name).is_some_and(|t| t.dim() == dims && gamma.dim() == 1 && t.size()[0] == gamma.size()[0])
        };
        if fits(&weight, 2) && fits(&bias, 1) {
            weights.insert(weight.clone(), &weights[&weight] * gamma.unsqueeze(1));
            weights.insert(bias.clone(), &weights[&bias] * &gamma);
            weights.remove(&scale);
        }
    }
}

/// Positions `[1, 1 + P, D]` from those of patches alone, `[1, P, D]`, where they are that: [CLS] had none, which is zeros.
fn with_cls(positions: &Tensor) -> Option<Tensor> {
    let [1, tokens, width] = positions.size()[..] else {
        return None;
    };
    let side = (tokens as f64).sqrt().round() as i64;
    (side * side == tokens && tokens > 1).then(|| {
        Tensor::cat(
            &[Tensor::zeros([1, 1, width], (positions.kind(), positions.device())), positions.shallow_clone()],
            1,
        )
    })
}
