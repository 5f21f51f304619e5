//! Runs while they go on: what `simla report` draws, alive.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};
use simla_pictures::page::{comparison_alive, report_alive};
use simla_pictures::run::{RunFolder, State as Standing};

use crate::api::Asked;
use crate::refusal::Refusal;
use crate::server::App;

/// How deep below the folder runs are looked for, and how many are shown.
const DEPTH: usize = 4;
const MOST: usize = 500;
/// Runs that are compared at a time.
const COMPARED: usize = 12;

/// A report has its style and its pictures in it.
const POLICY: (HeaderName, &str) = (
    header::CONTENT_SECURITY_POLICY,
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

/// What makes the pages of runs alive.
const SCRIPT: &str = "/runs.js";

/// `GET /runs`.
pub(crate) async fn index(State(app): State<App>) -> Result<Html<&'static str>, Refusal> {
    folder(&app)?;
    Ok(Html(include_str!("page/runs.html")))
}

/// `GET /api/runs`: how every run stands, the one that reported last first.
pub(crate) async fn list(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let folder = folder(&app)?;
    let standing = move || {
        let mut all: Vec<(u64, Value)> = found(&folder).iter().map(|(name, run)| told(name, run)).collect();
        all.sort_by_key(|(updated, _)| std::cmp::Reverse(*updated));
        Ok(all.into_iter().map(|(_, run)| run).collect::<Vec<_>>())
    };
    Ok(Json(json!({"runs": app.workshop.work(standing).await?})))
}

/// `GET /runs/view?run=NAME`.
pub(crate) async fn view(
    State(app): State<App>,
    Asked(asked): Asked<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let folder = folder(&app)?;
    let draw = move || {
        let runs = chosen(&folder, &asked)?;
        report_alive(&runs[0], "/runs", SCRIPT).map_err(Refusal::server)
    };
    Ok(([POLICY], Html(app.workshop.work(draw).await?)).into_response())
}

/// `GET /runs/compare?run=NAME&run=NAME`.
pub(crate) async fn compare(
    State(app): State<App>,
    Asked(asked): Asked<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let folder = folder(&app)?;
    let draw = move || comparison_alive(&chosen(&folder, &asked)?, "/runs", SCRIPT).map_err(Refusal::server);
    Ok(([POLICY], Html(app.workshop.work(draw).await?)).into_response())
}

fn folder(app: &App) -> Result<PathBuf, Refusal> {
    let none = "no runs are served here; start the server with --runs";
    app.runs.clone().ok_or_else(|| Refusal::missing(none))
}

/// The runs that are asked for: those alone that are found in the folder now.
fn chosen(folder: &Path, asked: &[(String, String)]) -> Result<Vec<RunFolder>, Refusal> {
    let mut all = found(folder);
    let mut runs = Vec::new();
    for (name, value) in asked {
        if name != "run" {
            return Err(Refusal::request(format_args!("`{name}`: expected run=NAME")));
        }
        let at = all.iter().position(|(known, _)| known == value);
        let missing = || Refusal::missing(format_args!("no run {value:?} in the folder of runs"));
        runs.push(all.swap_remove(at.ok_or_else(missing)?).1);
    }
    match runs.len() {
        1..=COMPARED => Ok(runs),
        count => Err(Refusal::request(format_args!("{count} runs; expected 1 to {COMPARED}, as run=NAME&run=NAME"))),
    }
}

/// The folder's runs with their names, which are their paths in it; `.` where it is one itself.
fn found(folder: &Path) -> Vec<(String, RunFolder)> {
    let mut runs = Vec::new();
    look(folder, ".", DEPTH, &mut runs);
    runs
}

fn look(path: &Path, name: &str, depth: usize, runs: &mut Vec<(String, RunFolder)>) {
    if runs.len() >= MOST {
        return;
    }
    if let Ok(run) = RunFolder::open(path) {
        runs.push((name.into(), run));
        return;
    }
    let Some(deeper) = depth.checked_sub(1) else { return };
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    // No links: what they lead to was not named as a folder of runs.
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    for below in names {
        let full = if name == "." { below.clone() } else { format!("{name}/{below}") };
        look(&path.join(&below), &full, deeper, runs);
    }
}

/// When a run reported last, and how it stands.
fn told(name: &str, run: &RunFolder) -> (u64, Value) {
    let status = run.status().unwrap_or_default();
    let state = match status.state {
        _ if status.silent(SystemTime::now()) => "silent",
        Standing::Running => "running",
        Standing::Stopped => "stopped",
        Standing::Finished => "finished",
        Standing::Failed => "failed",
        Standing::Unknown => "no status",
    };
    let told = json!({
        "run": name, "state": state, "step": status.step, "steps": status.steps, "seconds_left": status.seconds_left,
        "pairs_per_s": status.pairs_per_s, "message": status.message, "updated": status.updated,
    });
    (status.updated, told)
}
