//! `simla ablate`: the ablation of table 1, and the paper's baselines, in small.
//!
//! DIR/common/          settings, vocabulary and visual tokenizer, which all runs share; what is compared, as ablation.json
//! DIR/seed-S/N-name/   an ordinary run for every seed and row, and its final retrieval.json
//! DIR/ablation.{md,json,png}, DIR/curves.png over time, DIR/curves-pairs.png over pairs
//!
//! Whoever works on a folder holds the lock in it: processes with the same command share the runs out among themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::HumanDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use simla::objectives::Objectives;
use simla::tasks::retrieval::Retrieval;
use simla_files::write_atomically;
use simla_run::compute::Compute;
use simla_run::settings::{Decided, Settings};
use simla_train::Ending;

use crate::commands::ablate_report::{Comparison, Outcome, step_seconds};
use crate::commands::training::{Training, code, last_checkpoint, read, settings_help};
use simla_run::fit::Run;
use simla_run::inputs::Inputs;
use simla_run::lock::Lock;
use simla_run::stop;
use simla_run::{answer, console, say};

/// The objectives in the order in which the rows of table 1 add them.
const ADDED: [&str; 5] = ["itm", "itc", "mlm", "mim", "psl"];
/// Evaluations of a run, where eval_every_steps does not say.
const EVALUATIONS: u64 = 8;
/// The final retrieval of a run, written when it has ended.
const RETRIEVAL: &str = "retrieval.json";
/// What is compared, in the folder of what all runs share.
const COMPARED: &str = "ablation.json";
/// Steps that tell how long one takes; the first of them are slower.
const PACE: (u64, usize) = (12, 4);
/// Between two looks at a folder on which another process works.
const PATIENCE: Duration = Duration::from_secs(1);

/// Measures what each objective adds: the rows of the paper's table 1, or its baselines, in small
///
/// Pre-trains with matching (ITM) alone, then with contrast (ITC), masked words (MLM), masked patches (MIM) and keywords (PSL) added one
/// after the other; or, with --rows baselines, with contrast alone (CLIP's), with ALBEF's objectives (ITC, ITM, MLM) and with all of
/// SIMLA's. Every row with every seed, and with the same data, budget, vocabulary and visual tokenizer; the budget is one of steps, or with
/// --minutes one of time. Makes a table and bars of the final retrieval, and curves of retrieval against the time of training (figure 4)
/// and against the pairs seen. Interrupted, the same command goes on where it
/// was. Several processes with the same command share the work; with other --seeds, they work side by side, and a last call with all
/// seeds collects. The time of training is comparable only between runs that had the machine alike to themselves. Of a --config, the
/// objectives are not used, and the seed is the tokenizer's.
#[derive(Args)]
#[command(after_long_help = settings_help())]
pub struct Arguments {
    /// Image-caption pairs: files, patterns or folders
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<String>,
    /// Held-out pairs, on which retrieval is measured
    #[arg(long, value_name = "FILE")]
    eval_data: PathBuf,
    /// Folder for the runs and their comparison
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Which objectives are compared
    #[arg(long, value_enum, default_value_t = Preset::Table1)]
    rows: Preset,
    /// Minutes of training for every run, in place of steps: as many as its objectives leave time for, reckoned from the pace of its first
    #[arg(long, value_name = "N", value_parser = minutes)]
    minutes: Option<f64>,
    /// Seeds that every row is trained with
    #[arg(long, value_delimiter = ',', default_value = "0,1,2", value_name = "N,N,...")]
    seeds: Vec<u64>,
    /// A vocab.txt or tokenizer.json to use; without, word pieces are learned from the captions
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// A visual tokenizer to use; without, one is trained on the same images first
    #[arg(long, value_name = "DIR")]
    dvae: Option<PathBuf>,
    /// Candidates of each query that the matching score ranks again
    #[arg(long, default_value_t = 16, value_name = "N")]
    top_k: usize,
    #[command(flatten)]
    training: Training,
    /// One JSON object in place of the table
    #[arg(long)]
    json: bool,
}

