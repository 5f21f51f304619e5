//! `simla bench memory`: the largest batch that fits.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use simla_run::console;
use simla_train::torch::memory::free_gib;
use tch::Device;

/// Says how much memory a pair takes, and the largest batch that fits a budget
///
/// Runs `simla bench step` for two batch sizes, each in a process of its own whose peak the system tells. Between them memory is a
/// fixed part (weights, momentum model, gradients, optimiser) and a part for each pair.
#[derive(Args)]
pub struct Arguments {
    /// Sizes of the model: tiny, small or base
    #[arg(long, default_value = "base")]
    preset: String,
    /// Whose memory: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Type of the matrix products: f32 or bf16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Computes activations again in the backward pass instead of keeping them
    #[arg(long)]
    recompute: bool,
    /// Memory to fill, in GiB; without, what is free now
    #[arg(long)]
    budget: Option<f64>,
    /// Products in f32 in TF32, on a GPU
    #[arg(long)]
    tf32: bool,
    /// The two batch sizes that are run; without, 2 and 6 on a CPU, 16 and 48 on a GPU
    #[arg(long, num_args = 2, value_names = ["SMALL", "LARGE"])]
    batches: Option<Vec<u32>>,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let device = simla_train::torch::device::open(&arguments.device)?;
    let [small, large] = match arguments.batches.as_deref() {
        Some(&[small, large]) => [small, large],
        _ if device == Device::Cpu => [2, 6],
        // A GPU takes memory in large pieces: fewer pairs would not show.
        _ => [16, 48],
    };
    if small < 2 || large <= small {
        bail!("--batches {small} {large}: expected at least 2 pairs, and more in the second");
    }
    let budget = match arguments.budget {
        Some(budget) => budget,
        None => free_gib(device).context("this system does not say how much memory is free: give --budget")?,
    };
    let (low, high) = (peak(&arguments, small)?, peak(&arguments, large)?);
    let Some(a_pair) = of_a_pair((small, low), (large, high)) else {
        bail!(
            "--batches {small} {large}: took {low:.2} and {high:.2} GiB, of which what a pair takes cannot be told; \
             choose more pairs, or two sizes further apart"
        );
    };
    let fixed = low - a_pair * f64::from(small);
    console::answer_json(&json!({
        "what": "memory of a pretrain step",
        "preset": arguments.preset,
        "device": arguments.device,
        "dtype": arguments.dtype,
        "recompute": arguments.recompute,
        "measured_gib": {small.to_string(): low, large.to_string(): high},
        "fixed_gib": fixed,
        "gib_a_pair": a_pair,
        "budget_gib": budget,
        "largest_batch": largest(budget, fixed, a_pair),
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// What each of the pairs between two batches takes; none where the two differ by less than is sure.
fn of_a_pair((small, low): (u32, f64), (large, high): (u32, f64)) -> Option<f64> {
    /// Share of what is measured that differs from run to run.
    const UNSURE: f64 = 0.01;
    (high - low > UNSURE * high).then(|| (high - low) / f64::from(large - small))
}

/// Pairs that fit beside the fixed part; none if fewer than the two that a step needs.
fn largest(budget: f64, fixed: f64, a_pair: f64) -> Option<u64> {
    let pairs = ((budget - fixed) / a_pair).floor();
    (pairs >= 2.0).then_some(pairs as u64)
}

/// Most memory of the device that two steps take in a fresh process, in GiB.
fn peak(arguments: &Arguments, batch: u32) -> Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .args(["bench", "step", "--steps", "1", "--batch", &batch.to_string()])
        .args(["--preset", &arguments.preset, "--dtype", &arguments.dtype])
        .args(["--device", &arguments.device])
        .args(arguments.recompute.then_some("--recompute"))
        .args(arguments.tf32.then_some("--tf32"))
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("a step of {batch} pairs failed ({}); try smaller --batches", output.status);
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    report["peak_gib"].as_f64().context("this system does not say how much memory a process takes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_batch_fills_the_budget_and_no_more() {
        assert_eq!(largest(10.0, 5.0, 0.5), Some(10));
        assert_eq!(largest(9.9, 5.0, 0.5), Some(9));
        assert_eq!(largest(6.0, 5.0, 0.5), Some(2));
        assert_eq!(largest(5.9, 5.0, 0.5), None);
        assert_eq!(largest(4.0, 5.0, 0.5), None);
    }

    #[test]
    fn what_does_not_grow_has_no_slope() {
        assert_eq!(of_a_pair((2, 1.0), (6, 3.0)), Some(0.5));
        for high in [6.0, 6.34, 6.35] {
            assert_eq!(of_a_pair((2, 6.34), (6, high)), None);
        }
    }
}
