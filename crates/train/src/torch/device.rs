//! Opens the device that training and evaluation run on.
//!
//! The program is linked with the CPU libraries of libtorch only. When a GPU is asked for, `libtorch_cuda.so` of the same
//! version is opened, whose kernels add themselves to the running libtorch. So one program serves machines with and without a GPU.

use std::ffi::c_int;
use std::path::PathBuf;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use simla_libtorch::{CUDA_LIBRARY, Libtorch, NoCuda, VERSION};
use tch::{Cuda, Device, Kind, TchError, Tensor};

/// The NVIDIA driver's own library.
const DRIVER_LIBRARY: &str = "libcuda.so.1";
/// The GPU that is first, or the process's own.
const ANY_GPU: &str = "cuda";
/// `CUDA_ERROR_NO_DEVICE` of the driver's interface.
const NO_DEVICE: c_int = 100;

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The name is none of `cpu`, `cuda`, `cuda:N`.
    #[error("unknown device `{name}`: expected `cpu`, `cuda` or `cuda:N` with the number N of a GPU, such as `cuda:0`")]
    UnknownName {
        /// What was asked for.
        name: String,
    },
    /// The machine has no NVIDIA driver.
    #[error("device `{name}`: this machine has no NVIDIA driver ({reason}); install one, or use the device `cpu`")]
    NoDriver {
        /// What was asked for.
        name: String,
        /// What the system said.
        reason: String,
    },
    /// The driver does not work.
    #[error("device `{name}`: the NVIDIA driver does not work (its error {code}); `nvidia-smi` may say more")]
    Driver {
        /// What was asked for.
        name: String,
        /// The number of the driver's error.
        code: c_int,
    },
    /// Each process of a run has its own GPU.
    #[error(
        "device `{name}`: this is one of several processes, each of which takes the GPU of its number on this machine; \
         expected `cuda`, with CUDA_VISIBLE_DEVICES for a choice"
    )]
    OneForAll {
        /// What was asked for.
        name: String,
    },
    /// There is no GPU, or not so many.
    #[error(
        "device `{name}`: this machine has {count} usable GPUs, counted from 0; see `nvidia-smi` and the variable CUDA_VISIBLE_DEVICES"
    )]
    NoSuchGpu {
        /// What was asked for.
        name: String,
        /// How many GPUs the driver offers.
        count: usize,
    },
    /// There is no libtorch with CUDA.
    #[error("device `{name}`: {reason}")]
    NoCudaLibrary {
        /// What was asked for.
        name: String,
        /// The places that were looked at and what was wrong with each.
        reason: NoCuda,
    },
    /// The library is there, but cannot be opened.
    #[error("device `{name}`: {} does not load: {reason}; install it anew with `pip install torch=={VERSION}`", path.display())]
    Unloadable {
        /// What was asked for.
        name: String,
        /// The library.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// libtorch does not see the GPUs that the driver sees.
    #[error(
        "device `{name}`: libtorch {libtorch} of {} finds no GPU, though the driver has {count}: the driver may be too old for it{}; `nvidia-smi` shows the driver's version; update the driver, or use the device `cpu`",
        libtorch.root.display(),
        libtorch.oldest_driver().map(|number| format!(" (this build needs {number} or newer)")).unwrap_or_default()
    )]
    Unsupported {
        /// What was asked for.
        name: String,
        /// The libtorch with CUDA.
        libtorch: Libtorch,
        /// How many GPUs the driver offers.
        count: usize,
    },
    /// libtorch was asked about CUDA before [`open`] and will now say for ever that there is none.
    #[error("device `{name}`: libtorch was used before the device was opened; open the device first")]
    TooLate {
        /// What was asked for.
        name: String,
    },
    /// The first calculation on the device failed.
    #[error("device `{name}` does not work: {reason}")]
    Torch {
        /// What was asked for.
        name: String,
        /// What libtorch said.
        reason: String,
    },
}

