//! Runs of several processes, on this machine: they compute what one computes, and when one of them fails none is left behind.
//!
//! Each test starts this program again, once for every process, as `member`.
#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use simla_train::checkpoint::Checkpoint;
use simla_train::metrics::StepRecord;
use simla_train::optim::AdamWConfig;
use simla_train::team::Place;
use simla_train::torch::group::Store;
use simla_train::weights::{Gradients, Weights, WeightsError};
use simla_train::{At, Ending, Observer, Plan, Scores, Task, Team, TeamError, TrainError, Trainer};
use tch::{Device, Kind, Tensor, no_grad};

use crate::common::{Notes, Regression, Rows, batch, plan};

/// Batches of a step, and rows of each.
const BATCHES: u64 = 4;
const ROWS: i64 = 2;
const STEPS: u64 = 6;

/// What goes wrong, in the step and on the process that a scenario names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
enum Fault {
    #[default]
    Nothing,
    /// The loss is not a number.
    Bad,
    /// SIGKILL in the backward pass, and where what it gave is summed.
    KilledInBackward,
    KilledInSum,
    /// SIGKILL while the first saves.
    KilledInSave,
    /// SIGKILL of the first while it evaluates and the others wait.
    KilledInEvaluation,
    /// The first cannot save.
    DiskFull,
    /// It is asked to stop.
    Stop,
    /// It works on for longer than the others wait.
    Late,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Scenario {
    fault: Fault,
    step: u64,
    rank: usize,
    /// Of the gradients on the wire: bf16 in place of f32.
    short: bool,
    /// Seconds to wait for the others.
    joining: f64,
    call: f64,
    /// A line that has to be the same everywhere, and what one process has instead.
    differs: bool,
}

impl Scenario {
    fn of(fault: Fault, step: u64, rank: usize) -> Self {
        Self { fault, step, rank, joining: 20.0, call: 20.0, ..Self::default() }
    }

    fn strikes(&self, team: &Team, step: u64) -> bool {
        step == self.step && team.rank() == self.rank
    }
}

/// A regression with what is special about several processes: noise of its own for each batch, numbers of all batches in a queue, and
/// something drawn at the end of a step.
struct Shared {
    regression: Regression,
    scenario: Scenario,
    team: Arc<Team>,
    step: u64,
    seen: Vec<Tensor>,
    /// The first number of the last 12 rows.
    queue: Tensor,
    drawn: Tensor,
}

fn die() -> ! {
    let killed = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
    unreachable!("{killed:?}")
}

impl Task for Shared {
    type Batch = Rows;

    fn records(batch: &Rows) -> &[String] {
        Regression::records(batch)
    }

    fn name(&self) -> &'static str {
        "shared"
    }

    fn config(&self) -> Value {
        Value::Null
    }

    fn weights(&mut self) -> &mut Weights {
        self.regression.weights()
    }

    fn begin_step(&mut self) {
        self.seen.clear();
    }

    fn backward(&mut self, batch: &Rows, at: At, gradients: &mut Gradients) -> Scores {
        self.step = at.step;
        let strikes = self.scenario.strikes(&self.team, at.step);
        match self.scenario.fault {
            Fault::KilledInBackward if strikes => die(),
            // The others are in the sum by then.
            Fault::KilledInSum if strikes => sleep(Duration::from_millis(300)),
            Fault::Late if strikes => sleep(Duration::from_secs(30)),
            _ => (),
        }
        self.regression.bad = if self.scenario.fault == Fault::Bad && strikes { vec![at.step] } else { vec![] };
        let noise = Tensor::randn([1], (Kind::Float, Device::Cpu)).double_value(&[0]);
        let mut scores = self.regression.backward(batch, at, gradients);
        scores.others.push(("noise", Tensor::from(noise)));
        let numbers = Tensor::from_slice(&batch.numbers).view([ROWS, -1]).select(1, 1).to_kind(Kind::Float);
        self.seen.push(numbers + noise);
        scores
    }

    fn exchange(&mut self, team: &Team) -> Result<Vec<(&'static str, Tensor)>, TeamError> {
        if self.scenario.fault == Fault::KilledInSum && self.scenario.strikes(team, self.step) {
            die();
        }
        self.seen = vec![team.gather_batches(&self.seen)?];
        Ok(vec![("rows_of_all", Tensor::from(self.seen[0].numel() as i64))])
    }

