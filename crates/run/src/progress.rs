//! Progress: a bar on a terminal, plain lines elsewhere.

use std::fmt::Display;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use simla_data::quoted;

use crate::{console, say};

/// Between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// Units between two looks at a count: it may go fast.
const SHOWN_EVERY: u64 = 32;
/// What is over sooner needs no progress.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of many things that are wrong, so many are named.
pub const NAMED: usize = 5;

/// Names the first few of the things that cannot be used; `of` says what they are, behind their number.
pub fn say_broken(broken: &[impl Display], of: impl Display) {
    if broken.is_empty() {
        return;
    }
    say!("{} {of} cannot be used:", broken.len());
    for error in broken.iter().take(NAMED) {
        say!("  {error}");
    }
}

/// Progress of something that has a known length.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    all: u64,
    first: u64,
    start: Instant,
    patience: Duration,
    printed: Option<Instant>,
}

impl Progress {
    /// `all` units, of which `first` were done before.
    pub fn new(what: &str, first: u64, all: u64) -> Self {
        let is_shown = std::io::stderr().is_terminal() && !console::is_silent();
        let bar = is_shown.then(|| {
            let bar = ProgressBar::new(all).with_position(first).with_prefix(quoted(what).to_string());
            let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len}, {eta} left  {wide_msg}");
            bar.set_style(style.expect("a valid template"));
            bar.reset_eta();
            console::bar_shown(&bar);
            bar
        });
        Self { bar, what: what.into(), all, first, start: Instant::now(), patience: Duration::ZERO, printed: None }
    }

    /// Of something that is mostly over before anyone wonders: silent until it takes longer.
    pub fn patient(what: &str, all: u64) -> Self {
        let mut progress = Self::new(what, 0, all);
        progress.patience = PATIENCE;
        progress
    }

    /// `done` units, with a message about the last.
    pub fn set(&mut self, done: u64, message: impl FnOnce() -> String) {
        if self.start.elapsed() < self.patience {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message());
            return;
        }
        if self.printed.is_some_and(|at| at.elapsed() < PLAIN_EVERY) && done < self.all {
            return;
        }
        self.printed = Some(Instant::now());
        let left = self.left(done);
        let message = message();
        let separator = if message.is_empty() { "" } else { "  " };
        let (what, all) = (&self.what, self.all);
        console::say_fleeting(format_args!("{what} {done}/{all}, {} left{separator}{message}", HumanDuration(left)));
    }

    /// The time that is left after `done` units, at the speed so far.
    pub fn left(&self, done: u64) -> Duration {
        let (ours, left) = (done.saturating_sub(self.first), self.all.saturating_sub(done));
        self.start.elapsed().mul_f64(left as f64 / ours.max(1) as f64)
    }
}

/// Progress that several threads add to.
pub struct Count(Mutex<(u64, Progress)>);

impl Count {
    /// From nothing done.
    pub fn new(progress: Progress) -> Self {
        Self(Mutex::new((0, progress)))
    }

    /// A unit is done.
    pub fn one_more(&self) {
        self.more(1);
    }

    /// So many units are done.
    pub fn more(&self, units: u64) {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, progress) = &mut *count;
        let before = *done / SHOWN_EVERY;
        *done += units;
        if *done / SHOWN_EVERY > before {
            progress.set(*done, String::new);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            console::bar_gone();
        }
    }
}
