//! An index on disk of things that have a feature, to find them again by nearness: exactly, or through a graph (HNSW).
//!
//! It knows no model and no pictures. An [`Item`] has a name (a picture's path, a caption) and a stamp that changes when it does;
//! with it are kept a feature of length one and a payload of bytes.
//!
//! INDEX/index.json       what the index is of, its items and where they are
//! INDEX/rows-00000007    features and payloads, row by row
//! INDEX/graph-00000008   the graph over the features
//!
//! Rows and graphs are written under new numbers and never changed; `index.json` is replaced in one step, after all that it names is on
//! the disk. So whatever ends the program, and whenever, the index is the one before or the one after.

#![warn(missing_docs, unreachable_pub)]

mod error;
mod graph;
mod index;
mod rows;

pub use error::SearchError;
pub use index::{Contents, Draft, Hit, Index, Item};
