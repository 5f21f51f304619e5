//! How much memory the process takes, on the host and on a GPU.

use std::ffi::c_int;

use libloading::os::unix::Library;
use tch::Device;

/// Bytes of a GiB.
pub const GIB: f64 = (1u64 << 30) as f64;

/// The most memory of a device that a process holds, from when it is made.
#[derive(Debug)]
pub struct Peak {
    device: Device,
    /// Before anything was taken.
    free: Option<f64>,
}

impl Peak {
    /// Make this right after the device was opened.
    pub fn of(device: Device) -> Self {
        Self { device, free: free_gib(device) }
    }

    /// In GiB; none where the system does not say. On the CPU: what the process has ever held, the program itself included. On a
    /// GPU: what is no longer free there, for libtorch keeps what it ever took; another process that takes some meanwhile counts too.
    pub fn gib(&self) -> Option<f64> {
        match self.device {
            Device::Cpu => kibibytes("/proc/self/status", "VmHWM:"),
            device => Some(self.free? - free_gib(device)?),
        }
    }
}

/// Memory of the device that is free, or on the host can be freed at once, in GiB; none where the system does not say.
pub fn free_gib(device: Device) -> Option<f64> {
    match device {
        Device::Cpu => kibibytes("/proc/meminfo", "MemAvailable:"),
        Device::Cuda(index) => Some(gpu_gib(index)?.0),
        _ => None,
    }
}

/// Memory of the host that the process holds now, or all that is held of a GPU, in GiB; 0 where the system does not say.
pub fn held_gib(device: Device) -> f64 {
    match device {
        Device::Cuda(index) => gpu_gib(index).map_or(0.0, |(free, total)| total - free),
        _ => memory_stats::memory_stats().map_or(0.0, |stats| stats.physical_mem as f64 / GIB),
    }
}

/// Free and in all, of a GPU. Asks the CUDA runtime that libtorch brought into the process.
fn gpu_gib(index: usize) -> Option<(f64, f64)> {
    let index = c_int::try_from(index).ok()?;
    let runtime = Library::this();
    let (mut free, mut total) = (0usize, 0usize);
    // SAFETY: the two functions have these types in `cuda_runtime_api.h`. The runtime belongs to this thread's libtorch, which sets
    // the device that it wants before each of its own calls.
    unsafe {
        let set_device = runtime.get::<unsafe extern "C" fn(c_int) -> c_int>(b"cudaSetDevice\0").ok()?;
        let memory = runtime.get::<unsafe extern "C" fn(*mut usize, *mut usize) -> c_int>(b"cudaMemGetInfo\0").ok()?;
        (set_device(index) == 0 && memory(&raw mut free, &raw mut total) == 0)
            .then(|| (free as f64 / GIB, total as f64 / GIB))
    }
}

/// The value of a line `name  1234 kB`, in GiB.
fn kibibytes(file: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / GIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_holds_some_of_what_was_free() {
        let peak = Peak::of(Device::Cpu);
        let now = held_gib(Device::Cpu); // first: the tests beside this one take more
        let held = peak.gib().expect("this system says");
        assert!(held >= now * 0.9 && held < 1024.0, "{held}");
        assert!(free_gib(Device::Cpu).expect("this system says") > 0.0);
    }

    #[test]
    fn memory_of_a_gpu_that_is_not_there_is_unknown() {
        assert_eq!((free_gib(Device::Cuda(127)), held_gib(Device::Cuda(127))), (None, 0.0));
        assert_eq!(Peak::of(Device::Cuda(127)).gib(), None);
    }
}
