//! The concepts that the image encoder sees (figure 5), and where it sees them (appendix 2).

use anyhow::Result;
use simla::tasks::gradcam::{Map, of_concepts};
use simla::tasks::keywords::{Keyword, compared, concepts};
use simla::tasks::pretrain::Model;
use tch::Tensor;

/// The `top` words for a picture, given as E_v's output `[1, 1 + P, D]`, beside what its captions say.
///
/// # Errors
/// What libtorch could not do.
pub fn recommended(model: &Model, embeds: &Tensor, top: usize, captions: &[String]) -> Result<Vec<Keyword>> {
    let found = concepts(&model.simla, &model.vocabulary, embeds, top)?.remove(0);
    Ok(compared(found, captions))
}

/// Where each of these keywords is seen in an image `[1, 3, S, S]`: a value a patch each, by Grad-CAM through the concept head.
///
/// # Errors
/// What libtorch could not do.
pub fn maps(model: &Model, image: &Tensor, keywords: &[Keyword]) -> Result<Vec<Map>> {
    let ids: Vec<i64> = keywords.iter().filter_map(|keyword| model.vocabulary.id(&keyword.word)).collect();
    Ok(of_concepts(&model.simla, image, &ids)?)
}
