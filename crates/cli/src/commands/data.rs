//! `simla data`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use simla_data::caption::MAX_WORDS;
use simla_data::{
    Dataset, InspectOptions, Inspection, Options, PackOptions, Packed, Shrunk, Vocabulary, inspect, pack,
};
use simla_image::Limits;
use simla_pictures::canvas::{fit, save_png};
use simla_pictures::sheet::{Cell, Sheet};

use simla_run::output::{check_picture, files_of};
use simla_run::progress::{Count, Progress};
use simla_run::sources::open_sources;
use simla_run::{answer, console};

/// Image-caption pairs: what they are like, and their way into shards
#[derive(Subcommand)]
pub enum Command {
    Inspect(InspectArguments),
    Pack(PackArguments),
}

#[derive(Args)]
struct Sources {
    /// Image-caption pairs: .json, .csv, .tsv or .tar files, patterns like {000..041}.tar, folders of .tar files, folders of photographs
    /// with a .txt or .json beside each; .tar files also at s3://, gs://, az://, https://
    #[arg(required = true, value_name = "FILE")]
    data: Vec<String>,
    /// Folder that image paths are relative to, in place of the file's own
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Column of image paths in CSV and TSV files
    #[arg(long, default_value = "image", value_name = "NAME")]
    image_column: String,
    /// Column of captions in CSV and TSV files
    #[arg(long, default_value = "caption", value_name = "NAME")]
    caption_column: String,
}

impl Sources {
    fn open(&self, max_bad_share: f64) -> Result<Dataset> {
        let options = Options {
            image_root: self.image_root.clone(),
            image_column: self.image_column.clone(),
            caption_column: self.caption_column.clone(),
            max_bad_share,
            ..Options::default()
        };
        open_sources(&self.data, &options)
    }
}

/// Tells how much there is, how long the captions are, how large the pictures are, and what is broken
#[derive(Args)]
pub struct InspectArguments {
    #[command(flatten)]
    sources: Sources,
    /// Pictures to decode, spread over the data; 0 for all. Captions are all read in any case
    #[arg(long, default_value_t = 1000, value_name = "N")]
    images: u64,
    /// Pairs to show
    #[arg(long, default_value_t = 16, value_name = "N")]
    samples: usize,
    /// Draw them as a PNG, too
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Overwrite the file that --sheet names
    #[arg(long)]
    force: bool,
    /// A vocab.txt or tokenizer.json: tells how many word pieces the captions have, and how many of them it does not know
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// One JSON object in place of the text
    #[arg(long)]
    json: bool,
}

/// Writes any source as tar shards, which are read from disk in one sweep
///
/// The shards hold an image, a .txt with its first caption and a .json with all of them, as img2dataset lays them out. Pictures are copied
/// as they are, but for those that `--side` makes smaller. Records that cannot be used are left out, counted and named.
#[derive(Args)]
pub struct PackArguments {
    #[command(flatten)]
    sources: Sources,
    /// Folder for the shards; it must not be there, or be empty
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Records of a shard
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    shard_size: usize,
    /// Decides the random order of the records
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Keep the order of the files; training mixes within a window of shards only
    #[arg(long, conflicts_with = "seed")]
    in_order: bool,
    /// Shrink pictures whose shorter side is longer than N pixels, by the resampling of training views: PNG stays PNG, JPEG and WebP become
    /// JPEG of quality 92. Nothing is enlarged. Twice image_size keeps crops sharp
    #[arg(long, value_name = "N")]
    side: Option<u32>,
    /// Share of unusable records above which nothing is written
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    max_bad_share: f64,
    /// One JSON object in place of the text
    #[arg(long)]
    json: bool,
}

pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Inspect(arguments) => look(&arguments)?,
        Command::Pack(arguments) => write_shards(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn look(arguments: &InspectArguments) -> Result<()> {
    let vocabulary = arguments.vocabulary.as_deref().map(Vocabulary::open);
    let vocabulary = vocabulary.transpose()?;
    // However much of it is broken: that is what is asked.
    let dataset = arguments.sources.open(1.0)?;
    check_picture(arguments.sheet.as_deref(), arguments.force, || files_of(&dataset))?;
    let options = InspectOptions {
        images: match arguments.images {
            0 => u64::MAX,
            some => some,
        },
        samples: arguments.samples,
        ..InspectOptions::default()
    };
    let looks = dataset.len() + options.images.min(dataset.len());
    let count = Count::new(Progress::patient("captions and pictures", looks));
    let seen = inspect(&dataset, vocabulary.as_ref(), &options, || count.one_more())?;
    drop(count);
    if let Some(path) = &arguments.sheet {
        save_sheet(&dataset, &seen, path)?;
    }
    match arguments.json {
        true => console::answer_json(&seen)?,
        false => answer!("{}", described(&seen, options.max_tokens)),
    }
    Ok(())
}

/// The samples with their captions.
fn save_sheet(dataset: &Dataset, seen: &Inspection, path: &Path) -> Result<()> {
    let mut sheet = Sheet {
        title: "Samples".into(),
        note: format!("{} of {} records, drawn at random.", seen.samples.len(), seen.records),
        ..Sheet::default()
    };
    for sample in &seen.samples {
        let record = dataset.record(sample.index)?;
        let picture = simla_image::decode(&record.image, &Limits::default())?;
        sheet.cells.push(Cell {
            pictures: vec![fit(&picture, sheet.side)],
            heading: format!("{} x {}", sample.width, sample.height),
            caption: sample.captions.join(" / "),
            ..Cell::default()
        });
    }
    Ok(save_png(&sheet.draw(), path)?)
}

/// What was seen, as people read it.
fn described(seen: &Inspection, max_tokens: usize) -> String {
    let mut text = String::new();
    let mut line = |name: &str, what: String| {
        let _ = writeln!(text, "{name:<10}{what}"); // a String takes everything
    };
    for (path, records) in &seen.sources {
        line("source", format!("{}: {records} records", path.display()));
    }
    let weighted = match seen.epoch == seen.records {
        true => String::new(),
        false => format!(" ({} an epoch)", seen.epoch),
    };
    line("records", format!("{}{weighted}", seen.records));
    line("captions", format!("{}", seen.captions));
    let [few, median, many] = [0.0, 0.5, 1.0].map(|share| quantile(&seen.words, share));
    let longer = match many > MAX_WORDS {
        true => format!("{MAX_WORDS}+"),
        false => many.to_string(),
    };
    line(
        "words",
        format!(
            "{few} to {longer} a caption, half of them up to {median}; {} captions have more than {MAX_WORDS} and are cut",
            seen.words.last().copied().unwrap_or(0)
        ),
    );
    if let Some(pieces) = &seen.pieces {
        let share = |part: u64, all: u64| 100.0 * part as f64 / all.max(1) as f64;
        line(
            "pieces",
            format!(
                "{:.1} a caption, {:.2} % of them unknown; {} captions ({:.1} %) have more than {} and are cut",
                pieces.pieces as f64 / seen.captions.max(1) as f64,
                share(pieces.unknown, pieces.pieces),
                pieces.cut,
                share(pieces.cut, seen.captions),
                max_tokens - 2
            ),
        );
    }
    let images = &seen.images;
    let sides = |[least, median, most]: [u32; 3]| format!("{least} to {most} (median {median})");
    line(
        "pictures",
        format!(
            "{} decoded: {} pixels wide, {} high; {:.1} KB each",
            images.decoded,
            sides(images.width),
            sides(images.height),
            images.mean_bytes / 1000.0
        ),
    );
    line("broken", format!("{}", seen.report));
    for sample in &seen.samples {
        line("sample", sample.name.replace(char::is_control, " "));
        for caption in &sample.captions {
            line("", caption.replace(char::is_control, " ")); // nothing that a terminal obeys
        }
    }
    text
}

/// The number of words that this share of the captions does not exceed, from how many captions have so many words.
fn quantile(words: &[u64], share: f64) -> usize {
    let all: u64 = words.iter().sum();
    let rank = ((all as f64 * share).ceil() as u64).max(1);
    let mut below = 0;
    let reached = words.iter().position(|&count| {
        below += count;
        below >= rank
    });
    reached.unwrap_or(0)
}

fn write_shards(arguments: &PackArguments) -> Result<()> {
    let dataset = arguments.sources.open(arguments.max_bad_share)?;
    let options = PackOptions {
        shard_size: arguments.shard_size,
        shuffle: (!arguments.in_order).then_some(arguments.seed),
        side: arguments.side,
    };
    let mut progress = Progress::patient("records", dataset.len());
    let packed = pack(&dataset, &arguments.output, &options, |done| {
        progress.set(done, String::new);
    })?;
    drop(progress);
    match arguments.json {
        true => console::answer_json(&packed)?,
        false => answer!("{}", packed_text(&packed, &arguments.output)),
    }
    Ok(())
}

fn packed_text(packed: &Packed, folder: &Path) -> String {
    let mut text = format!(
        "{} records in {} shards, {:.1} MB: {}\n",
        packed.records,
        packed.shards.len(),
        packed.bytes as f64 / 1e6,
        folder.display()
    );
    if let Some(shrunk) = &packed.shrunk {
        text += &shrunk_text(shrunk, packed.records);
    }
    if packed.report.bad > 0 {
        text += &format!("left out: {}\n", packed.report);
    }
    text
}

/// How much smaller and faster shrinking made the pictures.
fn shrunk_text(shrunk: &Shrunk, records: u64) -> String {
    let Shrunk { pictures, bytes_before, bytes_after, decode_s_before, decode_s_after } = *shrunk;
    if pictures == 0 {
        return "shrunk: none of the pictures; all are small enough\n".into();
    }
    let each = |seconds: f64| 1000.0 * seconds / pictures as f64;
    format!(
        "shrunk: {pictures} of {records} pictures, {:.1} MB to {:.1} MB ({:.1} x smaller); decoding one took {:.1} ms, now {:.1} ms ({:.1} x \
         faster)\n",
        bytes_before as f64 / 1e6,
        bytes_after as f64 / 1e6,
        bytes_before as f64 / bytes_after as f64,
        each(decode_s_before),
        each(decode_s_after),
        decode_s_before / decode_s_after
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shrinking_gained_is_said() {
        let shrunk = Shrunk {
            pictures: 2,
            bytes_before: 8_000_000,
            bytes_after: 100_000,
            decode_s_before: 0.25,
            decode_s_after: 0.005,
        };
        assert_eq!(
            shrunk_text(&shrunk, 3),
            "shrunk: 2 of 3 pictures, 8.0 MB to 0.1 MB (80.0 x smaller); decoding one took 125.0 ms, now 2.5 ms (50.0 x faster)\n"
        );
        assert!(shrunk_text(&Shrunk::default(), 3).contains("none"));
    }

    #[test]
    fn quantiles_of_counts() {
        // Two captions of one word, one of three, one of four.
        let words = [0, 2, 0, 1, 1];
        assert_eq!([0.0, 0.5, 0.75, 1.0].map(|share| quantile(&words, share)), [1, 1, 3, 4]);
        assert_eq!(quantile(&[0, 0], 0.5), 0);
    }
}
