//! The border to libtorch: what it throws becomes an error with advice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

use crate::team::TeamError;

/// Something that libtorch could not do.
#[derive(Debug, Error)]
pub enum TorchError {
    #[error(
        "out of memory: {0}. Use a smaller batch_size (with accumulate to keep the pairs of a step), \
         recompute=true, or dtype=bf16"
    )]
    OutOfMemory(String),
    #[error("libtorch: {0}")]
    Other(String),
    #[error(transparent)]
    Team(#[from] TeamError),
}

/// Runs `f`; a C++ exception, which tch turns into a panic, becomes an error.
///
/// # Errors
/// What libtorch said, its first line.
pub fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, TorchError> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("unknown failure");
        // Behind the first line stands a C++ stack trace.
        let first = message.replace("\\n", "\n").lines().next().unwrap_or_default().to_owned();
        if message.contains("out of memory")
            || message.contains("not enough memory")
            || message.contains("can't allocate memory")
        {
            TorchError::OutOfMemory(first)
        } else {
            TorchError::Other(first)
        }
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn exceptions_become_errors() {
        let x = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        let error = guarded(|| x.matmul(&x)).unwrap_err().to_string();
        assert!(error.starts_with("libtorch:") && error.contains("2x3"), "{error}");
        let huge = guarded(|| Tensor::zeros([1 << 50], (Kind::Float, Device::Cpu)));
        assert!(matches!(huge, Err(TorchError::OutOfMemory(_))));
    }
}