    fn end_step(&mut self, applied: bool, _: &Team) -> Result<(), TeamError> {
        self.regression.ended.push(applied);
        let queue = Tensor::cat(&[&self.queue, &self.seen[0]], 0);
        self.queue.copy_(&queue.narrow(0, -12, 12));
        self.drawn.copy_(&Tensor::randn([1], (Kind::Float, Device::Cpu)));
        Ok(())
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = self.regression.tensors();
        tensors.insert("queue".into(), self.queue.shallow_clone());
        tensors.insert("drawn".into(), self.drawn.shallow_clone());
        tensors
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
        no_grad(|| self.queue.copy_(&tensors["queue"]));
        self.regression.load(tensors)
    }

    fn extra(&self) -> BTreeMap<String, Vec<u8>> {
        let strikes = self.scenario.step <= self.step && self.team.is_first();
        match self.scenario.fault {
            Fault::KilledInSave if strikes => die(),
            Fault::DiskFull if strikes => BTreeMap::from([("no/such/folder".into(), vec![0])]),
            _ => BTreeMap::new(),
        }
    }
}

struct Watcher {
    notes: Notes,
    team: Arc<Team>,
    scenario: Scenario,
    stop: Arc<AtomicBool>,
}

impl Observer<Shared> for Watcher {
    fn stepped(&mut self, task: &mut Shared, record: &mut StepRecord) -> Result<Option<f64>, String> {
        self.notes.records.push(record.clone());
        if self.scenario.strikes(&self.team, record.step) {
            match self.scenario.fault {
                Fault::KilledInEvaluation => {
                    sleep(Duration::from_millis(300));
                    die();
                }
                Fault::Stop => self.stop.store(true, Ordering::Relaxed),
                _ => (),
            }
        }
        let _ = task;
        Ok(None)
    }

    fn skipped(&mut self, step: u64, _: &str, records: &[String]) {
        self.notes.skipped.push((step, records.to_vec()));
    }

    fn saved(&mut self, step: u64, _: &Path) {
        self.notes.saved.push(step);
    }
}

/// What a process leaves for its test to read.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Left {
    stopped: bool,
    /// Of every step; as bits, since JSON has no number that is none.
    losses: Vec<u64>,
    norms: Vec<u64>,
    noise: Vec<u64>,
    /// Bits of all tensors.
    bits: BTreeMap<String, Vec<u32>>,
    skipped: Vec<(u64, Vec<String>)>,
    saved: Vec<u64>,
}

/// One process of a run; without its variables this is no test.
#[test]
fn member() {
    let Ok(scenario) = std::env::var("SIMLA_TEST_SCENARIO") else {
        return;
    };
    let scenario: Scenario = serde_json::from_str(&scenario).unwrap();
    let folder = std::env::var("SIMLA_TEST_FOLDER").unwrap();
    tch::set_num_threads(1);
    let code = match run(&scenario, Path::new(&folder)) {
        Ok(()) => 0,
        Err(error) => {
            let elsewhere = matches!(&error, TrainError::Team(team) if team.is_said_elsewhere());
            if !elsewhere {
                eprintln!("error: {error}");
            }
            1
        }
    };
    std::process::exit(code);
}

