//! From words to pieces.

pub mod caption;
mod learn;
pub mod question;
mod sentence;
pub mod vocabulary;

pub use sentence::Sentences;
