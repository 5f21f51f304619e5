//! Ends a process whose neighbour is gone.
//!
//! gloo says at once that a neighbour's connection has closed, but only to who waits for it: a process in its backward pass, or one whose
//! GPU waits for ever in an exchange of NCCL, hears nothing. So in every process a thread waits for the next one's last word, which comes
//! when that ends in good order. Round the ring, all hear of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use super::AGAIN;
use crate::torch::group::{Group, Seat, Store, end_process};

/// Longer than any run.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// In which the thread that trains may say itself what it noticed.
const GRACE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Watch {
    group: Arc<Group>,
    before: usize,
    leaving: Arc<AtomicBool>,
    /// Held while something is done that should not be cut short.
    busy: Arc<Mutex<()>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watch {
    pub(crate) fn start(store: &Arc<Store>, seat: Seat, hosts: Vec<String>, timeout: Duration) -> Result<Self, String> {
        let Seat { rank, world, .. } = seat;
        let group = Arc::new(Group::join(store, "watch", seat, timeout)?);
        let (leaving, busy) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(())));
        let (listening, left, working) = (Arc::clone(&group), Arc::clone(&leaving), Arc::clone(&busy));
        let listen = move || {
            let next = (rank + 1) % world;
            let Err(reason) = listening.receive(&word(), next, FOR_EVER) else {
                return;
            };
            sleep(GRACE);
            let _undisturbed = working.lock().unwrap_or_else(PoisonError::into_inner);
            if !left.load(Ordering::Relaxed) {
                let (mine, other) = (&hosts[rank], &hosts[next]);
                eprintln!(
                    "error: process {rank} of {world} on {mine} ends: process {next} on {other} is gone ({reason}); {AGAIN}"
                );
                end_process(1);
            }
        };
        let thread = Builder::new().name("simla-watch".into()).spawn(listen).map_err(|error| error.to_string())?;
        Ok(Self { group, before: (rank + world - 1) % world, leaving, busy, thread: Mutex::new(Some(thread)) })
    }

    /// While this is held the process does not end because another one is gone.
    pub(crate) fn undisturbed(&self) -> MutexGuard<'_, ()> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says the last word. From here on the others may go.
    pub(crate) fn leave(&self) {
        if !self.leaving.swap(true, Ordering::Relaxed) {
            // One who is gone does not need to be told.
            let _ = self.group.send(&word(), self.before);
        }
    }

    /// Waits until the next one has left as well.
    pub(crate) fn wait(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join(); // it does not panic
        }
    }
}

fn word() -> Tensor {
    Tensor::zeros([1], (Kind::Uint8, Device::Cpu))
}