fn run(scenario: &Scenario, folder: &Path) -> Result<(), TrainError> {
    let team = Arc::new(match Place::from_environment()? {
        Some(place) => {
            let seconds = Duration::from_secs_f64;
            let place = Place { joining: seconds(scenario.joining), call: seconds(scenario.call), ..place };
            Team::join(&place, Device::Cpu)?
        }
        None => Team::alone(),
    });
    team.agree(&format!("seed = 1\nlr = {}", if scenario.differs && team.rank() == 1 { 0.2 } else { 0.1 }))?;
    let mut task = Shared {
        regression: Regression::new(&[]),
        scenario: scenario.clone(),
        team: Arc::clone(&team),
        step: 0,
        seen: vec![],
        queue: Tensor::zeros([12], (Kind::Float, Device::Cpu)),
        drawn: Tensor::zeros([1], (Kind::Float, Device::Cpu)),
    };
    if !team.is_first() {
        // Whatever it begins with, and without the folder: the first has it all.
        let _ = no_grad(|| task.tensors()["a"].shallow_clone().fill_(f64::from(7 + team.rank() as u8)));
    }
    let resume = if team.is_first() { Checkpoint::open(folder).ok() } else { None };
    let plan = Plan {
        accumulate: BATCHES,
        wire: if scenario.short { Kind::BFloat16 } else { Kind::Float },
        save_every_steps: 2,
        clip_norm: 1.0,
        ..plan(STEPS)
    };
    let config = AdamWConfig::default();
    let mut trainer = Trainer::new(&mut task, config, plan, folder, resume.as_ref(), &team)?;
    let (rank, world) = (team.rank() as u64, team.world() as u64);
    let mut batches = (trainer.step() * BATCHES + rank..).step_by(world as usize);
    let mut batches =
        batches.by_ref().map(|number| Ok::<_, Infallible>(batch(number, number as i64..number as i64 + ROWS)));
    let stop = Arc::new(AtomicBool::new(false));
    let mut watcher = Watcher {
        notes: Notes::default(),
        team: Arc::clone(&team),
        scenario: scenario.clone(),
        stop: Arc::clone(&stop),
    };
    let ending = trainer.run(&mut task, &mut batches, &mut watcher, &stop)?;
    let bits = task.tensors().into_iter().map(|(name, x)| {
        let bits = Vec::<f32>::try_from(x.flatten(0, -1)).unwrap();
        (name, bits.into_iter().map(f32::to_bits).collect())
    });
    let of = |what: fn(&StepRecord) -> f64| watcher.notes.records.iter().map(|record| what(record).to_bits()).collect();
    let left = Left {
        stopped: ending == Ending::Stopped,
        losses: of(|r| r.loss),
        norms: of(|r| r.grad_norm),
        noise: of(|r| r.scores["noise"]),
        bits: bits.collect(),
        skipped: watcher.notes.skipped,
        saved: watcher.notes.saved,
    };
    let path = folder.join(format!("left-{rank}.json"));
    fs::write(path, serde_json::to_vec(&left).unwrap()).unwrap();
    team.end();
    Ok(())
}

/// Longest that a test waits.
const PATIENCE: Duration = Duration::from_secs(40);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(folder: &Path, scenario: &Scenario, port: u16, world: usize, rank: usize) -> Child {
    prepared(folder, scenario, port, world, rank).spawn().unwrap()
}

