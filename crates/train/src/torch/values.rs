//! The values of tensors on the CPU in place, for loops of our own where torch's operations would come back to memory several times.

use std::slice;

use half::bf16;
use tch::{Device, Kind, Tensor};

/// What a tensor holds. (tch 0.24's own `Element` takes bf16 for f16.)
pub trait Value {
    /// As libtorch calls it.
    const KIND: Kind;
}

impl Value for f32 {
    const KIND: Kind = Kind::Float;
}

impl Value for bf16 {
    const KIND: Kind = Kind::BFloat16;
}

/// The values of a tensor on the CPU, in order.
///
/// # Panics
/// If it is of another type, on a GPU, or its values do not stand one after the other.
pub fn values<T: Value>(tensor: &mut Tensor) -> &mut [T] {
    assert!(
        tensor.device() == Device::Cpu && tensor.kind() == T::KIND && tensor.is_contiguous(),
        "contiguous values of type {:?} on the CPU",
        T::KIND
    );
    if tensor.numel() == 0 {
        return &mut []; // has no address
    }
    // SAFETY: this many values of this type stand there, one after the other, as was just checked, for as long as the tensor lives.
    // Those who call this have no second tensor of the same memory at hand.
    unsafe { slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}
