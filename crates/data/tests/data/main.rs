//! The data path from files to batches. (One program, since each takes its time to link.)

mod common;
mod damage;
mod evaluation;
mod loader;
mod packing;
mod pictures;
mod pieces;
mod shards;
mod sources;
