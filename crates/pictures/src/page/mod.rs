//! A run as one HTML page: how it stands, what it has learned beside its baselines, its curves, what was wrong with the data, its
//! settings.
//!
//! Self-contained: plots are inline SVG, pictures data URIs, and there is no script. Captions and
//! names come from strangers' data: everything passes through the template's escaping, and the
//! page's own policy forbids scripts and requests.

mod compare;
mod learned;
mod samples;
mod words;

pub use compare::{comparison, comparison_alive, save_comparison};

use crate::canvas::save_bytes;
use crate::charts::{self, Curves};
use crate::curves::Chart;
use crate::error::PicturesError;
use crate::metrics::Metrics;
use crate::numbers::short_number;
use crate::run::{EvaluationRow, RunFolder, SamplePicture, State, Status};
use image::Rgb;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::path::Path;
use std::time::SystemTime;
use words::{clipped, duration, grouped};

/// Seconds after which a browser loads the page of a running run again.
const REFRESH: u32 = 60;

const STYLE: &str = include_str!("page.css");

const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// How a page comes to show what is newer.
#[derive(Debug, Clone, Copy)]
enum Newer<'a> {
    /// It stays as it is.
    Never,
    /// The browser loads it again.
    Loaded,
    /// A script at this address does that, and a link leads back. The page's policy is its server's.
    Served { back: &'a str, script: &'a str },
}

/// The page of a run, from what its folder holds right now.
///
/// # Errors
/// When a file of the run is there and cannot be read.
pub fn report(run: &RunFolder) -> Result<String, PicturesError> {
    let page = Page::of(run)?;
    let newer = if page.running() { Newer::Loaded } else { Newer::Never };
    Ok(page.html(newer).into_string())
}

/// The same for a server, whose `script` keeps it new; a link leads `back`.
///
/// # Errors
/// When a file of the run is there and cannot be read.
pub fn report_alive(run: &RunFolder, back: &str, script: &str) -> Result<String, PicturesError> {
    Ok(Page::of(run)?.html(Newer::Served { back, script }).into_string())
}

/// Writes the page of a run to `path`, whole or not at all.
///
/// # Errors
/// When the run cannot be read or the page not be written.
pub fn save_report(run: &RunFolder, path: &Path) -> Result<(), PicturesError> {
    save_bytes(report(run)?.as_bytes(), path)
}

struct Page {
    name: String,
    now: SystemTime,
    status: Status,
    metrics: Metrics,
    evaluations: Vec<EvaluationRow>,
    /// Charts of the evaluations.
    held_out: Vec<Chart>,
    curves: Curves,
    samples: Vec<SamplePicture>,
    configuration: Option<String>,
}

impl Page {
    fn of(run: &RunFolder) -> Result<Self, PicturesError> {
        let status = run.status()?;
        let metrics = run.metrics()?;
        Ok(Self {
            name: run.name(),
            now: SystemTime::now(),
            evaluations: run.evaluations()?,
            held_out: charts::of(&run.evaluation_curves()?).charts,
            curves: charts::of(&metrics),
            samples: run.samples()?,
            configuration: run.configuration()?,
            status,
            metrics,
        })
    }

    fn running(&self) -> bool {
        self.status.state == State::Running && !self.status.silent(self.now)
    }

    fn html(&self, newer: Newer) -> Markup {
        let body = html! {
            (self.head(newer))
            (self.learned())
            (self.curves())
            (self.earlier_samples())
            (self.skipped_steps())
            (self.bad_records())
            (self.settings())
        };
        shell(&self.name, newer, &body)
    }

    fn head(&self, newer: Newer) -> Markup {
        let running = self.running();
        let status = &self.status;
        let (class, word) = match status.state {
            State::Running if !running => ("stopped", "silent"),
            State::Running => ("running", "running"),
            State::Stopped => ("stopped", "stopped"),
            State::Finished => ("finished", "finished"),
            State::Failed => ("failed", "failed"),
            State::Unknown => ("unknown", "no status"),
        };
        let step = status.step.max(self.metrics.last_step.unwrap_or(0));
        let made = humantime::format_rfc3339_seconds(self.now).to_string();
        let made = made.replace('T', " ").replace('Z', " UTC");
        html! {
            header {
                div class="head" {
                    h1 { (self.name) }
                    span class={ "state " (class) } { (word) }
                }
                @if status.steps > 0 {
                    progress max=(status.steps) value=(step.min(status.steps)) {}
                }
                p {
                    "Step " b { (grouped(step)) }
                    @if status.steps > 0 { " of " (grouped(status.steps)) }
                    @if let Some(left) = status.seconds_left.filter(|_| running).and_then(duration) {
                        " · " (left) " left"
                    }
                    @if let Some(speed) = status.pairs_per_s.filter(|v| v.is_finite()) {
                        " · " (short_number(speed)) " pairs/s"
                    }
                    @if let Some(checkpoint) = &status.checkpoint {
                        " · last checkpoint " (clipped(checkpoint))
                    }
                }
                @if !status.message.is_empty() {
                    p { (clipped(&status.message)) }
                }
                @if status.silent(self.now) {
                    p { "The run has not reported for more than a quarter of an hour: it may have been killed. "
                        "It can be resumed from its last checkpoint." }
                }
                p class="faint" {
                    "Page made " (made) "."
                    @if let Newer::Loaded = newer { " Run " code { "simla report" } " again for a newer one; the browser loads it anew every minute." }
                }
                @if self.metrics.broken_lines > 0 {
                    p class="bad" { (grouped(self.metrics.broken_lines)) " unreadable lines in metrics.jsonl were passed over." }
                }
                @if self.metrics.names_left_out > 0 {
                    p class="bad" { (self.metrics.names_left_out) " names in metrics.jsonl are too many and not shown." }
                }
            }
        }
    }