/// Rows that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Objectives added one after the other
    Table1,
    /// Contrast alone, ALBEF, SIMLA
    Baselines,
}

/// A row of the comparison.
#[derive(Debug, Clone)]
pub struct Row {
    /// How it is called.
    pub name: String,
    /// Its runs' folders.
    folder: String,
    pub objectives: Objectives,
}

impl Row {
    fn new(name: String, folder: &str, objectives: &[&str]) -> Self {
        let names: Vec<String> = objectives.iter().map(|&name| name.to_owned()).collect();
        let objectives = Objectives::try_from(names).expect("names of objectives");
        Self { name, folder: folder.into(), objectives }
    }
}

impl Preset {
    /// The rows, in their order.
    pub fn rows(self) -> Vec<Row> {
        match self {
            Self::Table1 => (0..ADDED.len())
                .map(|row| {
                    let added = ADDED[row].to_uppercase();
                    let name = if row == 0 { added } else { format!("+ {added}") };
                    Row::new(name, &format!("{}-{}", row + 1, ADDED[row]), &ADDED[..=row])
                })
                .collect(),
            Self::Baselines => vec![
                Row::new("contrast alone".into(), "1-contrast", &["itc"]),
                Row::new("ALBEF".into(), "2-albef", &["itc", "itm", "mlm"]),
                Row::new("SIMLA".into(), "3-simla", &ADDED),
            ],
        }
    }

    /// What the comparison is about.
    pub fn title(self) -> &'static str {
        match self {
            Self::Table1 => "What each objective adds",
            Self::Baselines => "SIMLA and its baselines",
        }
    }
}

/// What is compared, and for how long each run trains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    pub rows: Preset,
    /// None: as many steps as the settings say.
    pub minutes: Option<f64>,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if minutes > 0.0 && minutes.is_finite() { Ok(minutes) } else { Err("expected more than 0".into()) }
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    if let Some(code) = arguments.training.launched()? {
        return Ok(code);
    }
    let compute = arguments.training.compute()?;
    let team = &compute.team;
    team.all(check(&arguments))?;
    let mut settings = team.all(arguments.training.settings(Decided::default(), team))?;
    settings.recipe.objectives = Objectives::default();
    let inputs = Inputs {
        data: arguments.data,
        image_root: arguments.training.image_root,
        vocabulary: arguments.vocabulary,
        dvae: arguments.dvae,
        held_out: Some(arguments.eval_data),
        ..Inputs::default()
    };
    let inputs = inputs.absolute()?;
    let common = arguments.output.join("common");
    let compared = Compared { rows: arguments.rows, minutes: arguments.minutes };
    team.first(|| check_unchanged(&common, &settings, &inputs, compared))?;
    let stop = stop::on_signal()?;
    let common = Run::prepare_shared(&common, settings, inputs, &compute)?;
    team.first(|| Ok::<_, Error>(write_atomically(&common.folder.join(COMPARED), &serde_json::to_vec(&compared)?)?))?;
    if !tokenize(&common, &stop)? {
        return Ok(stopped());
    }

    let dvae = common.inputs.dvae.clone();
    let rows = Rows {
        output: &arguments.output,
        compared,
        rows: compared.rows.rows(),
        inputs: Inputs {
            vocabulary: Some(common.folder.join("vocabulary.json")),
            dvae: Some(dvae.unwrap_or(common.folder.join("dvae"))),
            ..common.inputs
        },
        settings: common.settings,
        compute: &compute,
        top_k: arguments.top_k,
    };
    if rows.all(&arguments.seeds, &stop)? == Ending::Stopped {
        return Ok(stopped());
    }
    team.first(|| {
        let outcomes = rows.outcomes(&arguments.seeds)?;
        let report = Comparison::new(&rows.rows, &outcomes, &rows.settings, compared);
        report.save(&arguments.output)?;
        match arguments.json {
            true => console::answer_json(&report.json())?,
            false => answer!("{}", report.markdown()),
        }
        Ok::<_, Error>(())
    })?;
    let folder = arguments.output.display();
    say!("done: {folder}/ablation.md, ablation.json, ablation.png, curves.png and curves-pairs.png");
    Ok(ExitCode::SUCCESS)
}

