//! How many threads libtorch calculates with: as many as there are cores to be had now.
//!
//! A parallel loop is over when its slowest thread is: one that has no core, because other work has it, is waited for by all. What the
//! machine does besides is therefore looked at between steps, and where there is something, the numbers of threads that may be best are
//! tried in turn and the fastest is kept. OpenMP's own variables count more than anything found here.

use std::env;
use std::fs;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// Between two looks at what the machine does.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Cores: what is always done besides, and what makes no difference.
const NOTHING: f64 = 0.25;
/// Cores: so much more or less besides than when the number was found, and it is looked for again.
const ANOTHER: f64 = 0.4;
/// A number is tried for so many steps at least, and so long. The first of them is not counted: threads are started.
const TRIED_STEPS: u32 = 3;
const TRIED_SECONDS: f64 = 1.0;
/// What was found is kept for so many times the time that it took to find, while nothing changes.
const KEPT_TIMES: f64 = 20.0;
/// So much faster than all threads must fewer be.
const WORTH: f64 = 1.03;

/// OpenMP's number of threads.
const COUNT: &str = "OMP_NUM_THREADS";

/// Starts the program anew with a wait at the end of parallel loops that is short: a thread that waits takes the core of one that is
/// waited for, where other work has the rest. OpenMP reads the length of the wait when it is loaded, so that this process cannot change
/// its own. Call it before anything is computed. Where the user has set any of OpenMP's variables, or the system does not start it,
/// all stays as it is. That torchrun has set one thread, since the user had not set any number, is not the user's word.
#[cfg(target_os = "linux")]
pub fn wait_briefly() {
    use std::os::unix::process::CommandExt;
    /// Of GNU's OpenMP: rounds of a wait, about a tenth of a millisecond. Alone, no loop of a step ends later; beside other work, the
    /// core is free again before the system takes it.
    const WAIT: (&str, &str) = ("GOMP_SPINCOUNT", "10000");
    const OPENMP: [&str; 3] = ["OMP_", "GOMP_", "KMP_"];
    let of_torchrun = env::var_os("TORCHELASTIC_RUN_ID").is_some() && env::var_os(COUNT).is_some_and(|n| n == "1");
    let is_set = |name: &std::ffi::OsString| {
        OPENMP.iter().any(|start| name.to_string_lossy().starts_with(start)) && !(of_torchrun && name == COUNT)
    };
    let mut arguments = env::args_os();
    if let (Some(name), Ok(program)) = (arguments.next(), env::current_exe())
        && !env::vars_os().any(|(name, _)| is_set(&name))
    {
        let mut again = std::process::Command::new(program);
        again.arg0(name).args(arguments).env(WAIT.0, WAIT.1);
        if of_torchrun {
            again.env_remove(COUNT);
        }
        // It returns where it fails alone: then waits are long.
        let _ = again.exec();
    }
}

/// Nothing, on other systems.
#[cfg(not(target_os = "linux"))]
pub fn wait_briefly() {}

/// Decides between steps.
#[derive(Debug)]
pub struct Threads {
    /// None where the user has set the number: here, or by a variable of OpenMP's.
    adapting: Option<Adapting>,
    count: usize,
}

#[derive(Debug)]
struct Adapting {
    choice: Choice,
    before: Option<Sample>,
    looked: Instant,
    most: usize,
}

impl Threads {
    /// `asked` threads; with 0 as many as are best now.
    pub fn new(asked: usize) -> Self {
        if asked > 0 {
            set(asked);
            return Self { adapting: None, count: asked };
        }
        if is_decided() {
            return Self { adapting: None, count: tch::get_num_threads().max(1) as usize };
        }
        let most = cores();
        set(most);
        let choice = Choice::new(most);
        let before = Sample::take();
        let adapting = Adapting { choice, before, looked: Instant::now(), most };
        Self { adapting: (most > 1).then_some(adapting), count: most }
    }

    /// As many as are this process's of the machine's cores, which it shares with others of its run: those would take each other's
    /// adapting for other work. Alone as many as are best now.
    pub fn shared(processes: usize) -> Self {
        match processes {
            0 | 1 => Self::new(0),
            _ if is_decided() => Self::new(0),
            _ => Self::new(share_of_cores(processes)),
        }
    }

    /// Threads that it calculates with.
    pub fn count(&self) -> usize {
        self.count
    }

    /// After a step that calculated for so long: the number of threads for the next, where it is another.
    pub fn stepped(&mut self, calculated: Duration) -> Option<usize> {
        let adapting = self.adapting.as_mut()?;
        let count = adapting.next(calculated);
        if count == self.count {
            return None;
        }
        set(count);
        self.count = count;
        Some(count)
    }
}

