//! The end of the demo: what the model has learned, as numbers and pictures in the run's folder and on one page.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use simla::tasks::boxes::Bounds;
use simla::tasks::gradcam::default_layer;
use simla::tasks::grounding::Grounding;
use simla::tasks::pretrain::Model;
use simla::tasks::retrieval::Retrieval;
use simla_data::read_boxes;
use simla_files::write_atomically;
use simla_pictures::canvas::{BAD, GOOD, stack};
use simla_pictures::heat::{BoxKind, Overlay};
use simla_pictures::page::save_report;
use simla_pictures::run::RunFolder;
use simla_pictures::samples::SampleSet;
use simla_pictures::sheet::{Cell, Sheet};
use simla_scenes::Files;

use crate::commands::demo_questions::Learned;
use crate::commands::eval::grounding::{rows, table};
use crate::commands::{attention, keywords};
use simla_run::answer;
use simla_run::grounding::{Asked, Found};
use simla_run::photo::{Seen, heat, marked};
use simla_run::queries::keywords::recommended;
use simla_run::sources::open_data;

/// Phrases and pictures that are shown.
const SHOWN: usize = 12;
/// Pictures whose attention is shown.
const ATTENTIVE: usize = 3;
/// Concepts of a picture.
const TOP: usize = 6;

/// Looks at held-out scenes with the trained model: prints what was learned beyond retrieval, writes pictures to `RUN/samples/`, the
/// numbers to `RUN/evaluation.jsonl`, and all of it as `RUN/report.html`, whose path is returned.
pub fn write(
    run: &Path,
    files: &Files,
    before: &Retrieval,
    after: &Retrieval,
    questions: Option<&Learned>,
) -> Result<PathBuf> {
    let model = Model::open(run, tch::Kind::Float, tch::Device::Cpu)?;
    let scenes = read_boxes(&files.test_boxes, None, None, &[])?;
    let asked = Asked::new(&model.simla, &model.vocabulary, &scenes, default_layer(model.simla.config.text_depth))?;
    let grounding = asked.grounding(None).expect("every scene has a phrase");
    answer!(
        "Finding what {} phrases name in the held-out scenes (no box was ever trained on)\n{}{}\n\n",
        grounding.phrases,
        table(&grounding),
        verdict(&grounding)
    );
    let save = |name: &str, title: &str, text: String, picture| -> Result<()> {
        let set = SampleSet { title: title.into(), text, ..SampleSet::default() };
        Ok(set.save(&run.join("samples"), name, &picture)?)
    };
    save(
        "1-grounding",
        "Finding what a phrase names",
        format!("{} {}", summary(&grounding), verdict(&grounding)),
        grounding_sheet(&model, &asked.found)?.draw(),
    )?;

    let pairs = open_data(&[files.test.display().to_string()], None, 1.0)?;
    let (mut cells, mut maps, mut attentive, mut all) = (vec![], vec![], vec![], vec![]);
    for i in 0..pairs.len() {
        let record = pairs.record(i)?;
        let seen = Seen::decode(&record.image, &model.simla)?;
        let words = recommended(&model, &seen.embeds(&model.simla)?, TOP, &record.captions)?;
        if attentive.len() < ATTENTIVE {
            attentive.push(attention::row(&model.simla, &seen, "")?.draw());
            maps.push(keywords::concept_row(&model, &seen, &words)?.draw());
        }
        if cells.len() < SHOWN {
            cells.push(keywords::cell(seen.picture, &record.captions, &words));
        }
        all.push((record.captions, words));
    }
    let found = keywords::precision(all.iter().map(|(captions, words)| (captions.as_slice(), words.as_slice())));
    answer!("Keywords, {TOP} for each scene: {}", found.summary());
    let sheet = keywords::sheet(cells, &found).draw();
    maps.insert(0, sheet);
    save(
        "2-keywords",
        "Concepts that the image encoder sees",
        format!("{TOP} words for each held-out scene: {}", found.summary()),
        stack(&maps),
    )?;
    save(
        "3-attention",
        "Where the image encoder looks",
        "Self-attention of the visual [CLS] in the last layer, head by head.".into(),
        stack(&attentive),
    )?;

    let mut evaluation =
        [evaluation_row("before training", before, None), evaluation_row("after training", after, Some(&grounding))];
    for (name, percent) in [("", found.said), ("/constant", found.constant), ("/chance", found.dealt)] {
        evaluation[1][format!("keywords/said{name}")] = json!(percent);
    }
    if let Some(learned) = questions {
        answer!("Questions: {}", learned.summary());
        save("4-questions", "Questions about a scene", learned.summary(), learned.sheet.draw())?;
        let row = &mut evaluation[1];
        row["questions/accuracy"] = json!(learned.scores.overall.accuracy);
        row["questions/accuracy/blind"] = json!(learned.blind);
        row["questions/accuracy/commonest"] = json!(learned.commonest);
    }
    let lines = evaluation.map(|row| row.to_string() + "\n").concat();
    write_atomically(&run.join("evaluation.jsonl"), lines.as_bytes())?;
    let page = run.join("report.html");
    save_report(&RunFolder::open(run)?, &page)?;
    Ok(page)
}

