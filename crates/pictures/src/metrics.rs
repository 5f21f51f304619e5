//! The curves of a run, read from its `metrics.jsonl` in bounded memory.
//!
//! One JSON object a line: `step` and numbers by name. A run writes while we read, so the last
//! line may be half there. Millions of steps become a few thousand points: the mean of each span.

use crate::error::PicturesError;
use crate::numbers::{QUARTILES, quantiles};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Most points that a series keeps.
pub const MAX_POINTS: usize = 2000;

/// Most series that are kept; further names are counted only.
pub const MAX_NAMES: usize = 256;

/// Most skipped steps that are named.
pub const MAX_SKIPPED: usize = 20;

/// Longest line in bytes; a longer one counts as broken.
pub const MAX_LINE: u64 = 1 << 20;

/// What older runs call a number, and what it is called now.
const OLD_NAMES: &[(&str, &str)] = &[
    ("loss", "loss/total"),
    ("itc", "loss/itc"),
    ("itm", "loss/itm"),
    ("mlm", "loss/mlm"),
    ("mim", "loss/mim"),
    ("psl", "loss/psl"),
    ("reconstruction", "loss/reconstruction"),
    ("kl", "loss/kl"),
    ("epoch", "schedule/epoch"),
    ("lr", "schedule/lr"),
    ("alpha", "schedule/alpha"),
    ("temperature", "schedule/temperature"),
    ("grad_norm", "schedule/grad_norm"),
    ("batch_txt_r1", "batch/txt_r1"),
    ("batch_img_r1", "batch/img_r1"),
    ("itm_accuracy", "batch/itm_accuracy"),
    ("codes_in_batch", "batch/codes"),
    ("codes_used", "batch/codes_used"),
    ("perplexity", "batch/perplexity"),
    ("eval_error", "held_out/error"),
    ("eval_codes_used", "held_out/codes_used"),
    ("eval_perplexity", "held_out/perplexity"),
    ("txt_r1", "held_out/txt_r1"),
    ("txt_r5", "held_out/txt_r5"),
    ("txt_r10", "held_out/txt_r10"),
    ("img_r1", "held_out/img_r1"),
    ("img_r5", "held_out/img_r5"),
    ("img_r10", "held_out/img_r10"),
    ("pairs_per_s", "machine/pairs_per_s"),
    ("waited_s", "machine/waited_s"),
    ("memory_gib", "machine/memory_gib"),
];

/// A run that is resumed with a newer program has lines of both kinds: one curve.
fn todays(name: String) -> String {
    let known = OLD_NAMES.iter().find(|(old, _)| *old == name);
    known.map_or(name, |(_, new)| (*new).to_owned())
}

/// What a metrics file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// Points (step, value) of each name, thinned to at most [`MAX_POINTS`].
    pub series: BTreeMap<String, Vec<(f64, f64)>>,
    /// First quartile, median and third quartile of each name's values, of single steps and not of their means.
    pub quartiles: BTreeMap<String, [f64; 3]>,
    /// The last whole line's numbers, not thinned.
    pub last: BTreeMap<String, f64>,
    /// The last step.
    pub last_step: Option<u64>,
    /// Lines that are no JSON object with a `step`; a half-written last line is none of them.
    pub broken_lines: u64,
    /// Steps that the run skipped: their line has a text `skipped`.
    pub skipped_steps: u64,
    /// The first of them with their reasons.
    pub first_skipped: Vec<(u64, String)>,
    /// Names beyond [`MAX_NAMES`].
    pub names_left_out: usize,
}

