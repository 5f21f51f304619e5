//! A folder that one process at a time writes into.
//!
//! The lock is a file that says who has it, linked into place whole: on network disks, too, where locks of the system may be known to one
//! machine alone. Its holder writes it anew every [`BEAT`]. A lock whose process has ended is no obstacle: on the same machine, that is
//! seen at once; elsewhere, it is one that has not been written for [`PATIENCE`] by the disk's own clock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use simla_data::quoted;

/// The file in the folder.
pub const LOCK: &str = "lock";
/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(15);
/// Without one for so long, a process of another machine has ended.
const PATIENCE: Duration = Duration::from_secs(120);
/// So long after it was made, a lock has its text, also on a disk where it is not linked into place.
const WRITTEN: Duration = Duration::from_secs(2);
/// How often a lock is tried for that others take and leave at the same time, and between two tries.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Whoever has a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// When it took the lock.
    pub since: String,
    /// Where `pid` means this process: the machine since it was started, the container, and when the process was started.
    machine: String,
    started: u64,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "process {} on {} has it since {}", self.pid, quoted(&self.host), quoted(&self.since))
    }
}

impl Holder {
    fn this() -> Self {
        Self {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
            since: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine: machine(),
            started: started(std::process::id()).unwrap_or(0),
        }
    }

    /// Whether its process has ended; none where that cannot be seen from here.
    fn has_ended(&self) -> Option<bool> {
        // Without /proc, nothing tells machines apart.
        (!self.machine.is_empty() && self.machine == machine()).then(|| started(self.pid) != Some(self.started))
    }
}

/// A number of this start of the system, and of the container; empty where the system tells none.
fn machine() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let container = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), container.display()).trim().to_owned()
}