fn stopped() -> ExitCode {
    say!("stopped: the same command goes on");
    code(Ending::Stopped)
}

/// Refuses what the rows decide, and seeds that would be the same run twice.
fn check(arguments: &Arguments) -> Result<()> {
    for set in &arguments.training.set {
        match set.split('=').next().unwrap_or_default().trim() {
            "objectives" => bail!("--set {set}: the rows decide which objectives take part"),
            "seed" => bail!("--set {set}: expected --seeds, a list"),
            "steps" | "epochs" if arguments.minutes.is_some() => {
                bail!("--set {set}: --minutes says already how long is trained; expected one of the two")
            }
            _ => {}
        }
    }
    let seeds = &arguments.seeds;
    if let Some(at) = (1..seeds.len()).find(|&at| seeds[..at].contains(&seeds[at])) {
        bail!("--seeds: {} is there twice, expected different ones", seeds[at]);
    }
    if arguments.top_k == 0 {
        bail!("--top-k 0: expected at least 1, since every row is ranked by matching");
    }
    Ok(())
}

/// Refuses to go on with anything but what the ablation in this folder began with.
fn check_unchanged(common: &Path, settings: &Settings, inputs: &Inputs, compared: Compared) -> Result<()> {
    const FLAGS: [(&str, &str); 5] = [
        ("data", "--data"),
        ("image_root", "--image-root"),
        ("vocabulary", "--vocabulary"),
        ("dvae", "--dvae"),
        ("held_out", "--eval-data"),
    ];
    if !common.join("run.json").exists() {
        return Ok(());
    }
    if let Ok(text) = fs::read(common.join(COMPARED)) {
        let before: Compared = serde_json::from_slice(&text).context(COMPARED)?;
        if before != compared {
            let shown = |of: Compared| json!(of).to_string();
            bail!(
                "--rows, --minutes: {}, but this ablation began with {}; a new --output can",
                shown(compared),
                shown(before)
            );
        }
    }
    settings.check_alike(&Settings::resumed(&read(&common.join("config.toml"))?, &[])?)?;
    let before: Inputs = serde_json::from_str(&read(&common.join("run.json"))?).context("run.json")?;
    let before = before.absolute()?;
    let (ours, before) = (json!(inputs), json!(before));
    for (field, flag) in FLAGS {
        if ours[field] != before[field] {
            let shown = |value: &Value| match value {
                Value::Null => "none".to_owned(),
                value => value.to_string(),
            };
            bail!(
                "{flag} {}: this ablation began with {} and cannot change it; a new --output can",
                shown(&ours[field]),
                shown(&before[field])
            );
        }
    }
    Ok(())
}

/// Trains the tokenizer that all runs share where it is not there yet, or waits for the process that does. False: asked to stop.
fn tokenize(common: &Run, stop: &AtomicBool) -> Result<bool> {
    let mut lock = None;
    let mut told = false;
    let stopped = common.compute.team.first(|| {
        loop {
            if let Ok(taken) = Lock::claim(&common.folder)? {
                lock = Some(taken);
                return Ok::<_, Error>(false);
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(true);
            }
            if !told {
                say!("waiting for the visual tokenizer, which another run trains");
                told = true;
            }
            sleep(PATIENCE);
        }
    })?;
    Ok(!stopped && common.tokenizer(stop)?.1 == Ending::Finished)
}

/// The rows of the table, and what their runs share.
struct Rows<'a> {
    output: &'a Path,
    compared: Compared,
    rows: Vec<Row>,
    settings: Settings,
    inputs: Inputs,
    compute: &'a Compute,
    top_k: usize,
}

/// What is left to be done.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Next {
    Nothing,
    Stop,
    /// A seed and a row.
    Train(u64, usize),
}

