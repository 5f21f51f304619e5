//! Which trained model answers, and where it computes: the arguments of every command that asks one.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use simla::tasks::pretrain::Model;
use simla_run::settings::Dtype;
use tch::Device;

/// Where to compute.
#[derive(Args)]
pub struct DeviceArguments {
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

impl DeviceArguments {
    pub fn open(&self) -> Result<Device> {
        Ok(simla_train::torch::device::open(&self.device)?)
    }
}

/// Where to compute, and in which type.
#[derive(Args)]
pub struct ComputeArguments {
    #[command(flatten)]
    pub device: DeviceArguments,
    /// Type of the matrix products: f32 or bf16
    #[arg(long, default_value = "f32", value_parser = dtype)]
    pub dtype: Dtype,
}

pub fn dtype(text: &str) -> Result<Dtype, String> {
    serde_json::from_value(text.into()).map_err(|_| "expected f32 or bf16".into())
}

/// Which model looks, and where it computes.
#[derive(Args)]
pub struct ModelArguments {
    /// A run's folder, or a checkpoint's
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    #[command(flatten)]
    pub device: DeviceArguments,
}

impl ModelArguments {
    pub fn open(&self) -> Result<Model> {
        Ok(Model::open(&self.checkpoint, Dtype::F32.kind(), self.device.open()?)?)
    }
}

/// Which model is measured, where it computes, and in which type.
#[derive(Args)]
pub struct MeasuredArguments {
    /// A run's folder, or a checkpoint's
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    #[command(flatten)]
    pub compute: ComputeArguments,
}

impl MeasuredArguments {
    pub fn open(&self) -> Result<Model> {
        Ok(Model::open(&self.checkpoint, self.compute.dtype.kind(), self.compute.device.open()?)?)
    }
}
