//! A tensor's bytes and what they mean.

use half::{bf16, f16};

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum DType {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }

    /// The type behind a storage class of PyTorch, `FloatStorage` for one.
    pub(crate) fn from_storage_class(name: &str) -> Option<Self> {
        Some(match name {
            "BoolStorage" => Self::Bool,
            "ByteStorage" => Self::U8,
            "CharStorage" => Self::I8,
            "ShortStorage" => Self::I16,
            "IntStorage" => Self::I32,
            "LongStorage" => Self::I64,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "FloatStorage" => Self::F32,
            "DoubleStorage" => Self::F64,
            _ => return None,
        })
    }

    /// The storage class of PyTorch that has such elements.
    pub(crate) fn storage_class(self) -> &'static str {
        match self {
            Self::Bool => "BoolStorage",
            Self::U8 => "ByteStorage",
            Self::I8 => "CharStorage",
            Self::I16 => "ShortStorage",
            Self::I32 => "IntStorage",
            Self::I64 => "LongStorage",
            Self::F16 => "HalfStorage",
            Self::BF16 => "BFloat16Storage",
            Self::F32 => "FloatStorage",
            Self::F64 => "DoubleStorage",
        }
    }

    pub(crate) fn from_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype;
        Some(match dtype {
            Dtype::BOOL => Self::Bool,
            Dtype::U8 => Self::U8,
            Dtype::I8 => Self::I8,
            Dtype::I16 => Self::I16,
            Dtype::I32 => Self::I32,
            Dtype::I64 => Self::I64,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::F32 => Self::F32,
            Dtype::F64 => Self::F64,
            _ => return None,
        })
    }
}

/// A tensor in memory: contiguous (last dimension fastest), little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Type of the elements.
    pub dtype: DType,
    /// Size of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    /// `shape`'s product times `dtype.size()` bytes.
    pub bytes: Vec<u8>,
}

/// Applies `$f` to each element, read as `$from` in little-endian order.
macro_rules! elements {
    ($bytes:expr, $from:ty, $f:expr) => {
        $bytes.as_chunks::<{ size_of::<$from>() }>().0.iter().map(|b| $f(<$from>::from_le_bytes(*b))).collect()
    };
}

impl Tensor {
    /// The elements as 32-bit floats: wider types are rounded, halves widened, integers converted, booleans 0 or 1.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::Bool => elements!(self.bytes, u8, |x| f32::from(u8::from(x != 0))),
            DType::U8 => elements!(self.bytes, u8, f32::from),
            DType::I8 => elements!(self.bytes, i8, f32::from),
            DType::I16 => elements!(self.bytes, i16, f32::from),
            DType::I32 => elements!(self.bytes, i32, |x| x as f32),
            DType::I64 => elements!(self.bytes, i64, |x| x as f32),
            DType::F16 => elements!(self.bytes, f16, f16::to_f32),
            DType::BF16 => elements!(self.bytes, bf16, bf16::to_f32),
            DType::F32 => elements!(self.bytes, f32, |x| x),
            DType::F64 => elements!(self.bytes, f64, |x| x as f32),
        }
    }

    /// The elements as 64-bit integers; `None` when they are not integers.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        Some(match self.dtype {
            DType::Bool => elements!(self.bytes, u8, |x| i64::from(x != 0)),
            DType::U8 => elements!(self.bytes, u8, i64::from),
            DType::I8 => elements!(self.bytes, i8, i64::from),
            DType::I16 => elements!(self.bytes, i16, i64::from),
            DType::I32 => elements!(self.bytes, i32, i64::from),
            DType::I64 => elements!(self.bytes, i64, |x| x),
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => return None,
        })
    }
}
