//! What `simla ablate` shows: table 1 as text, numbers and bars, figure 4 as curves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use simla::tasks::retrieval::{Recalls, Retrieval};
use simla_files::write_atomically;
use simla_pictures::bar_chart::{BarChart, Group};
use simla_pictures::canvas::save_png;
use simla_pictures::curves::Chart;
use simla_pictures::numbers::mean_and_deviation;
use simla_pictures::series::Series;
use simla_run::settings::Settings;
use simla_train::metrics::StepRecord;

use crate::commands::ablate::{Compared, Row};
use simla_run::watch::Evaluation;

/// A number of a ranking, in percent.
type Measure = fn(&Recalls) -> f64;

const BY_CONTRAST: &str = "mean by contrast";

/// What is shown of a ranking, beside the mean by contrast alone.
const MEASURES: [(&str, Measure); 5] = [
    ("TR@1", |r| r.txt_r1),
    ("TR@10", |r| r.txt_r10),
    ("IR@1", |r| r.img_r1),
    ("IR@10", |r| r.img_r10),
    ("mean", Recalls::mean),
];

/// What came of one row with one seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub seed: u64,
    pub row: usize,
    pub folder: PathBuf,
    /// At the end.
    pub retrieval: Retrieval,
    /// Of training, evaluations and checkpoints not counted.
    pub seconds: f64,
    /// At every evaluation.
    pub curve: Vec<Point>,
}

/// How good a run was at an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Of training, evaluations and checkpoints not counted.
    pub seconds: f64,
    /// That it had seen.
    pub pairs: u64,
    /// Mean recall by contrast, in percent.
    pub recall: f64,
}

impl Outcome {
    /// From the folder of a run that has ended; a step has so many pairs.
    pub fn read(seed: u64, row: usize, folder: PathBuf, retrieval: Retrieval, pairs: u64) -> Result<Self> {
        let evaluations: Vec<Evaluation> = rows(&folder.join("evaluation.jsonl"))?;
        let clock = clock(&step_seconds(&folder, pairs)?);
        let names = retrieval.itc.named().map(|(name, _)| name);
        let point = |found: &Evaluation| {
            let seconds = *clock.get(found.step.checked_sub(1)? as usize)?;
            let recalls = names.iter().filter_map(|name| found.scores.get(*name)).sum::<f64>();
            Some(Point { seconds, pairs: found.step * pairs, recall: recalls / names.len() as f64 })
        };
        Ok(Self {
            seed,
            row,
            folder,
            retrieval,
            seconds: clock.last().copied().unwrap_or(0.0),
            curve: evaluations.iter().filter_map(point).collect(),
        })
    }
}

/// The lines of a file of JSON lines.
fn rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let row =
        |(number, line)| serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), number + 1));
    text.lines().enumerate().map(row).collect()
}

/// Seconds that each step of a run took, from its pairs a second; a step has so many pairs.
pub fn step_seconds(folder: &Path, pairs: u64) -> Result<Vec<f64>> {
    let steps: Vec<StepRecord> = rows(&folder.join("metrics.jsonl"))?;
    Ok(steps.iter().map(|step| pairs as f64 / step.pairs_per_s).collect())
}

/// Seconds of training after each step: a run that was interrupted has every step once, with the time that it took.
fn clock(steps: &[f64]) -> Vec<f64> {
    let mut seconds = 0.0;
    let after = |step: &f64| {
        seconds += step;
        seconds
    };
    steps.iter().map(after).collect()
}

/// The comparison of all rows.
pub struct Comparison<'a> {
    rows: &'a [Row],
    outcomes: &'a [Outcome],
    title: &'static str,
    seeds: Vec<u64>,
    note: String,
}

