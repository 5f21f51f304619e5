//! `--processes`: starts this program several times on this machine, and is their launcher.
//!
//! The processes meet as under torchrun: in a store that the launcher serves, so that no port can be taken by another. They are in process
//! groups of their own, so that a terminal's Ctrl-C comes to the launcher alone, which hands every signal on once.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::raise;
use simla_train::team::MET;
use simla_train::torch::group::Store;

use crate::say;
use crate::stop::is_ignored;

/// In the environment of what is launched: standard input ends when the launcher does.
const LAUNCHED: &str = "SIMLA_LAUNCHED";
/// Between two looks at the processes.
const LOOK: Duration = Duration::from_millis(20);
/// In which the others notice by themselves that one has failed: more than a save takes.
const GRACE: Duration = Duration::from_secs(120);

/// Starts this program, with its arguments, so many times; ends when all have, with the first code that is none of a good end.
///
/// # Errors
/// If one of them cannot be started.
pub fn launch(processes: usize) -> Result<ExitCode> {
    let signals = [SIGINT, SIGTERM].into_iter().chain((!is_ignored(SIGHUP)).then_some(SIGHUP));
    let mut signals = Signals::new(signals)?;
    let store = Store::open("127.0.0.1", 0, true, GRACE).map_err(|reason| anyhow!("--processes: {reason}"))?;
    let program = std::env::current_exe().context("--processes: where is this program?")?;
    let mut started = Started(Vec::new());
    for rank in 0..processes {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1)).stdin(Stdio::piped()).process_group(0);
        for (name, value) in [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", processes)] {
            command.env(name, value.to_string());
        }
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", store.port().to_string());
        command.env("TORCHELASTIC_USE_AGENT_STORE", "True").env(LAUNCHED, "1");
        let child = command.spawn().with_context(|| format!("--processes: process {rank} of {processes}"))?;
        started.0.push((child, None));
    }
    let mut failed: Option<Instant> = None;
    loop {
        for signal in signals.pending() {
            started.tell(Signal::from_named_raw(signal).expect("a signal that was asked for"));
        }
        if started.look()? {
            return Ok(started.code());
        }
        if started.has_failed() && failed.is_none() {
            failed = Some(Instant::now());
            if store.get(MET, LOOK).is_err() {
                say!("a process ended before all had met: the others are ended");
                started.tell(Signal::KILL);
            }
        }
        if failed.is_some_and(|since| since.elapsed() > GRACE) {
            started.tell(Signal::KILL);
        }
        sleep(LOOK);
    }
}

/// To be called by a program that may have been started by [`launch`]: where its launcher is gone, it is asked to stop.
pub fn end_with_launcher() {
    if std::env::var_os(LAUNCHED).is_none() {
        return;
    }
    // (The system's own signal for it comes once for each thread of the launcher: the second would end a run before it has saved.)
    let listen = || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = raise(SIGTERM);
    };
    // Without a thread, it goes on alone.
    let _ = Builder::new().name("simla-launcher".into()).spawn(listen);
}

/// Processes, with the status of those that have ended.
struct Started(Vec<(Child, Option<ExitStatus>)>);

impl Started {
    /// Whether all have ended.
    fn look(&mut self) -> Result<bool> {
        for (child, status) in &mut self.0 {
            *status = child.try_wait()?;
        }
        Ok(self.0.iter().all(|(_, status)| status.is_some()))
    }

    fn tell(&self, signal: Signal) {
        for (child, _) in self.0.iter().filter(|(_, status)| status.is_none()) {
            let _ = kill_process(Pid::from_child(child), signal); // it may have ended just now
        }
    }

    fn codes(&self) -> impl Iterator<Item = u8> {
        /// As a shell reports a process that was killed.
        const KILLED: i32 = 128;
        let code = |status: &ExitStatus| status.code().unwrap_or(KILLED + status.signal().unwrap_or(0));
        self.0.iter().filter_map(move |(_, status)| Some(u8::try_from(code(status.as_ref()?)).unwrap_or(1)))
    }

    fn has_failed(&self) -> bool {
        self.codes().any(|code| !GOOD.contains(&code))
    }

    fn code(&self) -> ExitCode {
        let of_failed = self.codes().find(|code| !GOOD.contains(code));
        ExitCode::from(of_failed.or(self.codes().max()).unwrap_or(0))
    }
}

/// Finished, and stopped to be resumed.
const GOOD: [u8; 2] = [0, crate::stop::STOPPED];

impl Drop for Started {
    /// None is left behind.
    fn drop(&mut self) {
        self.tell(Signal::KILL);
    }
}
