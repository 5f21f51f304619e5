//! Pictures and pages of what was learned.
//!
//! Plain pixels, numbers and text go in, PNG and HTML come out; nothing here knows the model.
//! [`sheet`], [`heat`], [`curves`] and [`bar_chart`] draw pictures; [`run`] reads a run's folder, from
//! which [`page`] makes a page; [`tensorboard`] writes event files.
//!
//! Fonts are in the binary, so no picture depends on the machine: DejaVu Sans (licence of Bitstream
//! Vera) and Noto Emoji (SIL Open Font License 1.1).

#![warn(missing_docs, unreachable_pub)]

pub mod bar_chart;
pub mod bars;
pub mod canvas;
mod charts;
pub mod confusion;
pub mod curves;
mod error;
pub mod heat;
pub mod metrics;
pub mod numbers;
pub mod output;
pub mod page;
pub mod run;
pub mod samples;
pub mod series;
pub mod sheet;
pub mod tensorboard;
pub mod text;

pub use error::PicturesError;
