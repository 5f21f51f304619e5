//! The command: `cargo run -p simla-fuzz -- --help`. See the library for what it does.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use simla_fuzz::{Attempt, Figures, Target, all, attempt, hold_panics, input};

/// Gives changed files to every reader of strangers' bytes, and says what they did not take well.
#[derive(Parser)]
struct Arguments {
    /// Inputs for each target
    #[arg(long, default_value_t = 10_000)]
    inputs: u64,
    /// Stops each target after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Only the targets of these names
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// The random numbers that inputs are drawn with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints the figures as JSON
    #[arg(long)]
    json: bool,
    /// Reads this input alone, with its panic printed
    #[arg(long, value_name = "NUMBER")]
    input: Option<u64>,
    /// Writes the bytes of `--input` to this file
    #[arg(long, value_name = "FILE", requires = "input")]
    keep: Option<PathBuf>,
    /// Reads from this input on and prints what came of each: what the command starts for itself
    #[arg(long, hide = true)]
    worker: Option<u64>,
}

/// Findings of a target that are printed: the first ones are mended first.
const SHOWN: usize = 10;
/// A reader that says nothing for so long hangs.
const HANG: Duration = Duration::from_secs(60);
/// Address space of a worker: a reader that takes this much ends there and not the machine.
const ADDRESSES: u64 = 8 << 30;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut targets = all();
    let names: Vec<_> = targets.iter().map(|target| target.name).collect();
    if let Some(unknown) = arguments.only.iter().find(|name| !names.contains(&name.as_str())) {
        anyhow::bail!("--only {unknown}: expected one of {}", names.join(", "));
    }
    targets.retain(|target| arguments.only.is_empty() || arguments.only.iter().any(|name| name == target.name));
    if let Some(from) = arguments.worker {
        return work(&targets[0], from, &arguments).map(|()| ExitCode::SUCCESS);
    }
    if let Some(number) = arguments.input {
        ensure!(targets.len() == 1, "--input needs one target: --only NAME");
        return again(&targets[0], number, &arguments).map(|()| ExitCode::SUCCESS);
    }
    let mut figures = Vec::new();
    for target in &targets {
        let found = fuzz(target, &arguments)?;
        if !arguments.json {
            print_row(&found, figures.is_empty());
        }
        figures.push(found);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    }
    for found in &figures {
        for finding in found.findings.iter().take(SHOWN) {
            let (target, seed, input) = (found.target, arguments.seed, finding.input);
            eprintln!(
                "\n--only {target} --seed {seed} --input {input}\n    {}",
                finding.problem.replace('\n', "\n    ")
            );
        }
    }
    Ok(if figures.iter().all(|found| found.findings.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads one input here, where its panic is printed.
fn again(target: &Target, number: u64, arguments: &Arguments) -> Result<()> {
    let bytes = input(target, arguments.seed, number);
    if let Some(path) = &arguments.keep {
        std::fs::write(path, &bytes).with_context(|| path.display().to_string())?;
    }
    let folder = tempfile::tempdir()?;
    println!("{} bytes: {:?}", bytes.len(), target.read(&bytes, folder.path()));
    println!("{:?}", attempt(target, number, &bytes, folder.path()));
    Ok(())
}

/// Reads inputs and prints what came of each, a line of JSON an input.
fn work(target: &Target, from: u64, arguments: &Arguments) -> Result<()> {
    let limit = Rlimit { current: Some(ADDRESSES), ..getrlimit(Resource::As) };
    setrlimit(Resource::As, limit)?;
    hold_panics();
    let folder = tempfile::tempdir()?;
    let mut out = std::io::stdout().lock();
    for number in from..arguments.inputs {
        let bytes = input(target, arguments.seed, number);
        let attempt = attempt(target, number, &bytes, folder.path());
        writeln!(out, "{}", serde_json::to_string(&attempt)?)?;
    }
    Ok(())
}

/// All inputs of a target, in a process of their own, and in another one after each that it did not survive.
fn fuzz(target: &Target, arguments: &Arguments) -> Result<Figures> {
    let started = Instant::now();
    let mut figures = Figures::new(target.name);
    let mut next = 0;
    while next < arguments.inputs {
        let (mut worker, lines) = start(target, next, arguments)?;
        let end = loop {
            if arguments.seconds.is_some_and(|most| started.elapsed() >= Duration::from_secs(most)) {
                worker.kill()?;
                worker.wait()?;
                return Ok(figures);
            }
            match lines.recv_timeout(HANG) {
                Ok(attempt) => {
                    next = attempt.number + 1;
                    figures.add(attempt);
                }
                Err(RecvTimeoutError::Timeout) => {
                    worker.kill()?;
                    worker.wait()?;
                    break format!("says nothing for {HANG:?}");
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = worker.wait()?;
                    if status.success() {
                        return Ok(figures);
                    }
                    ensure!(status.signal().is_some(), "the worker of {} failed: {status}", target.name);
                    break format!("ends the process: {status}");
                }
            }
        };
        figures.add(Attempt { number: next, accepted: false, microseconds: 0, memory: 0, problem: Some(end) });
        next += 1;
    }
    Ok(figures)
}

fn start(target: &Target, from: u64, arguments: &Arguments) -> Result<(Child, Receiver<Attempt>)> {
    let mut command = Command::new(std::env::current_exe()?);
    let [inputs, seed, from] = [arguments.inputs, arguments.seed, from].map(|number| number.to_string());
    command.args(["--only", target.name, "--inputs", &inputs, "--seed", &seed, "--worker", &from]);
    let mut worker =
        command.env("RUST_BACKTRACE", "0").stdout(Stdio::piped()).spawn().context("cannot start a worker")?;
    let out = BufReader::new(worker.stdout.take().context("a worker without output")?);
    let (send, lines) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        let attempts = out.lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok());
        let _ = attempts.map(|attempt| send.send(attempt)).find(Result::is_err);
    });
    Ok((worker, lines))
}

fn print_row(figures: &Figures, first: bool) {
    if first {
        println!(
            "{:<15}{:>8}{:>10}{:>10}{:>12}{:>14}{:>10}",
            "", "inputs", "accepted", "findings", "CPU time", "slowest", "memory"
        );
    }
    let Figures { target, inputs, accepted, seconds, slowest_ms, most_memory, findings } = figures;
    let (findings, memory) = (findings.len(), *most_memory as f64 / f64::from(1 << 20));
    println!(
        "{target:<15}{inputs:>8}{accepted:>10}{findings:>10}{seconds:>10.1} s{slowest_ms:>11.1} ms{memory:>6.1} MiB"
    );
}
