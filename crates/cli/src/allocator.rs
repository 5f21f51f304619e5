//! The allocator of the whole program, libtorch included.
//!
//! - mimalloc in place of the system's, which leaves holes between tensors: a sixth of a step's memory at base size.
//! - Freed memory is kept for the next step. A step frees and asks for gigabytes; handing them back to the system in between costs
//!   a quarter of the processor's time in page faults (`benchmarks/LOG.md`), and lowers no peak.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tells the allocator to keep what is freed. Call it first, while there is one thread.
pub fn keep_freed_memory() {
    /// `mi_option_purge_delay` of `mimalloc.h`: milliseconds after which freed memory goes back to the system.
    const PURGE_DELAY: i32 = 15;
    const NEVER: i64 = -1;
    // SAFETY: sets a number of mimalloc's own; not thread-safe, but there is one thread.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, NEVER)
    };
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_freed_stays_with_the_process() {
        const BYTES: usize = 256 << 20;
        keep_freed_memory();
        let touched = |bytes: usize| drop(std::hint::black_box(vec![1u8; bytes]));
        touched(BYTES);
        // mimalloc gives back late, and looks whether it is time when something is freed.
        sleep(Duration::from_millis(300));
        touched(BYTES / 4);
        let held = simla_train::torch::memory::held_gib(tch::Device::Cpu) * f64::from(1 << 30);
        assert!(held >= BYTES as f64, "{held} of {BYTES} bytes");
    }
}
