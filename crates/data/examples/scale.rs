//! How long a large JSON file takes to open, how fast its records are found, and how much memory that needs.
//!
//!     cargo run --release -p simla-data --example scale -- generate 5000000 pairs.json
//!     cargo run --release -p simla-data --example scale -- measure pairs.json
//!
//! `measure` prints one line of JSON; memory is the process's own peak (VmHWM), in MiB.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use simla_data::{Dataset, Options, Source};

/// Records that are read at random after opening.
const READ: u64 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["generate", count, path] => generate(count.parse()?, path.into()),
        ["measure", path] => measure(path.into()),
        _ => Err("expected: generate COUNT FILE.json | measure FILE.json".into()),
    }
}

/// Writes records as long as those of the paper's data: one caption of about ten words each.
fn generate(count: u64, path: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let words = ["a", "dog", "runs", "over", "the", "green", "field", "towards", "photographer", "evening"];
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    for i in 0..count {
        let caption: Vec<&str> = (0..10).map(|j| words[((i >> j) + j) as usize % words.len()]).collect();
        let before = if i == 0 { "[" } else { ",\n" };
        write!(
            file,
            r#"{before}{{"image": "cc3m/train/{:05}/{i:09}.jpg", "caption": "{}"}}"#,
            i / 10_000,
            caption.join(" ")
        )?;
    }
    writeln!(file, "]")?;
    Ok(file.flush()?)
}

fn measure(path: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let dataset = Dataset::open(&[Source::from(path.clone())], &Options::default())?;
    let open_s = start.elapsed().as_secs_f64();
    let after_open = peak_mib()?;
    let start = Instant::now();
    let mut characters = 0;
    for i in 0..READ {
        // A stride that is prime to any likely length visits records all over the file.
        characters += dataset.entry(i * 1_000_003 % dataset.len())?.captions[0].len();
    }
    let result = serde_json::json!({
        "what": "open and read a JSON file of pairs",
        "records": dataset.len(),
        "file_mib": std::fs::metadata(&path)?.len() as f64 / f64::from(1 << 20),
        "open_s": open_s,
        "peak_mib_after_open": after_open,
        "microseconds_per_random_record": start.elapsed().as_secs_f64() * 1e6 / READ as f64,
        "peak_mib": peak_mib()?,
        "mean_caption_characters": characters as f64 / READ as f64,
    });
    println!("{result}");
    Ok(())
}

fn peak_mib() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}
