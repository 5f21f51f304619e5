//! Finding pictures by a phrase, and captions by a picture: the contrast finds the best, the matching score ranks them (3.6).
//!
//! What a search needs of a picture is computed once and kept: the contrastive feature, and E_v's patch embeddings for the matching
//! score ([`kept`](super::kept)). A search then costs one pass of E_l and one of E_mm for each of the best.

use std::collections::BTreeMap;

use rayon::prelude::*;
use simla_data::{Entry, RecordError, Vocabulary};
use tch::{Device, Kind, Tensor, no_grad};
use thiserror::Error;

use crate::inputs::whole_view;
use crate::model::Simla;
use crate::tasks::kept::Kept;
use crate::tasks::retrieval::{embed_pixels, match_scores, text_features};
use simla_train::torch::device::upload;
use simla_train::torch::guard::{TorchError, guarded};
use simla_train::torch::operations::OnHost;

/// Pictures or captions that are embedded at a time.
const BATCH: usize = 32;

/// Why a phrase cannot be searched for.
#[derive(Debug, Error, PartialEq)]
#[allow(missing_docs)] // the messages say it
pub enum PhraseError {
    #[error("the phrase {0:?} says nothing: expected words")]
    Empty(String),
    #[error(
        "the phrase {0:?}: no word of it is in the model's vocabulary; use words of the captions that it was trained on"
    )]
    Unknown(String),
}

/// Token ids of a phrase, at most `max_tokens`.
///
/// # Errors
/// If there is no word in it, or none that the vocabulary knows.
pub fn phrase(vocabulary: &Vocabulary, text: &str, max_tokens: usize) -> Result<Vec<i64>, PhraseError> {
    let ids = vocabulary.encode(text, max_tokens);
    let words = &ids[1..ids.len() - usize::from(vocabulary.closes())];
    if words.is_empty() {
        return Err(PhraseError::Empty(text.into()));
    }
    if words.iter().all(|&id| id == vocabulary.special().unk) {
        return Err(PhraseError::Unknown(text.into()));
    }
    Ok(ids)
}

/// What is kept of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The contrastive feature, `[E]`, of length one.
    pub feature: Vec<f32>,
    /// E_v's output `[1 + P, D]` in half precision, as bytes.
    pub patches: Vec<u8>,
}

/// Looks at pictures, in order; one that cannot be read gives its error.
///
/// # Errors
/// What libtorch could not do.
pub fn see(model: &Simla, entries: &[Entry]) -> Result<Vec<Result<Seen, RecordError>>, TorchError> {
    let side = model.config.image_size as usize;
    let mut all = Vec::with_capacity(entries.len());
    let mut before: Option<(Views, OnHost)> = None;
    for chunk in entries.chunks(BATCH).map(Some).chain([None]) {
        // These are decoded while a GPU still looks at those before.
        let views = chunk.map(|chunk| views(chunk, side));
        if let Some((views, looked)) = before.take() {
            let mut seen = guarded(|| seen(model, looked))?.into_iter();
            all.extend(views.into_iter().map(|view| view.map(|_| seen.next().expect("one for each readable picture"))));
        }
        if let Some(views) = views {
            let pixels: Vec<&[u8]> = views.iter().flatten().map(Vec::as_slice).collect();
            let looked = guarded(|| look(model, &pixels))?;
            before = Some((views, looked));
        }
    }
    Ok(all)
}

/// Of each picture its view, or why it has none.
pub type Views = Vec<Result<Vec<u8>, RecordError>>;

/// Whole pictures as a model with views of `side` pixels reads them, RGB bytes `[side, side, 3]` each, in order; one that cannot be
/// read gives its error. Needs no model.
pub fn views(entries: &[Entry], side: usize) -> Views {
    entries.par_iter().map(|entry| whole_view(entry, side)).collect()
}

/// Looks at views, all at a time.
///
/// # Errors
/// What libtorch could not do.
pub fn see_views(model: &Simla, views: &[&[u8]]) -> Result<Vec<Seen>, TorchError> {
    guarded(|| seen(model, look(model, views)))
}

/// Names of what [`look`] gives.
const FEATURES: &str = "features";
const PATCHES: &str = "patches";

/// What is to be kept of views, on its way to the host: nothing of no views.
fn look(model: &Simla, views: &[&[u8]]) -> OnHost {
    let mut found = BTreeMap::new();
    if !views.is_empty() {
        no_grad(|| {
            let embeds = embed_pixels(model, &views.concat(), views.len());
            found.insert(FEATURES.to_owned(), model.towers.image_feat(&model.online, &embeds));
            found.insert(PATCHES.to_owned(), embeds.to_kind(Kind::Half));
        });
    }
    OnHost::copy(&found)
}

