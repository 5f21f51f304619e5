//! Several runs on one page: the same number of each in one chart.

use super::words::{clipped, grouped};
use super::{Newer, plots, shell};
use crate::canvas::save_bytes;
use crate::charts;
use crate::error::PicturesError;
use crate::metrics::Metrics;
use crate::numbers::short_number;
use crate::run::RunFolder;
use maud::html;
use std::collections::BTreeSet;
use std::path::Path;

/// A page that compares runs: their last numbers in a table, and a chart for each number.
///
/// # Errors
/// When a file of a run is there and cannot be read.
pub fn comparison(runs: &[RunFolder]) -> Result<String, PicturesError> {
    compared(runs, Newer::Never)
}

/// The same for a server, whose `script` keeps it new; a link leads `back`.
///
/// # Errors
/// When a file of a run is there and cannot be read.
pub fn comparison_alive(runs: &[RunFolder], back: &str, script: &str) -> Result<String, PicturesError> {
    compared(runs, Newer::Served { back, script })
}

fn compared(runs: &[RunFolder], newer: Newer) -> Result<String, PicturesError> {
    let mut read = Vec::with_capacity(runs.len());
    for run in runs {
        read.push((run.name(), run.metrics()?));
    }
    let names: BTreeSet<&String> = read.iter().flat_map(|(_, metrics)| metrics.last.keys()).collect();
    let number =
        |metrics: &Metrics, name: &String| metrics.last.get(name).map_or("-".into(), |number| short_number(*number));
    let curves = charts::of_runs(&read);
    let body = html! {
        h1 { "Runs compared" }
        h2 { "Last step" }
        div class="scroll" {
            table {
                thead { tr {
                    th { "run" } th { "step" }
                    @for name in &names { th { (clipped(name)) } }
                } }
                @for (run, metrics) in &read {
                    tr {
                        td { (clipped(run)) }
                        td { (metrics.last_step.map_or("-".into(), grouped)) }
                        @for name in &names { td { (number(metrics, name)) } }
                    }
                }
            }
        }
        h2 { "Curves" }
        (plots(&curves.iter().collect::<Vec<_>>()))
    };
    Ok(shell("Runs compared", newer, &body).into_string())
}

/// Writes the page that compares runs to `path`, whole or not at all.
///
/// # Errors
/// When a run cannot be read or the page not be written.
pub fn save_comparison(runs: &[RunFolder], path: &Path) -> Result<(), PicturesError> {
    save_bytes(comparison(runs)?.as_bytes(), path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stand_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let runs: Vec<RunFolder> = ["plain", "<b>bold"]
            .iter()
            .map(|name| {
                let path = folder.path().join(name);
                std::fs::create_dir(&path).unwrap();
                let lines = "{\"step\":1,\"loss\":4.5}\n{\"step\":2,\"loss\":3.25}\n";
                std::fs::write(path.join("metrics.jsonl"), lines).unwrap();
                RunFolder::open(&path).unwrap()
            })
            .collect();
        let page = comparison(&runs).unwrap();
        assert_eq!(page.matches("<td>3.25</td>").count(), 2);
        assert_eq!(page.matches("<svg").count(), 1);
        assert!(page.contains("&lt;b&gt;bold") && !page.contains("<b>bold"));
        assert!(comparison(&[]).unwrap().contains("Runs compared"));
    }
}
