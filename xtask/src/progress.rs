//! Progress of a long piece of work that is measured in bytes, with the time left.

use std::cell::Cell;
use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressState, ProgressStyle};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar on a terminal; elsewhere, such as in a log, a line now and then.
pub struct Progress {
    what: &'static str,
    total: u64,
    started: Instant,
    bar: Option<ProgressBar>,
    last_line: Cell<Instant>,
}

impl Progress {
    /// Starts to show the progress of `what`, which is `total` bytes of work.
    pub fn start(what: &'static str, total: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}{left}";
            let style = ProgressStyle::with_template(template)
                .expect("the template is valid")
                .with_key("left", |state: &ProgressState, to: &mut dyn Write| {
                    // Without a byte done there is nothing to reckon from.
                    if state.pos() > 0 {
                        let _ = write!(to, ", {} left", HumanDuration(state.eta()));
                    }
                })
                .progress_chars("=> ");
            ProgressBar::new(total).with_style(style).with_message(what)
        });
        if bar.is_none() {
            eprintln!("{what}: {}", HumanBytes(total));
        }
        let started = Instant::now();
        Self { what, total, started, bar, last_line: Cell::new(started) }
    }

    /// Says that `done` bytes of the work are done.
    pub fn at(&self, done: u64) {
        let done = done.min(self.total);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if done > 0 && self.last_line.get().elapsed() >= LINE_EVERY {
            self.last_line.set(Instant::now());
            let left = time_left(self.started.elapsed(), done, self.total);
            eprintln!(
                "{}: {} of {}, {} left",
                self.what,
                HumanBytes(done),
                HumanBytes(self.total),
                HumanDuration(left)
            );
        }
    }

    /// Ends the work.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{}: done in {}", self.what, seconds(self.started.elapsed()));
    }
}

/// The time that the rest takes if it goes on as it did.
fn time_left(elapsed: Duration, done: u64, total: u64) -> Duration {
    elapsed.mul_f64((total - done) as f64 / done as f64)
}

/// A duration for people: `4.2 s` or `3 min 5 s`.
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_the_part_before() {
        assert_eq!(time_left(Duration::from_secs(30), 100, 400), Duration::from_secs(90));
        assert_eq!(time_left(Duration::from_secs(30), 400, 400), Duration::ZERO);
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(4200)), "4.2 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 5 s");
    }
}