/// Of each view.
fn seen(model: &Simla, looked: OnHost) -> Vec<Seen> {
    let found = looked.arrived();
    let (Some(features), Some(half)) = (found.get(FEATURES), found.get(PATCHES)) else {
        return vec![];
    };
    let features = Vec::<Vec<f32>>::try_from(features).expect("floats");
    let size = Kept::Half.bytes(&model.config);
    (0i64..)
        .zip(features)
        .map(|(i, feature)| {
            let own = half.get(i).contiguous();
            let mut patches = vec![0; size];
            own.copy_data_u8(&mut patches, own.numel());
            Seen { feature, patches }
        })
        .collect()
}

/// Contrastive features of captions, `[E]` each, of length one.
///
/// # Errors
/// What libtorch could not do.
pub fn caption_features(model: &Simla, captions: &[impl AsRef<[i64]>]) -> Result<Vec<Vec<f32>>, TorchError> {
    if captions.is_empty() {
        return Ok(vec![]);
    }
    guarded(|| {
        let features: Vec<Tensor> =
            no_grad(|| captions.chunks(BATCH).map(|chunk| text_features(model, chunk)).collect());
        Vec::try_from(Tensor::cat(&features, 0).to(Device::Cpu)).expect("floats")
    })
}

/// Probabilities that captions belong to pictures ([`Seen::patches`]): all to the one, or each to its own.
///
/// # Errors
/// What libtorch could not do.
pub fn match_probabilities(model: &Simla, patches: &[&[u8]], captions: &[&[i64]]) -> Result<Vec<f32>, TorchError> {
    if captions.is_empty() {
        return Ok(vec![]);
    }
    let (config, w) = (&model.config, &model.online);
    let shape = [patches.len() as i64, 1 + config.patches(), config.vision_width];
    let odds = guarded(|| {
        let embeds = Tensor::from_data_size(&patches.concat(), &shape, Kind::Half);
        let embeds = upload(&embeds, w.device()).to_kind(w.kind());
        no_grad(|| match_scores(model, &embeds, captions))
    })?;
    Ok(odds.into_iter().map(|odds| 1.0 / (1.0 + (-odds).exp())).collect())
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::config::{ModelConfig, Preset, SpecialIds};

    #[test]
    fn pairs_score_the_same_together_and_one_by_one() {
        let config = ModelConfig {
            image_size: 32,
            queue_size: 8,
            vision_depth: 2,
            text_depth: 2,
            ..ModelConfig::preset(Preset::Tiny, 50, SpecialIds::FIRST)
        };
        let model = Simla::new(config, Kind::Float, Device::Cpu, 3);
        let views: Vec<Vec<u8>> = (0..3).map(|i| vec![40 * i; 32 * 32 * 3]).collect();
        let views: Vec<&[u8]> = views.iter().map(Vec::as_slice).collect();
        let seen = see_views(&model, &views).unwrap();
        assert_eq!(seen[0].patches.len(), Kept::Half.bytes(&model.config));
        let patches: Vec<&[u8]> = seen.iter().map(|seen| seen.patches.as_slice()).collect();
        let captions: [&[i64]; 3] = [&[1, 9, 2], &[1, 7, 8, 30, 2], &[1, 12, 13, 2]];
        let together = match_probabilities(&model, &patches, &captions).unwrap();
        for (i, together) in together.iter().enumerate() {
            let alone = match_probabilities(&model, &patches[i..=i], &captions).unwrap();
            assert!((alone[i] - together).abs() < 1e-5, "{alone:?}: {together}");
        }
        let features = caption_features(&model, &captions).unwrap();
        let alone = caption_features(&model, &captions[1..2]).unwrap();
        let product: f32 = features[1].iter().zip(&alone[0]).map(|(a, b)| a * b).sum();
        assert!((product - 1.0).abs() < 1e-5, "{product}");
    }

    #[test]
    fn a_phrase_needs_a_word_that_is_known() {
        let captions = ["a red circle", "a blue square"].map(str::to_owned);
        let vocabulary = Vocabulary::learn(captions.into_iter(), 100).unwrap();
        assert!(phrase(&vocabulary, "a red square", 25).unwrap().len() > 2);
        let empty = phrase(&vocabulary, " ?! ", 25).unwrap_err();
        assert_eq!(empty, PhraseError::Empty(" ?! ".into()));
        let unknown = phrase(&vocabulary, "жук", 25).unwrap_err();
        assert_eq!(unknown, PhraseError::Unknown("жук".into()));
    }
}
