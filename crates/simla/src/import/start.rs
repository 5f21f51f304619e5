//! A model that starts from imported weights.

use thiserror::Error;

use super::{PositionsError, Tensors, fit_patches, fit_positions};
use crate::model::Simla;
use simla_train::weights::WeightsError;

/// Why a model cannot start from weights.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum StartError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("tensor visual_encoder.pos_embed: {0}")]
    Positions(#[from] PositionsError),
    #[error("tensor {0} has no place in this model, whose encoders have fewer layers or other parts")]
    Unknown(String),
    #[error("no tensor of visual_encoder or text_encoder in it")]
    Nothing,
}

/// Puts `weights` in place of what `simla` started with, and gives the number of parameters that were replaced. Parts of a
/// model will do (DeiT's, BERT's): the rest stays. Positions are resampled to the model's
/// patches, patch kernels to their side. The momentum model
/// starts as a copy of the online one; queues, momentum weights and heads of other tasks in `weights` are not used.
///
/// # Errors
/// The first tensor that has another shape, is not finite, or belongs to an encoder and has no place in ours.
pub fn start(simla: &mut Simla, mut weights: Tensors) -> Result<usize, StartError> {
    let mut all = simla.online.named();
    let encoder = |name: &String| name.starts_with("visual_encoder.") || name.starts_with("text_encoder.");
    if let Some(unknown) = weights.keys().find(|name| encoder(name) && !all.contains_key(*name)) {
        return Err(StartError::Unknown(unknown.clone()));
    }
    weights.retain(|name, _| all.contains_key(name));
    if !weights.keys().any(encoder) {
        return Err(StartError::Nothing);
    }
    fit_positions(&mut weights, simla.config.patches())?;
    fit_patches(&mut weights, simla.config.patch_size);
    let taken = weights.len();
    all.extend(weights);
    simla.online.load(&all, str::to_owned)?;
    simla.momentum.average(&simla.online, 0.0);
    Ok(taken)
}
