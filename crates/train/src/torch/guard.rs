//! The border to libtorch: what it throws becomes an error with advice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

use crate::team::TeamError;

/// Something that libtorch could not do.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum TorchError {
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    #[error("libtorch: {0}")]
    Other(String),
    #[error(transparent)]
    Team(#[from] TeamError),
}

/// What libtorch, or a library that it calls, says where memory is short. cuBLAS and cuDNN do not start without some of their own.
const SHORT_OF_MEMORY: [&str; 7] = [
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
];

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
        let said = first_line(message);
        match SHORT_OF_MEMORY.iter().any(|sign| message.contains(sign)) {
            true => TorchError::OutOfMemory(said),
            false => TorchError::Other(said),
        }
    })
}

/// What libtorch said, of tch's panic about it: without tch's own words, and without the C++ stack trace behind the first line.
fn first_line(message: &str) -> String {
    const OF_TCH: &str = "an `Err` value: Torch(\"";
    let message = message.replace("\\n", "\n").replace("\\\"", "\"");
    let first = message.lines().next().unwrap_or_default();
    let said = first.split_once(OF_TCH).map_or(first, |(_, said)| said.trim_end_matches("\")"));
    said.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn exceptions_become_errors() {
        let x = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        let error = guarded(|| x.matmul(&x)).unwrap_err().to_string();
        assert!(error.starts_with("libtorch: mat1 and mat2") && error.contains("2x3"), "{error}");
        let huge = guarded(|| Tensor::zeros([1 << 50], (Kind::Float, Device::Cpu)));
        assert!(matches!(huge, Err(TorchError::OutOfMemory(_))));
    }

    #[test]
    fn libraries_that_cannot_start_are_short_of_memory_and_tchs_words_are_left_out() {
        let panic = r#"called `Result::unwrap()` on an `Err` value: Torch("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling \"cublasCreate(handle)\"\nException raised from f at g.cpp:1")"#;
        let error = guarded(|| panic!("{panic}")).unwrap_err();
        assert!(matches!(error, TorchError::OutOfMemory(_)));
        let expected = r#"out of memory: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "cublasCreate(handle)""#;
        assert_eq!(error.to_string(), expected);
    }
}
