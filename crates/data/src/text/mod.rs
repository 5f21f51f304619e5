//! From words to pieces.

pub mod caption;
mod learn;
pub mod vocabulary;
