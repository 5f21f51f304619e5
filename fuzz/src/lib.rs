//! Fuzzing on stable Rust: small valid files, changed at random, are given to every reader of strangers' bytes.
//!
//! Nothing measures which code an input reaches (that takes another toolchain). In its place the changes know the formats: each
//! target has seeds that take each of its reader's ways ([`seeds`]), words of its format, and a repair that puts checksums and
//! lengths right again, so that a change gets behind them ([`repair`]). Input `n` of a target depends on the seed of the run and on
//! `n` alone: whatever is found is found again.
//!
//! An input is a finding when its reader panics (also where a guard holds the panic), takes longer or more memory than its target
//! allows, or refuses it at too great length. The command line runs readers in a process of their own, so that an abort, an overflow
//! of the stack and a hang are findings, too.

#![warn(missing_docs, unreachable_pub)]

mod mutate;
mod repair;
mod run;
mod seeds;
mod targets;

pub use run::{Attempt, Figures, Finding, attempt, hold_panics, input};
pub use targets::{Bounds, Target, all};