fn prepared(folder: &Path, scenario: &Scenario, port: u16, world: usize, rank: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "member", "--nocapture", "--test-threads=1"]).env("OMP_NUM_THREADS", "1");
    command.env("SIMLA_TEST_SCENARIO", serde_json::to_string(scenario).unwrap()).env("SIMLA_TEST_FOLDER", folder);
    if world > 1 {
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", world.to_string());
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// All processes of a run, to their ends: the codes and what each said.
fn all(folder: &Path, scenario: &Scenario, world: usize) -> Vec<Output> {
    let port = free_port();
    ends((0..world).map(|rank| start(folder, scenario, port, world, rank)).collect())
}

fn ends(mut children: Vec<Child>) -> Vec<Output> {
    let start = Instant::now();
    while !children.iter_mut().all(|child| child.try_wait().unwrap().is_some()) {
        if start.elapsed() > PATIENCE {
            children.iter_mut().for_each(|child| child.kill().unwrap());
            let said: Vec<String> =
                children.into_iter().map(|child| said(&child.wait_with_output().unwrap())).collect();
            panic!("some hang: {said:#?}");
        }
        sleep(Duration::from_millis(10));
    }
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the processes of a run left that went well.
#[track_caller]
fn left(folder: &Path, scenario: &Scenario, world: usize) -> Vec<Left> {
    fs::create_dir_all(folder).unwrap();
    let outputs = all(folder, scenario, world);
    assert!(
        outputs.iter().all(|output| output.status.success()),
        "{:#?}",
        outputs.iter().map(said).collect::<Vec<_>>()
    );
    let of = |rank| serde_json::from_slice(&fs::read(folder.join(format!("left-{rank}.json"))).unwrap()).unwrap();
    (0..world).map(of).collect()
}

fn assert_close(ours: &[u64], theirs: &[u64], bound: f64, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (&a, &b) in ours.iter().zip(theirs) {
        let (a, b) = (f64::from_bits(a), f64::from_bits(b));
        assert!((a - b).abs() <= bound * b.abs().max(1e-3), "{what}: {a} and {b}");
    }
}

/// The same computation, up to the order of sums; and all processes of one run bit for bit.
#[track_caller]
fn assert_same_run(ours: &[Left], one: &Left, bound: f64) {
    for left in ours {
        assert_eq!(left.bits, ours[0].bits, "processes of one run");
        assert_eq!((&left.losses, &left.skipped), (&ours[0].losses, &ours[0].skipped));
        assert_close(&left.losses, &one.losses, bound, "losses");
        assert_close(&left.norms, &one.norms, bound, "norms");
        assert_close(&left.noise, &one.noise, 1e-6, "noise");
        assert_eq!(left.bits["queue"], one.bits["queue"], "the order of batches");
        assert_eq!(left.bits["drawn"], one.bits["drawn"]);
        let values = |left: &Left| {
            left.bits["a"].iter().map(|&bits| f64::from(f32::from_bits(bits)).to_bits()).collect::<Vec<u64>>()
        };
        assert_close(&values(left), &values(one), bound, "weights");
    }
    assert!(ours[1..].iter().all(|left| left.saved.is_empty()), "one voice");
    assert_eq!(ours[0].saved, one.saved);
}

#[test]
fn two_and_four_processes_compute_what_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = Scenario::of(Fault::Nothing, 0, 0);
    let one = left(&folder.path().join("1"), &nothing, 1);
    assert_eq!((one[0].saved.as_slice(), one[0].losses.len()), ([2, 4, 6].as_slice(), 6));
    for world in [2, 4] {
        let several = left(&folder.path().join(world.to_string()), &nothing, world);
        assert_same_run(&several, &one[0], 1e-5);
    }
    // With half the bytes on the wire: not the same, but near, and all processes alike.
    let short = left(&folder.path().join("short"), &Scenario { short: true, ..nothing.clone() }, 2);
    assert_same_run(&short, &one[0], 2e-2);
    assert_ne!(short[0].norms, one[0].norms);
    // Three cannot share four batches alike.
    let outputs = all(&folder.path().join("3"), &nothing, 3);
    let error = said(&outputs[0]);
    assert!(error.contains("accumulate = 4") && error.contains("one of 1, 2, 4 processes"), "{error}");
    assert!(outputs.iter().all(|output| output.status.code() == Some(1)));
}

#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let folder = tempfile::tempdir().unwrap();
    let whole = left(&folder.path().join("whole"), &Scenario::of(Fault::Nothing, 0, 0), 1);
    let run = folder.path().join("run");
    // Asked to stop on the last of its processes, in step 2 (it ends with 3); then on its only one, in step 4.
    let first = left(&run, &Scenario::of(Fault::Stop, 2, 3), 4);
    assert!(first.iter().all(|left| left.stopped && left.losses.len() == 3), "{first:?}");
    assert_eq!((&first[0].saved, Checkpoint::open(&run).unwrap().state.step), (&vec![2, 3], 3));
    let second = left(&run, &Scenario::of(Fault::Stop, 4, 0), 1);
    assert!(second[0].stopped && second[0].losses.len() == 2);
    let third = left(&run, &Scenario::of(Fault::Nothing, 0, 0), 2);
    let losses = [&first[0].losses[..], &second[0].losses, &third[0].losses].concat();
    assert_close(&losses, &whole[0].losses, 1e-5, "losses");
    let ends = |left: &[Left]| [left[0].bits["queue"].clone(), left[0].bits["drawn"].clone()];
    assert_eq!(ends(&third), ends(&whole));
    let logged = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(logged.lines().count(), 6, "no step twice, none missing: {logged}");
}

#[test]
fn a_bad_step_on_one_process_is_skipped_on_all_with_the_records_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let several = left(&folder.path().join("2"), &Scenario::of(Fault::Bad, 2, 1), 2);
    let names: Vec<String> = (8..12).flat_map(|n| (0..ROWS).map(move |row| format!("batch {n}, row {row}"))).collect();
    for left in &several {
        assert_eq!(left.skipped, [(3, names.clone())]);
        assert_eq!(left.bits, several[0].bits);
        let is_number = |step: usize| f64::from_bits(left.losses[step]).is_finite();
        assert!(!is_number(2) && is_number(3));
    }
}

/// What a run comes to that nothing disturbs.
fn undisturbed(world: usize) -> &'static BTreeMap<String, Vec<u32>> {
    static OF_TWO: OnceLock<BTreeMap<String, Vec<u32>>> = OnceLock::new();
    static OF_FOUR: OnceLock<BTreeMap<String, Vec<u32>>> = OnceLock::new();
    let known = if world == 2 { &OF_TWO } else { &OF_FOUR };
    known.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        left(folder.path(), &Scenario::of(Fault::Nothing, 0, 0), world).swap_remove(0).bits
    })
}

