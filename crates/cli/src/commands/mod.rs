//! One file a command.

pub mod bench;
pub mod bench_memory;
pub mod demo;
pub mod dvae;
pub mod eval;
pub mod pretrain;
pub mod report;
pub mod search;
