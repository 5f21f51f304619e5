//! NCCL: the exchange of tensors between GPUs, by name from the library that torch's own CUDA library brings into the process.
//!
//! (c10d's ProcessGroupNCCL is in there too, but its header wants those of all of CUDA.) Calls go to torch's current stream in the order
//! of the program: the host waits for none of them.

use std::ffi::{CStr, c_char, c_int, c_void};

use libloading::os::unix::{Library, Symbol};
use tch::{Kind, Tensor};

use super::group::cuda_stream;

/// What all processes of a communicator have to know: rank 0 draws it.
pub const ID_BYTES: usize = 128;

#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; ID_BYTES]);

type Comm = *mut c_void;
type Stream = *mut c_void;
/// 0 for success.
type Status = c_int;

// As in `nccl.h` since 2.0; the numbers of types too, bf16 since 2.10.
type GetErrorString = unsafe extern "C" fn(Status) -> *const c_char;
type GetUniqueId = unsafe extern "C" fn(*mut UniqueId) -> Status;
type InitRank = unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int) -> Status;
type AllReduce = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, Stream) -> Status;
type Broadcast = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, Stream) -> Status;
type AllGather = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, Comm, Stream) -> Status;
type Destroy = unsafe extern "C" fn(Comm) -> Status;
const SUM: c_int = 0;

/// NCCL's number of a type.
fn type_of(kind: Kind) -> Result<c_int, String> {
    match kind {
        Kind::Uint8 => Ok(1),
        Kind::Int64 => Ok(4),
        Kind::Half => Ok(6),
        Kind::Float => Ok(7),
        Kind::Double => Ok(8),
        Kind::BFloat16 => Ok(9),
        kind => Err(format!("NCCL: no exchange of {kind:?}")),
    }
}

/// A function of NCCL, where torch's CUDA library has brought it.
fn function<T>(name: &str) -> Result<Symbol<T>, String> {
    let missing = |error: libloading::Error| {
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        format!("NCCL: {reason}; it comes with torch's CUDA library")
    };
    // SAFETY: the callers ask for each function with its type in `nccl.h`. The library is never closed.
    unsafe { Library::this().get(name.as_bytes()).map_err(missing) }
}

fn check(status: Status) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    let describe = function::<GetErrorString>("ncclGetErrorString")?;
    // SAFETY: a text that is part of the library.
    let text = unsafe { CStr::from_ptr(describe(status)) };
    Err(format!("NCCL: {} (NCCL_DEBUG=WARN says more)", text.to_string_lossy()))
}

/// What the processes that are to be together are given; one of them draws it.
///
/// # Errors
/// If NCCL is not in the process, or it finds no way to the others.
pub fn unique_id() -> Result<[u8; ID_BYTES], String> {
    let draw = function::<GetUniqueId>("ncclGetUniqueId")?;
    let mut id = UniqueId([0; ID_BYTES]);
    // SAFETY: it writes this many bytes.
    check(unsafe { draw(&mut id) })?;
    Ok(id.0)
}

/// The GPUs of all processes. Each makes the same calls in the same order.
#[derive(Debug)]
pub struct Communicator {
    comm: Comm,
    gpu: usize,
    world: i64,
}

// SAFETY: NCCL allows a communicator's calls from any thread, one at a time; they are made from the one that trains.
unsafe impl Send for Communicator {}
unsafe impl Sync for Communicator {}

impl Communicator {
    /// Waits until all `world` processes have called it with the same `id`, each with its own `rank` and a GPU of its own.
    ///
    /// # Errors
    /// What NCCL said, such as two processes on one GPU.
    pub fn join(id: [u8; ID_BYTES], rank: usize, world: usize, gpu: usize) -> Result<Self, String> {
        let set_device = function::<unsafe extern "C" fn(c_int) -> c_int>("cudaSetDevice")?;
        let init = function::<InitRank>("ncclCommInitRank")?;
        let mut comm = std::ptr::null_mut();
        // SAFETY: NCCL takes the device that is the current one; torch sets its own before each of its calls.
        check(unsafe {
            if set_device(gpu as c_int) != 0 {
                return Err(format!("CUDA: GPU {gpu} cannot be used"));
            }
            init(&mut comm, world as c_int, UniqueId(id), rank as c_int)
        })?;
        Ok(Self { comm, gpu, world: world as i64 })
    }