impl Metrics {
    /// Reads a metrics file. No file means no steps yet.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(path: &Path) -> Result<Self, PicturesError> {
        match File::open(path) {
            Ok(file) => read_lines(BufReader::new(file)).map_err(PicturesError::read(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(PicturesError::read(path)(error)),
        }
    }
}

fn read_lines(mut lines: impl BufRead) -> std::io::Result<Metrics> {
    let mut metrics = Metrics::default();
    let mut thinned: BTreeMap<String, Thinned> = BTreeMap::new();
    let mut left_out = std::collections::BTreeSet::new();
    let mut line = Vec::new();
    while let Some(whole) = next_line(&mut lines, &mut line)? {
        let Some((step, object)) = parsed(&line) else {
            metrics.broken_lines += u64::from(whole);
            continue;
        };
        metrics.last_step = Some(step);
        metrics.last.clear();
        if let Some(reason) = object.get("skipped").and_then(Value::as_str) {
            metrics.skipped_steps += 1;
            if metrics.first_skipped.len() < MAX_SKIPPED {
                metrics.first_skipped.push((step, reason.to_string()));
            }
        }
        for (name, value) in object {
            let Some(number) = value.as_f64().filter(|_| name != "step") else {
                continue;
            };
            let name = todays(name);
            if thinned.contains_key(&name) || thinned.len() < MAX_NAMES {
                let series = thinned.entry(name.clone()).or_default();
                series.push(step as f64, number);
                metrics.last.insert(name, number);
            } else if left_out.len() < MAX_NAMES {
                left_out.insert(name);
            }
        }
    }
    metrics.names_left_out = left_out.len();
    for (name, series) in thinned {
        if let Some(quartiles) = quantiles(series.single.iter().copied(), QUARTILES) {
            metrics.quartiles.insert(name.clone(), quartiles);
        }
        metrics.series.insert(name, series.finish());
    }
    Ok(metrics)
}

/// Reads the next line into `line`, its end cut off. Some(true): a whole line, Some(false): the
/// file ends in the middle of it (or it may), None: no more. Lines too long come out empty.
fn next_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<Option<bool>> {
    line.clear();
    let read = lines.take(MAX_LINE).read_until(b'\n', line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(true));
    }
    if (read as u64) < MAX_LINE {
        return Ok(Some(false));
    }
    line.clear();
    lines.skip_until(b'\n')?;
    Ok(Some(true))
}

fn parsed(line: &[u8]) -> Option<(u64, Map<String, Value>)> {
    let object: Map<String, Value> = serde_json::from_slice(line).ok()?;
    Some((object.get("step")?.as_u64()?, object))
}

/// A series that stays short: when it is full, neighbours are averaged and twice as many values go
/// into each later point.
struct Thinned {
    /// Means of `per_point` values each.
    points: Vec<(f64, f64)>,
    per_point: u32,
    /// The first value of each point alone.
    single: Vec<f64>,
    /// Sums of steps and values of the point that is being filled, and their number.
    open: (f64, f64, u32),
}

impl Default for Thinned {
    fn default() -> Self {
        Self { points: Vec::new(), per_point: 1, single: Vec::new(), open: (0.0, 0.0, 0) }
    }
}

impl Thinned {
    fn push(&mut self, step: f64, value: f64) {
        // A run that was resumed from an older checkpoint walks some steps again: the later counts.
        if self.points.last().is_some_and(|last| last.0 >= step) {
            let kept = self.points.partition_point(|point| point.0 < step);
            self.points.truncate(kept);
            self.single.truncate(kept);
            self.open = (0.0, 0.0, 0);
        }
        if self.open.2 == 0 {
            self.single.truncate(self.points.len());
            self.single.push(value);
        }
        let (steps, values, count) = &mut self.open;
        (*steps, *values, *count) = (*steps + step, *values + value, *count + 1);
        if *count < self.per_point {
            return;
        }
        self.close();
        if self.points.len() >= MAX_POINTS {
            let halved = self.points.chunks(2).map(|pair| {
                let count = pair.len() as f64;
                let sum = |of: fn(&(f64, f64)) -> f64| pair.iter().map(of).sum::<f64>();
                (sum(|p| p.0) / count, sum(|p| p.1) / count)
            });
            self.points = halved.collect();
            self.single = self.single.iter().copied().step_by(2).collect();
            self.per_point *= 2;
        }
    }

    fn close(&mut self) {
        let (steps, values, count) = std::mem::take(&mut self.open);
        if count > 0 {
            let count = f64::from(count);
            self.points.push((steps / count, values / count));
        }
    }

