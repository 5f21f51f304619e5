//! Fine-tunes a trained model on retrieval with one's own pairs, as `simla finetune retrieval` does, and says what became of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail};
use simla::tasks::pretrain::{Saved, VOCABULARY};
use simla_run::compute::Compute;
use simla_run::fit::Run;
use simla_run::inputs::{Inputs, Kind};
use simla_run::settings::Settings;
use tch::Device;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, pairs, output] = &arguments[..] else {
        bail!("expected three arguments: RUN PAIRS OUTPUT");
    };
    let saved = Saved::open(Path::new(model))?;
    let mut settings = Settings::fine_tuning(Kind::Retrieval, &saved.config, false);
    settings.train.steps = 100;
    settings.saving.keep = 1;
    let inputs = Inputs {
        data: vec![pairs.clone()],
        vocabulary: Some(saved.checkpoint.extra(VOCABULARY)),
        fine_tuned: Some(saved.checkpoint.path),
        ..Inputs::default()
    };
    // Everything that can be wrong with data and settings is said here, before anything is computed.
    let run = Run::prepare(&PathBuf::from(output), settings, inputs, &Compute::alone(Device::Cpu))?;
    let fresh = run.model()?;
    // Another thread, or a signal, may set it: then the step is finished and saved.
    let stop = AtomicBool::new(false);
    let (tuned, ending) = run.train(fresh, None, None, &stop)?;
    println!("{ending:?}: {} tensors in {output}", tuned.named().len());
    Ok(())
}