/// Whether the model has learned to find things, in one honest sentence.
fn verdict(found: &Grounding) -> String {
    let (better, worse): (Vec<_>, Vec<_>) = rows(found).into_iter().partition(|(_, shares)| shares.beats_guesses());
    if worse.is_empty() {
        return "Grounding beats the centre and random guesses on every question.".into();
    }
    let names = |rows: Vec<(&str, _)>| rows.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join("; ");
    if better.is_empty() {
        return "Grounding does not beat the centre and random guesses yet: it has not been learned in this run."
            .into();
    }
    format!(
        "Grounding does not beat the centre and random guesses on every question yet. Better: {}. Not better: {}.",
        names(better),
        names(worse)
    )
}

fn summary(found: &Grounding) -> String {
    let part = |(name, s): (&str, simla::tasks::grounding::Shares)| {
        format!("{name}: {:.0} % (centre {:.0} %, random {:.0} %).", s.model, s.centre, s.random)
    };
    rows(found).into_iter().map(part).collect::<Vec<_>>().join(" ")
}

/// The first phrases, one of each picture in turn, under their heat.
fn grounding_sheet(model: &Model, found: &[Found]) -> Result<Sheet> {
    let mut cells = Vec::new();
    // As many different pictures as there is room for.
    for found in found.iter().filter(|found| found.object == 0).take(SHOWN) {
        let seen = Seen::of(found.picture, &model.simla)?;
        let object = &found.picture.objects[found.object];
        let chosen = found.answers.window.map(|b| marked(b, BoxKind::Chosen));
        let truth = marked(Bounds::from(object.bounds), BoxKind::True);
        let overlay = Overlay {
            picture: &seen.picture,
            heat: &heat(&found.maps.phrase, &model.simla),
            peak: None,
            boxes: chosen.into_iter().chain([truth]).collect(),
            caption: String::new(),
        };
        let right = found.answers.point.model;
        cells.push(Cell {
            pictures: vec![seen.picture.clone(), overlay.draw_picture(180)],
            heading: if right { "found" } else { "missed" }.into(),
            caption: object.phrase.clone(),
            frame: Some(if right { GOOD } else { BAD }),
            ..Cell::default()
        });
    }
    Ok(Sheet {
        note: "The first phrase of held-out scenes. Blue: the model's box. Green: the true box. Found: the hottest point lies in the true box."
            .into(),
        cells,
        ..Sheet::default()
    })
}

/// A row of evaluation.jsonl: each number as `group/name`, with its baselines as `group/name/baseline`.
fn evaluation_row(when: &str, found: &Retrieval, grounding: Option<&Grounding>) -> Value {
    let mut row = json!({"when": when});
    for (name, value) in found.named().into_iter().chain(grounding.map(Grounding::named).unwrap_or_default()) {
        row[name] = json!(value);
    }
    row
}
