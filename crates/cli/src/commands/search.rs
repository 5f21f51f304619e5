//! `simla search`.

use std::fs;
use std::io::{BufRead, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use simla::tasks::pretrain::Model;
use simla::tasks::search::{Seen, caption_features, match_probabilities, phrase, see};
use simla_data::Entry;
use simla_image::Limits;
use simla_pictures::canvas::save_png;
use simla_pictures::sheet::{Cell, Sheet};
use simla_search::{Hit, Index};

use crate::model::ModelArguments;
use simla_run::collection::{Collection, picture};
use simla_run::output::check_picture;
use simla_run::{answer, console, say};

/// Finds pictures by a phrase or a picture, and captions by a picture
///
/// The first search embeds the pictures (or captions) and keeps that in an index on the disk; later ones embed only what is new or has
/// changed. The contrast finds the nearest, the matching score ranks the best of them. Without a phrase and without --image, phrases
/// are read from the standard input, one a line, and the model is loaded once for all.
#[derive(Args)]
#[command(after_help = "\
  simla search \"a dog in the snow\" --images photographs --checkpoint runs/mine --sheet found.png
  simla search --image dog.jpg --images photographs --checkpoint runs/mine    similar pictures
  simla search --image dog.jpg --data captions.json --checkpoint runs/mine    fitting captions")]
pub struct Arguments {
    /// What to look for
    #[arg(conflicts_with = "image")]
    phrase: Option<String>,
    /// A picture to look for in place of a phrase
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The folder of pictures to search, folders in it included
    #[arg(long, value_name = "DIR", required_unless_present = "data", conflicts_with = "data")]
    images: Option<PathBuf>,
    /// A file of image-caption pairs whose captions to search
    #[arg(long, value_name = "FILE")]
    data: Option<String>,
    /// With --data: folder that image paths are relative to, in place of the file's own
    #[arg(long, value_name = "DIR", requires = "data")]
    image_root: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArguments,
    /// Folder for the index; else .simla-index in the folder of pictures, or beside the data file
    #[arg(long, value_name = "DIR")]
    index: Option<PathBuf>,
    /// Results that are shown
    #[arg(long, default_value_t = 12)]
    top: usize,
    /// Nearest by contrast that the matching score ranks again; 0 for none
    #[arg(long, default_value_t = 16)]
    candidates: usize,
    /// Compare with every item in place of a walk through the graph
    #[arg(long)]
    exact: bool,
    /// A contact sheet (PNG) of the results
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Overwrite the file that --sheet names
    #[arg(long)]
    force: bool,
    /// One JSON object a search in place of the lines
    #[arg(long)]
    json: bool,
}

/// Pieces of a phrase or caption at most.
const MAX_TOKENS: usize = simla_data::vocabulary::MAX_TOKENS;

/// What is looked for, as the model sees it.
enum Query {
    Phrase(Vec<i64>),
    Picture(Seen),
}

/// One result.
#[derive(Serialize)]
struct Found {
    rank: usize,
    /// The picture's path, or that of the picture which the caption belongs to.
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    caption: Option<String>,
    /// Similarity by contrast, -1 to 1.
    similarity: f32,
    /// Probability that they match; absent where it was not computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    matching: Option<f32>,
}

/// What a search found.
#[derive(Serialize)]
struct Answer {
    query: String,
    /// Items in the index.
    searched: usize,
    /// Seconds that the answer took, the model and the index at hand.
    seconds: f64,
    results: Vec<Found>,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    if arguments.top == 0 {
        bail!("--top 0: expected at least 1");
    }
    if let Some(path) = &arguments.image {
        fs::metadata(path).with_context(|| format!("--image {}", path.display()))?;
    }
    let (collection, place) = match (&arguments.images, &arguments.data) {
        (Some(folder), _) => (Collection::pictures(folder)?, folder.join(".simla-index")),
        (None, data) => {
            let data = data.as_deref().expect("clap asks for one of them");
            let collection = Collection::captions(data, arguments.image_root.as_deref())?;
            (collection, PathBuf::from(format!("{data}.simla-index")))
        }
    };
    check_picture(arguments.sheet.as_deref(), arguments.force, || {
        arguments.image.iter().cloned().chain(collection.files()).collect()
    })?;
    let place = arguments.index.clone().unwrap_or(place);
    let model = arguments.model.open()?;
    // What cannot be looked for is said before anything is embedded.
    let query = match (&arguments.phrase, &arguments.image) {
        (Some(text), _) => Some((text.clone(), Query::of_phrase(&model, text)?)),
        (None, Some(path)) => {
            let seen = see(&model.simla, &[picture(path)])?.remove(0)?;
            Some((path.display().to_string(), Query::Picture(seen)))
        }
        (None, None) => None,
    };
    let (index, embedded) = collection.index(&place, &model, MAX_TOKENS)?;
    if embedded > 0 {
        say!("{embedded} of {} embedded anew; the index is in {}", index.len(), place.display());
    }
    let search = Search { model, collection, index, arguments };
    match query {
        Some((text, query)) => search.show(&text, &query)?,
        None => {
            for (nth, line) in (1..).zip(std::io::stdin().lock().lines()) {
                let line = match line {
                    Err(error) if error.kind() == ErrorKind::InvalidData => {
                        say!("standard input, line {nth}: not UTF-8 text; left out");
                        continue;
                    }
                    line => line.context("standard input")?,
                };
                // One phrase of many that says nothing is no reason to end; that nobody listens is one.
                if !console::is_heard() {
                    break;
                }
                match Query::of_phrase(&search.model, &line) {
                    Ok(query) => search.show(&line, &query)?,
                    Err(error) => say!("{error}"),
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Query {
    fn of_phrase(model: &Model, text: &str) -> Result<Self> {
        Ok(Self::Phrase(phrase(&model.vocabulary, text, MAX_TOKENS)?))
    }
}

/// Everything that answers.
struct Search {
    model: Model,
    collection: Collection,
    index: Index,
    arguments: Arguments,
}

impl Search {
    fn show(&self, text: &str, query: &Query) -> Result<()> {
        let start = Instant::now();
        let results = self.find(query)?;
        let answer =
            Answer { query: text.into(), searched: self.index.len(), seconds: start.elapsed().as_secs_f64(), results };
        match self.arguments.json {
            true => console::answer_json(&answer)?,
            false => answer!("{}", answer.lines()),
        }
        if let Some(path) = &self.arguments.sheet {
            save_png(&self.sheet(&answer).draw(), path)?;
            say!("the sheet is in {}", path.display());
        }
        Ok(())
    }

    fn find(&self, query: &Query) -> Result<Vec<Found>> {
        let Arguments { top, candidates, .. } = self.arguments;
        let feature = match query {
            Query::Phrase(ids) => caption_features(&self.model.simla, &[ids])?.remove(0),
            Query::Picture(seen) => seen.feature.clone(),
        };
        // One more: a picture is not similar to itself.
        let wanted = top.max(candidates) + 1;
        let mut hits = self.index.nearest(&feature, wanted, self.arguments.exact)?;
        hits.retain(|hit| !self.is_query(hit));
        hits.truncate(wanted - 1);
        let matching = self.matching(query, &hits[..candidates.min(hits.len())])?;
        let mut scored: Vec<(Hit, Option<f32>)> =
            hits.into_iter().zip(matching.into_iter().map(Some).chain(std::iter::repeat(None))).collect();
        // Those that were not matched stay behind, nearest first: the sort is stable.
        scored.sort_by(|a, b| match (a.1, b.1) {
            (Some(a), Some(b)) => b.total_cmp(&a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        let found = |(nth, (hit, matching)): (usize, (Hit, Option<f32>))| {
            let image = self.collection.picture(&hit.name)?.image.to_string();
            Ok(Found {
                rank: nth + 1,
                image,
                caption: (!self.collection.is_pictures()).then_some(hit.name),
                similarity: hit.similarity,
                matching,
            })
        };
        scored.into_iter().take(top).enumerate().map(found).collect()
    }

    /// Matching is between a phrase and a picture; nothing for two of a kind.
    fn matching(&self, query: &Query, hits: &[Hit]) -> Result<Vec<f32>> {
        let model = &self.model.simla;
        let scores = match (query, self.collection.is_pictures()) {
            (Query::Phrase(ids), true) => {
                let patches: Vec<&[u8]> = hits.iter().map(|hit| self.index.payload(hit)).collect();
                match_probabilities(model, &patches, &vec![ids.as_slice(); hits.len()])?
            }
            (Query::Picture(seen), false) => {
                let encode = |hit: &Hit| self.model.vocabulary.encode(&hit.name, MAX_TOKENS);
                let ids: Vec<Vec<i64>> = hits.iter().map(encode).collect();
                let ids: Vec<&[i64]> = ids.iter().map(Vec::as_slice).collect();
                match_probabilities(model, &[&seen.patches], &ids)?
            }
            _ => vec![],
        };
        Ok(scores)
    }

    fn is_query(&self, hit: &Hit) -> bool {
        let same = |a: &Path, b: &Path| fs::canonicalize(a).ok() == fs::canonicalize(b).ok();
        match (&self.arguments.image, &self.arguments.images) {
            (Some(image), Some(folder)) => same(image, &folder.join(&hit.name)),
            _ => false,
        }
    }

    fn sheet(&self, answer: &Answer) -> Sheet {
        // A picture that has gone since it was found leaves its cell without one.
        let decoded = |entry: Entry| {
            let mut bytes = Vec::new();
            entry.read_image(&mut bytes).ok()?;
            simla_image::decode(&bytes, &Limits::default()).ok()
        };
        let cell = |found: &Found| Cell {
            pictures: decoded(picture(Path::new(&found.image))).into_iter().collect(),
            heading: match found.matching {
                Some(matching) => format!("{}   match {:.1} %", found.rank, 100.0 * matching),
                None => format!("{}   similarity {:.2}", found.rank, found.similarity),
            },
            caption: found.caption.clone().unwrap_or_else(|| {
                let name = Path::new(&found.image).file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            }),
            ..Cell::default()
        };
        let query = self.arguments.image.as_deref().map(|path| Cell {
            pictures: decoded(picture(path)).into_iter().collect(),
            heading: "looked for".into(),
            frame: Some(simla_pictures::canvas::GOOD),
            ..Cell::default()
        });
        Sheet {
            title: match self.arguments.image {
                Some(_) => format!("Nearest to {}", answer.query),
                None => format!("“{}”", answer.query),
            },
            note: format!("{} searched in {:.0} ms", answer.searched, 1e3 * answer.seconds),
            cells: query.into_iter().chain(answer.results.iter().map(cell)).collect(),
            ..Sheet::default()
        }
    }
}

impl Answer {
    fn lines(&self) -> String {
        let line = |found: &Found| {
            let matching = match found.matching {
                Some(matching) => format!("{:>5.1} %", 100.0 * matching),
                None => format!("{:>7}", "-"),
            };
            let caption = found.caption.iter().map(|caption| format!("  {caption}"));
            let caption: String = caption.collect();
            format!("{:>4}  {matching}  {:>10.3}  {}{caption}\n", found.rank, found.similarity, found.image)
        };
        let head = format!("{:>4}  {:>7}  {:>10}\n", "rank", "match", "similarity");
        let lines: String = self.results.iter().map(line).collect();
        format!("{head}{lines}{} searched in {:.0} ms\n", self.searched, 1e3 * self.seconds)
    }
}
