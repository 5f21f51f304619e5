//! The program as people run it, command by command. One binary: each links for seconds, and tests side by side leave no core idle.
//!
//! Some by themselves: `cargo test --test cli survival::`. Soaks run for minutes and are asked for: `cargo test --test cli -- --ignored --nocapture`.

#[cfg(unix)]
mod ablate;
mod bench;
mod browser;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod doctor;
mod find;
mod finetune;
mod import;
mod old_run;
mod output;
mod places;
mod pretrain;
#[cfg(target_os = "linux")]
mod processes;
mod protocols;
mod see;
mod serve;
mod snapshots;
#[cfg(unix)]
mod survival;
mod tasks;
