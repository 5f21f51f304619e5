//! One file a command.

pub mod bench;
pub mod bench_memory;
pub mod data;
pub mod demo;
pub mod dvae;
pub mod eval;
pub mod import;
pub mod pretrain;
pub mod report;
