//! The engine: trains whatever is a [`Task`](task::Task), and knows no paper and no picture.
//!
//! - [`task`] says what can be trained, [`trainer`] takes the steps,
//! - [`checkpoint`] and [`metrics`] are what a run leaves on disk,
//! - [`weights`] holds a model's parameters and gradients, [`optim`] changes them,
//! - [`team`] is the processes of a run: what they exchange, and how they end together,
//! - [`torch`] is the border to libtorch.

#![warn(missing_docs, unreachable_pub)]

pub mod checkpoint;
pub mod metrics;
pub mod optim;
pub mod seed;
pub mod task;
pub mod team;
pub mod tensors;
pub mod torch;
pub mod trainer;
pub mod weights;
mod writer;

pub use task::{At, Observer, Scores, Task};
pub use team::{Team, TeamError};
pub use trainer::{Ending, Plan, TrainError, Trainer};
