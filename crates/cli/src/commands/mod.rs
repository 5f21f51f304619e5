//! One file a command.

pub mod bench;
pub mod demo;
pub mod dvae;
pub mod eval;
pub mod pretrain;
pub mod search;