/// When a process was started, in ticks of the system; none where there is no such process, or it has ended and is only not yet
/// waited for.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may have spaces and brackets; of what follows, the state is the first and this the 20th (proc(5)).
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// A folder's lock, held until the last copy of it is dropped or the process ends.
#[derive(Clone, Debug)]
pub struct Lock(#[allow(dead_code)] Arc<Held>);

#[derive(Debug)]
struct Held {
    path: PathBuf,
    text: Vec<u8>,
    end: Option<(Sender<()>, JoinHandle<()>)>,
}

/// The locks of this process.
static HELD: Mutex<Vec<Weak<Held>>> = Mutex::new(Vec::new());

impl Lock {
    /// Takes the lock of `folder`, which is made where it is not there; a copy of it where this process has it.
    ///
    /// # Errors
    /// Who has it; or a folder that cannot be written.
    pub fn take(folder: &Path) -> Result<Self> {
        match Self::claim(folder)? {
            Ok(lock) => Ok(lock),
            Err(holder) => bail!("{}: in use: {holder}", quoted(folder.display())),
        }
    }

    /// As [`Lock::take`], with whoever has it as a result.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn claim(folder: &Path) -> Result<Result<Self, Holder>> {
        let path = folder.join(LOCK);
        let tried = || {
            fs::create_dir_all(folder)?;
            let folder = folder.canonicalize()?;
            let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
            held.retain(|lock| lock.strong_count() > 0);
            let path = folder.join(LOCK);
            if let Some(lock) = held.iter().filter_map(Weak::upgrade).find(|lock| lock.path == path) {
                return Ok(Ok(Self(lock)));
            }
            let taken = claim(&folder, &path)?;
            Ok(taken.map(|lock| {
                let lock = Arc::new(lock);
                held.push(Arc::downgrade(&lock));
                Self(lock)
            }))
        };
        tried().map_err(|error: io::Error| error).with_context(|| format!("{}", quoted(path.display())))
    }

    /// Refuses a folder that another process has.
    ///
    /// # Errors
    /// Who has it.
    pub fn check(folder: &Path) -> Result<()> {
        match holder(folder, &folder.join(LOCK)) {
            Ok(Some((holder, false))) if holder != Holder { since: holder.since.clone(), ..Holder::this() } => {
                bail!("{}: in use: {holder}", quoted(folder.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Takes the lock where nobody living has it.
fn claim(folder: &Path, path: &Path) -> io::Result<Result<Held, Holder>> {
    let this = Holder::this();
    let text = serde_json::to_vec(&this).expect("JSON");
    for _ in 0..TRIES {
        if write_new(folder, path, &text)? {
            return Ok(Ok(Held::beating(path, text)));
        }
        match holder(folder, path)? {
            None => {}
            Some((_, true)) => take_away(folder, path)?,
            Some((holder, false)) => return Ok(Err(holder)),
        }
    }
    Err(io::Error::other("others take it and leave it all the time"))
}

/// Writes a file whole, or not at all where there is one.
fn write_new(folder: &Path, path: &Path, text: &[u8]) -> io::Result<bool> {
    let mut whole = tempfile::Builder::new().prefix(".lock-").tempfile_in(folder)?;
    whole.write_all(text)?;
    match fs::hard_link(whole.path(), path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // A disk without links: whoever looks before the text is there sees a lock of a moment ago.
        Err(_) => match File::create_new(path) {
            Ok(mut file) => file.write_all(text).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        },
    }
}

/// Who has the lock, and whether it is a lock of a process that has ended; none where nobody has it.
fn holder(folder: &Path, path: &Path) -> io::Result<Option<(Holder, bool)>> {
    let (text, written) = match fs::read(path).and_then(|text| Ok((text, fs::metadata(path)?.modified()?))) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A file of an earlier version, which had the system's locks, or one that is just being written.
    let holder: Option<Holder> = serde_json::from_slice(&text).ok();
    if let Some(ended) = holder.as_ref().and_then(Holder::has_ended) {
        return Ok(holder.map(|holder| (holder, ended)));
    }
    let now = tempfile::tempfile_in(folder)?.metadata()?.modified()?;
    let silent = now.duration_since(written).unwrap_or_default();
    let ended = silent > if text.is_empty() { WRITTEN } else { PATIENCE };
    let unknown = || Holder {
        host: "an unknown machine".into(),
        pid: 0,
        since: humantime::format_rfc3339_seconds(written).to_string(),
        machine: String::new(),
        started: 0,
    };
    Ok(Some((holder.unwrap_or_else(unknown), ended)))
}

/// Takes a lock away whose process has ended, if it still has. One process at a time does: another might take away the lock that
/// the first has put there since.
fn take_away(folder: &Path, path: &Path) -> io::Result<()> {
    let taking = folder.join(".lock-taken-away");
    match File::create_new(&taking) {
        Ok(_) => {
            let taken = match holder(folder, path) {
                Ok(Some((_, true))) => fs::remove_file(path),
                other => other.map(|_| ()),
            };
            fs::remove_file(&taking).and(taken)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Of a process that ended in the midst of it.
            let since = fs::metadata(&taking).and_then(|about| about.modified());
            if since.is_ok_and(|since| since.elapsed().is_ok_and(|time| time > PATIENCE)) {
                let _ = fs::remove_file(&taking);
            }
            std::thread::sleep(PAUSE);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl Held {
    /// Shows every now and then that its process lives.
    fn beating(path: &Path, text: Vec<u8>) -> Self {
        let (end, ended) = channel();
        let (place, again) = (path.to_owned(), text.clone());
        let beat = std::thread::Builder::new().name("lock".into()).spawn(move || {
            while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                // Only its own; what fails once may succeed the next time.
                if fs::read(&place).is_ok_and(|text| text == again) {
                    let _ = File::options().write(true).open(&place).and_then(|file| file.write_all_at(&again, 0));
                }
            }
        });
        Self { path: path.to_owned(), text, end: beat.ok().map(|thread| (end, thread)) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.end.take() {
            drop(end);
            let _ = thread.join();
        }
        if fs::read(&self.path).is_ok_and(|text| text == self.text) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn holding(folder: &Path, holder: &Holder) {
        fs::write(folder.join(LOCK), serde_json::to_vec(holder).unwrap()).unwrap();
    }

    /// The folder is free: it can be taken and is left as it was.
    #[track_caller]
    fn assert_free(folder: &Path) {
        Lock::check(folder).unwrap();
        drop(Lock::take(folder).unwrap());
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    }

    #[test]
    fn a_process_has_a_folder_until_its_last_copy_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        let again = Lock::take(&folder.path().join(".")).unwrap();
        Lock::check(folder.path()).unwrap();
        drop(first);
        assert!(folder.path().join(LOCK).exists());
        drop(again);
        assert_free(folder.path());
    }

    #[test]
    fn who_has_it_is_told_until_its_process_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut other = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = other.id();
        let holder = Holder { pid, started: started(pid).unwrap(), ..Holder::this() };
        holding(folder.path(), &holder);
        for refused in [Lock::check(folder.path()), Lock::take(folder.path()).map(|_| ())] {
            let error = refused.unwrap_err().to_string();
            for word in ["in use", &format!("process {pid} on {}", holder.host), &holder.since] {
                assert!(error.contains(word), "{word} in {error}");
            }
        }
        other.kill().unwrap();
        let ended = std::time::Instant::now();
        // Not yet waited for, it is in the list of processes.
        while started(pid).is_some() && ended.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_free(folder.path());
        holding(folder.path(), &holder);
        other.wait().unwrap();
        assert_free(folder.path());
        // Another process has the number now.
        holding(folder.path(), &Holder { started: 1, ..Holder::this() });
        assert_free(folder.path());
    }

    #[test]
    fn a_lock_of_another_machine_holds_as_long_as_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = Holder { host: "elsewhere".into(), machine: "another".into(), ..Holder::this() };
        holding(folder.path(), &elsewhere);
        let error = Lock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains("on elsewhere"), "{error}");
        let long_ago = SystemTime::now() - PATIENCE - Duration::from_secs(5);
        File::options().write(true).open(folder.path().join(LOCK)).unwrap().set_modified(long_ago).unwrap();
        assert_free(folder.path());
    }

    #[test]
    fn of_many_that_find_a_dead_lock_one_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOCK);
        for _ in 0..20 {
            holding(folder.path(), &Holder { started: 1, ..Holder::this() });
            let taken: Vec<_> = std::thread::scope(|scope| {
                let tries: Vec<_> = (0..8).map(|_| scope.spawn(|| claim(folder.path(), &path))).collect();
                tries.into_iter().map(|one| one.join().unwrap().unwrap()).collect()
            });
            assert_eq!(taken.iter().filter(|one| one.is_ok()).count(), 1, "{taken:?}");
        }
    }
}
