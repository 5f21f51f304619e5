//! A folder of entries, of bounded size, which several processes share.
//!
//! An entry is written aside and renamed, so that it is there whole or not; its checksum behind it finds what a crash or a bad disk made of
//! it. The entries that were not used for the longest time make room for new ones. Nobody relies on an entry: what is gone, or damaged, is
//! fetched again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Bytes of the checksum.
const SUM: usize = blake3::OUT_LEN;
/// Ends the names of entries that are small and dear: they make room last.
pub(crate) const DEAR: &str = ".index";
/// Ends the name of a file that says that some process fetches an entry.
const CLAIM: &str = ".claim";
/// Begins the name of a file that is written.
const UNFINISHED: &str = ".unfinished-";
/// Age of a claim, or of a file that is written, whose process is taken for gone.
const GONE: Duration = Duration::from_secs(60);
/// How often an entry's use is noted.
const NOTED_EVERY: Duration = Duration::from_secs(60);
/// The share of the bound that entries are cut down to, so that ...
const KEPT: u64 = 8;
/// ... so many processes that look at the folder each time when they have written this share of it stay within.
const LOOKED_EVERY: u64 = 8 * KEPT;

#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    bound: u64,
    /// Bytes that were written since the folder was looked at.
    written: Mutex<u64>,
    /// When this process noted that it uses an entry, which it had checked before.
    used: Mutex<HashMap<String, Instant>>,
}

/// What an entry had for a reader.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    No,
    /// Not read for a while.
    Anew,
    Again,
}

/// Says, while it lives, that this process fetches an entry.
#[derive(Debug)]
pub(crate) struct Claim(PathBuf);

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // another took it for gone
    }
}

impl Cache {
    /// The cache in `folder`, with `bound` bytes at most.
    pub(crate) fn open(folder: &Path, bound: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let cache = Cache { folder: folder.into(), bound, written: Mutex::default(), used: Mutex::default() };
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?; // whether it can be written
        cache.make_room(cache.kept())?;
        Ok(cache)
    }

    /// Whether there is an entry, as far as its name tells.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    /// Reads some bytes of an entry of `length` bytes.
    pub(crate) fn read(&self, name: &str, length: u64, bytes: &mut [u8], offset: u64) -> Found {
        let path = self.folder.join(name);
        let Ok(file) = File::open(&path) else { return Found::No };
        let noted =
            |used: &mut HashMap<String, Instant>| used.get(name).is_some_and(|then| then.elapsed() < NOTED_EVERY);
        let again = noted(&mut self.used.lock().unwrap_or_else(PoisonError::into_inner));
        if !again && !self.check(name, &file, length) {
            let _ = fs::remove_file(&path); // damaged, or removed by another
            return Found::No;
        }
        match file.read_exact_at(bytes, offset) {
            Err(_) => Found::No,
            Ok(()) if again => Found::Again,
            Ok(()) => Found::Anew,
        }
    }