impl Adapting {
    fn next(&mut self, calculated: Duration) -> usize {
        let mut look = None;
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.most = cores();
            let now = Sample::take();
            if let (Some(before), Some(now)) = (&self.before, &now) {
                look = now.others_since(before);
            }
            self.before = now;
        }
        self.choice.step(calculated.as_secs_f64(), look, self.most)
    }
}

/// Whether the user has said how many threads there are to be.
fn is_decided() -> bool {
    [COUNT, "OMP_THREAD_LIMIT", "MKL_NUM_THREADS"].iter().any(|name| env::var_os(name).is_some())
}

/// Cores for each of some processes that share those which this one may use.
pub fn share_of_cores(processes: usize) -> usize {
    (cores() / processes.max(1)).max(1)
}

/// Cores that this process may use: by its affinity, and by the time that its container has.
fn cores() -> usize {
    available_parallelism().map_or(1, |cores| cores.get())
}

fn set(count: usize) {
    tch::set_num_threads(i32::try_from(count).unwrap_or(i32::MAX));
}

/// What the cores that this process may use have done so far, in ticks of the system.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    cores: u64,
    all: u64,
    /// All but idle, with what the machine's own host took away.
    busy: u64,
    /// By this process.
    own: u64,
}

impl Sample {
    /// None where the system does not tell.
    fn take() -> Option<Self> {
        let read = |path| fs::read_to_string(path).ok();
        Self::read(&read("/proc/stat")?, &read("/proc/self/stat")?, &read("/proc/self/status")?)
    }

    fn read(stat: &str, own: &str, status: &str) -> Option<Self> {
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        let allowed = ranges(allowed.trim());
        let mut sample = Self { cores: 0, all: 0, busy: 0, own: own_ticks(own)? };
        for line in stat.lines().filter_map(|line| line.strip_prefix("cpu")) {
            let (core, ticks) = line.split_once(' ')?;
            if !core.parse().is_ok_and(|core: u64| allowed.iter().any(|(first, last)| (first..=last).contains(&&core)))
            {
                continue;
            }
            // user nice system idle iowait irq softirq steal; guests are in user and nice (proc(5)).
            let ticks: Vec<u64> = ticks.split_ascii_whitespace().take(8).map_while(|tick| tick.parse().ok()).collect();
            let idle: u64 = ticks.iter().skip(3).take(2).sum();
            let all: u64 = ticks.iter().sum();
            sample.cores += 1;
            sample.all += all;
            sample.busy += all - idle;
        }
        (sample.cores > 0).then_some(sample)
    }

    /// Cores that something else had since `before`; none where no time has gone by, or there are other cores now.
    fn others_since(&self, before: &Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|&all| all > 0 && self.cores == before.cores)?;
        let busy = self.busy.saturating_sub(before.busy);
        let own = self.own.saturating_sub(before.own);
        Some(busy.saturating_sub(own) as f64 / all as f64 * self.cores as f64)
    }
}

