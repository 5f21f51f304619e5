//! What a model is trained for and used for.

pub mod boxes;
pub mod classify;
pub mod entailment;
pub mod gradcam;
pub mod grounding;
pub mod kept;
pub mod keywords;
pub mod nlvr;
pub mod pretrain;
pub mod products;
pub mod retrieval;
pub mod samples;
pub mod score;
pub mod search;
pub mod vqa;
pub mod vqa_score;
