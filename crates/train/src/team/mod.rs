//! The processes of a run. A run of one process is a team of one, in which every call returns at once: the trainer has one path.
//!
//! The calls of a [`Team`] are made by all its processes together, in the same order: none in a branch that one may take alone. What
//! differs between processes (a signal, a clock, a disk) is therefore first made known to all, and then decided upon by all alike.
//!
//! Tensors of the CPU go by gloo, those of a GPU by NCCL; small things of the host by gloo in any case. After an error a team is broken for
//! good: its processes end, and the next start goes on from the last checkpoint.

mod place;
mod watch;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor, no_grad};
use thiserror::Error;

use crate::torch::group::{Group, Seat, Store, gpu};
use crate::torch::nccl::{Communicator, ID_BYTES, unique_id};
pub use place::Place;
use watch::Watch;

/// What to do after processes have lost each other.
const AGAIN: &str = "the last checkpoint is whole: start all again, with --continue";

/// Why processes cannot go on together.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum TeamError {
    #[error("the variable {name} is `{value}`: expected {expected}")]
    Variable { name: String, value: String, expected: String },
    #[error("process {rank} of {world}: {reason}")]
    Meeting { rank: usize, world: usize, reason: String },
    #[error("process {rank} of {world} on {host} lost the others while {what}: {reason}; {AGAIN}")]
    Lost { rank: usize, world: usize, host: String, what: &'static str, reason: String },
    /// Known to all; the process that it is about, or the first, says it.
    #[error("{0}")]
    Known(String),
    #[error("process {rank} of {world} on {host}: {reason}")]
    Differs { rank: usize, world: usize, host: String, reason: String },
    #[error(
        "{name} = {count} batches make a step, which {world} processes cannot share alike: start one of {usable} processes, or \
         begin a new run with {name} a multiple of {world}"
    )]
    Shares { name: &'static str, count: u64, world: usize, usable: String },
}

impl TeamError {
    /// Whether another process says the same: one voice is enough.
    pub fn is_said_elsewhere(&self) -> bool {
        matches!(self, Self::Known(_))
    }
}

/// This process among those of its run.
#[derive(Debug)]
pub struct Team {
    rank: usize,
    world: usize,
    /// Processes that this one shares its cores with, itself among them.
    sharers: usize,
    host: String,
    others: Option<Others>,
    spent: Mutex<Spent>,
}

/// What a process has spent on exchanges so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// Bytes sent, counted as a ring sends them.
    pub sent: f64,
    /// How long it was at it, waiting for the others included. Of GPUs, only for the host.
    pub time: Duration,
}

/// How the others are reached.
#[derive(Debug)]
struct Others {
    gpus: Option<Communicator>,
    group: Group,
    /// Ends the process when its neighbour is gone: not even a kernel that waits for ever on a GPU keeps it.
    watch: Watch,
}

impl Team {
    /// A run of one process.
    pub fn alone() -> Self {
        Self { rank: 0, world: 1, sharers: 1, host: String::new(), others: None, spent: Mutex::default() }
    }

    /// Waits for all processes to come. `device` is where tensors are that they exchange: on GPUs, each has its own.
    ///
    /// # Errors
    /// Which did not come; or why they cannot reach each other.
    pub fn join(place: &Place, device: Device) -> Result<Self, TeamError> {
        let Place { rank, world, .. } = *place;
        let failed = |reason: String| TeamError::Meeting { rank, world, reason };
        let store = Arc::new(meet(place).map_err(failed)?);
        let hosts = roll_call(&store, place).map_err(failed)?;
        let address = match std::env::var_os("GLOO_SOCKET_IFNAME") {
            Some(_) => String::new(),
            None => address(place).map_err(failed)?,
        };
        let seat = Seat { rank, world, address: &address };
        let group = Group::join(&store, "simla", seat, place.call).map_err(failed)?;
        let watch = Watch::start(&store, seat, hosts.clone(), place.call).map_err(failed)?;
        if place.agent && rank == 0 {
            let agent = Store::open(&place.host, place.port, false, place.joining).map_err(failed)?;
            agent.set(MET, "").map_err(failed)?;
        }
        let mut team = Self {
            rank,
            world,
            host: hosts[rank].clone(),
            others: Some(Others { group, watch, gpus: None }),
            ..Self::alone()
        };
        // A launcher may have given each its own cores.
        let cores = team.values((hosts[rank].clone(), own_cores()))?;
        team.sharers = cores.iter().filter(|theirs| **theirs == cores[rank]).count();
        team.use_gpu(device, &hosts)?;
        Ok(team)
    }

