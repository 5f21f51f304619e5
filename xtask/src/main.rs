//! Sets up libtorch, runs the project's two commands, and installs the program.
//!
//! - [`provision`] decides which libtorch to use: `LIBTORCH`, a Python's, or a download,
//! - [`cache`] keeps the downloaded one, [`pip`] fetches and unpacks its packages,
//! - [`link`] makes the folder `.libtorch` that the build links with,
//! - [`steps`] runs cargo and `simla`,
//! - [`install`] puts the program where every shell finds it.

mod cache;
mod install;
mod link;
mod pip;
mod provision;
mod steps;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::install::Places;

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
    /// Builds the optimised `simla` and puts it on the PATH, with completions and man pages
    ///
    /// The program goes to ~/.local/bin or ~/.cargo/bin, whichever is on the PATH. It needs the libtorch that this
    /// command names, and this checkout no more.
    Install(Prefix),
    /// Takes away what `cargo xtask install` made
    Uninstall(Prefix),
}

#[derive(Args)]
struct Prefix {
    /// Install to bin/ and share/ of this folder
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
}

impl Prefix {
    fn places(&self) -> Result<Places> {
        match &self.prefix {
            Some(prefix) => Places::under(prefix),
            None => Places::of_user(|name| env::var_os(name)),
        }
    }
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
    if let Task::Uninstall(prefix) = &task {
        return install::uninstall(&prefix.places()?);
    }
    let libtorch = provision::libtorch(checkout)?;
    link::make(checkout, &libtorch)?;
    match task {
        Task::Setup | Task::Uninstall(_) => Ok(()),
        Task::Demo { arguments } => steps::demo(checkout, &arguments),
        Task::Test => steps::test(checkout),
        Task::Build => {
            println!("{}", steps::build(checkout)?.display());
            Ok(())
        }
        Task::Install(prefix) => {
            ensure!(
                !libtorch.lib.starts_with(checkout),
                "the libtorch in {} lies in this checkout, without which the program would not start: set LIBTORCH to one elsewhere",
                libtorch.lib.display()
            );
            install::install(&steps::build(checkout)?, &prefix.places()?)
        }
    }
}