    /// In place of `x`, a tensor of this GPU: the sum over all processes, the same bits on each.
    ///
    /// # Errors
    /// What NCCL said.
    pub fn sum(&self, x: &Tensor) -> Result<(), String> {
        let call = function::<AllReduce>("ncclAllReduce")?;
        let (data, kind, stream) = self.operands(x)?;
        // SAFETY: this many values of this type stand there; torch frees the memory for later work of the same stream only.
        check(unsafe { call(data, data, x.numel(), kind, SUM, self.comm, stream) })
    }

    /// In place of `x`: what it is on rank 0.
    ///
    /// # Errors
    /// What NCCL said.
    pub fn broadcast(&self, x: &Tensor) -> Result<(), String> {
        const FROM: c_int = 0;
        let call = function::<Broadcast>("ncclBroadcast")?;
        let (data, kind, stream) = self.operands(x)?;
        // SAFETY: as in `sum`.
        check(unsafe { call(data, data, x.numel(), kind, FROM, self.comm, stream) })
    }

    /// Into `all` `[world x n, ...]`: `x` `[n, ...]` of every process, in the order of the ranks.
    ///
    /// # Errors
    /// What NCCL said.
    pub fn gather(&self, x: &Tensor, all: &Tensor) -> Result<(), String> {
        let call = function::<AllGather>("ncclAllGather")?;
        let ((from, kind, stream), (to, of_all, _)) = (self.operands(x)?, self.operands(all)?);
        if kind != of_all || all.numel() as i64 != self.world * x.numel() as i64 {
            return Err(format!("NCCL: {:?} of each into {:?}", x.size(), all.size()));
        }
        // SAFETY: as in `sum`; there is room for the values of all.
        check(unsafe { call(from, to, x.numel(), kind, self.comm, stream) })
    }

    /// Where the values are, what they are, and the stream that makes them.
    fn operands(&self, x: &Tensor) -> Result<(*mut c_void, c_int, Stream), String> {
        if x.device() != tch::Device::Cuda(self.gpu) || !x.is_contiguous() {
            return Err(format!("NCCL: a tensor on {:?}, expected contiguous values on GPU {}", x.device(), self.gpu));
        }
        Ok((x.data_ptr(), type_of(x.kind())?, cuda_stream(self.gpu)?))
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if let Ok(destroy) = function::<Destroy>("ncclCommDestroy") {
            // SAFETY: nothing else has it. It waits for what is under way.
            unsafe { destroy(self.comm) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gpu_by_itself_sums_to_what_it_has() {
        let Ok(device) = crate::torch::device::open("cuda:0") else {
            return;
        };
        let alone = Communicator::join(unique_id().unwrap(), 0, 1, 0).unwrap();
        for kind in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half, Kind::Int64, Kind::Uint8] {
            let x = Tensor::arange(1001, (Kind::Float, device)).remainder(16).to_kind(kind);
            let (before, all) = (x.copy(), Tensor::zeros_like(&x));
            alone.sum(&x).unwrap();
            alone.broadcast(&x).unwrap();
            alone.gather(&x, &all).unwrap();
            assert!(x.equal(&before) && all.equal(&before), "{kind:?}");
        }
        let transposed = Tensor::ones([2, 3], (Kind::Float, device)).transpose(0, 1);
        assert!(alone.sum(&transposed).unwrap_err().contains("contiguous"));
        assert!(alone.sum(&Tensor::ones([2], (Kind::Float, tch::Device::Cpu))).is_err());
    }

    #[test]
    fn without_the_cuda_library_it_says_what_is_missing() {
        if !tch::Cuda::is_available() {
            let error = unique_id().unwrap_err();
            assert!(error.contains("ncclGetUniqueId") && error.contains("CUDA library"), "{error}");
            assert!(Communicator::join([0; ID_BYTES], 0, 1, 0).is_err());
        }
    }
}
