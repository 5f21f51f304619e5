//! What a pair hides for the model to guess: words and patches.

pub mod blocks;
pub mod words;