    /// NCCL where every process has a GPU of its own; by way of the host where some share one, which NCCL refuses.
    fn use_gpu(&mut self, device: Device, hosts: &[String]) -> Result<(), TeamError> {
        let Some(gpu) = gpu(device) else {
            return Ok(());
        };
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        let mut all = self.values((hosts[self.rank].clone(), gpu, visible))?;
        all.sort_unstable();
        if all.windows(2).any(|two| two[0] == two[1]) {
            return Ok(());
        }
        let failed = |reason| TeamError::Meeting { rank: self.rank, world: self.world, reason };
        let id = self.first(|| unique_id().map(Vec::from).map_err(failed))?;
        let id = <[u8; ID_BYTES]>::try_from(id).expect("as many bytes as were drawn");
        let joined = self.all(Communicator::join(id, self.rank, self.world, gpu).map_err(failed))?;
        if let Some(others) = &mut self.others {
            others.gpus = Some(joined);
        }
        Ok(())
    }
}

impl Team {
    /// Among the processes, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes there are.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Whether this is the one that writes and talks.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// How many processes the cores of this one are for.
    pub fn sharers(&self) -> usize {
        self.sharers
    }

    /// The name of this machine; empty for a process that is alone.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// How long this process has waited for the others, call by call.
    pub fn spent(&self) -> Spent {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of `count` batches that make a step, those of each process: the `rank`th, and every `world`th from there.
    ///
    /// # Errors
    /// On all processes, if they cannot be shared alike; `name` is the setting that says how many there are.
    pub fn share(&self, name: &'static str, count: u64) -> Result<u64, TeamError> {
        let world = self.world as u64;
        if count.is_multiple_of(world) {
            return Ok(count / world);
        }
        let usable: Vec<String> = (1..=count).filter(|n| count.is_multiple_of(*n)).map(|n| n.to_string()).collect();
        Err(self.fails(TeamError::Shares { name, count, world: self.world, usable: usable.join(", ") }))
    }

    /// In place of `x`: the sum over all processes, the same bits on each; what is sent is of type `wire`.
    ///
    /// # Errors
    /// If another process is gone or too late.
    pub fn sum(&self, x: &Tensor, wire: Kind) -> Result<(), TeamError> {
        /// gloo works on one piece while the next arrives.
        const PIECE: i64 = 1 << 24;
        let Some(others) = &self.others else {
            return Ok(());
        };
        let sent = if x.kind() == wire { x.shallow_clone() } else { x.to_kind(wire) };
        let share = 2.0 * (self.world - 1) as f64 / self.world as f64;
        self.exchange("they summed", share * bytes(&sent), || match (&others.gpus, x.device()) {
            (Some(gpus), Device::Cuda(_)) => gpus.sum(&sent),
            _ => sent.view(-1).split(PIECE, 0).iter().try_for_each(|piece| others.group.sum(piece)),
        })?;
        if x.kind() != wire {
            no_grad(|| x.shallow_clone().copy_(&sent));
        }
        Ok(())
    }

    /// `x` `[n, ...]` of all processes in the order of their ranks: `[world x n, ...]`.
    ///
    /// # Errors
    /// As [`Team::sum`].
    pub fn gather(&self, x: &Tensor) -> Result<Tensor, TeamError> {
        let Some(others) = &self.others else {
            return Ok(x.shallow_clone());
        };
        let mut size = x.size();
        size[0] *= self.world as i64;
        let (x, all) = (x.detach().contiguous(), Tensor::empty(size, (x.kind(), x.device())));
        self.exchange("they gathered", (self.world - 1) as f64 * bytes(&x), || match (&others.gpus, x.device()) {
            (Some(gpus), Device::Cuda(_)) => gpus.gather(&x, &all),
            _ => others.group.gather(&x, &all),
        })?;
        Ok(all)
    }

    /// Of the batches of a step, each of which gave rows `[n, ...]`, those of this process in their order: the rows of all, in the order
    /// of the batches. Batches have the same number of rows.
    ///
    /// # Errors
    /// As [`Team::sum`].
    pub fn gather_batches(&self, mine: &[Tensor]) -> Result<Tensor, TeamError> {
        let own = no_grad(|| Tensor::cat(mine, 0));
        let mut shape = own.size();
        let (world, batches) = (self.world as i64, mine.len() as i64);
        shape.splice(..1, [world, batches, own.size()[0] / batches]);
        // The nth batch of a process is the (nth world + rank)th of the step.
        Ok(self.gather(&own)?.view(shape.as_slice()).transpose(0, 1).flatten(0, 2))
    }

    /// The parts of some work that are this process's: the `rank`th, and every `world`th from there.
    pub fn mine<T>(&self, parts: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        parts.skip(self.rank).step_by(self.world)
    }

    /// Of work that is dealt out in `parts`, as [`Team::mine`] does: what came of all parts, in their order. Each process gives
    /// the rows `[n, ...]` of its own parts, a tensor a part; `none` has no row and is as they are.
    ///
    /// # Errors
    /// As [`Team::sum`].
    pub fn collect(&self, mine: Vec<Tensor>, parts: usize, none: &Tensor) -> Result<Vec<Tensor>, TeamError> {
        if self.others.is_none() {
            return Ok(mine);
        }
        let mut counts: Vec<i64> = mine.iter().map(|part| part.size()[0]).collect();
        counts.resize(parts.div_ceil(self.world), 0);
        let counts = self.gather(&Tensor::from_slice(&counts).unsqueeze(0))?;
        let counts: Vec<Vec<i64>> = Vec::try_from(&counts).expect("a table of numbers");
        let longest = counts.iter().map(|counts| counts.iter().sum::<i64>()).max().unwrap_or(0);
        let rows: Vec<&Tensor> = mine.iter().chain([none]).collect();
        let rows = no_grad(|| Tensor::cat(&rows, 0));
        let mut shape = rows.size();
        shape[0] = longest - shape[0];
        let padding = Tensor::zeros(&shape, (none.kind(), none.device()));
        let all = self.gather(&no_grad(|| Tensor::cat(&[rows, padding], 0)))?;
        let mut next: Vec<i64> = (0..self.world as i64).map(|rank| rank * longest).collect();
        let part = |part: usize| {
            let (rank, round) = (part % self.world, part / self.world);
            let first = next[rank];
            next[rank] += counts[rank][round];
            all.narrow(0, first, counts[rank][round])
        };
        Ok((0..parts).map(part).collect())
    }

    /// Named tensors of the first process, everywhere: the others give theirs, of the same names, types and sizes.
    ///
    /// # Errors
    /// As [`Team::sum`].
    pub fn tensors_of_first(&self, named: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>, TeamError> {
        let Some(others) = &self.others else {
            return Ok(named);
        };
        let share = |(name, tensor): (String, Tensor)| {
            let tensor = no_grad(|| tensor.detach().contiguous().copy());
            self.exchange("they took the weights of the first", 0.0, || match (&others.gpus, tensor.device()) {
                (Some(gpus), Device::Cuda(_)) => gpus.broadcast(&tensor),
                _ => others.group.broadcast(&tensor),
            })?;
            Ok((name, tensor))
        };
        named.into_iter().map(share).collect()
    }

    /// What `f` gives on the first process, which alone calls it, on all.
    ///
    /// # Errors
    /// That of `f`, on all.
    pub fn first<T, E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<TeamError> + Display,
    {
        if self.others.is_none() {
            return f();
        }
        if self.rank == 0 {
            let outcome = f();
            let told: Result<&T, String> = outcome.as_ref().map_err(|error| format!("{error:#}"));
            self.tell(serde_json::to_vec(&told).expect("what is shared is JSON"))?;
            return outcome.inspect_err(|_| self.leave());
        }
        let told: Result<T, String> =
            serde_json::from_slice(&self.tell(Vec::new())?).expect("what the first has written");
        told.map_err(|reason| self.known(reason).into())
    }

    /// Goes on if what every process did went well, else ends all of them: the first says which it was that failed.
    ///
    /// # Errors
    /// Where one of them failed.
    pub fn all<T, E>(&self, mine: Result<T, E>) -> Result<T, E>
    where
        E: From<TeamError> + Display,
    {
        if self.others.is_none() {
            return mine;
        }
        let told = mine.as_ref().err().map(|error| format!("{error:#}"));
        let all = self.values((self.host.clone(), told))?;
        let failed = (0..).zip(all).find_map(|(rank, (host, told))| told.map(|reason| (rank, host, reason)));
        match (failed, mine) {
            (None, mine) => mine,
            (Some(_), Err(error)) if self.rank == 0 => {
                self.leave();
                Err(error)
            }
            (Some((rank, host, reason)), _) => Err(self.said_by_first(rank, host, reason).into()),
        }
    }

    /// Compares lines, such as `name = value`, that have to be the same on all processes.
    ///
    /// # Errors
    /// The first line that is another one somewhere.
    pub fn agree(&self, lines: &str) -> Result<(), TeamError> {
        if self.others.is_none() {
            return Ok(());
        }
        let all = self.values((self.host.clone(), lines.to_owned()))?;
        for (rank, (host, theirs)) in all.iter().enumerate() {
            let mut theirs = theirs.lines();
            let pairs = all[0].1.lines().map(|line| (line, theirs.next().unwrap_or("nothing")));
            if let Some((first, other)) = pairs.into_iter().find(|(first, other)| first != other) {
                let reason = format!("{other}; but process 0 on {} has {first}", all[0].0);
                return Err(self.said_by_first(rank, host.clone(), reason));
            }
        }
        Ok(())
    }

    /// What every process has, in the order of their ranks.
    ///
    /// # Errors
    /// As [`Team::sum`].
    pub fn values<T: Serialize + DeserializeOwned>(&self, mine: T) -> Result<Vec<T>, TeamError> {
        if self.others.is_none() {
            return Ok(vec![mine]);
        }
        let mut bytes = serde_json::to_vec(&mine).expect("what is shared is JSON");
        let lengths = self.gather(&Tensor::from_slice(&[bytes.len() as i64]))?;
        let lengths: Vec<i64> = Vec::try_from(lengths).expect("lengths");
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        bytes.resize(longest, 0);
        let all = self.gather(&Tensor::from_slice(&bytes))?;
        let all: Vec<u8> = Vec::try_from(all).expect("bytes");
        let value = |(rank, length): (usize, &i64)| {
            serde_json::from_slice(&all[rank * longest..][..*length as usize]).expect("what was written")
        };
        Ok(lengths.iter().enumerate().map(value).collect())
    }

    /// While this is held, the loss of another process does not end this one: something is written that should be whole.
    pub fn undisturbed(&self) -> Option<impl Drop> {
        self.others.as_ref().map(|others| others.watch.undisturbed())
    }

    /// The error of this process where all have the same: one of them says it.
    pub fn fails<E: From<TeamError> + Display>(&self, error: E) -> E {
        self.leave();
        match self.rank {
            0 => error,
            _ => TeamError::Known(error.to_string()).into(),
        }
    }

    /// The last call: from here on the others may go.
    pub fn leave(&self) {
        if let Some(others) = &self.others {
            others.watch.leave();
        }
    }

    /// As [`Team::leave`], and waits until the next one leaves as well.
    pub fn end(&self) {
        self.leave();
        if let Some(others) = &self.others {
            others.watch.wait();
        }
    }

    fn exchange(
        &self,
        what: &'static str,
        sent: f64,
        call: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), TeamError> {
        let start = Instant::now();
        let Self { rank, world, .. } = *self;
        call().map_err(|reason| TeamError::Lost { rank, world, host: self.host.clone(), what, reason })?;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        (spent.sent, spent.time) = (spent.sent + sent, spent.time + start.elapsed());
        Ok(())
    }

    /// Bytes of the first process.
    fn tell(&self, mine: Vec<u8>) -> Result<Vec<u8>, TeamError> {
        let Some(others) = &self.others else {
            return Ok(mine);
        };
        let broadcast = |x: &Tensor| self.exchange("they heard the first", 0.0, || others.group.broadcast(x));
        let length = Tensor::from_slice(&[mine.len() as i64]);
        broadcast(&length)?;
        let bytes = match self.rank {
            0 => Tensor::from_slice(&mine),
            _ => Tensor::zeros([length.int64_value(&[0])], (Kind::Uint8, Device::Cpu)),
        };
        broadcast(&bytes)?;
        Ok(Vec::try_from(bytes).expect("bytes"))
    }

    /// An error that all know of, and another process says.
    fn known(&self, reason: String) -> TeamError {
        self.leave();
        TeamError::Known(reason)
    }

    /// An error that all know of, about process `rank`.
    fn said_by_first(&self, rank: usize, host: String, reason: String) -> TeamError {
        match self.rank {
            0 => {
                self.leave();
                TeamError::Differs { rank, world: self.world, host, reason }
            }
            _ => self.known(reason),
        }
    }
}

/// The cores that the system lets this process have, as it writes them; the same everywhere where it does not tell.
fn own_cores() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default().trim().to_owned()
}

fn bytes(x: &Tensor) -> f64 {
    (x.numel() * x.kind().elt_size_in_bytes()) as f64
}

/// The name of this machine.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown".into(),
        name => name.into(),
    }
}