    fn finish(mut self) -> Vec<(f64, f64)> {
        self.close();
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Metrics {
        read_lines(text.as_bytes()).unwrap()
    }

    #[test]
    fn lines_become_series() {
        let metrics = read("{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2,\"note\":\"x\"}\n");
        assert_eq!(metrics.series["loss/total"], [(1.0, 2.5), (2.0, 2.0)]);
        assert_eq!(metrics.series.len(), 1);
        assert_eq!((metrics.last_step, metrics.last["loss/total"]), (Some(2), 2.0));
        assert_eq!(metrics.broken_lines, 0);
    }

    #[test]
    fn a_half_written_last_line_is_not_broken() {
        let metrics = read("{\"step\":1,\"loss\":2}\n{\"step\":2,\"lo");
        assert_eq!(metrics.series["loss/total"], [(1.0, 2.0)]);
        assert_eq!(metrics.broken_lines, 0);
        let metrics = read("{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":3}");
        assert_eq!(metrics.last_step, Some(2), "whole but for its end of line");
    }

    #[test]
    fn broken_lines_are_counted_and_passed() {
        let metrics = read("nonsense\n[1]\n{\"loss\":1}\n\n{\"step\":-1}\n{\"step\":3,\"a\":1}\n");
        assert_eq!(metrics.broken_lines, 5);
        assert_eq!(metrics.series["a"], [(3.0, 1.0)]);
        let endless = format!("{}\n{{\"step\":3,\"a\":1}}\n", "x".repeat(3 << 20));
        let metrics = read(&endless);
        assert_eq!((metrics.broken_lines, metrics.last_step), (1, Some(3)));
    }

    #[test]
    fn missing_numbers_leave_gaps_only() {
        let metrics = read("{\"step\":1,\"a\":null,\"b\":1}\n{\"step\":2,\"a\":5}\n");
        assert_eq!(metrics.series["a"], [(2.0, 5.0)]);
        assert!(!metrics.last.contains_key("b"));
    }

    #[test]
    fn skipped_steps_are_counted_with_their_reason() {
        let line = |step| format!("{{\"step\":{step},\"loss\":null,\"skipped\":\"loss is NaN\"}}\n");
        let lines: String = (1..=30).map(line).collect();
        let metrics = read(&lines);
        assert_eq!((metrics.skipped_steps, metrics.first_skipped.len()), (30, MAX_SKIPPED));
        assert_eq!(metrics.first_skipped[0], (1, "loss is NaN".to_string()));
    }

    #[test]
    fn steps_walked_again_replace_the_first_walk() {
        let metrics = read("{\"step\":1,\"a\":1}\n{\"step\":2,\"a\":1}\n{\"step\":3,\"a\":1}\n{\"step\":2,\"a\":9}\n");
        assert_eq!(metrics.series["a"], [(1.0, 1.0), (2.0, 9.0)]);
    }

    #[test]
    fn long_runs_are_thinned_to_means() {
        let steps = 20 * MAX_POINTS as u64 + 7;
        let lines = (0..steps).map(|step| format!("{{\"step\":{step},\"a\":{}}}\n", 2 * step));
        let metrics = read(&lines.collect::<String>());
        let (points, read_quartiles) = (&metrics.series["a"], metrics.quartiles["a"]);
        assert!(points.len() <= MAX_POINTS && points.len() >= MAX_POINTS / 2);
        assert!(points.iter().all(|(x, y)| (2.0 * x - y).abs() < 1e-6));
        let [low, median, high] = read_quartiles;
        let (step, end) = (0.02 * steps as f64, 2.0 * steps as f64);
        assert!(
            (median - end / 2.0).abs() < step && (low - end / 4.0).abs() < step && (high - end * 0.75).abs() < step
        );
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn old_and_new_names_are_one_curve() {
        let metrics = read("{\"step\":1,\"itc\":3}\n{\"step\":2,\"loss/itc\":2,\"own\":1}\n");
        assert_eq!(metrics.series["loss/itc"], [(1.0, 3.0), (2.0, 2.0)]);
        assert_eq!(metrics.series.keys().collect::<Vec<_>>(), ["loss/itc", "own"]);
    }

    #[test]
    fn names_are_bounded() {
        let names: Vec<String> = (0..MAX_NAMES + 3).map(|n| format!("\"n{n}\":1")).collect();
        let metrics = read(&format!("{{\"step\":1,{}}}\n", names.join(",")));
        assert_eq!(metrics.series.len(), MAX_NAMES);
        assert_eq!(metrics.names_left_out, 3);
    }

    #[test]
    fn no_file_is_no_steps_and_a_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let none = Metrics::read(&folder.path().join("metrics.jsonl")).unwrap();
        assert_eq!(none, Metrics::default());
        let error = Metrics::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    }
}
