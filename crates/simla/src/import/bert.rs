//! BERT as the text encoder.

use std::collections::BTreeMap;
use std::path::Path;

use simla_weights::TensorRef;
use tch::Tensor;

use super::files::{Published, renamed};
use super::{ImportError, Tensors, are_tied, load, require, require_whole, sizes};
use crate::text::{Depth, TextEncoder, WordHead};
use simla_train::weights::Layout;

const KIND: &str = "a BERT checkpoint";

/// Reads a BERT checkpoint (safetensors or `.bin`, with or without its masked-word head) as `text_encoder.*`.
///
/// The first token type is folded into the word embeddings; pooler and next-sentence head are dropped; layer norms may
/// have their old names (`gamma`, `beta`). Cross-attention, which BERT has not, stays as it starts; so does the head when
/// the file has none.
///
/// # Errors
/// A file that cannot be read, is not a whole BERT, or whose decoder is not tied to its word embeddings.
pub fn bert(path: &Path) -> Result<Tensors, ImportError> {
    let published = Published::open(path)?;
    let path = published.path();
    let tensors = renamed(path, published.tensors()?, |name| match is_bare(name) {
        true => format!("bert.{name}"),
        false => name.into(),
    })?;
    require(path, &tensors, KIND, WORDS)?;
    require(path, &tensors, KIND, "bert.encoder.layer.0.attention.self.query.weight")?;
    let imported = encoder(path, &tensors, "text_encoder.")?;
    let has_head = imported.keys().any(|name| name.starts_with(HEAD));
    let mut wanted = wanted(path, &imported, KIND)?;
    wanted.retain(|name, _| !name.contains(".crossattention.") && (has_head || !name.starts_with(HEAD)));
    require_whole(path, KIND, &imported, &wanted)?;
    Ok(imported)
}

const HEAD: &str = "text_encoder.cls.";

/// Names and shapes of the text encoder that `weights` are of, its cross-attention and masked-word head included.
pub(super) fn wanted(
    path: &Path,
    weights: &Tensors,
    kind: &'static str,
) -> Result<BTreeMap<String, Vec<i64>>, ImportError> {
    let config = sizes::model_of(path, kind, weights)?;
    let mut layout = Layout::default();
    let text = TextEncoder::new(&mut layout, "text_encoder.bert", Depth::Single, &config);
    WordHead::new(&mut layout, "text_encoder.cls.predictions", &text, &config);
    Ok(layout.shapes())
}

/// Whether a name is of the encoder without its outer `bert.`.
pub(super) fn is_bare(name: &str) -> bool {
    ["embeddings.", "encoder.", "pooler."].iter().any(|part| name.starts_with(part))
}

const WORDS: &str = "bert.embeddings.word_embeddings.weight";
const TOKEN_TYPES: &str = "bert.embeddings.token_type_embeddings.weight";
const DECODER: &str = "cls.predictions.decoder.weight";

/// The parts `bert.*` and `cls.*` of an encoder, each as ours under `prefix`.
pub(super) fn encoder(
    path: &Path,
    tensors: &BTreeMap<String, TensorRef>,
    prefix: &str,
) -> Result<Tensors, ImportError> {
    if let (Some(decoder), Some(words)) = (tensors.get(DECODER), tensors.get(WORDS))
        && !are_tied(decoder, words)?
    {
        return Err(ImportError::Untied { path: path.into() });
    }
    let mut imported = Tensors::new();
    let mut origin: BTreeMap<String, &str> = BTreeMap::new();
    for (name, tensor) in tensors {
        let Some(ours) = our_name(name, tensors) else {
            return Err(ImportError::Unknown { path: path.into(), expected: KIND, name: name.clone(), hint: "" });
        };
        let Some(ours) = ours else { continue };
        let value = match (name.as_str(), tensors.get(TOKEN_TYPES)) {
            (WORDS, Some(types)) => fold_token_type(path, load(path, name, tensor)?, load(path, TOKEN_TYPES, types)?)?,
            _ => load(path, name, tensor)?,
        };
        let ours = format!("{prefix}{ours}");
        if let Some(first) = origin.insert(ours.clone(), name) {
            let (first, second) = (first.into(), name.clone());
            return Err(ImportError::Twice { path: path.into(), first, second, name: ours });
        }
        imported.insert(ours, value);
    }
    Ok(imported)
}

/// Our name for a tensor of BERT's: `None` when it is no part of BERT, `Some(None)` when it is one that we have no use for.
fn our_name(name: &str, tensors: &BTreeMap<String, TensorRef>) -> Option<Option<String>> {
    const BIAS: &str = "cls.predictions.bias";
    if name.starts_with("bert.pooler.")
        || name.starts_with("cls.seq_relationship.")
        || name == "bert.embeddings.position_ids"
        || name == TOKEN_TYPES
        || name == DECODER
    {
        return Some(None);
    }
    if name == "cls.predictions.decoder.bias" {
        // The same parameter as `cls.predictions.bias`, and in some files the only one of the two.
        return Some((!tensors.contains_key(BIAS)).then(|| BIAS.into()));
    }
    let known = ["bert.embeddings.", "bert.encoder.layer.", "cls.predictions."];
    if !known.iter().any(|start| name.starts_with(start)) {
        return None;
    }
    let modern = match name.rsplit_once('.') {
        Some((layer, "gamma")) => format!("{layer}.weight"),
        Some((layer, "beta")) => format!("{layer}.bias"),
        _ => name.to_owned(),
    };
    Some(Some(modern))
}

/// `[V, D]` word embeddings plus the first of `[T, D]` token types. Every logit of the tied decoder shifts alike, so that
/// its softmax is unchanged (docs/paper.md, 'Checkpoint layout').
fn fold_token_type(path: &Path, words: Tensor, types: Tensor) -> Result<Tensor, ImportError> {
    let (of_words, of_types) = (words.size(), types.size());
    match (&of_words[..], &of_types[..]) {
        ([_, width], [kinds, other]) if width == other && *kinds > 0 => Ok(words + types.select(0, 0)),
        _ => Err(ImportError::Shape {
            path: path.into(),
            name: TOKEN_TYPES.into(),
            found: of_types,
            expected: format!("[types, width] beside word embeddings of {of_words:?}"),
        }),
    }
}
