//! `simla bench busy`.

use std::hint::black_box;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use crate::model::dtype;
use anyhow::{Result, bail};
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use simla::config::{ModelConfig, Preset};
use simla::model::Simla;
use simla::objectives::Objectives;
use simla_run::settings::Dtype;
use simla_run::{answer, console};
use simla_train::optim::{AdamW, AdamWConfig};
use simla_train::torch::guard::guarded;
use simla_train::torch::threads::Threads;
use simla_train::weights::Gradients;
use tch::Device;

use super::bench::{ALPHA, model_config, preset, random_inputs};

/// Times the pre-training step beside other programs that compute
///
/// Alone and beside each number of busy processes, in turn and several times over, in one run. A fair share is what a system gives that
/// divides its cores by the threads that want them: with C cores, C of C + N beside N processes.
#[derive(Args)]
pub struct Arguments {
    /// Sizes of the model
    #[arg(long, default_value = "tiny", value_parser = preset)]
    preset: Preset,
    /// Pairs of a step
    #[arg(long, default_value_t = 32)]
    batch: i64,
    /// Type of the matrix products: f32 or bf16
    #[arg(long, default_value = "f32", value_parser = dtype)]
    dtype: Dtype,
    /// Numbers of busy processes
    #[arg(long, value_delimiter = ',', default_value = "1,2,8", value_name = "N,N,...")]
    beside: Vec<usize>,
    /// Threads that calculate; 0 adapts them, as training does
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Length of each measurement
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before it, for the threads to be adapted
    #[arg(long, default_value_t = 10.0)]
    settle: f64,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One JSON object in place of the table
    #[arg(long)]
    json: bool,
}

/// Computes until it is ended
#[derive(Args)]
pub struct Spin {}

/// What was measured beside a number of processes.
#[derive(Serialize)]
struct Beside {
    busy: usize,
    pairs_per_s: f64,
    /// Of what was measured alone.
    fair_share: f64,
    share_of_fair: f64,
    /// In the last round.
    threads: usize,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    if arguments.batch < 2 || arguments.rounds == 0 || !(arguments.seconds > 0.0 && arguments.settle >= 0.0) {
        bail!("--batch, --rounds, --seconds: expected at least 2 pairs, 1 round and more than 0 seconds");
    }
    let found = measure(&arguments)?;
    let cores = available_parallelism().map_or(1, |cores| cores.get());
    if arguments.json {
        let found = serde_json::json!({
            "what": "pretrain step beside busy processes",
            "cores": cores, "preset": arguments.preset, "batch": arguments.batch, "dtype": arguments.dtype, "beside": found,
        });
        console::answer_json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    answer!("{:>4}  {:>9}  {:>10}  {:>13}  {:>7}", "busy", "pairs/s", "fair share", "of fair share", "threads");
    for one in found {
        answer!(
            "{:>4}  {:>9.1}  {:>10.1}  {:>11.0} %  {:>7}",
            one.busy,
            one.pairs_per_s,
            one.fair_share,
            100.0 * one.share_of_fair,
            one.threads
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes a core until it is ended.
pub fn spin(_: Spin) -> Result<ExitCode> {
    let mut state = 1_u64;
    loop {
        state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

fn measure(arguments: &Arguments) -> Result<Vec<Beside>> {
    let config = model_config(arguments.preset);
    let mut step = guarded(|| Step::new(config, arguments))?;
    let numbers: Vec<usize> = std::iter::once(0).chain(arguments.beside.iter().copied()).collect();
    let mut rates = vec![Vec::new(); numbers.len()];
    let mut threads = vec![0; numbers.len()];
    for _ in 0..arguments.rounds {
        for (i, &busy) in numbers.iter().enumerate() {
            let _others: Vec<Busy> = (0..busy).map(|_| Busy::start()).collect::<Result<_>>()?;
            step.run(arguments.settle)?;
            rates[i].push(step.run(arguments.seconds)?);
            threads[i] = step.threads.count();
        }
    }
    let medians: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
    let cores = available_parallelism().map_or(1, |cores| cores.get()) as f64;
    let beside = |((&busy, &pairs_per_s), &threads): ((&usize, &f64), &usize)| {
        let fair_share = medians[0] * cores / (cores + busy as f64);
        Beside { busy, pairs_per_s, fair_share, share_of_fair: pairs_per_s / fair_share, threads }
    };
    Ok(numbers.iter().zip(&medians).zip(&threads).map(beside).collect())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A process that computes, until it is dropped.
struct Busy(Child);

impl Busy {
    fn start() -> Result<Self> {
        let mut program = Command::new(std::env::current_exe()?);
        Ok(Self(program.args(["bench", "spin"]).stdin(Stdio::null()).spawn()?))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing else to do about it.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// The training step on random pairs, always the same.
struct Step {
    model: Simla,
    optimizer: AdamW,
    gradients: Gradients,
    inputs: simla::step::Inputs,
    threads: Threads,
}

impl Step {
    fn new(config: ModelConfig, arguments: &Arguments) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let (inputs, _) = random_inputs(&config, arguments.batch, &mut rng, Device::Cpu);
        let model = Simla::new(config, arguments.dtype.kind(), Device::Cpu, 0);
        Self {
            optimizer: AdamW::new(AdamWConfig::default(), &model.online),
            gradients: Gradients::new(&model.online),
            model,
            inputs,
            threads: Threads::new(arguments.threads),
        }
    }

    /// Pairs a second, over at least so many seconds.
    fn run(&mut self, seconds: f64) -> Result<f64> {
        let pairs = self.inputs.ids.size()[0] as f64;
        let (start, mut steps) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs_f64(seconds) || steps == 0 {
            let began = Instant::now();
            guarded(|| self.step())?;
            self.threads.stepped(began.elapsed());
            steps += 1;
        }
        Ok(pairs * f64::from(steps) / start.elapsed().as_secs_f64())
    }

    fn step(&mut self) {
        let Self { model, optimizer, gradients, inputs, .. } = self;
        gradients.clear();
        model.begin_step();
        let (_, seen) = model.step(inputs, ALPHA, Objectives::default(), gradients);
        optimizer.step(&mut model.online, gradients, 1e-4, 1.0);
        model.queues.push(&seen.image_feat_m, &seen.text_feat_m, None);
    }
}