/// A process's time in user and system mode, of /proc/PID/stat.
fn own_ticks(stat: &str) -> Option<u64> {
    // The name before may have spaces and brackets; what follows begins with the third field (proc(5)).
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// The bounds in `0-3,7`.
fn ranges(list: &str) -> Vec<(u64, u64)> {
    let bounds = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    list.split(',').filter_map(bounds).collect()
}

/// Which number of threads is best, by trying.
#[derive(Debug)]
struct Choice {
    most: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing else is done: all cores.
    Alone,
    /// Numbers that are left to be tried, the last one now; seconds a step of those that were.
    Trying { left: Vec<usize>, steps: u32, seconds: f64, found: Vec<(usize, f64)>, spent: f64 },
    /// The best, as long as this much else is done; seconds until it is looked for again.
    Found { best: usize, others: Option<f64>, changed: u32, left: f64 },
}

impl Choice {
    fn new(most: usize) -> Self {
        Self { most, state: State::Alone }
    }

    /// The number for the next step, after one of so many seconds and perhaps a look at how many cores something else has.
    fn step(&mut self, seconds: f64, others: Option<f64>, most: usize) -> usize {
        if most != self.most {
            *self = Self::new(most);
        }
        match &mut self.state {
            State::Alone => {
                if let Some(others) = others.filter(|others| *others > NOTHING) {
                    self.state = self.trying(others);
                }
            }
            State::Trying { left, steps, seconds: sum, found, spent } => {
                *spent += seconds;
                *steps += 1;
                if *steps > 1 {
                    *sum += seconds;
                }
                if *steps > TRIED_STEPS && *sum >= TRIED_SECONDS {
                    let tried = left.pop().unwrap_or(most);
                    found.push((tried, *sum / f64::from(*steps - 1)));
                    (*steps, *sum) = (0, 0.0);
                    if left.is_empty() {
                        let (best, left) = (fastest(found, most), *spent * KEPT_TIMES);
                        self.state = State::Found { best, others: None, changed: 0, left };
                    }
                }
            }
            State::Found { others: then, changed, left, .. } => {
                *left -= seconds;
                if let Some(now) = others {
                    let then = *then.get_or_insert(now);
                    *changed = if (now - then).abs() > ANOTHER || now < NOTHING { *changed + 1 } else { 0 };
                    // Once is chance.
                    if *changed > 1 && now < NOTHING {
                        self.state = State::Alone;
                    } else if *changed > 1 || *left < 0.0 {
                        self.state = self.trying(now);
                    }
                }
            }
        }
        match &self.state {
            State::Alone => self.most,
            State::Trying { left, .. } => left.last().copied().unwrap_or(self.most),
            State::Found { best, .. } => *best,
        }
    }

    /// All cores, those that nothing else has, and half: the others may be served as well.
    fn trying(&self, others: f64) -> State {
        let free = self.most.saturating_sub(others.round() as usize).max(1);
        let mut left = vec![self.most.div_ceil(2), free, self.most];
        left.dedup();
        State::Trying { left, steps: 0, seconds: 0.0, found: vec![], spent: 0.0 }
    }
}

fn fastest(found: &[(usize, f64)], most: usize) -> usize {
    let all = found.iter().find(|(count, _)| *count == most).map_or(f64::INFINITY, |(_, seconds)| *seconds);
    let better = found.iter().filter(|(_, seconds)| seconds * WORTH < all);
    better.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(most, |(count, _)| *count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsimla\nCpus_allowed_list:\t1-2\n";

    fn sample(cores: [[u64; 8]; 3], own: [u64; 2]) -> Sample {
        let line = |(i, ticks): (usize, [u64; 8])| format!("cpu{i} {}\n", ticks.map(|tick| tick.to_string()).join(" "));
        let lines: String = cores.into_iter().enumerate().map(line).collect();
        let own = format!("7 (a ) name) R 1 2 3 4 5 6 7 8 9 10 {} {} 0 0 20", own[0], own[1]);
        Sample::read(&format!("cpu  1 2 3 4 5 6 7 8\n{lines}intr 5\n"), &own, STATUS).unwrap()
    }

    #[test]
    fn others_are_what_is_busy_on_the_own_cores_and_not_the_own_work() {
        let before = sample([[0; 8]; 3], [0; 2]);
        // Of 100 ticks each: core 0 is another's; 1 has 90 of work, 2 has 30 of work, and 20 that its host took.
        let cores = [[100, 0, 0, 0, 0, 0, 0, 0], [80, 0, 10, 10, 0, 0, 0, 0], [20, 5, 5, 40, 10, 0, 0, 20]];
        let after = sample(cores, [60, 10]);
        assert_eq!(after.others_since(&before), Some(2.0 * (140.0 - 70.0) / 200.0));
        assert_eq!(after.others_since(&after), None, "no time has gone by");
        assert_eq!(ranges("0-3,7"), [(0, 3), (7, 7)]);
    }

    /// Steps of `seconds(threads)` beside `others` cores of other work, looked at after every one: the numbers of threads.
    fn run(choice: &mut Choice, steps: usize, most: usize, others: f64, seconds: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut count = choice.step(seconds(most), Some(others), most);
        let step = |_| {
            count = choice.step(seconds(count), Some(others), most);
            count
        };
        (0..steps).map(step).collect()
    }

    #[test]
    fn alone_all_cores_calculate_whatever_a_step_takes() {
        let mut choice = Choice::new(8);
        assert!(run(&mut choice, 100, 8, 0.1, |count| count as f64).iter().all(|&count| count == 8));
    }

    #[test]
    fn beside_others_the_fastest_is_found_kept_and_left_when_they_go() {
        let mut choice = Choice::new(8);
        let seconds = |count: usize| if count == 6 { 0.5 } else { 1.0 };
        let counts = run(&mut choice, 40, 8, 2.0, seconds);
        assert!(counts.contains(&8) && counts.contains(&4), "all are tried: {counts:?}");
        assert!(counts[16..].iter().all(|&count| count == 6), "{counts:?}");
        // One look without the others is chance.
        choice.step(0.5, Some(0.0), 8);
        assert_eq!(run(&mut choice, 1, 8, 2.0, seconds), [6]);
        let counts = run(&mut choice, 3, 8, 0.0, seconds);
        assert_eq!(counts[2], 8);
    }

    #[test]
    fn fewer_threads_must_be_worth_it_and_other_cores_begin_anew() {
        let mut choice = Choice::new(2);
        let counts = run(&mut choice, 30, 2, 1.0, |count| if count == 1 { 0.99 } else { 1.0 });
        assert_eq!(counts[29], 2, "{counts:?}");
        assert_eq!(choice.step(1.0, None, 4), 4);
    }
}