/// The scenario's process is lost or fails; nobody is left, nothing is half written, and the next start comes to the same end.
#[track_caller]
fn assert_ends_and_goes_on(scenario: &Scenario, world: usize, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let outputs = all(folder.path(), scenario, world);
    let took = start.elapsed();
    let everything: Vec<String> = outputs.iter().map(said).collect();
    assert!(took < Duration::from_secs(15), "{took:?}: {everything:#?}");
    for (rank, output) in outputs.iter().enumerate() {
        let killed = output.status.code().is_none();
        assert!(killed || output.status.code() == Some(1), "{rank}: {everything:#?}");
    }
    let together = everything.join("\n");
    assert!(words.iter().all(|word| together.contains(word)), "{words:?} in {together}");
    assert!(!together.contains("panicked"), "{together}");
    if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
        checkpoint.verify().unwrap();
    }
    let again = left(folder.path(), &Scenario::of(Fault::Nothing, 0, 0), world);
    assert_eq!(&again[0].bits, undisturbed(world));
    let logged = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(logged.lines().count(), 6, "no step twice, none missing: {logged}");
}

#[test]
fn killed_in_the_backward_pass() {
    assert_ends_and_goes_on(&Scenario::of(Fault::KilledInBackward, 3, 1), 2, &["process 0 of 2", "--continue"]);
}

#[test]
fn killed_while_the_others_sum() {
    assert_ends_and_goes_on(&Scenario::of(Fault::KilledInSum, 3, 2), 4, &["--continue"]);
}

#[test]
fn killed_while_it_saves() {
    assert_ends_and_goes_on(&Scenario::of(Fault::KilledInSave, 3, 0), 2, &["process 1 of 2"]);
}

#[test]
fn killed_while_it_evaluates_and_the_others_wait() {
    assert_ends_and_goes_on(&Scenario::of(Fault::KilledInEvaluation, 3, 0), 2, &["process 1 of 2"]);
}

#[test]
fn no_room_on_the_disk_of_the_first() {
    assert_ends_and_goes_on(&Scenario::of(Fault::DiskFull, 3, 0), 2, &["no/such/folder"]);
}

#[test]
fn one_that_is_later_than_the_others_wait() {
    let late = Scenario { call: 2.0, ..Scenario::of(Fault::Late, 3, 1) };
    assert_ends_and_goes_on(&late, 2, &["process 0 of 2", "lost the others", "2000ms"]);
}

#[test]
fn one_that_never_comes_and_a_port_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let waiting = Scenario { joining: 1.0, ..Scenario::of(Fault::Nothing, 0, 0) };
    let port = free_port();
    let outputs = ends([0, 2].map(|rank| start(folder.path(), &waiting, port, 3, rank)).into());
    for output in &outputs {
        assert!(said(output).contains("of 3 processes, 1 did not come within 1 s"), "{}", said(output));
        assert_eq!(output.status.code(), Some(1));
    }
    // The first never comes.
    let outputs = ends(vec![start(folder.path(), &waiting, port, 2, 1)]);
    assert!(said(&outputs[0]).contains(&format!("127.0.0.1:{port}")), "{}", said(&outputs[0]));

    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let outputs = ends(vec![start(folder.path(), &waiting, port, 2, 0)]);
    let error = said(&outputs[0]);
    assert!(error.contains(&format!("port {port} is taken")) && error.contains("MASTER_PORT"), "{error}");
}

#[test]
fn under_torchrun_they_meet_by_way_of_its_store_after_a_restart_too() {
    let agent = Store::open("127.0.0.1", 0, true, PATIENCE).unwrap();
    let nothing = Scenario::of(Fault::Nothing, 0, 0);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // The store has what the first start has told.
    for folder in &folders {
        let of = |rank| {
            let mut command = prepared(folder.path(), &nothing, agent.port(), 2, rank);
            command.env("TORCHELASTIC_USE_AGENT_STORE", "True").spawn().unwrap()
        };
        let outputs = ends([1, 0].map(of).into());
        assert!(outputs.iter().all(|o| o.status.success()), "{:?}", outputs.iter().map(said).collect::<Vec<_>>());
    }
}

#[test]
fn what_differs_between_processes_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let differing = Scenario { differs: true, ..Scenario::of(Fault::Nothing, 0, 0) };
    let outputs = all(folder.path(), &differing, 3);
    let error = said(&outputs[0]);
    assert!(["process 1 of 3", "lr = 0.2", "process 0", "has lr = 0.1"].iter().all(|w| error.contains(w)), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    for output in &outputs[1..] {
        assert_eq!((said(output).as_str(), output.status.code()), ("", Some(1)));
    }
    assert!(!folder.path().join("metrics.jsonl").exists());
}
