//! One input after the other, each with a look at the clock, at the memory and at panics.

use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use peak_alloc::PeakAlloc;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::mutate::mutated;
use crate::targets::Target;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The first panic of an input: where it was and what it said.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Inputs without a repair, so that wrong checksums and lengths are tried as well.
const UNREPAIRED: f64 = 0.25;
/// Bytes of a refusal: nobody reads more, and a log of a million of them must not fill a disk.
const MESSAGE: usize = 4 << 10;

/// What came of one input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number.
    pub number: u64,
    /// Whether the reader took it; else it was refused, or is a finding.
    pub accepted: bool,
    /// Processor time of all threads in microseconds.
    pub microseconds: u64,
    /// Most memory in bytes, beyond what was taken before.
    pub memory: usize,
    /// Why it is a finding.
    pub problem: Option<String>,
}

/// An input that a reader did not take well.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The input's number.
    pub input: u64,
    /// What happened.
    pub problem: String,
}

/// What came of all inputs of a target.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// The target's name.
    pub target: &'static str,
    /// Inputs that were read.
    pub inputs: u64,
    /// Inputs that the reader took.
    pub accepted: u64,
    /// Processor time of all inputs in seconds.
    pub seconds: f64,
    /// Processor time of the slowest input in milliseconds.
    pub slowest_ms: f64,
    /// Memory of the input that took most, in bytes.
    pub most_memory: usize,
    /// Inputs that were not taken well.
    pub findings: Vec<Finding>,
}

impl Figures {
    /// None yet.
    pub fn new(target: &'static str) -> Self {
        Self { target, inputs: 0, accepted: 0, seconds: 0.0, slowest_ms: 0.0, most_memory: 0, findings: Vec::new() }
    }

    /// Counts an input.
    pub fn add(&mut self, attempt: Attempt) {
        let Attempt { number, accepted, microseconds, memory, problem } = attempt;
        self.inputs += 1;
        self.accepted += u64::from(accepted);
        self.seconds += microseconds as f64 / 1e6;
        self.slowest_ms = self.slowest_ms.max(microseconds as f64 / 1e3);
        self.most_memory = self.most_memory.max(memory);
        self.findings.extend(problem.map(|problem| Finding { input: number, problem }));
    }
}

/// Input `number` of a target in the run of `seed`.
pub fn input(target: &Target, seed: u64, number: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    let mut bytes = mutated(&target.seeds, &target.words, &mut rng);
    if !rng.random_bool(UNREPAIRED) {
        (target.repair)(&mut bytes);
    }
    bytes
}

/// From now on panics are kept for [`attempt`] and not printed.
pub fn hold_panics() {
    panic::set_hook(Box::new(|panic| {
        PANIC.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| panic.to_string());
    }));
}

/// Gives an input to its reader. One at a time: what is measured is the whole process.
pub fn attempt(target: &Target, number: u64, bytes: &[u8], folder: &Path) -> Attempt {
    let (before, start) = (MEMORY.current_usage(), busy());
    MEMORY.reset_peak_usage();
    let outcome = catch_unwind(AssertUnwindSafe(|| target.read(bytes, folder)));
    let (time, memory) = (busy() - start, MEMORY.peak_usage().saturating_sub(before));
    let held = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    let problem = match &outcome {
        Err(_) => Some(held.unwrap_or_else(|| "panicked".into())),
        Ok(_) if held.is_some() => held.map(|panic| format!("held: {panic}")),
        _ if time > target.bounds.time => Some(format!("took {time:?} of processor time")),
        _ if memory > target.bounds.memory => Some(format!("took {} MiB of memory", memory >> 20)),
        Ok(Err(message)) if message.len() > MESSAGE => Some(format!("refused in {} bytes", message.len())),
        Ok(_) => None,
    };
    Attempt { number, accepted: matches!(outcome, Ok(Ok(()))), microseconds: time.as_micros() as u64, memory, problem }
}

/// Processor time of this process: other programs run at the same time.
fn busy() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repair;
    use crate::targets::{Bounds, Reader};

    /// What is found of a reader that gets nothing.
    fn problem(read: impl Fn() -> Result<(), String> + 'static) -> Option<String> {
        let read: Reader = Box::new(move |_, _| read());
        let bounds = Bounds { time: Duration::from_millis(200), memory: 1 << 20 };
        let target = Target { name: "", seeds: vec![], words: vec![], repair: repair::nothing, bounds, read };
        attempt(&target, 7, b"", Path::new("")).problem
    }

    /// One test, since time and memory of the whole process are measured.
    #[test]
    fn whatever_a_reader_does_not_take_well_is_found() {
        hold_panics();
        assert_eq!(problem(|| Ok(())), None);
        assert_eq!(problem(|| Err("refused".into())), None);
        let found = |read: fn() -> Result<(), String>, words: &str| {
            let problem = problem(read).unwrap();
            assert!(problem.contains(words), "{problem}");
        };
        found(|| panic!("at the disco"), "at the disco");
        found(|| std::panic::catch_unwind(|| panic!("at the disco")).or(Ok(())), "held: ");
        found(|| Err("a".repeat(5000)), "refused in 5000 bytes");
        found(
            || {
                std::hint::black_box(vec![0_u8; 3 << 20]);
                Ok(())
            },
            "took 3 MiB of memory",
        );
        found(
            || {
                let start = busy();
                while busy() - start < Duration::from_millis(300) {}
                Ok(())
            },
            "of processor time",
        );
        assert_eq!(problem(|| Ok(())), None, "what was before does not count");
    }
}
