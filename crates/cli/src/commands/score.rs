//! `simla score`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use simla::tasks::{entailment, nlvr, vqa_score};
use simla_data::{Annotations, Dataset, Entailments, Format, Options, Statement, Statements};
use simla_run::sources::open_sources;

use crate::commands::eval;
use simla_run::{answer, console};

/// Judges a file of predictions, of whatever model, by a task's official rules
#[derive(Subcommand)]
pub enum Command {
    /// Answers to questions: VQA v2's official evaluation, to two decimals as it prints them
    ///
    /// Predictions are `[{"question_id": 1, "answer": "yes"}]`, one for every question; --data are VQA v2's annotations, or questions with
    /// their answers.
    Vqa(Arguments),
    /// Statements about two pictures: NLVR2's official accuracy and consistency
    ///
    /// Predictions are lines of `identifier,True` or `identifier,False`; --data is NLVR2's own file.
    Nlvr2(Arguments),
    /// Entailment: the share of labels that are right
    ///
    /// Predictions are `[{"pair_id", "label"}]`, as `simla eval entailment` writes them.
    Entailment(Arguments),
}

#[derive(Args)]
pub struct Arguments {
    /// The file of predictions
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    /// Files with what is right; pictures are not looked at
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<String>,
    /// One JSON object in place of the table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// All records; the first that is malformed is an error, since a score is of the whole split.
    fn records<F: Format>(&self) -> Result<Vec<F::Entry>> {
        // Pictures are found in any folder, and not looked at.
        let options = Options { image_root: Some(Path::new(".").into()), max_bad_share: 1.0, ..Options::default() };
        let dataset: Dataset<F> = open_sources(&self.data, &options)?;
        let entries = (0..dataset.len()).map(|record| dataset.entry(record));
        Ok(entries.collect::<Result<_, _>>()?)
    }
}

pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Vqa(arguments) => {
            let predictions = vqa_score::read_predictions(&arguments.predictions)?;
            let scores = vqa_score::score(&predictions, &arguments.records::<Annotations>()?)?;
            match arguments.json {
                true => console::answer_json(&eval::vqa::as_json(&scores, false))?,
                false => answer!("{}", eval::vqa::table(&scores, "questions")),
            }
        }
        Command::Nlvr2(arguments) => {
            let predictions = nlvr::read_predictions(&arguments.predictions)?;
            let statements = arguments.records::<Statements>()?.into_iter().map(|said| Statement {
                ids: vec![],
                label: said.label.map(i64::from),
                sentence: said.sentence,
                identifier: said.identifier,
                group: said.group,
            });
            let found = nlvr::score(&predictions, &statements.collect::<Vec<_>>())?;
            match arguments.json {
                true => console::answer_json(&eval::nlvr2::as_json(&found, false))?,
                false => answer!("{}", eval::nlvr2::table(&found, "percent right")),
            }
        }
        Command::Entailment(arguments) => {
            let predictions = entailment::read_predictions(&arguments.predictions)?;
            let truth = arguments.records::<Entailments>()?.into_iter().map(|said| (said.pair_id, said.label));
            let found = entailment::score(&predictions, &truth.collect::<Vec<_>>())?;
            match arguments.json {
                true => console::answer_json(&eval::entailment::as_json(&found, false))?,
                false => answer!("{}", eval::entailment::table(&found, "percent right")),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
