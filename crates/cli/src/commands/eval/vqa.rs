//! `simla eval vqa`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use simla::tasks::vqa::answer::K_TEST;
use simla::tasks::vqa::evaluate::evaluate;
use simla::tasks::vqa_score::{Score, Scores, score};
use simla_data::Questions;
use simla_files::write_atomically;
use simla_run::asking::Asker;
use simla_run::downstream::sentences;

use crate::commands::eval::judged::Judged;
use simla_run::{answer, console, say};

/// Answers questions about pictures, and judges the answers by VQA's official rules
///
/// The data are as for `simla finetune vqa`. Where they have no answers, as of a test split, --predictions writes the file that the
/// evaluation server takes. Beside every percentage stands the spread that so many questions leave.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    judged: Judged,
    /// VQA v2's files of answers to the questions
    #[arg(long, num_args = 1.., value_name = "FILE")]
    annotations: Vec<PathBuf>,
    /// The answers to choose among, where the model has none of its own
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// Make answers up, in place of choosing among those of the list
    #[arg(long, conflicts_with = "answers")]
    make_up: bool,
    /// Answers that are ranked as a whole, those with the likeliest first piece
    #[arg(long, default_value_t = K_TEST, value_parser = at_least_one)]
    candidates: usize,
}

/// A number from 1 on.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a whole number from 1 on".into()),
    }
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let judged = &arguments.judged;
    let (kind, device) = judged.place()?;
    let asker = Asker::open(&judged.checkpoint, arguments.answers.as_deref(), kind, device)?;
    let dataset = judged.open::<Questions>(&arguments.annotations, arguments.answers.as_slice(), &["json"])?;
    let format = Questions::evaluation(sentences(&asker.vocabulary, asker.model.config.max_positions));
    let answers = asker.answers.as_ref().filter(|_| !arguments.make_up);
    if answers.is_none() {
        say!("answers are made up (beam search): there is no list to choose from");
    }
    let found = judged.judge(&dataset, format, asker.model.config.image_size, |batches| {
        let (model, vocabulary) = (&asker.model, &asker.vocabulary);
        Ok(evaluate(model, batches, vocabulary, answers, arguments.candidates, judged.blind)?)
    })?;
    let asked = found.predictions.len();
    let scores = match found.truth.is_empty() {
        true => None,
        false => {
            let known: HashSet<i64> = found.truth.iter().map(|truth| truth.question_id).collect();
            let judgeable = found.predictions.iter().filter(|said| known.contains(&said.question_id));
            Some(score(&judgeable.cloned().collect::<Vec<_>>(), &found.truth)?)
        }
    };
    if scores.is_none() && judged.predictions.is_none() {
        bail!(
            "{}: none of the {asked} questions has answers to compare with; of VQA v2, --annotations has them, and of a test split \
             --predictions writes what its server judges",
            judged.data.join(", ")
        );
    }
    if let Some(path) = &judged.predictions {
        let text = serde_json::to_vec(&found.predictions)?;
        write_atomically(path, &text).with_context(|| path.display().to_string())?;
        say!("{asked} answers in {}", path.display());
    }
    match &scores {
        Some(scores) if judged.json => console::answer_json(&as_json(scores, judged.blind))?,
        Some(scores) => answer!("{}", table(scores, &judged.title("questions"))),
        None if judged.json => console::answer_json(&json!({"questions": asked}))?,
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The overall score at the top level.
pub fn as_json(scores: &Scores, blind: bool) -> serde_json::Value {
    let mut value = json!(scores.overall);
    let more = json!({"answer_types": scores.answer_types, "question_types": scores.question_types, "blind": blind});
    value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    value
}

/// The result as people read it.
pub fn table(scores: &Scores, title: &str) -> String {
    let row = |name: &str, score: &Score| {
        format!("{name:<40} {:>6.2} ± {:<5.2} {:>8}\n", score.accuracy, score.standard_error, score.questions)
    };
    let mut table = format!("{title:<40} {:>14} {:>8}\n", "accuracy, %", "of");
    table += &row("all", &scores.overall);
    let mut part = |title: &str, types: &BTreeMap<String, Score>| {
        if types.is_empty() {
            return;
        }
        table += &format!("by type of {title}\n");
        for (name, score) in types {
            table += &row(&format!("  {}", simla_data::quoted(name)), score);
        }
    };
    part("answer", &scores.answer_types);
    part("question", &scores.question_types);
    table
}
