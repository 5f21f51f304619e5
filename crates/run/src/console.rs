//! All that is printed: what is said (standard error) and what is answered (standard output).
//!
//! Output never ends a run. A terminal that goes away, a reader that ends (`| head`), a full disk behind either: what is said goes on
//! to the run's folder (`messages.log`), and what could not be answered is found by [`answered`] at the end. Nothing that is printed
//! steers a terminal, whatever file it comes from.

use std::fmt::{Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use indicatif::ProgressBar;
use serde::Serialize;
use simla_data::{quoted, steers};

/// All that a run says, in its folder.
pub const MESSAGES: &str = "messages.log";
/// Messages from before the folder is known that are held for it.
const HELD: usize = 1000;

static SILENT: AtomicBool = AtomicBool::new(false);
static KEPT: Mutex<Kept> = Mutex::new(Kept::Held(Vec::new()));
static BARS: Mutex<Vec<ProgressBar>> = Mutex::new(Vec::new());
/// Why the first answer that could not be printed was not.
static UNANSWERED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Where messages go beside the terminal.
enum Kept {
    /// Until there is a folder.
    Held(Vec<String>),
    File(File),
}

/// Says a line, as `format!` makes it.
#[macro_export]
macro_rules! say {
    ($($message:tt)*) => { $crate::console::say(format_args!($($message)*)) };
}

/// Answers a line or some, as `format!` makes them.
#[macro_export]
macro_rules! answer {
    ($($answer:tt)*) => { $crate::console::answer(format_args!($($answer)*)) };
}

/// An error and its causes, but for those whose words stand in it already.
pub fn in_full(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, words| {
        if told.contains(&words) {
            told
        } else if told.is_empty() {
            words
        } else {
            format!("{told}: {words}")
        }
    })
}

/// Of the processes of a run, one talks: the others call this. What ends one of them is still said, by [`complain`].
pub fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Whether another process talks.
pub fn is_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// Says a line, beside a bar that is shown.
pub fn say(message: impl Display) {
    if !is_silent() {
        complain(message);
    }
}

/// As [`say`], also where another process talks.
pub fn complain(message: impl Display) {
    let line = shown(message);
    keep(&line);
    let bars = lock(&BARS).clone();
    beside(&bars, || print(&line));
}

/// A line that the next one makes old: it is in no folder.
pub fn say_fleeting(message: impl Display) {
    if !is_silent() {
        print(&shown(message));
    }
}

/// Answers a line or some; the end of the last is added where it is not there.
pub fn answer(text: impl Display) {
    answer_bytes(shown(text).as_bytes());
}

/// Answers a value as a line of JSON.
///
/// # Errors
/// A value that JSON cannot hold.
pub fn answer_json(value: &impl Serialize) -> serde_json::Result<()> {
    let json = serde_json::to_string(value)?;
    let mut line = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        // Such characters are in strings alone, where JSON has this way of writing them; all of them are below U+10000.
        match steers(c) {
            true => write!(line, "\\u{:04x}", u32::from(c)).expect("a String takes everything"),
            false => line.push(c),
        }
    }
    line.push('\n');
    answer_bytes(line.as_bytes());
    Ok(())
}

/// Answers bytes as they are: a script for a shell, a page for `man`.
pub fn answer_bytes(bytes: &[u8]) {
    let mut unanswered = lock(&UNANSWERED);
    if unanswered.is_none() {
        let mut stdout = io::stdout().lock();
        *unanswered = stdout.write_all(bytes).and_then(|()| stdout.flush()).err();
    }
    if unanswered.is_some() {
        keep(&String::from_utf8_lossy(bytes));
    }
}

/// Whether somebody still listens to answers.
pub fn is_heard() -> bool {
    lock(&UNANSWERED).is_none()
}

/// Whether all answers were printed, or a reader ended that had enough of them.
///
/// # Errors
/// The first that was not.
pub fn answered() -> io::Result<()> {
    match lock(&UNANSWERED).take() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// From now on, and with what was said before, messages are also in this folder.
pub fn keep_in(folder: &Path) {
    let opened = OpenOptions::new().create(true).append(true).open(folder.join(MESSAGES));
    let mut kept = lock(&KEPT);
    // Without it, they are said: no reason to end.
    let Ok(mut file) = opened else {
        return;
    };
    if let Kept::Held(held) = &*kept {
        held.iter().for_each(|line| append(&mut file, line));
    }
    *kept = Kept::File(file);
}

/// Holds or writes down a line with the time.
fn keep(line: &str) {
    let line = format!("{} {line}", humantime::format_rfc3339_seconds(SystemTime::now()));
    match &mut *lock(&KEPT) {
        Kept::File(file) => append(file, &line),
        Kept::Held(held) if held.len() < HELD => held.push(line),
        Kept::Held(_) => {}
    }
}

/// At once, so that lines of two processes do not mix. What the disk does not take is no reason to end.
fn append(file: &mut File, line: &str) {
    let _ = file.write_all(line.as_bytes());
}

/// A bar is on the terminal: what is said meanwhile goes above it.
pub(crate) fn bar_shown(bar: &ProgressBar) {
    lock(&BARS).push(bar.clone());
}

/// The newest bar has gone.
pub(crate) fn bar_gone() {
    lock(&BARS).pop();
}

/// Does something while no bar is there.
fn beside(bars: &[ProgressBar], then: impl FnOnce()) {
    match bars.split_last() {
        Some((bar, others)) => bar.suspend(|| beside(others, then)),
        None => then(),
    }
}

fn print(line: &str) {
    // In the folder, it is kept; there is nobody else to tell.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Lines as a terminal may have them, with the end of the last.
fn shown(text: impl Display) -> String {
    let text = text.to_string();
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
    lines.fold(String::new(), |mut shown, line| {
        writeln!(shown, "{}", quoted(line)).expect("a String takes everything");
        shown
    })
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_cause_are_said_once() {
        let cause = || anyhow::Error::from(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(in_full(&cause().context("a.json")), "a.json: entity not found");
        let said = cause().context("a.json: entity not found; --index DIR helps").context("the index");
        assert_eq!(in_full(&said), "the index: a.json: entity not found; --index DIR helps");
    }

    #[test]
    fn nothing_steers_a_terminal_and_lines_end() {
        assert_eq!(shown("one\x1b[31m\ntwo\u{9b}"), "one\\u{1b}[31m\ntwo\\u{9b}\n");
        assert_eq!(shown("a\n\n"), "a\n\n");
        assert_eq!(shown(""), "\n");
    }
}
