//! Passes of our own over the values of tensors on the CPU, where torch's operations would come back to memory several times.

use std::{slice, thread};

use half::bf16;
use multiversion::multiversion;
use tch::{Device, Kind, Tensor, no_grad};

/// What a tensor holds. (tch 0.24's own `Element` takes bf16 for f16.)
pub(crate) trait Value {
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
pub(crate) fn values<T: Value>(tensor: &mut Tensor) -> &mut [T] {
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

/// Calls `f` with part after part of f32 buffers of one length, on every core, and rounds the first one's new values to its `copy`
/// in bf16, if it has one: every buffer is read and written once. A copy in another type is made afterwards.
pub(crate) fn in_one_pass<const N: usize>(
    buffers: [&mut Tensor; N],
    copy: Option<&mut Tensor>,
    f: impl Fn([&mut [f32]; N]) + Sync,
) {
    let (rounded, other) = match copy {
        Some(copy) if copy.kind() == Kind::BFloat16 => (Some(copy), None),
        copy => (None, copy),
    };
    let first = buffers[0].shallow_clone();
    let mut all = Part {
        buffers: buffers.map(values),
        copy: rounded.map(values),
    };
    let threads = tch::get_num_threads().max(1) as usize;
    let share = all.len().div_ceil(threads);
    let f = &f;
    thread::scope(|threads| {
        while all.len() > 0 {
            let mut part = all.split_off(share);
            threads.spawn(move || part.pass(f));
        }
    });
    if let Some(copy) = other {
        no_grad(|| copy.copy_(&first));
    }
}

/// The same part of every buffer.
struct Part<'a, const N: usize> {
    buffers: [&'a mut [f32]; N],
    copy: Option<&'a mut [bf16]>,
}

impl<'a, const N: usize> Part<'a, N> {
    fn len(&self) -> usize {
        self.buffers[0].len()
    }

    /// Takes up to `count` values from the front of each.
    fn split_off(&mut self, count: usize) -> Self {
        const LONG_ENOUGH: &str = "buffers of one length";
        let count = count.min(self.len());
        Self {
            buffers: self
                .buffers
                .each_mut()
                .map(|values| values.split_off_mut(..count).expect(LONG_ENOUGH)),
            copy: self
                .copy
                .as_mut()
                .map(|values| values.split_off_mut(..count).expect(LONG_ENOUGH)),
        }
    }

    fn pass(&mut self, f: &impl Fn([&mut [f32]; N])) {
        /// So many of every buffer stay in the caches until the copy has been made.
        const VALUES: usize = 1 << 12;
        while self.len() > 0 {
            let mut part = self.split_off(VALUES);
            f(part.buffers.each_mut().map(|values| &mut **values));
            if let Some(copy) = part.copy {
                round(copy, part.buffers[0]);
            }
        }
    }
}

/// To the nearest value in bf16, ties to even; many times faster than one conversion of `half` after the other.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2"))]
fn round(copy: &mut [bf16], values: &[f32]) {
    const QUIET: u32 = 0x40;
    for (copy, value) in copy.iter_mut().zip(values) {
        let bits = value.to_bits();
        let even = (bits >> 16) & 1;
        let rounded = match value.is_nan() {
            true => (bits >> 16) | QUIET,
            false => bits.wrapping_add(0x7fff).wrapping_add(even) >> 16,
        };
        *copy = bf16::from_bits(rounded as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn every_value_is_passed_once_and_its_copy_is_torchs_rounding() {
        tch::manual_seed(5);
        for size in [0, 1, 4097, 100_003] {
            let mut sum = Tensor::randn([size], (Kind::Float, Device::Cpu));
            let mut added = Tensor::randn([size], (Kind::Float, Device::Cpu));
            let mut copy = sum.zeros_like().to_kind(Kind::BFloat16);
            let expected = &sum + &added;
            in_one_pass([&mut sum, &mut added], Some(&mut copy), |[sum, added]| {
                sum.iter_mut().zip(added).for_each(|(a, b)| *a += *b);
            });
            assert!(sum.equal(&expected), "{size}");
            assert!(copy.equal(&expected.to_kind(Kind::BFloat16)), "{size}");
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0];
        let mut copy = [bf16::ZERO; 5];
        round(&mut copy, &odd);
        assert!(copy[0].is_nan());
        let expected = [f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY, -0.0];
        assert_eq!(
            copy[1..].iter().map(|x| x.to_f32()).collect::<Vec<_>>(),
            expected
        );
    }
}
