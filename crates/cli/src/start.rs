//! Weights that a run starts from (`--init`): folders of `simla import`, or of earlier runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use simla::import;
use simla::model::Simla;
use simla::tasks::pretrain::VOCABULARY;
use simla_train::checkpoint::Checkpoint;

/// The vocabulary that belongs to the words of the last folder that has words; none where no folder has any.
///
/// # Errors
/// A folder that is no checkpoint of such weights, or has words without their vocabulary where none is `given` either: a
/// learned vocabulary would give every word the meaning of another.
pub fn vocabulary(init: &[PathBuf], given: Option<&Path>) -> Result<Option<PathBuf>> {
    let mut found = None;
    for folder in init {
        let checkpoint = open(folder)?;
        let vocabulary = checkpoint.extra(VOCABULARY);
        if vocabulary.exists() {
            found = Some(vocabulary);
        } else if given.is_none() && checkpoint.state.config["words"] == true {
            bail!(
                "--init {}: its words have no vocabulary; pass --vocabulary with the vocab.txt that they were trained with",
                folder.display()
            );
        }
    }
    Ok(found)
}

/// Puts the weights into a fresh model.
///
/// # Errors
/// Weights that do not fit the model, with the first tensor that does not.
pub fn weights(simla: &mut Simla, init: &[PathBuf]) -> Result<()> {
    for folder in init {
        let checkpoint = open(folder)?;
        checkpoint.verify()?;
        let of = simla.online.named().len();
        let taken = import::start(simla, checkpoint.model()?).with_context(|| {
            format!(
                "--init {}: the sizes of the run must be those of the weights (preset=base for the published ones)",
                folder.display()
            )
        })?;
        eprintln!("{taken} of {of} tensors from {}", folder.display());
    }
    Ok(())
}

fn open(folder: &Path) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(folder).context("--init")?;
    if checkpoint.state.task == simla::dvae::TASK {
        bail!("--init {}: a visual tokenizer; pass it as --dvae", folder.display());
    }
    Ok(checkpoint)
}
