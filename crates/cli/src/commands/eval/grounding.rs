//! `simla eval grounding`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use simla::tasks::grounding::{Grounding, Shares};
use simla_data::{BoxedPicture, ReferFiles, read_boxes, read_refer};

use crate::model::ModelArguments;
use simla_run::grounding::Asked;
use simla_run::photo::layer;
use simla_run::progress::say_broken;
use simla_run::{answer, console};

/// Finds what phrases name and compares with true boxes
///
/// The data are one of: REFER's `refs(unc).p`, a pickle of which nothing is run, or the same as `refs.json`, with COCO's instances beside it;
/// the authors' `[{"image", "text", "ref_id"}]`, with --refs; or `[{"image": path, "objects": [{"phrase": text, "box": [left, top, width,
/// height]}], "proposals": [[...], ...]}]`, in pixels, proposals being optional. Of the heat of a phrase, the proposal wins that holds the most
/// over the root of its area; it is right where it overlaps the true box by half (RefCOCO+'s measure). Every share of right answers
/// stands beside those of guesses that know nothing of the phrase. A picture that cannot be read counts as wrong.
#[derive(Args)]
#[command(after_help = "\
  simla eval grounding --checkpoint runs/refcoco+ --data 'refcoco+/refs(unc).p' --image-root train2014 --detections dets.json
  simla eval grounding --checkpoint runs/mine --data refcoco+_test.json --refs 'refcoco+/refs(unc).p' --image-root coco --detections dets.json
  simla eval grounding --checkpoint runs/mine --data boxes.json")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A file of pictures with phrases and boxes, or REFER's refs
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Only phrases of this part of the data (val, testA, testB); may be given again [default: all, of REFER's refs all but train]
    #[arg(long, value_name = "NAME")]
    split: Vec<String>,
    /// Folder that image paths are relative to, in place of the file's own
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// REFER's refs that the `ref_id`s of the data mean: its pickle, or the same as JSON
    #[arg(long, value_name = "FILE")]
    refs: Option<PathBuf>,
    /// COCO's instances that the refs point to [default: instances.json beside the refs]
    #[arg(long, value_name = "FILE")]
    instances: Option<PathBuf>,
    /// A detector's boxes: {image id: [[left, top, width, height, score], ...]} [default: dets.json beside the refs, where it is]
    #[arg(long, value_name = "FILE")]
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
    let pictures = arguments.pictures()?;
    let asked = Asked::new(&model.simla, &model.vocabulary, &pictures, layer)?;
    say_broken(&asked.broken, format_args!("of {} pictures, whose phrases count as wrong", pictures.len()));
    if asked.broken.len() == pictures.len() {
        bail!("{}: no usable picture", arguments.data.display());
    }
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
    // One alone is what stands above.
    for (split, found) in splits.iter().filter(|_| splits.len() > 1) {
        answer!("\n{split}: {} phrases\n{}", found.phrases, table(found));
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn pictures(&self) -> Result<Vec<BoxedPicture>> {
        let root = self.image_root.as_deref();
        // REFER's own refs, or those that the data point to.
        let own = ReferFiles::beside(&self.data).filter(|_| self.refs.is_none());
        let refer = own.clone().or(self.refs.as_deref().map(ReferFiles::with)).map(|files| ReferFiles {
            instances: self.instances.clone().unwrap_or(files.instances),
            detections: self.detections.clone().or(files.detections),
            ..files
        });
        let Some(refer) = refer else {
            if self.instances.is_some() || self.detections.is_some() {
                bail!("--instances and --detections go with REFER's refs: expected --refs, or --data 'refs(unc).p'");
            }
            return Ok(read_boxes(&self.data, root, None, &self.split)?);
        };
        if own.is_none() {
            return Ok(read_boxes(&self.data, root, Some(&refer), &self.split)?);
        }
        let mut pictures = read_refer(&refer, root, &self.split)?;
        if self.split.is_empty() {
            const TRAINING: &str = "train";
            for picture in &mut pictures {
                picture.objects.retain(|object| object.split.as_deref() != Some(TRAINING));
            }
            pictures.retain(|picture| !picture.objects.is_empty());
        }
        if pictures.is_empty() {
            bail!("{}: nothing but training data (--split train measures on them)", self.data.display());
        }
        Ok(pictures)
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
