//! One file a command; and what some of them share.

pub mod ablate;
pub mod ablate_report;
pub mod attention;
pub mod bench;
pub mod bench_memory;
pub mod bench_retrieval;
pub mod cgroup;
pub mod data;
pub mod demo;
pub mod demo_report;
pub mod doctor;
pub mod dvae;
pub mod eval;
pub mod export;
pub mod finetune;
pub mod ground;
pub mod import;
pub mod keywords;
pub mod pretrain;
pub mod report;
pub mod search;
pub mod settings;
pub mod shell;
pub mod training;
