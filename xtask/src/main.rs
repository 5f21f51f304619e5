//! Sets up libtorch and runs the project's two commands.
//!
//! - [`provision`] decides which libtorch to use: `LIBTORCH`, a Python's, or a download,
//! - [`cache`] keeps the downloaded one, [`pip`] fetches and unpacks its packages,
//! - [`link`] makes the folder `.libtorch` that the build links with,
//! - [`steps`] runs cargo and `simla`.

mod cache;
mod link;
mod pip;
mod provision;
mod steps;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Sets up libtorch by itself, once, and then runs the project's commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
#[command(after_help = "\
libtorch 2.11.0 comes from the first of these that has it:
  1. the folder in the environment variable LIBTORCH (with include/ and lib/),
  2. the torch of the active Python environment or of python3,
  3. a download of about 550 MB with pip, kept in SIMLA_CACHE, else XDG_CACHE_HOME/simla, else ~/.cache/simla.
Afterwards plain `cargo build` and `cargo test` work in this checkout as well.")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Finds or downloads libtorch, and nothing else
    Setup,
    /// Trains on drawn scenes and shows what was learned: `simla demo`, to which further arguments go
    Demo {
        /// Arguments of `simla demo`; `cargo xtask demo --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Checks the format, runs the lints and every test
    ///
    /// Where rustfmt or clippy is missing it is installed with rustup. If that fails too, the step is left out with a
    /// warning, except where the environment variable CI is set: there it is an error.
    Test,
    /// Builds the optimised `simla` and prints where it is
    Build,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no checkout")?;
    let libtorch = provision::libtorch(checkout)?;
    link::make(checkout, &libtorch)?;
    match task {
        Task::Setup => Ok(()),
        Task::Demo { arguments } => steps::demo(checkout, &arguments),
        Task::Test => steps::test(checkout),
        Task::Build => {
            println!("{}", steps::build(checkout)?.display());
            Ok(())
        }
    }
}