    /// The evaluations, or as long as there are none the last step; and pictures of what the model makes of its data now.
    fn learned(&self) -> Markup {
        html! {
            h2 { "Learned" }
            @if self.evaluations.is_empty() { (self.last_step()) } @else { (learned::table(&self.evaluations)) }
            @for sample in self.samples_by_time().0 { (samples::card(sample)) }
        }
    }

    fn curves(&self) -> Markup {
        let charts: Vec<&Chart> = self.held_out.iter().chain(&self.curves.charts).collect();
        html! {
            @if !charts.is_empty() || !self.curves.told.is_empty() { h2 { "Curves" } }
            (plots(&charts))
            @if !self.curves.told.is_empty() {
                p { "No curves: " @for (number, (name, words)) in self.curves.told.iter().enumerate() {
                    @if number > 0 { "; " }
                    b { (clipped(name)) } " " (words)
                } "." }
            }
            @if !self.evaluations.is_empty() && !self.metrics.last.is_empty() {
                h3 { "Last step" }
                (self.last_step())
            }
        }
    }

    fn last_step(&self) -> Markup {
        html! {
            @if self.metrics.last.is_empty() {
                p { "No steps yet." }
            } @else {
                div class="tiles" {
                    @for (name, number) in &self.metrics.last {
                        div class="tile" { span class="faint" { (clipped(name)) } b { (short_number(*number)) } }
                    }
                }
            }
        }
    }

    /// Pictures of the run as a whole and the newest of the periodic ones; and the older ones.
    fn samples_by_time(&self) -> (&[SamplePicture], &[SamplePicture]) {
        let newest = self.samples.iter().position(|sample| sample.set.step.is_some());
        self.samples.split_at(newest.map_or(self.samples.len(), |newest| newest + 1))
    }

    fn earlier_samples(&self) -> Markup {
        let (_, earlier) = self.samples_by_time();
        html! {
            @if !earlier.is_empty() {
                h2 { "Earlier" }
                @for sample in earlier { (samples::card(sample)) }
            }
        }
    }

    fn skipped_steps(&self) -> Markup {
        let metrics = &self.metrics;
        html! {
            @if metrics.skipped_steps > 0 {
                h2 { "Skipped steps" }
                p { (grouped(metrics.skipped_steps)) " steps changed nothing, because of:" }
                div class="scroll" {
                    table class="wrap" {
                        @for (step, reason) in &metrics.first_skipped {
                            tr { td { "step " (grouped(*step)) } td { (clipped(reason)) } }
                        }
                    }
                }
            }
        }
    }

    fn bad_records(&self) -> Markup {
        let status = &self.status;
        html! {
            @if status.bad_records > 0 {
                h2 { "Bad records" }
                p { (grouped(status.bad_records)) " records could not be used"
                    @if status.first_bad_records.is_empty() { "." } @else { ". The first of them:" } }
                div class="scroll" {
                    table class="wrap" {
                        @for bad in &status.first_bad_records {
                            tr { td { (clipped(bad)) } }
                        }
                    }
                }
            }
        }
    }

    fn settings(&self) -> Markup {
        html! {
            @if let Some(text) = &self.configuration {
                h2 { "Settings" }
                details { summary { "config.toml" } pre { (text) } }
            }
        }
    }
}

/// A page of its own; but where it is served: no script, no request.
fn shell(name: &str, newer: Newer, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @match newer {
                    Newer::Never => { (policy()) },
                    Newer::Loaded => { (policy()) meta http-equiv="refresh" content=(REFRESH); },
                    Newer::Served { script, .. } => { script src=(script) defer {} },
                }
                title { (name) " - SIMLA" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                @if let Newer::Served { back, .. } = newer { nav { a href=(back) { "All runs" } } }
                main { (body) }
            }
        }
    }
}

fn policy() -> Markup {
    html! { meta http-equiv="Content-Security-Policy" content=(POLICY); }
}

fn plots(charts: &[&Chart]) -> Markup {
    html! {
        div class="charts" {
            @for chart in charts {
                @let legend = chart.legend();
                div class="plot" role="img" aria-label=(clipped(&chart.title)) {
                    h3 { (clipped(&chart.title)) }
                    @if !chart.note.is_empty() { p class="faint" { (clipped(&chart.note)) } }
                    @if legend.len() > 1 {
                        div class="legend" { @for (name, color) in legend { span { (swatch(color)) (clipped(name)) } } }
                    }
                    (PreEscaped(chart.svg()))
                }
            }
        }
    }
}

