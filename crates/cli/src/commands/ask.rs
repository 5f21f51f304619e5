//! `simla ask`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use simla::tasks::vqa::answer::{BEAM, K_TEST};
use simla_image::Limits;
use simla_pictures::canvas::save_png;
use simla_pictures::heat::{HeatMap, Overlay, word_by_word};
use simla_run::asking::Asker;
use simla_run::output::check_picture;
use simla_run::photo::read;
use simla_run::settings::Dtype;

use crate::commands::eval::vqa::at_least_one;
use crate::model::ModelArguments;
use simla_run::{answer, console, say};

/// Asks a question about a picture
///
/// The model is one of `simla finetune vqa`. It answers with the best five of the answers that it learned to choose among and how it shares
/// its trust between them; without a list it makes answers up, piece by piece (beam search).
#[derive(Args)]
pub struct Arguments {
    /// The picture: JPEG, PNG or WebP
    image: PathBuf,
    /// What to ask
    question: String,
    #[command(flatten)]
    model: ModelArguments,
    /// The answers to choose among, `["yes", "no", ...]`, where the model has none of its own
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// Make answers up, in place of choosing among those of the list
    #[arg(long, conflicts_with = "answers")]
    make_up: bool,
    /// Answers that are ranked as a whole, those with the likeliest first piece
    #[arg(long, default_value_t = K_TEST, value_parser = at_least_one)]
    candidates: usize,
    /// PNG that shows where the words looked for the first answer
    #[arg(long, value_name = "FILE")]
    heat: Option<PathBuf>,
    /// Overwrites the file that --heat names
    #[arg(long, requires = "heat")]
    force: bool,
    /// One JSON object in place of the text
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    check_picture(arguments.heat.as_deref(), arguments.force, || vec![arguments.image.clone()])?;
    let model = &arguments.model;
    let asker = Asker::open(&model.checkpoint, arguments.answers.as_deref(), Dtype::F32.kind(), model.device.open()?)?;
    let made_up = arguments.make_up || asker.answers.is_none();
    let place = || arguments.image.display().to_string();
    let photo = read(&arguments.image)?;
    let answers =
        asker.ask(&photo, &arguments.question, arguments.make_up, arguments.candidates).with_context(place)?;
    let looked = match (&arguments.heat, answers.first()) {
        (Some(path), Some(best)) => {
            let looked = asker.look(&photo, &arguments.question, &best.answer)?;
            let grid = asker.model.config.grid() as usize;
            let heat = |map: &[f32]| HeatMap::new(grid, grid, map.to_vec());
            let picture = simla_image::decode(&photo, &Limits::default()).with_context(place)?;
            let overlay = Overlay {
                picture: &picture,
                heat: &heat(&looked.maps.phrase)?,
                peak: None,
                boxes: vec![],
                caption: format!("{} {} ({:.0} %)", arguments.question, best.answer, 100.0 * best.probability),
            };
            let words = looked.words.iter().map(|(word, map)| Ok((word.clone(), heat(map)?)));
            save_png(&word_by_word(&overlay, words.collect::<Result<_>>()?, looked.layer), path)?;
            Some(looked)
        }
        _ => None,
    };
    if arguments.json {
        let words = looked.map(|looked| {
            let words = looked.words.into_iter().map(|(word, map)| json!({"word": word, "map": map}));
            json!({"layer": looked.layer, "map": looked.maps.phrase, "words": words.collect::<Vec<_>>()})
        });
        console::answer_json(&json!({
            "image": arguments.image, "question": arguments.question, "answers": answers, "made_up": made_up,
            "heat": words,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if made_up {
        say!("made up by a beam search of {BEAM}: the probability is that of exactly these words");
    }
    for answer in &answers {
        answer!("{:>5.1} %  {}", 100.0 * answer.probability, simla_data::quoted(&answer.answer));
    }
    if let Some(path) = &arguments.heat {
        answer!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
