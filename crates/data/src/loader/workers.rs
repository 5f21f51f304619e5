//! Worker threads and what each keeps from record to record.

use std::any::Any;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};
use simla_image::Scratch;

use super::LoadError;

/// One worker's memory.
#[derive(Default)]
pub(super) struct Workbench {
    /// An image file.
    pub bytes: Vec<u8>,
    /// A view at half the side that nobody asked for.
    pub half: Vec<u8>,
    pub scratch: Scratch,
}

/// A pool of `workers` threads; 0 takes one for each core.
pub(super) fn pool(workers: usize) -> Result<ThreadPool, LoadError> {
    ThreadPoolBuilder::new()
        .num_threads(workers)
        .thread_name(|i| format!("simla-data-{i}"))
        .build()
        .map_err(|e| LoadError::Threads(e.to_string()))
}

/// A workbench for each thread of `pool`.
pub(super) fn workbenches(pool: &ThreadPool) -> Vec<Mutex<Workbench>> {
    (0..pool.current_num_threads()).map(|_| Mutex::default()).collect()
}

/// The workbench of the thread that asks, one of the pool's; nobody else locks it.
pub(super) fn bench(benches: &[Mutex<Workbench>]) -> MutexGuard<'_, Workbench> {
    benches[rayon::current_thread_index().unwrap_or(0)].lock().unwrap_or_else(PoisonError::into_inner)
}

impl LoadError {
    /// The error for a panic that was caught.
    pub(super) fn panic(step: u64, panic: Box<dyn Any + Send>) -> Self {
        let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
        let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
        LoadError::Panic { step, message: message.unwrap_or_else(|| "no message".into()) }
    }
}