impl Rows<'_> {
    /// Trains every row with every seed, unless another run does it.
    fn all(&self, seeds: &[u64], stop: &AtomicBool) -> Result<Ending> {
        loop {
            let mut lock = None;
            match self.compute.team.first(|| self.next(seeds, stop, &mut lock))? {
                Next::Nothing => return Ok(Ending::Finished),
                Next::Stop => return Ok(Ending::Stopped),
                Next::Train(seed, row) => {
                    if self.train(seed, row, stop)? == Ending::Stopped {
                        return Ok(Ending::Stopped);
                    }
                }
            }
        }
    }

    /// Every row with every seed.
    fn runs(&self, seeds: &[u64]) -> impl Iterator<Item = (u64, usize)> {
        seeds.iter().flat_map(|&seed| (0..self.rows.len()).map(move |row| (seed, row)))
    }

    /// What came of the rows that have ended, in their order.
    fn outcomes(&self, seeds: &[u64]) -> Result<Vec<Outcome>> {
        let found = self.runs(seeds).filter_map(|(seed, row)| self.outcome(seed, row).transpose());
        let mut outcomes: Vec<Outcome> = found.collect::<Result<_>>()?;
        outcomes.sort_by_key(|outcome| (outcome.seed, outcome.row));
        Ok(outcomes)
    }

    /// The next row that no other run has, whose `lock` is taken; waits where others have all that are left.
    fn next(&self, seeds: &[u64], stop: &AtomicBool, lock: &mut Option<Lock>) -> Result<Next> {
        let mut waiting = false;
        loop {
            let outcomes = self.outcomes(seeds)?;
            let is_done = |run: &(u64, usize)| outcomes.iter().any(|done| (done.seed, done.row) == *run);
            let left: Vec<_> = self.runs(seeds).filter(|run| !is_done(run)).collect();
            if left.is_empty() {
                return Ok(Next::Nothing);
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(Next::Stop);
            }
            for &(seed, row) in &left {
                let folder = self.folder(seed, row);
                if let Ok(taken) = Lock::claim(&folder)? {
                    *lock = Some(taken);
                    let time = seconds_left(&outcomes, &left).map_or(String::new(), |seconds| {
                        format!("; about {} of training left", HumanDuration(Duration::from_secs_f64(seconds)))
                    });
                    let (done, count) = (outcomes.len(), outcomes.len() + left.len());
                    say!("{done} of {count} runs are done{time}; next: {}", folder.display());
                    return Ok(Next::Train(seed, row));
                }
            }
            if !waiting {
                say!("waiting for the runs of another process");
                waiting = true;
            }
            sleep(PATIENCE);
        }
    }

    fn folder(&self, seed: u64, row: usize) -> PathBuf {
        self.output.join(format!("seed-{seed}")).join(&self.rows[row].folder)
    }

    /// Trains a row from where it is, and ranks the held-out pairs with the model of its last step.
    fn train(&self, seed: u64, row: usize, stop: &AtomicBool) -> Result<Ending> {
        let folder = self.folder(seed, row);
        let mut settings = self.settings.clone();
        settings.train.seed = seed;
        settings.recipe.objectives = self.rows[row].objectives;
        let team = &self.compute.team;
        if let Some(minutes) = self.compared.minutes {
            let begun = team.first(|| Ok::<_, Error>(fs::read_to_string(folder.join("config.toml")).ok()))?;
            settings.train.steps = match begun {
                Some(begun) => Settings::resumed(&begun, &[])?.train.steps,
                None => match self.pace(&folder, &settings, stop)? {
                    Some(seconds) => (60.0 * minutes / seconds).round().max(1.0) as u64,
                    None => return Ok(Ending::Stopped),
                },
            };
        }
        let mut run = Run::prepare(&folder, settings, self.inputs.clone(), self.compute)?;
        if run.settings.saving.eval_every_steps == 0 {
            run.settings.saving.eval_every_steps = run.steps().1.div_ceil(EVALUATIONS);
        }
        let (dvae, ending) = run.tokenizer(stop)?;
        if ending == Ending::Stopped {
            return Ok(ending);
        }
        let mut model = run.model()?;
        let mut resume = None;
        team.first(|| {
            resume = last_checkpoint(&folder, true, |tensors| model.load(tensors))?;
            Ok::<_, Error>(())
        })?;
        let (model, ending) = run.train(model, dvae, resume.as_ref(), stop)?;
        if ending == Ending::Finished {
            let held_out = run.held_out.as_ref().expect("an ablation has held-out pairs");
            let (found, _) = held_out.evaluate(&model, self.top_k, team, "retrieval")?;
            let path = folder.join(RETRIEVAL);
            let found = serde_json::to_vec_pretty(&found)?;
            team.first(|| write_atomically(&path, &found).with_context(|| path.display().to_string()))?;
        }
        Ok(ending)
    }

    /// Seconds that a step with these settings takes, from a few steps that are thrown away. None: asked to stop.
    fn pace(&self, folder: &Path, settings: &Settings, stop: &AtomicBool) -> Result<Option<f64>> {
        let (folder, team) = (folder.join("pace"), &self.compute.team);
        let remove = || match folder.exists() {
            true => fs::remove_dir_all(&folder).with_context(|| folder.display().to_string()),
            false => Ok(()),
        };
        team.first(remove)?;
        let mut settings = settings.clone();
        settings.train.steps = PACE.0;
        let inputs = Inputs { held_out: None, ..self.inputs.clone() };
        let run = Run::prepare(&folder, settings, inputs, self.compute)?;
        let (dvae, ending) = run.tokenizer(stop)?;
        if ending == Ending::Stopped || run.train(run.model()?, dvae, None, stop)?.1 == Ending::Stopped {
            return Ok(None);
        }
        drop(run);
        team.first(|| {
            let mut steps = step_seconds(&folder, self.settings.train.pairs_per_step())?.split_off(PACE.1);
            steps.sort_unstable_by(f64::total_cmp);
            remove()?;
            Ok(Some(steps[steps.len() / 2]))
        })
    }

    /// What came of a row; none where it has not ended.
    fn outcome(&self, seed: u64, row: usize) -> Result<Option<Outcome>> {
        let folder = self.folder(seed, row);
        let path = folder.join(RETRIEVAL);
        if !path.exists() {
            return Ok(None);
        }
        let read = || -> Result<Retrieval> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
        let retrieval = read().with_context(|| path.display().to_string())?;
        if retrieval.top_k != self.top_k {
            return Ok(None);
        }
        let pairs = self.settings.train.pairs_per_step();
        Outcome::read(seed, row, folder, retrieval, pairs).map(Some)
    }
}