/// This machine's address on the way to where the processes meet. Its own name may stand for an address that others do not reach.
fn address(place: &Place) -> Result<String, String> {
    let found = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect((place.host.as_str(), place.port))?; // nothing is sent
        socket.local_addr()
    });
    match found {
        Ok(address) => Ok(address.ip().to_string()),
        Err(error) => Err(format!("no way to {}: {error}", place.host)),
    }
}

/// What a launcher's store has once all processes hear of each other's end.
pub const MET: &str = "simla/met";
/// Between two looks whether another process is there.
const LOOK: Duration = Duration::from_millis(50);

/// The store of this start, served by rank 0.
fn meet(place: &Place) -> Result<Store, String> {
    const MEETING: &str = "simla/meeting";
    let Place { host, port, rank, joining, .. } = place;
    let at = |error: String| format!("{host}:{port}: {error}");
    if !place.agent {
        if *rank > 0 {
            wait_for(*joining, || Ok(answers(&format!("{host}:{port}"))), || at("process 0 does not answer".into()))?;
        }
        return Store::open(host, *port, *rank == 0, *joining).map_err(|error| match error.contains("EADDRINUSE") {
            true => format!("port {port} is taken; choose another by the variable MASTER_PORT, the same for all"),
            false => at(error),
        });
    }
    // torchrun's store has the keys of earlier starts, whose count is not the same on every machine: rank 0 tells where a new one is.
    // Where one was at an earlier start, nobody answers any more.
    let agent = Store::open(host, *port, false, *joining).map_err(at)?;
    if *rank == 0 {
        let address = address(place)?;
        let store = Store::open(&address, 0, true, *joining)?;
        agent.set(MEETING, &format!("{address}:{}", store.port()))?;
        return Ok(store);
    }
    let mut told = String::new();
    let mut is_there = || {
        told = agent.get(MEETING, *joining).map_err(|error| format!("process 0 did not come: {error}"))?;
        Ok(answers(&told))
    };
    wait_for(*joining, &mut is_there, || at("process 0 does not answer where it said".into()))?;
    let (host, port) = told.rsplit_once(':').unwrap_or_default();
    Store::open(host, port.parse().unwrap_or(0), false, *joining)
}

