//! `simla keywords`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use simla::tasks::keywords::{Keyword, Precision, said};
use simla::tasks::pretrain::Model;
use simla_image::RgbImage;
use simla_pictures::bars::Bar;
use simla_pictures::canvas::{save_png, stack};
use simla_pictures::heat::HeatRow;
use simla_pictures::sheet::{Cell, Sheet};

use crate::model::ModelArguments;
use simla_run::output::{check_picture, files_of};
use simla_run::photo::{Seen, heat};
use simla_run::progress::{Progress, say_broken};
use simla_run::queries::keywords::{maps, recommended};
use simla_run::sources::open_data;
use simla_run::{answer, console};

/// Pictures on a sheet; all of a file are counted.
const SHOWN: usize = 24;

/// Names the concepts that the image encoder sees, with their scores
///
/// For one picture: the words, and by Grad-CAM through the concept head where each of them is seen. For a data file: what the model
/// recommends beside what the captions say (figure 5 of the paper), and how much of it they say.
#[derive(Args)]
pub struct Arguments {
    /// The picture: JPEG, PNG or WebP
    #[arg(required_unless_present = "data", conflicts_with = "data")]
    image: Option<PathBuf>,
    /// A file of images with their captions, in place of one picture
    #[arg(long, value_name = "FILE")]
    data: Option<String>,
    /// Folder that image paths are relative to, in place of the file's own
    #[arg(long, value_name = "DIR", requires = "data")]
    image_root: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArguments,
    /// Words to recommend
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=50))]
    top: u16,
    /// PNG sheet
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the file that --output names
    #[arg(long)]
    force: bool,
    /// One JSON object in place of the text
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    check_picture(arguments.output.as_deref(), arguments.force, || arguments.image.clone().into_iter().collect())?;
    let model = arguments.model.open()?;
    match (&arguments.image, &arguments.data) {
        (Some(image), _) => one_picture(&arguments, &model, image)?,
        (None, Some(data)) => a_file(&arguments, &model, data)?,
        (None, None) => unreachable!("one of them is required"),
    }
    if let Some(path) = arguments.output.filter(|_| !arguments.json) {
        answer!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn one_picture(arguments: &Arguments, model: &Model, image: &Path) -> Result<()> {
    let seen = Seen::open(image, &model.simla)?;
    let keywords = recommended(model, &seen.embeds(&model.simla)?, arguments.top.into(), &[])?;
    if let Some(path) = &arguments.output {
        let cell = Cell { pictures: vec![seen.picture.clone()], bars: bars(&keywords), ..Cell::default() };
        let sheet = Sheet {
            title: "Concepts that the image encoder sees".into(),
            cells: vec![cell],
            side: 360,
            ..Sheet::default()
        };
        let row = concept_row(model, &seen, &keywords)?;
        save_png(&stack(&[sheet.draw(), row.draw()]), path)?;
    }
    if arguments.json {
        let words: Vec<_> = keywords.iter().map(|k| json!({"word": k.word, "score": k.score})).collect();
        console::answer_json(&json!({"image": image, "keywords": words}))?;
    } else {
        keywords.iter().for_each(|k| answer!("{:.3}  {}", k.score, k.word));
    }
    Ok(())
}

fn a_file(arguments: &Arguments, model: &Model, data: &str) -> Result<()> {
    let root = arguments.image_root.as_deref();
    let dataset = open_data(&[data.to_owned()], root, 1.0)?;
    check_picture(arguments.output.as_deref(), arguments.force, || files_of(&dataset))?;
    let (mut records, mut cells, mut broken) = (vec![], vec![], vec![]);
    let mut progress = Progress::new("keywords", 0, dataset.len());
    for i in 0..dataset.len() {
        let found = dataset.record(i).map_err(anyhow::Error::from).and_then(|record| {
            let seen = Seen::decode(&record.image, &model.simla).map_err(|e| e.context(record.name.clone()))?;
            Ok((record, seen))
        });
        progress.set(i + 1, String::new);
        let (record, seen) = match found {
            Ok(found) => found,
            Err(error) => {
                broken.push(console::in_full(&error));
                continue;
            }
        };
        let keywords = recommended(model, &seen.embeds(&model.simla)?, arguments.top.into(), &record.captions)?;
        if cells.len() < SHOWN {
            cells.push(cell(seen.picture, &record.captions, &keywords));
        }
        records.push((record.name, record.captions, keywords));
    }
    drop(progress);
    say_broken(&broken, format_args!("of {} records", dataset.len()));
    if records.is_empty() {
        bail!("{data}: no usable record");
    }
    let found = precision(records.iter().map(|(_, captions, keywords)| (captions.as_slice(), keywords.as_slice())));
    if let Some(path) = &arguments.output {
        save_png(&sheet(cells, &found).draw(), path)?;
    }
    if arguments.json {
        let pictures: Vec<_> = records
            .iter()
            .map(|(name, captions, keywords)| json!({"record": name, "captions": captions, "keywords": keywords}))
            .collect();
        console::answer_json(
            &json!({"said_percent": found.said, "constant_percent": found.constant, "dealt_percent": found.dealt,
            "different": found.different, "top": arguments.top, "pictures": pictures}),
        )?;
    } else {
        for (name, captions, keywords) in &records[..records.len().min(SHOWN)] {
            answer!("{name}: {}\n    {}", captions[0], in_words(keywords));
        }
        answer!("{} words of {} pictures (marked *: in a caption). {}", arguments.top, records.len(), found.summary());
    }
    Ok(())
}

/// How many of the words recommended for pictures are in their captions.
pub fn precision<'a>(pictures: impl Iterator<Item = (&'a [String], &'a [Keyword])>) -> Precision {
    let word = |keyword: &'a Keyword| keyword.word.as_str();
    let (words, said): (Vec<Vec<&str>>, Vec<_>) =
        pictures.map(|(captions, keywords)| (keywords.iter().map(word).collect(), said(captions))).unzip();
    Precision::new(&words, said.iter())
}

