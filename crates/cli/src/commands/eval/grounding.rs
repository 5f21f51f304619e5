//! `simla eval grounding`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use simla::tasks::boxes::Bounds;
use simla::tasks::gradcam::{PhraseMaps, of_matching};
use simla::tasks::grounding::{Answers, Grounding, Question, Shares, answer};
use simla::tasks::pretrain::Model;
use simla_data::{BoxedPicture, ReferFiles, read_boxes};

use crate::model::ModelArguments;
use simla_run::photo::{Seen, layer};
use simla_run::progress::{Progress, say_broken};
use simla_run::{answer, console};

/// Finds what phrases name and compares with true boxes
///
/// The data are `[{"image": path, "objects": [{"phrase": text, "box": [left, top, width, height]}], "proposals": [[...], ...]}]`, in
/// pixels, proposals being optional; or, with --refs and --instances, the authors' `[{"image", "text", "ref_id"}]` for RefCOCO+. Every
/// share of right answers stands beside those of guesses that know nothing of the phrase.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A file of pictures with phrases and boxes
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Folder that image paths are relative to, in place of the file's own
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// REFER's refs, its pickle written as JSON
    #[arg(long, value_name = "FILE", requires = "instances")]
    refs: Option<PathBuf>,
    /// COCO's instances that the refs point to
    #[arg(long, value_name = "FILE", requires = "refs")]
    instances: Option<PathBuf>,
    /// A detector's boxes: {image id: [[left, top, width, height, score], ...]}
    #[arg(long, value_name = "FILE", requires = "refs")]
    detections: Option<PathBuf>,
    /// Layer of the cross-attention, from 0 [default: two thirds of the way up, 8 of 12 in the paper]
    #[arg(long)]
    layer: Option<usize>,
    /// One JSON object in place of the table
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let model = arguments.model.open()?;
    let layer = layer(arguments.layer, &model.simla)?;
    let refer = arguments.refs.zip(arguments.instances);
    let refer = refer.map(|(refs, instances)| ReferFiles { refs, instances, detections: arguments.detections });
    let root = arguments.image_root.as_deref();
    let pictures = read_boxes(&arguments.data, root, refer.as_ref())?;
    let asked = Asked::new(&model, &pictures, layer)?;
    say_broken(&asked.broken, format_args!("of {} pictures", pictures.len()));
    let Some(all) = asked.grounding(None) else {
        bail!("{}: no usable picture", arguments.data.display());
    };
    let splits: BTreeMap<&str, Grounding> =
        asked.splits().into_iter().filter_map(|split| Some((split, asked.grounding(Some(split))?))).collect();
    let seen = pictures.len() - asked.broken.len();
    if arguments.json {
        let mut value = json!(all);
        let more = json!({"pictures": seen, "layer": layer, "splits": splits});
        let more = more.as_object().expect("an object").clone();
        value.as_object_mut().expect("an object").extend(more);
        console::answer_json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    answer!("{} phrases in {seen} pictures, layer {layer}", all.phrases);
    answer!("{}", table(&all));
    for (split, found) in &splits {
        answer!("\n{split}: {} phrases\n{}", found.phrases, table(found));
    }
    Ok(ExitCode::SUCCESS)
}

/// A phrase of a picture that was asked for, with what the model found.
pub struct Found<'a> {
    pub picture: &'a BoxedPicture,
    /// Which of the picture's objects.
    pub object: usize,
    pub maps: PhraseMaps,
    pub answers: Answers,
}

impl<'a> Found<'a> {
    fn split(&self) -> Option<&'a str> {
        self.picture.objects[self.object].split.as_deref()
    }
}

/// Every phrase of a file, asked and answered.
pub struct Asked<'a> {
    pub found: Vec<Found<'a>>,
    /// Pictures that cannot be used, and why.
    pub broken: Vec<String>,
}

impl<'a> Asked<'a> {
    /// Asks `model` for every phrase of `pictures`.
    pub fn new(model: &Model, pictures: &'a [BoxedPicture], layer: usize) -> Result<Self> {
        let simla = &model.simla;
        let grid = simla.config.grid() as usize;
        let mut progress = Progress::new("grounding", 0, pictures.len() as u64);
        let mut asked = Self { found: vec![], broken: vec![] };
        for (done, picture) in (1..).zip(pictures) {
            let seen = match Seen::of(picture, simla) {
                Ok(seen) => seen,
                Err(error) => {
                    asked.broken.push(format!("{error:#}"));
                    continue;
                }
            };
            let limit = simla.config.max_positions as usize;
            let encode = |phrase: &str| model.vocabulary.encode(phrase, limit);
            let phrases: Vec<Vec<i64>> = picture.objects.iter().map(|o| encode(&o.phrase)).collect();
            let maps = of_matching(simla, &seen.embeds(simla)?, &phrases, layer)?;
            let (width, height) = seen.picture.dimensions();
            let bounds = |boxes: &[[f64; 4]]| boxes.iter().map(|&b| b.into()).collect::<Vec<Bounds>>();
            let mut others: Vec<Bounds> = Vec::new();
            for object in &picture.objects {
                let truth = object.bounds.into();
                if !others.contains(&truth) {
                    others.push(truth);
                }
            }
            let proposals = picture.proposals.as_deref().map(bounds);
            for (object, maps) in maps.into_iter().enumerate() {
                let question = Question {
                    truth: picture.objects[object].bounds.into(),
                    width: width as usize,
                    height: height as usize,
                    others: &others,
                    proposals: proposals.as_deref(),
                };
                asked.found.push(Found { picture, object, answers: answer(&maps.phrase, grid, question), maps });
            }
            progress.set(done, String::new);
        }
        Ok(asked)
    }

    /// What was found in all, or in one split; none without a phrase.
    pub fn grounding(&self, split: Option<&str>) -> Option<Grounding> {
        let of_split = |found: &&Found| split.is_none() || split == found.split();
        let found = self.found.iter().filter(of_split);
        Grounding::of(&found.map(|found| found.answers).collect::<Vec<_>>())
    }

    fn splits(&self) -> BTreeSet<&'a str> {
        self.found.iter().filter_map(Found::split).collect()
    }
}

/// The result as people read it.
pub fn table(found: &Grounding) -> String {
    let mut table =
        format!("{:<34} {:>7} {:>7} {:>7} {:>8}\n", "percent right", "model", "centre", "random", "phrases");
    for (name, shares) in rows(found) {
        table += &format!(
            "{name:<34} {:>7.1} {:>7.1} {:>7.1} {:>8}{}\n",
            shares.model,
            shares.centre,
            shares.random,
            shares.phrases,
            if shares.beats_guesses() { "" } else { "  no better than a guess" }
        );
    }
    table
}

/// The questions that were asked, in words.
pub fn rows(found: &Grounding) -> Vec<(&'static str, Shares)> {
    let all = [
        ("hottest point in the true box", Some(found.pointing)),
        ("right one of the picture's boxes", found.choice),
        ("best window, IoU of 0.5", Some(found.window)),
        ("best proposal, IoU of 0.5", found.proposals),
    ];
    all.into_iter().filter_map(|(name, shares)| Some((name, shares?))).collect()
}
