//! SIGINT, SIGTERM and SIGHUP: the first finishes the step and saves, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status at the second signal, as a shell reports an interrupted program.
const INTERRUPTED: i32 = 130;

/// Exit status of a run that was asked to stop and can be resumed: "try again" among the system's conventions.
pub const STOPPED: u8 = 75;

/// A flag that the first signal sets.
pub fn on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    // Where `nohup` has said that the terminal is no concern, it is none.
    let signals = [SIGINT, SIGTERM].into_iter().chain((!is_ignored(SIGHUP)).then_some(SIGHUP));
    for signal in signals {
        // In this order: a signal ends the program only if an earlier one has set the flag.
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Whether whoever started the program has it ignore this signal; where the system does not say: no.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
