//! `simla report`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla_pictures::page::{save_comparison, save_report};
use simla_pictures::run::RunFolder;
use simla_run::answer;
use simla_run::output::check_file;

/// Makes an HTML page of a run: its curves, evaluations, samples and settings
///
/// One file without scripts or requests, which any browser shows. A run that goes on can be reported at any time. Of several runs,
/// the page compares the curves.
#[derive(Args)]
pub struct Arguments {
    /// Folders of runs
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page [default: report.html in the run's folder, or comparison.html here]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrites the file that --output names
    #[arg(long)]
    force: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let runs = arguments.runs.iter().map(|path| RunFolder::open(path));
    let runs = runs.collect::<Result<Vec<_>, _>>()?;
    if let Some(output) = &arguments.output {
        check_file(Some(output), &["html"], arguments.force, Vec::new)?;
    }
    let output = match &runs[..] {
        [run] => {
            let output = arguments.output.unwrap_or_else(|| run.path().join("report.html"));
            save_report(run, &output)?;
            output
        }
        runs => {
            let output = arguments.output.unwrap_or("comparison.html".into());
            save_comparison(runs, &output)?;
            output
        }
    };
    answer!("{}", output.display());
    Ok(ExitCode::SUCCESS)
}
