//! `simla search`.

use std::fs;
use std::io::{BufRead, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use simla::tasks::kept::Kept;
use simla::tasks::pretrain::Model;
use simla::tasks::search::{phrase, see};
use simla_data::Entry;
use simla_image::Limits;
use simla_pictures::canvas::save_png;
use simla_pictures::sheet::{Cell, Sheet};
use simla_search::Hit;

use crate::model::ModelArguments;
use simla_run::collection::{Collection, picture};
use simla_run::output::check_picture;
use simla_run::queries::search::{Answer, CANDIDATES, Found, MAX_TOKENS, Query, Search, Wanted};
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
    /// What a new index keeps of a picture for the matching score: half (precision), 8bit (half of that, near ties in another order)
    /// or none (little room, but each search looks at its candidates again)
    #[arg(long, value_name = "KEPT", conflicts_with = "data")]
    patches: Option<Kept>,
    /// Results that are shown
    #[arg(long, default_value_t = 12)]
    top: usize,
    /// Nearest by contrast that the matching score ranks again; 0 for none
    #[arg(long, default_value_t = CANDIDATES)]
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
        (Some(text), _) => Some((text.clone(), of_phrase(&model, text)?)),
        (None, Some(path)) => {
            let seen = see(&model.simla, &[picture(path)])?.remove(0)?;
            Some((path.display().to_string(), Query::Picture(seen)))
        }
        (None, None) => None,
    };
    let (index, embedded) = collection.index(&place, &model, MAX_TOKENS, arguments.patches)?;
    if embedded > 0 {
        say!("{embedded} of {} embedded anew; the index is in {}", index.len(), place.display());
    }
    let shown = Shown { search: Search { model, collection, index }, arguments };
    match query {
        Some((text, query)) => shown.show(&text, &query)?,
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
                match of_phrase(&shown.search.model, &line) {
                    Ok(query) => shown.show(&line, &query)?,
                    Err(error) => say!("{error}"),
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn of_phrase(model: &Model, text: &str) -> Result<Query> {
    Ok(Query::Phrase(phrase(&model.vocabulary, text, MAX_TOKENS)?))
}

/// Answers, as they were asked for.
struct Shown {
    search: Search,
    arguments: Arguments,
}

impl Shown {
    fn show(&self, text: &str, query: &Query) -> Result<()> {
        let Arguments { top, candidates, exact, .. } = self.arguments;
        let answer = self.search.answer(text, query, Wanted { top, candidates, exact }, |hit| self.is_query(hit))?;
        match self.arguments.json {
            true => console::answer_json(&answer)?,
            false => answer!("{}", lines(&answer)),
        }
        if let Some(path) = &self.arguments.sheet {
            save_png(&self.sheet(&answer).draw(), path)?;
            say!("the sheet is in {}", path.display());
        }
        Ok(())
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

fn lines(answer: &Answer) -> String {
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
    let lines: String = answer.results.iter().map(line).collect();
    format!("{head}{lines}{} searched in {:.0} ms\n", answer.searched, 1e3 * answer.seconds)
}
