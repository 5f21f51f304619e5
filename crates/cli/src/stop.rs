//! SIGINT and SIGTERM: the first finishes the step and saves, the second ends at once.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status of a run that was asked to stop and can be resumed: "try again" among the system's conventions.
pub const STOPPED: u8 = 75;
/// Exit status at the second signal, as a shell reports an interrupted program.
const INTERRUPTED: i32 = 130;

/// A flag that the first signal sets.
pub fn on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: a signal ends the program only if an earlier one has set the flag.
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// The code to exit with.
pub fn code(ending: simla_train::Ending) -> ExitCode {
    match ending {
        simla_train::Ending::Finished => ExitCode::SUCCESS,
        simla_train::Ending::Stopped => ExitCode::from(STOPPED),
    }
}
