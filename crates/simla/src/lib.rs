//! SIMLA: the model, its objectives, its training and its tasks.
//!
//! The way of a pair (section numbers are the paper's): batches come from `simla-data`; [`vision`] and [`text`] embed them (2.1),
//! [`objectives`] turn features into losses (2.2 to 2.4), [`step`] puts one pre-training step together.

#![warn(missing_docs, unreachable_pub)]

pub mod averaged;
pub mod config;
pub mod dvae;
pub mod encoders;
pub mod fields;
pub mod flops;
pub mod import;
pub mod inputs;
mod layers;
pub mod memory;
pub mod model;
pub mod objectives;
pub mod queue;
pub mod step;
pub mod tasks;
pub mod text;
pub mod vision;