    /// Checks an entry that this process has not read yet, and notes that it is used.
    fn check(&self, name: &str, file: &File, length: u64) -> bool {
        let is_new = !self.used.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name);
        if is_new && !checked(file).is_ok_and(|content| content.len() as u64 == length) {
            return false;
        }
        let _ = file.set_modified(SystemTime::now()); // at worst it makes room too early
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), Instant::now());
        true
    }

    /// All of an entry.
    pub(crate) fn load(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.folder.join(name);
        let file = File::open(&path).ok()?;
        let content = checked(&file);
        match content {
            Ok(_) => drop(file.set_modified(SystemTime::now())),
            Err(_) => drop(fs::remove_file(&path)),
        }
        content.ok()
    }

    /// Says that this process fetches an entry, if no other does.
    pub(crate) fn claim(&self, name: &str) -> Option<Claim> {
        let path = self.folder.join(format!("{name}{CLAIM}"));
        if fs::metadata(&path).is_ok_and(|about| age(&about) > GONE) {
            let _ = fs::remove_file(&path);
        }
        match File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => None,
            // A claim only saves fetching twice.
            _ => Some(Claim(path)),
        }
    }

    /// Makes an entry.
    pub(crate) fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let size = (content.len() + SUM) as u64;
        let look = {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            *written += size;
            let look = *written > self.bound / LOOKED_EVERY;
            if look {
                *written = 0;
            }
            look
        };
        if look {
            self.make_room(self.kept().saturating_sub(size))?;
        }
        match self.write(name, content) {
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                // Others need the disk more than the cache does.
                self.make_room(self.size()? / 2)?;
                self.write(name, content)
            }
            written => written,
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut aside = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder)?;
        aside.write_all(content)?;
        aside.write_all(blake3::hash(content).as_bytes())?;
        aside.persist(self.folder.join(name))?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    fn kept(&self) -> u64 {
        self.bound - self.bound / KEPT
    }

    /// Bytes of all that is there.
    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(self.entries()?.iter().map(|entry| entry.bytes).sum())
    }

    /// Removes entries until there are `most` bytes.
    fn make_room(&self, most: u64) -> io::Result<()> {
        let mut entries = self.entries()?;
        let mut size: u64 = entries.iter().map(|entry| entry.bytes).sum();
        entries.sort_unstable();
        for entry in entries {
            if size <= most {
                break;
            }
            let _ = fs::remove_file(&entry.path); // another may have been faster
            size -= entry.bytes;
        }
        Ok(())
    }

    /// All that is there. What processes left that are gone is removed.
    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            let Ok(about) = file.metadata() else { continue }; // removed by another
            let name = file.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(UNFINISHED) || name.ends_with(CLAIM) {
                if age(&about) > GONE {
                    let _ = fs::remove_file(file.path());
                }
            } else if about.is_file() {
                let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                entries.push(Entry { is_dear: name.ends_with(DEAR), used, bytes: about.len(), path: file.path() });
            }
        }
        Ok(entries)
    }
}

/// An entry, in the order in which they make room.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    is_dear: bool,
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

/// The content of an entry whose checksum is right.
fn checked(mut file: &File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    io::Read::read_to_end(&mut file, &mut content)?;
    let sum = content.len().checked_sub(SUM).map(|at| content.split_off(at));
    match sum.is_some_and(|sum| blake3::hash(&content).as_bytes()[..] == sum[..]) {
        true => Ok(content),
        false => Err(ErrorKind::InvalidData.into()),
    }
}

