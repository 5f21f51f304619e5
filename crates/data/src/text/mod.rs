//! From words to pieces.

pub mod caption;
mod function_words;
mod learn;
pub mod question;
mod sentence;
pub mod vocabulary;

pub use function_words::names_something;
pub use sentence::Sentences;