/// Seconds of training in the runs that are left: of each as its row took before, else as the longest run. None before the first.
fn seconds_left(done: &[Outcome], left: &[(u64, usize)]) -> Option<f64> {
    let longest = done.iter().map(|run| run.seconds).reduce(f64::max)?;
    let expected = |&(_, row): &(u64, usize)| {
        let own = done.iter().filter(|run| run.row == row);
        own.map(|run| run.seconds).reduce(f64::max).unwrap_or(longest)
    };
    Some(left.iter().map(expected).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_adds_one_objective_in_the_order_of_table_1() {
        let rows = Preset::Table1.rows();
        let named: Vec<Vec<String>> = rows.iter().map(|row| row.objectives.into()).collect();
        assert_eq!(named[0], ["itm"]);
        assert_eq!(named[1], ["itc", "itm"]);
        assert_eq!(named[2], ["itc", "itm", "mlm"]);
        assert_eq!(named[3], ["itc", "itm", "mlm", "mim"]);
        assert_eq!(rows[4].objectives, Objectives::default());
    }

    #[test]
    fn the_baselines_are_the_papers() {
        let named: Vec<Vec<String>> = Preset::Baselines.rows().iter().map(|row| row.objectives.into()).collect();
        assert_eq!(named[0], ["itc"]);
        assert_eq!(named[1], ["itc", "itm", "mlm"]);
        assert_eq!(named[2].len(), 5);
    }
}
