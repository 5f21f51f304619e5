//! Reads the checkpoints that the field publishes, without running what is in them; and writes them, see [`write_torch`].
//!
//! Most weights are published as pickles, and a pickle is a program. This crate describes such a program instead of
//! running it: it knows the few constructs that tensors need and keeps everything else as [`Node`]s that say which class
//! was meant. PyTorch's zip files, its older streams and safetensors all give the same [`Archive`].
//!
//! ```no_run
//! let archive = simla_weights::read("checkpoint.pth".as_ref(), &simla_weights::Limits::default())?;
//! let model = archive.root().get("model").expect("a training checkpoint");
//! for (name, tensor) in model.tensors()? {
//!     println!("{name}: {:?} {:?}", tensor.dtype(), tensor.shape());
//!     let values: Vec<f32> = tensor.load()?.to_f32();
//! }
//! # Ok::<(), simla_weights::ReadError>(())
//! ```
//!
//! Data sets come as pickles, too: [`read_data`] reads one of lists, dicts, strings and numbers.
//!
//! Files come from strangers: all that a file may ask of us is bounded by [`limits`].

#![warn(missing_docs, unreachable_pub)]

mod archive;
mod error;
mod flatten;
mod format;
pub mod limits;
mod pickle;
mod tensor;
mod write;

pub use archive::{Archive, Node, TensorRef, read, read_data};
pub use error::{Fault, ReadError};
pub use limits::Limits;
pub use tensor::{DType, Tensor};
pub use write::{Declared, write_torch};
