//! Which trained model answers: the arguments of every command that asks one.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use simla::tasks::pretrain::Model;
use simla_run::settings::Dtype;
use tch::Device;

/// Which model looks, and where it computes.
#[derive(Args)]
pub struct ModelArguments {
    /// A run's folder, or a checkpoint's
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

impl ModelArguments {
    pub fn open(&self) -> Result<Model> {
        Ok(Model::open(&self.checkpoint, Dtype::F32.kind(), self.device()?)?)
    }

    pub fn device(&self) -> Result<Device> {
        Ok(simla_train::torch::device::open(&self.device)?)
    }
}