/// Whether somebody listens at `host:port`. (A TCPStore asks again after a second at the earliest.)
fn answers(place: &str) -> bool {
    const ANSWER: Duration = Duration::from_secs(2);
    let addresses = place.to_socket_addrs().ok().into_iter().flatten();
    addresses.into_iter().any(|to| TcpStream::connect_timeout(&to, ANSWER).is_ok())
}

fn wait_for(
    time: Duration,
    mut happened: impl FnMut() -> Result<bool, String>,
    otherwise: impl FnOnce() -> String,
) -> Result<(), String> {
    let start = Instant::now();
    while !happened()? {
        if start.elapsed() > time {
            return Err(otherwise());
        }
        sleep(LOOK);
    }
    Ok(())
}

/// Waits until all processes are there; gives their machines. The first notes who is missing, and tells those who are there.
fn roll_call(store: &Store, place: &Place) -> Result<Vec<String>, String> {
    const ALL: &str = "simla/all";
    /// In which those who are there read that others are not, before the store is gone with the first.
    const READING: Duration = Duration::from_secs(5);
    /// What the first has more than others, who came before it gives up.
    const LATER: Duration = Duration::from_secs(20);
    let key = |rank: usize| format!("simla/here/{rank}");
    let heard = |rank: usize| format!("simla/heard/{rank}");
    store.set(&key(place.rank), &host_name())?;
    if place.rank == 0 {
        let start = Instant::now();
        let here: Vec<Option<String>> = (0..place.world)
            .map(|rank| {
                let left = place.joining.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
                store.get(&key(rank), left).ok()
            })
            .collect();
        let missing: Vec<String> =
            (0..place.world).filter(|&rank| here[rank].is_none()).map(|rank| rank.to_string()).collect();
        let told: Result<Vec<String>, String> = match missing.is_empty() {
            true => Ok(here.into_iter().flatten().collect()),
            false => Err(format!(
                "of {} processes, {} did not come within {} s",
                place.world,
                missing.join(", "),
                place.joining.as_secs()
            )),
        };
        store.set(ALL, &serde_json::to_string(&told).expect("texts are JSON"))?;
        if told.is_err() {
            let there = (1..place.world).filter(|rank| !missing.contains(&rank.to_string()));
            there.for_each(|rank| drop(store.get(&heard(rank), READING)));
        }
        return told;
    }
    let told = store.get(ALL, place.joining + LATER).map_err(|error| format!("process 0 is gone: {error}"))?;
    store.set(&heard(place.rank), "")?;
    serde_json::from_str::<Result<Vec<String>, String>>(&told).map_err(|error| format!("process 0: {error}"))?
}
