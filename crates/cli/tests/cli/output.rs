//! Output is no reason to end: terminals, pipes and disks that go away, and names that would steer a terminal.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, pipe};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

use crate::common::{Scenes, assert_refused, metrics, pretraining, said, simla};

/// Where nothing can be written.
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// The writing end of a pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

/// The run has trained so many steps and said so in its folder.
#[track_caller]
fn assert_whole(run: &Path, steps: usize) {
    assert_eq!(metrics(run).len(), steps);
    let messages = fs::read_to_string(run.join("messages.log")).unwrap();
    for said in ["48 records", "word pieces", "saved in", "done: the model is in"] {
        assert_eq!(messages.matches(said).count(), 1 + usize::from(said == "saved in"), "{said} in {messages}");
    }
}

#[test]
fn a_run_goes_on_when_nobody_can_read_what_it_says() {
    let scenes = Scenes::new();
    let run = |name: &str| {
        let path = scenes.path(name);
        (pretraining(&scenes.train, &path, &["--set", "steps=3"]), path)
    };
    let (mut piped, path) = run("pipe");
    assert!(piped.stderr(unread()).status().unwrap().success());
    assert_whole(&path, 3);

    let (mut on_full_disk, path) = run("full");
    assert!(on_full_disk.stderr(full()).status().unwrap().success());
    assert_whole(&path, 3);

    // A terminal with its bar: closed as soon as something is on it.
    let (mut shown, path) = run("terminal");
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let other_end = ptsname(&terminal, Vec::new()).unwrap();
    let stderr = OpenOptions::new().write(true).open(other_end.to_str().unwrap()).unwrap();
    let mut child = shown.stderr(stderr).spawn().unwrap();
    drop(shown); // it has the other end open, too
    let mut terminal = File::from(terminal);
    terminal.read_exact(&mut [0]).unwrap();
    drop(terminal);
    assert!(child.wait().unwrap().success());
    assert_whole(&path, 3);
}

#[test]
fn a_terminal_that_is_closed_ends_a_run_as_a_signal_does_unless_it_was_told_otherwise() {
    const STOPPED: i32 = 75;
    // What this process catches, those that it starts take as it is; what it ignores (the tests may run under `nohup`), they ignore too.
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default()).unwrap();
    let scenes = Scenes::new();
    let run = scenes.path("run");
    let mut command = pretraining(&scenes.train, &run, &["--set", "steps=100000"]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let begun = |lines, child: &mut Child| {
        while fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count() <= lines {
            assert_eq!(child.try_wait().unwrap(), None, "it has ended");
            sleep(Duration::from_millis(10));
        }
    };
    begun(0, &mut child);
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(STOPPED));
    let lines = metrics(&run).len();
    assert!(run.join(format!("checkpoints/step-{lines:08}")).exists());

    // As `nohup` does.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" pretrain --resume \"$1\""]).arg(simla().get_program()).arg(&run);
    let mut child = shell.env("OMP_NUM_THREADS", "1").stderr(Stdio::null()).spawn().unwrap();
    begun(lines, &mut child);
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    begun(metrics(&run).len() + 2, &mut child);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(STOPPED));
}

#[test]
fn answers_end_quietly_where_nobody_reads_and_with_a_word_where_the_disk_is_full() {
    let scenes = Scenes::new();
    let data = scenes.train.display().to_string();
    let inspect = ["data", "inspect", &data];
    let every = [&inspect[..], &["data", "inspect", &data, "--json"], &["--help"], &["doctor"], &["man"]];
    for arguments in every {
        let output = simla().args(arguments).stdout(unread()).output().unwrap();
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""), "{arguments:?}");
        let output = simla().args(arguments).stdout(full()).output().unwrap();
        assert_refused(&output, &["standard output", "No space left"]);
    }
}

#[test]
fn no_name_and_no_caption_steers_the_terminal() {
    let scenes = Scenes::new();
    let (red, title) = ("\x1b[31mred", "\x1b]0;title\x07 \u{9b}2J \u{202e}");
    let mut records: Vec<_> =
        serde_json::from_slice::<Vec<serde_json::Value>>(&fs::read(&scenes.train).unwrap()).unwrap();
    records[0]["caption"] = json!(title);
    records[1]["image"] = json!(format!("img/{red}.jpg"));
    let data = scenes.train.with_file_name(format!("{red}.json"));
    fs::write(&data, serde_json::to_vec(&records).unwrap()).unwrap();
    let data = data.display().to_string();
    let samples = ["data", "inspect", &data, "--samples", "48"];
    let json = [&samples[..], &["--json"]].concat();
    for arguments in [&samples[..], &json, &["data", "inspect", &format!("{red}.json")]] {
        let output = simla().args(arguments).output().unwrap();
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8(text.clone()).unwrap();
            let steering = text.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
            assert_eq!(steering, None, "{text:?}");
            if arguments == json && !text.is_empty() && text.starts_with('{') {
                let seen: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert!(seen["samples"].to_string().contains('\u{202e}'), "JSON says what the file says");
            }
        }
    }
}