/// Opens the device with the name `cpu`, `cuda` (the first GPU) or `cuda:N`.
///
/// Call this before anything else of libtorch: on its first question about CUDA, such as a seed being set, libtorch
/// decides once whether there is any.
///
/// # Errors
/// If the name is unknown, or the GPU cannot be used: there is no driver, no such GPU, no CUDA build of libtorch of the
/// same version, or the first calculation fails. Each error says what to do.
pub fn open(name: &str) -> Result<Device, DeviceError> {
    match gpu_index(name)? {
        None => Ok(Device::Cpu),
        Some(index) => open_gpu(name, index, driver_gpus(name)?),
    }
}

/// As [`open`], for one of several processes of a run, which is the `nth` of this machine: `cuda` is its own GPU, or the one that it sees.
///
/// # Errors
/// As [`open`]; and `cuda:N`, which would be the same for all.
pub fn open_nth(name: &str, nth: usize) -> Result<Device, DeviceError> {
    match gpu_index(name)? {
        None => Ok(Device::Cpu),
        Some(_) if name != ANY_GPU => Err(DeviceError::OneForAll { name: name.into() }),
        Some(_) => {
            let count = driver_gpus(name)?;
            open_gpu(name, if count == 1 { 0 } else { nth }, count)
        }
    }
}

fn open_gpu(name: &str, index: usize, count: usize) -> Result<Device, DeviceError> {
    if index >= count {
        return Err(DeviceError::NoSuchGpu { name: name.into(), count });
    }
    let libtorch = load_cuda_library(name)?;
    if Cuda::device_count() <= index as i64 {
        return Err(DeviceError::Unsupported { name: name.into(), libtorch, count });
    }
    let device = Device::Cuda(index);
    first_calculation(device).map_err(|error| {
        // The lines after the first are addresses in libtorch.
        let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
        DeviceError::Torch { name: name.into(), reason }
    })?;
    Ok(device)
}

/// The number of the GPU, or nothing for `cpu`.
fn gpu_index(name: &str) -> Result<Option<usize>, DeviceError> {
    let unknown = || DeviceError::UnknownName { name: name.into() };
    match name {
        "cpu" => Ok(None),
        ANY_GPU => Ok(Some(0)),
        _ => {
            let digits = name.strip_prefix("cuda:").ok_or_else(unknown)?;
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            // libtorch counts GPUs in a byte.
            let index: u8 = digits.parse().ok().filter(|index| plain && *index <= i8::MAX as u8).ok_or_else(unknown)?;
            Ok(Some(index.into()))
        }
    }
}

