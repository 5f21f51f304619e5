//! What the evaluations of tasks with a model of their own have in common.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use simla::tasks::score::Share;
use simla_data::{Batch, Dataset, Format, LoadError, Options};
use simla_run::downstream::each_once;
use simla_run::output::{check_file, sources_of};
use simla_run::progress::Progress;
use simla_run::sources::open_sources;
use tch::{Device, Kind};

use crate::model::ComputeArguments;
use simla_run::say;
use simla_train::Team;

/// Which model is measured, and on what.
#[derive(Args)]
pub struct Judged {
    /// A run's folder, or a checkpoint's
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// Files of the split
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub data: Vec<String>,
    /// Folder or tar shards that image paths are relative to, in place of the file's own folder
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Hide the pictures: what remains is told from the words alone
    #[arg(long)]
    pub blind: bool,
    /// Writes what the model says, as result files have it
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Overwrites the file that --predictions names
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub compute: ComputeArguments,
    /// One JSON object in place of the table
    #[arg(long)]
    pub json: bool,
}

impl Judged {
    /// The type of products, and the device.
    pub fn place(&self) -> Result<(Kind, Device)> {
        Ok((self.compute.dtype.kind(), self.compute.device.open()?))
    }

    /// Opens the records, and looks at where predictions would be written: a file that ends in one of `endings`, and is none of these
    /// and the `others` that are read.
    pub fn open<F: Format>(
        &self,
        annotations: &[PathBuf],
        others: &[PathBuf],
        endings: &'static [&'static str],
    ) -> Result<Arc<Dataset<F>>> {
        let options = Options {
            image_root: self.image_root.clone(),
            annotations: annotations.to_vec(),
            max_bad_share: 1.0,
            ..Options::default()
        };
        let dataset = open_sources(&self.data, &options)?;
        check_file(self.predictions.as_deref(), endings, self.force, || {
            sources_of(&dataset).into_iter().chain([annotations, others].concat()).collect()
        })?;
        Ok(Arc::new(dataset))
    }

    /// Gives `judge` all records, views of `side` pixels, and says what could not be used.
    pub fn judge<F: Format, T>(
        &self,
        dataset: &Arc<Dataset<F>>,
        format: F,
        side: i64,
        judge: impl FnOnce(&mut dyn Iterator<Item = Result<Batch<F::Row>, LoadError>>) -> Result<T>,
    ) -> Result<T> {
        let progress = Progress::new("evaluation", 0, dataset.len());
        let (judged, report) = each_once(dataset, format, (side, 0), &Team::alone(), progress, judge)?;
        if report.bad > 0 && self.predictions.is_some() {
            bail!("--predictions: a result file has every record of the split once, but {report}");
        }
        if report.bad > 0 {
            say!("{report}");
        }
        if report.bad == report.records {
            bail!("{}: no usable record", self.data.join(", "));
        }
        Ok(judged)
    }

    /// What stands over a table.
    pub fn title(&self, what: &str) -> String {
        format!("{what}{}", if self.blind { ", pictures hidden" } else { "" })
    }
}

/// A share as a table has it.
pub fn row(name: &str, share: Share) -> String {
    format!("{name:<24} {share}\n")
}
