//! The border to libtorch: its devices, its errors, its memory, and the loops and products that are faster than its own.

pub mod device;
pub mod guard;
pub mod linear;
pub mod memory;
pub mod threads;
pub mod values;
