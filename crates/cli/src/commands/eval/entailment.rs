//! `simla eval entailment`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use simla::tasks::classify::{Classified, Outcome, evaluate, largest};
use simla::tasks::entailment::{Prediction, pair_id, write_predictions};
use simla_data::{Entailment, Entailments};
use simla_run::asking::Judge;
use simla_run::downstream::sentences;

use crate::commands::eval::judged::{Judged, row};
use simla_run::{answer, console, say};

/// Says whether pictures entail sentences, contradict them or neither, and how much of it is right
///
/// The data are as for `simla finetune entailment`. SNLI-VE has no official file of predictions: --predictions writes
/// `[{"pair_id", "label"}]`, with the record's number for a pair without a name.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    judged: Judged,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let judged = &arguments.judged;
    let (kind, device) = judged.place()?;
    let judge = Judge::<Entailment>::open(&judged.checkpoint, kind, device)?;
    let dataset = judged.open::<Entailments>(&[], &[], &["json"])?;
    let config = &judge.model.config;
    let format = Entailments { sentences: sentences(&judge.vocabulary, config.max_positions), labelled: false };
    let mut predictions = Vec::new();
    let found = judged.judge(&dataset, format, config.image_size, |batches| {
        let each = |row: &Entailment, probabilities: &[f32]| {
            predictions.push(Prediction {
                pair_id: pair_id(row.pair_id.as_deref(), predictions.len()),
                label: Entailment::CLASSES[largest(probabilities)].into(),
            });
        };
        Ok(evaluate(&judge.model, batches, judged.blind, each)?)
    })?;
    if let Some(path) = &judged.predictions {
        write_predictions(path, &predictions)?;
        say!("{} predictions in {}", predictions.len(), path.display());
    }
    match found.accuracy().of {
        0 if judged.predictions.is_none() => bail!("{}: no record has a label", judged.data.join(", ")),
        0 => {}
        _ if judged.json => console::answer_json(&as_json(&found, judged.blind))?,
        _ => answer!("{}", table(&found, &judged.title("percent right"))),
    }
    Ok(ExitCode::SUCCESS)
}

/// Shares in percent.
pub fn as_json(found: &Outcome, blind: bool) -> serde_json::Value {
    let classes = Entailment::CLASSES.iter().enumerate();
    let of_class = |(class, &label): (usize, &&'static str)| (label, 100.0 * found.accuracy_of(class).value());
    json!({
        "accuracy": 100.0 * found.accuracy().value(),
        "standard_error": 100.0 * found.accuracy().standard_error(),
        "records": found.accuracy().of,
        "classes": classes.map(of_class).collect::<std::collections::BTreeMap<_, _>>(),
        "confusion": found.confusion,
        "blind": blind,
    })
}

/// The result as people read it.
pub fn table(found: &Outcome, title: &str) -> String {
    let mut table = format!("{title}\n{}", row("all", found.accuracy()));
    for (class, label) in Entailment::CLASSES.iter().enumerate() {
        table += &row(&format!("  {label}"), found.accuracy_of(class));
    }
    table
}
