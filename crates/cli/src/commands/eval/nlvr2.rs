//! `simla eval nlvr2`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use simla::tasks::nlvr::{Reasoning, evaluate, write_predictions};
use simla_data::{Statement, Statements};
use simla_run::asking::Judge;
use simla_run::downstream::sentences;

use crate::commands::eval::judged::{Judged, row};
use simla_run::{answer, console, say};

/// Says whether statements about two pictures are true, and judges that by NLVR2's official rules
///
/// The data are as for `simla finetune nlvr2`. Accuracy is the share of statements that are judged right; consistency that of sentences
/// that are judged right of every pair of pictures.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    judged: Judged,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let judged = &arguments.judged;
    let (kind, device) = judged.place()?;
    let judge = Judge::<Statement>::open(&judged.checkpoint, kind, device)?;
    let dataset = judged.open::<Statements>(&[], &[], &["csv"])?;
    let config = &judge.model.config;
    let format = Statements { sentences: sentences(&judge.vocabulary, config.max_positions), labelled: false };
    let (mut predictions, mut nameless) = (BTreeMap::new(), None);
    let found = judged.judge(&dataset, format, config.image_size, |batches| {
        let each = |statement: &Statement, probability: f32| match &statement.identifier {
            Some(identifier) => _ = predictions.insert(identifier.clone(), probability > 0.5),
            None => nameless = Some(statement.sentence.clone()),
        };
        Ok(evaluate(&judge.model, batches, judged.blind, each)?)
    })?;
    if let Some(path) = &judged.predictions {
        if let Some(sentence) = nameless {
            bail!("--predictions: the statement {sentence:?} has no identifier to be named by: use NLVR2's own files");
        }
        write_predictions(path, &predictions)?;
        say!("{} predictions in {}", predictions.len(), path.display());
    }
    match found.accuracy.of {
        0 if judged.predictions.is_none() => {
            bail!("{}: no statement says whether it is true (field `label`)", judged.data.join(", "))
        }
        0 => {}
        _ if judged.json => console::answer_json(&as_json(&found, judged.blind))?,
        _ => answer!("{}", table(&found, &judged.title("percent right"))),
    }
    Ok(ExitCode::SUCCESS)
}

/// Shares in percent.
pub fn as_json(found: &Reasoning, blind: bool) -> serde_json::Value {
    json!({
        "accuracy": 100.0 * found.accuracy.value(),
        "standard_error": 100.0 * found.accuracy.standard_error(),
        "statements": found.accuracy.of,
        "consistency": 100.0 * found.consistency.value(),
        "groups": found.consistency.of,
        "blind": blind,
    })
}

/// The result as people read it.
pub fn table(found: &Reasoning, title: &str) -> String {
    format!("{title}\n{}{}", row("accuracy", found.accuracy), row("consistency", found.consistency))
}