/// What the model recommends for a picture beside what its caption says.
pub fn cell(picture: RgbImage, captions: &[String], keywords: &[Keyword]) -> Cell {
    Cell {
        pictures: vec![picture],
        caption: captions.first().cloned().unwrap_or_default(),
        bars: bars(keywords),
        ..Cell::default()
    }
}

/// A sheet of such cells, with what was found of all pictures.
pub fn sheet(cells: Vec<Cell>, found: &Precision) -> Sheet {
    Sheet {
        title: "What the captions say, what the model recommends".into(),
        note: format!("Green: a caption of the picture has the word. {}", found.summary()),
        cells,
        side: 220,
        ..Sheet::default()
    }
}

/// Where each word is seen, by Grad-CAM through the concept head (appendix 2).
pub fn concept_row<'a>(model: &Model, seen: &'a Seen, keywords: &[Keyword]) -> Result<HeatRow<'a>> {
    let words = keywords.iter().map(|k| k.word.clone());
    let maps = maps(model, &seen.image, keywords)?;
    Ok(HeatRow {
        title: String::new(),
        note: "Where each word is seen: Grad-CAM through the concept head, each map on its own scale".into(),
        picture: &seen.picture,
        maps: words.zip(maps).map(|(word, map)| (word, heat(&map, &model.simla))).collect(),
        same_scale: false,
    })
}

fn bars(keywords: &[Keyword]) -> Vec<Bar> {
    keywords.iter().map(|k| Bar { label: k.word.clone(), value: k.score, marked: k.in_caption }).collect()
}

fn in_words(keywords: &[Keyword]) -> String {
    let word = |k: &Keyword| format!("{}{} {:.2}", k.word, if k.in_caption { "*" } else { "" }, k.score);
    keywords.iter().map(word).collect::<Vec<_>>().join(", ")
}