impl<'a> Comparison<'a> {
    /// Of at least one run, all with these settings but for their objectives.
    pub fn new(rows: &'a [Row], outcomes: &'a [Outcome], settings: &Settings, compared: Compared) -> Self {
        let mut seeds: Vec<u64> = outcomes.iter().map(|run| run.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let listed: Vec<String> = seeds.iter().map(u64::to_string).collect();
        let found = &outcomes[0].retrieval;
        let spread = match seeds.len() {
            1 => format!("One run a row, with seed {}", seeds[0]),
            n => format!("Mean and standard deviation of {n} runs a row, with the seeds {}", listed.join(", ")),
        };
        let guess = match rows.iter().any(|row| !row.objectives.itc) {
            true => " In the row of ITM alone nothing trains the contrast, and they are a guess.",
            false => "",
        };
        let pairs = settings.train.pairs_per_step();
        let budget = match compared.minutes {
            Some(minutes) => format!("about {minutes} minutes of training each, in steps of {pairs} pairs"),
            None => {
                let steps = outcomes[0].curve.last().map_or(0, |last| last.pairs / pairs);
                format!("{steps} steps of {pairs} pairs each")
            }
        };
        let note = format!(
            "Percent of {} held-out images and {} captions. Where ITM takes part, each query's first {} by contrast are ranked again by \
             it.{guess} {spread}; {budget}.",
            found.images, found.captions, found.top_k,
        );
        Self { rows, outcomes, title: compared.rows.title(), seeds, note }
    }

    /// By contrast, where contrast takes part: else it is the order of the ranking, and a guess.
    fn contrast(&self, run: &'a Outcome) -> Option<&'a Recalls> {
        self.rows[run.row].objectives.itc.then_some(&run.retrieval.itc)
    }

    /// As the row ranks: by matching, where that takes part.
    fn ranking(&self, run: &'a Outcome) -> &'a Recalls {
        let matched = run.retrieval.itm.as_ref().filter(|_| self.rows[run.row].objectives.itm);
        matched.unwrap_or(&run.retrieval.itc)
    }

    fn runs(&self, row: usize) -> impl Iterator<Item = &'a Outcome> {
        self.outcomes.iter().filter(move |run| run.row == row)
    }

    fn chance(&self) -> Recalls {
        self.outcomes[0].retrieval.chance()
    }

    fn measures() -> impl Iterator<Item = &'static str> {
        MEASURES.iter().map(|(name, _)| *name).chain([BY_CONTRAST])
    }

    /// The numbers of every row, and of guessing.
    fn groups(&self) -> Vec<Group> {
        let row = |row: usize| {
            let measured =
                |measure: fn(&Recalls) -> f64| self.runs(row).map(|run| measure(self.ranking(run))).collect();
            let contrast = self.runs(row).filter_map(|run| self.contrast(run));
            let mut values: Vec<Vec<f64>> = MEASURES.iter().map(|(_, of)| measured(*of)).collect();
            values.push(contrast.map(Recalls::mean).collect());
            Group { name: self.rows[row].name.clone(), values }
        };
        let guess = self.chance();
        let chance = MEASURES.iter().map(|(_, of)| vec![of(&guess)]).chain([vec![guess.mean()]]);
        let chance = Group { name: "chance".into(), values: chance.collect() };
        (0..self.rows.len()).map(row).chain([chance]).collect()
    }

    /// Table 1 in small as text: means and, with several seeds, standard deviations, and the time that each row took.
    pub fn markdown(&self) -> String {
        let number = |values: &Vec<f64>| match mean_and_deviation(values) {
            (mean, _) if mean.is_nan() => "-".to_string(),
            (mean, _) if values.len() < 2 => format!("{mean:.1}"),
            (mean, deviation) => format!("{mean:.1} ± {deviation:.1}"),
        };
        let line = |(row, group): (usize, &Group)| {
            let minutes: Vec<f64> = self.runs(row).map(|run| run.seconds / 60.0).collect();
            let minutes =
                if minutes.is_empty() { String::new() } else { format!("{:.1}", mean_and_deviation(&minutes).0) };
            let numbers = group.values.iter().map(number);
            std::iter::once(group.name.clone()).chain(numbers).chain([minutes]).collect()
        };
        let header = std::iter::once("objectives").chain(Self::measures()).chain(["minutes of training"]);
        let header = std::iter::once(header.map(str::to_owned).collect());
        let lines: Vec<Vec<String>> = header.chain(self.groups().iter().enumerate().map(line)).collect();
        format!("# {}\n\n{}\n{}\n", self.title, markdown(&lines), self.note)
    }

    /// The table as bars.
    fn bars(&self) -> BarChart {
        BarChart {
            title: self.title.into(),
            x_label: "percent".into(),
            measures: Self::measures().map(str::to_owned).collect(),
            groups: self.groups(),
        }
    }

    /// Every number: of each run, and each row's mean and deviation over the seeds.
    pub fn json(&self) -> Value {
        let found = &self.outcomes[0].retrieval;
        let row = |(row, group): (usize, &Group)| {
            let of = |values: &Vec<f64>| {
                let (mean, deviation) = mean_and_deviation(values);
                json!({"mean": mean, "deviation": deviation})
            };
            let summary: Map<String, Value> = Self::measures()
                .zip(&group.values)
                .filter(|(_, values)| !values.is_empty())
                .map(|(name, values)| (name.to_owned(), of(values)))
                .collect();
            let runs: Vec<Value> = self
                .runs(row)
                .map(|run| {
                    json!({"seed": run.seed, "folder": run.folder, "seconds": run.seconds, "reranked": self.ranking(run),
                        "contrast": self.contrast(run), "curve": run.curve})
                })
                .collect();
            json!({"name": group.name, "objectives": self.rows[row].objectives, "percent": summary, "runs": runs})
        };
        let rows: Vec<Value> = self.groups()[..self.rows.len()].iter().enumerate().map(row).collect();
        json!({"images": found.images, "captions": found.captions, "top_k": found.top_k, "seeds": self.seeds, "rows": rows,
            "chance": self.chance(), "note": self.note})
    }

    /// Retrieval by contrast against something that grows, with the spread over the seeds (figure 4).
    fn curves(&self, title: &str, x_label: &str, x: fn(&Point) -> f64) -> Chart {
        let curve = |run: &Outcome| run.curve.iter().map(|point| (x(point), point.recall)).collect();
        let series = |(row, of): (usize, &Row)| {
            let runs: Vec<Vec<(f64, f64)>> = self.runs(row).map(curve).collect();
            Series::over_runs(of.name.clone(), &runs)
        };
        let series: Vec<Series> = self.rows.iter().enumerate().map(series).collect();
        let last = series.iter().filter_map(|series| series.points.last());
        let last = last.map(|point| point.0).fold(0.0, f64::max);
        let guess = self.chance().mean();
        Chart {
            title: title.into(),
            x_label: x_label.into(),
            y_label: "mean recall by contrast, percent".into(),
            series,
            baselines: vec![Series::new("chance", vec![(0.0, guess), (last, guess)])],
            ..Chart::default()
        }
    }

    fn over_time(&self) -> Chart {
        self.curves("Held-out retrieval against the time of training", "minutes of training", |p| p.seconds / 60.0)
    }

    fn over_pairs(&self) -> Chart {
        self.curves("Held-out retrieval against the pairs seen", "thousands of pairs", |p| p.pairs as f64 / 1000.0)
    }

    /// Writes table, numbers and pictures.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.json())? + "\n";
        for (name, text) in [("ablation.md", self.markdown()), ("ablation.json", json)] {
            let path = folder.join(name);
            write_atomically(&path, text.as_bytes()).with_context(|| path.display().to_string())?;
        }
        save_png(&self.bars().draw(), &folder.join("ablation.png"))?;
        save_png(&self.over_time().draw(), &folder.join("curves.png"))?;
        save_png(&self.over_pairs().draw(), &folder.join("curves-pairs.png"))?;
        Ok(())
    }
}

