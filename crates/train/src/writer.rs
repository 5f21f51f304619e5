//! Checkpoints are written while training goes on: what is to be written is copied in one go, and a thread of its own does the rest.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use tch::Device;

use crate::checkpoint::{Checkpoints, Contents};
use crate::metrics::Metrics;
use crate::team::Team;
use crate::torch::memory::{GIB, free_gib};
use crate::torch::operations::OnHost;
use crate::trainer::TrainError;

/// A checkpoint that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub step: u64,
    pub path: PathBuf,
}

/// Writes the checkpoints of a run, one at a time.
#[derive(Debug)]
pub(crate) struct Writer {
    checkpoints: Checkpoints,
    writing: Option<JoinHandle<Result<Written, TrainError>>>,
}

impl Writer {
    pub(crate) fn new(checkpoints: Checkpoints) -> Self {
        Self { checkpoints, writing: None }
    }

    /// Begins to write a checkpoint, with the state of this moment whatever becomes of the tensors; `best` marks it as the one to keep.
    /// The lines of `log` are on the disk before it. Where the host has no memory for a copy, it is written before this returns.
    ///
    /// # Panics
    /// Where libtorch fails, and where another is being written.
    pub(crate) fn begin(&mut self, contents: Contents, best: bool, log: Metrics, team: &Arc<Team>) {
        assert!(self.writing.is_none(), "one checkpoint at a time");
        let fits = free_gib(Device::Cpu).is_none_or(|free| free > 2.0 * gib(&contents));
        let copies = fits.then(|| (OnHost::copy(&contents.model), OnHost::copy(&contents.optimizer)));
        let (checkpoints, team) = (self.checkpoints.clone(), Arc::clone(team));
        let write = move || {
            let _undisturbed = team.undisturbed();
            let contents = match copies {
                Some((model, optimizer)) => {
                    Contents { model: model.arrived(), optimizer: optimizer.arrived(), ..contents }
                }
                None => contents,
            };
            log.sync()?;
            Ok(Written { step: contents.step, path: checkpoints.save(contents, best)? })
        };
        let thread = Builder::new().name("simla-writer".into());
        let writing = if fits {
            thread.spawn(write)
        } else {
            let written = write();
            thread.spawn(move || written)
        };
        self.writing = Some(writing.expect("the system starts a thread"));
    }

    /// What was written since this was asked last.
    ///
    /// # Errors
    /// What the system said; the checkpoints before are whole then.
    pub(crate) fn written(&mut self) -> Result<Option<Written>, TrainError> {
        match &self.writing {
            Some(writing) if writing.is_finished() => self.wait(),
            _ => Ok(None),
        }
    }

    /// As [`Writer::written`], and waits for what is being written.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn wait(&mut self) -> Result<Option<Written>, TrainError> {
        let Some(writing) = self.writing.take() else {
            return Ok(None);
        };
        writing.join().unwrap_or_else(|panic| resume_unwind(panic)).map(Some)
    }
}

/// What the tensors of a checkpoint take.
fn gib(contents: &Contents) -> f64 {
    let bytes =
        contents.model.values().chain(contents.optimizer.values()).map(|x| x.numel() * x.kind().elt_size_in_bytes());
    bytes.sum::<usize>() as f64 / GIB
}
