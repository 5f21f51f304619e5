//! What a model is trained for and used for.

pub mod pretrain;
pub mod retrieval;
pub mod samples;
pub mod search;