fn swatch(Rgb([r, g, b]): Rgb<u8>) -> Markup {
    html! { span class="swatch" style={ "background:rgb(" (r) "," (g) "," (b) ")" } {} }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::blank;
    use crate::samples::{Keyword, Prediction, SampleSet, WordGuess};
    use std::fs;

    const HOSTILE: &str = "</style></pre><script>alert(1)</script>\"' onerror=alert(2) x='";

    /// A run in which every text is hostile.
    fn hostile_run() -> (tempfile::TempDir, RunFolder) {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("config.toml", HOSTILE);
        let name = serde_json::to_string(HOSTILE).unwrap();
        let lines = (1..4).map(|step| format!("{{\"step\":{step},{name}:2,\"loss\":{step}e-{step}}}\n"));
        write("metrics.jsonl", &lines.collect::<String>());
        let rows = (1..3).map(|step| format!("{{\"step\":{step},{name}:{name},\"txt_r1\":{step}}}\n"));
        write("evaluation.jsonl", &rows.collect::<String>());
        let text = || HOSTILE.to_string();
        let status = Status {
            state: State::Running,
            step: 3,
            steps: 10,
            seconds_left: Some(3725.0),
            checkpoint: Some(text()),
            message: text(),
            bad_records: 1234,
            first_bad_records: vec![text()],
            ..Status::default()
        };
        status.save(folder.path()).unwrap();
        let word = WordGuess { truth: text(), guess: text(), probability: f32::NAN };
        let keyword = Keyword { word: text(), score: 0.5, in_caption: true };
        let set = SampleSet {
            title: text(),
            text: text(),
            step: Some(2),
            samples: vec![Prediction { caption: text(), masked: text(), words: vec![word], keywords: vec![keyword] }],
        };
        let samples = folder.path().join("samples");
        // Not a number has no place in JSON and comes back as null: the file counts as broken.
        set.save(&samples, "step-1", &blank(2, 2)).unwrap();
        let mut whole = set;
        whole.samples[0].words[0].probability = 0.5;
        whole.save(&samples, "step-2", &blank(2, 2)).unwrap();
        let run = RunFolder::open(folder.path()).unwrap();
        (folder, run)
    }

    #[test]
    fn nothing_hostile_becomes_markup() {
        let (_folder, run) = hostile_run();
        let page = report(&run).unwrap();
        assert!(page.contains("&lt;script&gt;alert(1)"), "the texts are shown");
        for markup in ["<script", "<x", "src=\"http"] {
            assert!(!page.contains(markup), "{markup}");
        }
        // Each occurrence inside an attribute or a text has its quote escaped.
        assert_eq!(page.matches("onerror").count(), page.matches("&quot;' onerror").count());
        for end in ["</style>", "</pre>"] {
            assert_eq!(page.matches(end).count(), 1, "{end}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn a_served_page_has_a_script_and_a_way_back_and_leaves_its_policy_to_the_server() {
        let (_folder, run) = hostile_run();
        let page = report_alive(&run, "/runs", "/runs.js").unwrap();
        assert_eq!(page.matches("<script").count(), 1);
        assert!(page.contains("<script src=\"/runs.js\" defer></script>") && page.contains("<a href=\"/runs\">"));
        assert!(!page.contains("http-equiv") && !page.contains("simla report"));
        let page = comparison_alive(&[run], "/runs", "/runs.js").unwrap();
        assert!(page.contains("/runs.js") && !page.contains("http-equiv"));
    }

    #[test]
    fn the_page_says_how_the_run_stands() {
        let (folder, run) = hostile_run();
        let page = report(&run).unwrap();
        for text in [
            "of 10",
            "1h 2m left",
            "1,234 records",
            "http-equiv=\"refresh\"",
            "<svg",
            "data:image/png;base64,",
            "txt_r1",
        ] {
            assert!(page.contains(text), "{text}");
        }
        let done = Status { state: State::Finished, ..Status::default() };
        done.save(folder.path()).unwrap();
        let page = report(&run).unwrap();
        assert!(page.contains("finished") && !page.contains("http-equiv=\"refresh\""));
    }

    #[test]
    fn pictures_that_are_none_are_named() {
        let (folder, run) = hostile_run();
        fs::write(folder.path().join("samples/odd.png"), "<svg onload=alert(1)>").unwrap();
        let page = report(&run).unwrap();
        assert!(page.contains("odd.png is no PNG file"));
        assert!(page.contains("width=\"2\" height=\"2\""));
    }

    #[test]
    fn a_run_that_has_just_begun_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("metrics.jsonl"), "").unwrap();
        let run = RunFolder::open(folder.path()).unwrap();
        let path = folder.path().join("out/report.html");
        save_report(&run, &path).unwrap();
        assert!(fs::read_to_string(path).unwrap().contains("No steps yet"));
    }
}