/// How many GPUs the NVIDIA driver offers to this process; `name` is what was asked for. It is asked before libtorch, which is half a
/// gigabyte to load.
///
/// # Errors
/// If there is no driver, or it does not work.
pub fn driver_gpus(name: &str) -> Result<usize, DeviceError> {
    let no_driver = |error: libloading::Error| DeviceError::NoDriver { name: name.into(), reason: reason(&error) };
    let driver_error = |code| match code {
        0 => Ok(()),
        NO_DEVICE => Err(DeviceError::NoSuchGpu { name: name.into(), count: 0 }),
        code => Err(DeviceError::Driver { name: name.into(), code }),
    };
    let mut count: c_int = 0;
    // SAFETY: the driver's library may be loaded by any program. The two functions have these types in `cuda.h`, since CUDA 2.
    // The library stays loaded: libtorch uses it next.
    unsafe {
        let driver = std::mem::ManuallyDrop::new(Library::open(Some(DRIVER_LIBRARY), RTLD_NOW).map_err(no_driver)?);
        let initialise = driver.get::<unsafe extern "C" fn(u32) -> c_int>(b"cuInit\0").map_err(no_driver)?;
        let count_gpus =
            driver.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDeviceGetCount\0").map_err(no_driver)?;
        driver_error(initialise(0))?;
        driver_error(count_gpus(&mut count))?;
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Opens `libtorch_cuda.so`, for the rest of the program, and returns the libtorch that it is of.
fn load_cuda_library(name: &str) -> Result<Libtorch, DeviceError> {
    let found = simla_libtorch::with_cuda().map(|found| (found.lib().join(CUDA_LIBRARY), found));
    let (path, libtorch) = found.map_err(|reason| DeviceError::NoCudaLibrary { name: name.into(), reason })?;
    // SAFETY: the library is made to be loaded into a program with the `libtorch_cpu.so` of the same build, which is checked.
    // Its constructors register kernels. It is never closed: libtorch keeps pointers into it.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    match library {
        Ok(library) => std::mem::forget(library),
        Err(error) => {
            return Err(DeviceError::Unloadable { name: name.into(), path, reason: reason(&error) });
        }
    }
    if !tch::utils::has_cudart() {
        return Err(DeviceError::TooLate { name: name.into() });
    }
    Ok(libtorch)
}

/// Adds two numbers on the device, so that what does not work fails now.
fn first_calculation(device: Device) -> Result<(), TchError> {
    let one = Tensor::f_ones([1], (Kind::Float, device))?;
    let two = one.f_add(&one)?.f_to_device(Device::Cpu)?;
    two.f_double_value(&[0]).map(|_| ())
}

/// What the system said about a library.
fn reason(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

/// A tensor of the host on the device. To a GPU it goes by way of pinned memory: the host waits neither for the copy nor for what the
/// device has still to do before it.
pub fn upload(x: &Tensor, device: Device) -> Tensor {
    const ASYNCHRONOUS: bool = true;
    match device {
        // Not `pin_memory`, which warns that the device, which tch always passes, is no longer needed.
        Device::Cuda(_) => x.internal_pin_memory(device).to_device_(device, x.kind(), ASYNCHRONOUS, false),
        _ => x.to(device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        assert_eq!(open("cpu").unwrap(), Device::Cpu);
        assert_eq!(gpu_index("cuda").unwrap(), Some(0));
        assert_eq!(gpu_index("cuda:3").unwrap(), Some(3));
        for name in [
            "",
            "gpu",
            "CPU",
            "cuda:",
            "cuda:-1",
            "cuda:+1",
            "cuda: 1",
            "cuda:1 ",
            "cuda:128",
            "cuda:99999999999999999999",
            "cuda:0x1",
            "cpu:0",
        ] {
            let error = open(name).unwrap_err();
            assert!(matches!(&error, DeviceError::UnknownName { .. }), "{name}: {error}");
            assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
        }
    }

    #[test]
    fn processes_of_a_run_do_not_all_have_the_same_gpu() {
        assert_eq!(open_nth("cpu", 3).unwrap(), Device::Cpu);
        let error = open_nth("cuda:1", 1).unwrap_err();
        assert!(matches!(&error, DeviceError::OneForAll { .. }), "{error}");
    }

    /// Whatever machine this runs on, there are not 128 GPUs.
    #[test]
    fn a_gpu_that_is_not_there_is_an_error_that_says_so() {
        let error = open("cuda:127").unwrap_err();
        let known =
            matches!(error, DeviceError::NoDriver { .. } | DeviceError::NoSuchGpu { .. } | DeviceError::Driver { .. });
        assert!(known, "{error}");
        assert!(error.to_string().contains("`cuda:127`"), "{error}");
    }

    #[test]
    fn a_driver_that_may_be_too_old_is_told_the_number() {
        let of = |build: &str| {
            let libtorch = Libtorch { root: "/torch".into(), build: Some(build.into()) };
            DeviceError::Unsupported { name: "cuda".into(), libtorch, count: 1 }.to_string()
        };
        assert!(of("cu130").contains("libtorch 2.11.0+cu130 of /torch") && of("cu130").contains("580 or newer"));
        assert!(of("cu126").contains("525 or newer"));
    }

    #[test]
    fn the_running_libtorch_is_known_and_of_the_right_version() {
        assert!(tch::Tensor::from(1.0).double_value(&[]) == 1.0); // keeps libtorch linked
        assert!(simla_libtorch::running().is_some());
    }
}
