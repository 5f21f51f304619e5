//! A GPU that is none: in the place of NVIDIA's driver and of `libtorch_cuda.so`, so that an unchanged program computes with `--device cuda`
//! on a machine without a GPU. It says nothing of speed. What it finds:
//!
//! | wrong on a GPU | here |
//! | --- | --- |
//! | the host reads or writes memory of the device | that lies in pages without rights: the process dies, with a word |
//! | operands on host and device, or on two devices | the error that CUDA gives, with the operation's name |
//! | memory of the wrong device | [`Counts::peak_bytes`] of each; on `cuda:1`, the first must have none |
//! | values that nobody wrote | new memory is not a number |
//! | a pinned buffer that is used before its copy has ended | its pages lack the right: the process dies, with a word |
//! | draws from the wrong generator, forgotten seeds | the device's own gives other numbers for the same seed |
//! | attention that no fused kernel takes, or that cuDNN would take | counted as `(attention ...)`; operands are checked as the kernel does |
//! | products in TF32 that should be whole | factors are cut as TF32 cuts them; counted as `... in TF32` |
//! | the host waits for the device | counted by cause |
//! | many small operations | counted by name |
//! | a full device | `SIMULATED_KIB` is the size of each, of `SIMULATED_DEVICES` |
//!
//! It does not show: speed, races between streams, sums in the order of other kernels, types and shapes that a kernel of CUDA lacks, what the
//! true library needs to be loaded. Kernels are those of the CPU, on one thread at a time for runs that repeat bit for bit
//! (`OMP_NUM_THREADS=1`). With another version of libtorch its interface for backends may have moved.

#![warn(missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// Where the device was built.
const FOLDER: &str = env!("OUT_DIR");

/// Has the command find the device as `cuda` and `cuda:1`, and write to `log` what happened there when it ends.
pub fn on_device<'a>(command: &'a mut Command, log: &Path) -> &'a mut Command {
    let driver = format!("{FOLDER}/libcuda.so.1");
    command.env("LIBTORCH", FOLDER).env("LD_PRELOAD", driver).env("SIMULATED_LOG", log).env("OMP_NUM_THREADS", "1")
}

/// What happened on the devices of a process.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Counts {
    /// How often each operation ran.
    pub operations: BTreeMap<String, u64>,
    /// How often the thread that opened the device waited for it, by cause.
    pub waits: BTreeMap<String, u64>,
    /// The same of other threads.
    pub beside: BTreeMap<String, u64>,
    /// The most that was held of each device.
    pub peak_bytes: Vec<u64>,
}

impl Counts {
    /// What a process of [`on_device`] wrote.
    ///
    /// # Panics
    /// If it wrote nothing: it opened no device, or did not come to its end.
    pub fn read(log: &Path) -> Self {
        let text = std::fs::read(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", log.display()))
    }

    /// What one step costs, from a run that did so many `steps` less: its operations and waits.
    pub fn of_a_step(&self, less: &Self, steps: u64) -> (f64, f64) {
        let all = |counts: &BTreeMap<String, u64>| {
            counts.iter().filter(|(name, _)| !name.starts_with('(')).map(|(_, n)| n).sum::<u64>()
        };
        let each =
            |of: fn(&Self) -> &BTreeMap<String, u64>| (all(of(self)) as f64 - all(of(less)) as f64) / steps as f64;
        (each(|counts| &counts.operations), each(|counts| &counts.waits))
    }
}