fn age(about: &fs::Metadata) -> Duration {
    about.modified().ok().and_then(|then| then.elapsed().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 1000;

    fn cache(folder: &Path, bound: u64) -> Cache {
        Cache::open(folder, bound).unwrap()
    }

    fn content(of: usize) -> Vec<u8> {
        (0..LENGTH as usize).map(|at| (at * 7 + of) as u8).collect()
    }

    fn read(cache: &Cache, name: &str) -> Option<Vec<u8>> {
        let mut bytes = vec![0; LENGTH as usize];
        (cache.read(name, LENGTH, &mut bytes, 0) != Found::No).then_some(bytes)
    }

    /// Makes an entry look as if it had last been used so many minutes ago.
    fn age_by(cache: &Cache, name: &str, minutes: u64) {
        let file = File::options().write(true).open(cache.folder.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60 * minutes)).unwrap();
    }

    #[test]
    fn an_entry_is_there_whole_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let one = cache(folder.path(), 1 << 20);
        assert_eq!((read(&one, "a"), one.load("a"), one.has("a")), (None, None, false));
        one.put("a", &content(1)).unwrap();
        assert!(one.has("a"));
        let mut some = [0; 5];
        assert_eq!(one.read("a", LENGTH, &mut some, 100), Found::Anew);
        assert_eq!(some[..], content(1)[100..105]);
        assert_eq!(one.read("a", LENGTH, &mut some, 995), Found::Again);
        assert_eq!(one.load("a"), Some(content(1)));
        // What a crash may leave: cut off, empty, zeros; what a bad disk may: a bit.
        let whole = fs::read(folder.path().join("a")).unwrap();
        let mut flipped = whole.clone();
        flipped[500] ^= 1;
        let (nothing, zeros) = (Vec::new(), vec![0; whole.len()]);
        for damaged in [&whole[..900].to_vec(), &nothing, &zeros, &flipped] {
            fs::write(folder.path().join("a"), damaged).unwrap();
            assert_eq!(read(&cache(folder.path(), 1 << 20), "a"), None);
            assert!(!one.has("a"), "a damaged one is removed");
            fs::write(folder.path().join("a"), damaged).unwrap();
            assert_eq!(one.load("a"), None);
        }
        one.put("a", &content(2)).unwrap();
        assert_eq!(read(&one, "a"), Some(content(2)));
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let one = cache(folder.path(), 10_500);
        let name = |nth: u64| format!("{nth}");
        for nth in 0..5 {
            one.put(&name(nth), &content(nth as usize)).unwrap();
            age_by(&one, &name(nth), 100 - nth);
        }
        one.put("dear.index", &content(0)).unwrap();
        age_by(&one, "dear.index", 1000);
        assert!(read(&one, "0").is_some(), "it is used again");
        for nth in 5..9 {
            one.put(&name(nth), &content(nth as usize)).unwrap();
        }
        assert!(one.size().unwrap() <= 10_500);
        let there: Vec<u64> = (0..9).filter(|nth| one.has(&name(*nth))).collect();
        assert_eq!(there, [0, 3, 4, 5, 6, 7, 8]);
        assert!(one.has("dear.index"));
        // A smaller bound holds from the start.
        assert!(cache(folder.path(), 3000).size().unwrap() <= 3000);
    }

    #[test]
    fn many_at_once_read_what_was_written_and_stay_within_the_bound() {
        const BOUND: u64 = 200_000;
        let folder = tempfile::tempdir().unwrap();
        // As many processes, with two threads each.
        let caches: Vec<Cache> = (0..4).map(|_| cache(folder.path(), BOUND)).collect();
        let (hits, misses) = (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (cache, hits, misses) = (&caches[thread % 4], &hits, &misses);
                scope.spawn(move || {
                    for nth in 0..600 {
                        let of = (nth * 31 + thread * 17) % 300;
                        match read(cache, &of.to_string()) {
                            Some(found) => {
                                assert_eq!(found, content(of));
                                hits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            }
                            None => {
                                misses.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                                cache.put(&of.to_string(), &content(of)).unwrap();
                            }
                        }
                        if nth % 50 == 0 {
                            assert!(cache.size().unwrap() <= BOUND);
                        }
                    }
                });
            }
        });
        assert!(hits.into_inner() > 500 && misses.into_inner() > 500);
        assert!(
            caches[0].entries().unwrap().iter().all(|entry| entry.bytes == LENGTH + SUM as u64),
            "nothing else is left"
        );
    }

    #[test]
    fn one_claims_an_entry_until_it_is_done_or_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (cache(folder.path(), 1 << 20), cache(folder.path(), 1 << 20));
        let claim = one.claim("a");
        assert!(
            claim.is_some() && other.claim("a").is_none() && one.claim("a").is_none() && other.claim("b").is_some()
        );
        drop(claim);
        let left = other.claim("a").unwrap();
        std::mem::forget(left); // its process was killed
        assert!(one.claim("a").is_none());
        age_by(&one, "a.claim", 2);
        assert!(one.claim("a").is_some());
        // What was being written then goes, too.
        fs::write(folder.path().join(".unfinished-x"), "half").unwrap();
        one.make_room(u64::MAX).unwrap();
        assert!(one.has(".unfinished-x"));
        age_by(&one, ".unfinished-x", 2);
        one.make_room(u64::MAX).unwrap();
        assert!(!one.has(".unfinished-x"));
    }

    #[test]
    fn a_folder_that_cannot_be_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Cache::open(&file.path().join("cache"), 1).is_err());
    }
}