/// A table as Markdown, the first line its header, its columns as wide as their words: it reads well as it is, too.
fn markdown(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text += &format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
        if number == 0 {
            let rule = |(column, width): (usize, &usize)| match column {
                0 => "-".repeat(*width),
                _ => format!("{}:", "-".repeat(width - 1)),
            };
            let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
            text += &format!("| {} |\n", rules.join(" | "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::ablate::Preset;

    fn recalls(shares: [f64; 6]) -> Recalls {
        let [txt_r1, txt_r5, txt_r10, img_r1, img_r5, img_r10] = shares;
        Recalls { txt_r1, txt_r5, txt_r10, img_r1, img_r5, img_r10 }
    }

    fn settings() -> Settings {
        Settings::preset(simla::config::Preset::Tiny)
    }

    const TABLE: Compared = Compared { rows: Preset::Table1, minutes: None };

    fn point(seconds: f64, pairs: u64, recall: f64) -> Point {
        Point { seconds, pairs, recall }
    }

    /// Five rows with two seeds; seed 1 finds 2 percent more, contrast 3 percent less.
    fn outcomes() -> Vec<Outcome> {
        let outcome = |row: usize, seed: u64| {
            let base = 10.0 * row as f64 + 2.0 * seed as f64;
            let itm = recalls([base, base + 6.0, base + 12.0, base, base + 6.0, base + 12.0]);
            let itc = recalls([base - 3.0; 6]);
            Outcome {
                seed,
                row,
                folder: format!("seed-{seed}").into(),
                retrieval: Retrieval { images: 20, captions: 40, items: 20, top_k: 4, itc, itm: Some(itm) },
                seconds: 60.0 * (1.0 + row as f64),
                curve: vec![point(30.0, 112, base / 2.0), point(60.0 + seed as f64, 224, base)],
            }
        };
        let seeds = |row| [0, 1].map(move |seed| outcome(row, seed));
        (0..5).flat_map(seeds).collect()
    }

    #[test]
    fn time_adds_up_over_steps() {
        assert_eq!(clock(&[2.0, 4.0, 1.0]), [2.0, 6.0, 7.0]);
        assert!(clock(&[]).is_empty());
    }

    #[test]
    fn the_table_holds_means_deviations_and_chance() {
        let (rows, outcomes) = (TABLE.rows.rows(), outcomes());
        let text = Comparison::new(&rows, &outcomes, &settings(), TABLE).markdown();
        let cells = |start: &str| -> Vec<&str> {
            let line = text.lines().find(|line| line.starts_with(start));
            let line = line.unwrap_or_else(|| panic!("{start} in {text}"));
            line.split('|').map(str::trim).collect()
        };
        // Seeds 0 and 1 of + ITC: 10 and 12 at rank 1; their mean is 11, their deviation the root of 2. The six recalls' mean: 6 more.
        let expected =
            ["", "+ ITC", "11.0 ± 1.4", "23.0 ± 1.4", "11.0 ± 1.4", "23.0 ± 1.4", "17.0 ± 1.4", "8.0 ± 1.4", "2.0", ""];
        assert_eq!(cells("| + ITC"), expected);
        assert_eq!(cells("| ITM")[7], "-", "ITM alone has no contrast");
        // One of 20 images; with 2 captions of 40 right, ten guesses miss with 30 x 29 / (40 x 39) = 0.558; ten of 20 images are half.
        let chance = cells("| chance");
        assert_eq!(chance[2..6], ["5.0", "44.2", "5.0", "50.0"]);
        assert!(text.contains("20 held-out images and 40 captions") && text.contains("7 steps of 32 pairs"));
    }

    #[test]
    fn json_has_every_run_and_what_they_come_to() {
        let (rows, outcomes) = (TABLE.rows.rows(), outcomes());
        let json = Comparison::new(&rows, &outcomes, &settings(), TABLE).json();
        let row = &json["rows"][2];
        assert_eq!(row["objectives"], json!(["itc", "itm", "mlm"]));
        assert_eq!(row["percent"]["IR@1"]["mean"], 21.0);
        assert_eq!(row["runs"][1]["reranked"]["txt_r1"], 22.0);
        assert_eq!(row["runs"][1]["curve"][1], json!({"seconds": 61.0, "pairs": 224, "recall": 22.0}));
        let alone = &json["rows"][0];
        assert!(alone["runs"][0]["contrast"].is_null() && alone["percent"]["mean by contrast"].is_null());
    }

    #[test]
    fn curves_are_over_time_with_their_spread() {
        let (rows, outcomes) = (TABLE.rows.rows(), outcomes());
        let chart = Comparison::new(&rows, &outcomes, &settings(), TABLE);
        let (chart, pairs) = (chart.over_time(), chart.over_pairs());
        assert_eq!(chart.series.len(), 5);
        // + MLM at its last evaluation: 20 and 22 percent after 60 and 61 seconds.
        let series = &chart.series[2];
        assert_eq!(series.points[1], (60.5 / 60.0, 21.0));
        assert_eq!(series.band[1], (20.0, 22.0));
        assert_eq!(pairs.series[2].points[1], (0.224, 21.0));
    }
}
