//! The border to libtorch: its devices, its errors, its memory, what processes exchange, and the loops and products that are faster than
//! its own.

// The border to C++ and to the driver: nowhere else in this crate is memory taken on trust.
#![allow(unsafe_code)]

pub mod device;
pub mod group;
pub mod guard;
pub mod linear;
pub mod memory;
pub mod nccl;
pub mod operations;
pub mod threads;
pub mod values;
