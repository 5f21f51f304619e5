//! DeiT-B/16 as the vision encoder.

use std::path::Path;

use super::{ImportError, Tensors, load, open, require, state_dict};

const KIND: &str = "a DeiT or ViT checkpoint";

/// Reads a DeiT (or timm ViT) checkpoint as `visual_encoder.*`. The classifier is dropped; the mask token, which DeiT has
/// not, stays as it starts.
///
/// # Errors
/// A file that cannot be read, that is not a ViT, or that has a part which our vision encoder has not (DeiT's
/// distillation token, say).
pub fn deit(path: &Path) -> Result<Tensors, ImportError> {
    let archive = open(path)?;
    let tensors = state_dict(&archive).tensors()?;
    for name in ["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "norm.weight"] {
        require(path, &tensors, KIND, name)?;
    }
    let mut imported = Tensors::new();
    for (name, tensor) in &tensors {
        let top = name.split('.').next().unwrap_or_default();
        let value = match top {
            "head" => continue,
            "pos_embed" | "cls_token" | "patch_embed" | "blocks" | "norm" => load(tensor)?,
            _ => {
                return Err(ImportError::Unknown { path: path.into(), expected: KIND, name: name.clone() });
            }
        };
        imported.insert(format!("visual_encoder.{name}"), value);
    }
    Ok(imported)
}
