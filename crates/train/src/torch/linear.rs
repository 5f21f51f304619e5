//! `x W' + b` in bf16 on a CPU, faster than libtorch's own: oneDNN brings a weight into the order that its kernels read over and over
//! within one product, unless it is given in that order.

use std::ffi::{CStr, c_char, c_void};
use std::sync::LazyLock;

use tch::{Device, Kind, Tensor, no_grad};

unsafe extern "C" {
    fn simla_linear(
        x: *const c_void,
        weight: *const c_void,
        bias: *const c_void,
        message: *mut c_char,
        length: usize,
    ) -> *mut c_void;
}

/// The linear layer of `x` `[..., inputs]` by `weight` `[outputs, inputs]` and `bias` `[outputs]`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    /// With fewer, ordering the weight takes as long as it saves.
    const ROWS: usize = 512;
    let rows = x.numel() / weight.size()[1].max(1) as usize;
    if rows >= ROWS && x.device() == Device::Cpu && x.kind() == Kind::BFloat16 && *HAS_BF16 {
        return ordered(x, weight, bias).unwrap_or_else(|message| panic!("{message}"));
    }
    x.linear(weight, Some(bias))
}

/// Whether oneDNN is there and has bf16 kernels for this processor.
static HAS_BF16: LazyLock<bool> = LazyLock::new(|| {
    let one = |size: &[i64]| Tensor::ones(size, (Kind::BFloat16, Device::Cpu));
    no_grad(|| ordered(&one(&[1, 1]), &one(&[1, 1]), &one(&[1])).is_ok())
});

fn ordered(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, String> {
    let mut message = [0u8; 512];
    // SAFETY: three live tensors, which the other side reads, and a buffer of the given length, which it writes no further than that,
    // with a zero at its end. No exception crosses: what is thrown comes as null. What is not null is a tensor that is ours.
    unsafe {
        let y = simla_linear(
            x.as_ptr().cast(),
            weight.as_ptr().cast(),
            bias.as_ptr().cast(),
            message.as_mut_ptr().cast(),
            message.len(),
        );
        if !y.is_null() {
            return Ok(Tensor::from_ptr(y.cast()));
        }
    }
    let message = CStr::from_bytes_until_nul(&message).unwrap_or_default();
    Err(message.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: (Kind, Device) = (Kind::BFloat16, Device::Cpu);

    #[test]
    fn values_and_gradients_are_those_of_torch() {
        if !*HAS_BF16 {
            return eprintln!("no bf16 kernels on this processor");
        }
        let random = |size: &[i64]| Tensor::randn(size, OPTIONS) / 8.0;
        let leaf = |size: &[i64]| random(size).set_requires_grad(true);
        let leaves = [leaf(&[3, 200, 48]), leaf(&[40, 24]), leaf(&[40])];
        let [x, weight, bias] = &leaves;
        // Not contiguous, as a part of what a fused product gave.
        let part = x.narrow(-1, 24, 24);
        let weights = random(&[3, 200, 40]);
        let with_gradients = |y: Tensor| {
            let loss = (&y * &weights).sum(Kind::Float);
            let gradients = Tensor::run_backward(&[loss], &leaves, true, false);
            std::iter::once(y).chain(gradients).collect::<Vec<_>>()
        };
        let ours = with_gradients(linear(&part, weight, bias));
        let torchs = with_gradients(part.linear(weight, Some(bias)));
        for (i, (ours, torchs)) in ours.iter().zip(&torchs).enumerate() {
            let largest = torchs.abs().max().double_value(&[]);
            let apart = (ours - torchs).abs().max().double_value(&[]);
            assert_eq!(ours.size(), torchs.size());
            assert!(apart <= largest / 128.0, "{i}: {apart} of {largest}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_no_exception() {
        let x = Tensor::zeros([600, 5], OPTIONS);
        let (weight, bias) = (Tensor::zeros([3, 4], OPTIONS), Tensor::zeros([3], OPTIONS));
        assert!(!ordered(&x, &weight, &bias).unwrap_err().is_empty());
    }
}
