//! Tar shards as `img2dataset` and `webdataset` write them: the members of a record follow each other and share a name up
//! to the first dot.
//!
//! The headers are read once; which bytes of which shard hold a record's image and captions goes into a table on disk. A
//! record is then read straight from its place. Names of members are only ever shown, links and special members never
//! followed.
//!
//! A shard that is cut off or damaged gives the records before the damage, and one record that stands for the rest and says
//! why it cannot be used.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use tar::{Archive, EntryType, Header, PaxExtensions};

use super::beside::{self, IMAGE_ENDINGS, MAX_TEXT_BYTES};
use super::{MALFORMED_EXAMPLES, Malformed, OpenError, Options, Records, Watch};
use crate::record::{Entry, Location, RecordError};
use crate::table::{Table, TableWriter};

/// Longest name of a member, and longest extended header.
pub const MAX_NAME_BYTES: u64 = 1 << 16;
/// Most members of a shard.
pub const MAX_MEMBERS: usize = 10_000_000;
/// Shards whose headers are read at the same time.
const SCANNED_TOGETHER: usize = 32;
/// Shards that are kept open.
const OPEN_SHARDS: usize = 64;
/// Size of a tar header.
const HEADER_BYTES: u64 = 512;

/// The records of some shards.
#[derive(Debug)]
pub(crate) struct ShardRecords {
    shards: Vec<PathBuf>,
    /// The first record of each shard.
    starts: Vec<u64>,
    places: Table<{ Places::NUMBERS }>,
    /// Why a shard cannot be read to its end.
    broken: BTreeMap<usize, String>,
    open: Mutex<VecDeque<(usize, Arc<File>)>>,
}

/// Offset and length of what makes a record; offset 0 where it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Places {
    image: (u64, u64),
    text: (u64, u64),
    json: (u64, u64),
}

impl Places {
    const NUMBERS: usize = 6;
    /// Stands for what a broken shard does not give.
    const REST: Places = Places { image: (0, 1), text: (0, 0), json: (0, 0) };

    fn numbers(self) -> [u64; Self::NUMBERS] {
        let Places { image, text, json } = self;
        [image.0, image.1, text.0, text.1, json.0, json.1]
    }

    fn from_numbers([a, b, c, d, e, f]: [u64; Self::NUMBERS]) -> Self {
        Places { image: (a, b), text: (c, d), json: (e, f) }
    }
}

impl ShardRecords {
    /// Opens the shards, which together are the source `source`.
    pub fn open(source: &Path, shards: Vec<PathBuf>, options: &Options, watch: Watch) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io { path: source.into(), error };
        let mut places = TableWriter::start(options.index_folder.as_deref()).map_err(io)?;
        let mut starts = Vec::with_capacity(shards.len());
        let mut malformed = Malformed::default();
        let (mut count, mut broken) = (0, BTreeMap::new());
        for together in shards.chunks(SCANNED_TOGETHER) {
            let scanned: Vec<_> = together.par_iter().map(|shard| scan(shard)).collect();
            for (shard, scanned) in together.iter().zip(scanned) {
                let (mut records, problem) = scanned.map_err(|error| OpenError::Io { path: shard.into(), error })?;
                if let Some(problem) = problem {
                    records.push(Places::REST);
                    broken.insert(starts.len(), problem);
                }
                starts.push(count);
                for (nth, record) in (1..).zip(records) {
                    if record == Places::REST {
                        malformed.note::<()>(Err(rest(name(shard, nth, None), &broken[&(starts.len() - 1)])));
                    } else if record.image.0 == 0 {
                        malformed.note::<()>(Err(no_image(name(shard, nth, None))));
                    } else if record.text.0 == 0 && record.json.0 == 0 {
                        malformed.note::<()>(Err(beside::no_caption(name(shard, nth, None))));
                    }
                    places.push(record.numbers()).map_err(io)?;
                    count += 1;
                }
            }
            watch(starts.len() as u64, shards.len() as u64);
        }
        let max_bad_share = options.max_bad_share;
        if broken.len() as f64 > max_bad_share * shards.len() as f64 {
            return Err(OpenError::Shards {
                path: source.into(),
                broken: broken.len(),
                shards: shards.len(),
                max_bad_share,
                examples: warnings(&shards, &broken).take(MALFORMED_EXAMPLES).collect(),
            });
        }
        malformed.check(source, count, options)?;
        Ok(ShardRecords { shards, starts, places: places.finish().map_err(io)?, broken, open: Mutex::default() })
    }

    /// The shard's file, kept open for the next records.
    fn file(&self, shard: usize) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(known, _)| *known == shard) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(&self.shards[shard])?);
        if open.len() == OPEN_SHARDS {
            open.pop_front();
        }
        open.push_back((shard, Arc::clone(&file)));
        Ok(file)
    }
}

impl Records for ShardRecords {
    fn len(&self) -> u64 {
        self.places.len()
    }

    fn entry(&self, index: u64) -> Result<Entry, RecordError> {
        let shard = self.starts.partition_point(|start| *start <= index) - 1;
        let path = &self.shards[shard];
        let nth = index - self.starts[shard] + 1;
        let failed = |e: io::Error| RecordError::Malformed {
            name: name(path, nth, None),
            problem: format!("cannot be read: {e}"),
        };
        let places = Places::from_numbers(self.places.row(index).map_err(failed)?);
        if places == Places::REST {
            return Err(rest(name(path, nth, None), &self.broken[&shard]));
        }
        let Places { image, text, json } = places;
        if image.0 == 0 {
            return Err(no_image(name(path, nth, None)));
        }
        let file = self.file(shard).map_err(failed)?;
        let member = member_name(&file, image.0);
        let read = |(offset, length): (u64, u64)| -> Result<Option<Vec<u8>>, RecordError> {
            if offset == 0 {
                return Ok(None);
            }
            if length > MAX_TEXT_BYTES {
                return Err(failed(io::Error::other(format!(
                    "its caption file has {length} bytes, at most {MAX_TEXT_BYTES} are read"
                ))));
            }
            let mut bytes = vec![0; length as usize];
            file.read_exact_at(&mut bytes, offset).map_err(failed)?;
            Ok(Some(bytes))
        };
        let (text, json) = (read(text)?, read(json)?);
        let identity = format!("{}/{nth}", path.display());
        let location =
            Location::Range { shard: Arc::clone(&file), offset: image.0, length: image.1, name: member.clone() };
        beside::entry(location, text, json, name(path, nth, Some(&member)), identity.as_bytes())
    }

    fn shards(&self) -> Vec<u64> {
        self.starts.clone()
    }

    fn warnings(&self) -> Vec<String> {
        warnings(&self.shards, &self.broken).collect()
    }
}

fn warnings(shards: &[PathBuf], broken: &BTreeMap<usize, String>) -> impl Iterator<Item = String> {
    let warning = |(&shard, problem): (&usize, &String)| format!("{}: {problem}", shards[shard].display());
    broken.iter().map(warning)
}

fn name(shard: &Path, nth: u64, member: Option<&str>) -> String {
    match member {
        Some(member) => format!("{}, record {nth} ({member})", shard.display()),
        None => format!("{}, record {nth}", shard.display()),
    }
}

fn rest(name: String, problem: &str) -> RecordError {
    RecordError::Malformed { name, problem: format!("what follows cannot be read: {problem}") }
}

fn no_image(name: String) -> RecordError {
    RecordError::Malformed { name, problem: "no image: expected a .jpg, .jpeg, .png or .webp member".into() }
}

/// The name in the header right before a member's bytes, for messages; a very long one is cut there.
fn member_name(file: &File, offset: u64) -> String {
    let mut header = Header::new_old();
    match file.read_exact_at(header.as_mut_bytes(), offset.saturating_sub(HEADER_BYTES)) {
        Ok(()) => String::from_utf8_lossy(&header.path_bytes()).into_owned(),
        Err(_) => String::new(),
    }
}

/// The records of one shard, from its headers, and why they end before the shard does.
fn scan(path: &Path) -> io::Result<(Vec<Places>, Option<String>)> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let (file, mut records) = (File::open(path)?, Vec::new());
    let problem = scan_headers(file, about.len(), &mut records).err();
    Ok((records, problem))
}

/// Finds the records of a shard of `length` bytes, as far as it makes sense; the error says where it does not.
fn scan_headers(file: File, length: u64, records: &mut Vec<Places>) -> Result<(), String> {
    let at = |offset: u64, problem: String| {
        format!("at byte {offset}: {problem}; expected a tar file of images with captions")
    };
    if length == 0 {
        return Err(at(0, "the file is empty".into()));
    }
    let mut archive = Archive::new(BufReader::with_capacity(HEADER_BYTES as usize, file));
    let (mut key, mut members, mut end) = (None, 0, 0);
    let mut long_name: Option<Vec<u8>> = None;
    // Raw: extended headers come as they are, so that none is read without a limit.
    let headers = archive.entries_with_seek();
    for member in headers.map_err(|e| at(0, e.to_string()))?.raw(true) {
        let mut member = member.map_err(|e| at(end, e.to_string()))?;
        let (offset, size) = (member.raw_file_position(), member.header().entry_size().unwrap_or(u64::MAX));
        if offset.checked_add(size).is_none_or(|end| end > length) {
            let left = length.saturating_sub(offset);
            return Err(at(
                offset - HEADER_BYTES,
                format!("a member declares {size} bytes, but the file ends after {left}: is it truncated?"),
            ));
        }
        end = (offset + size).next_multiple_of(HEADER_BYTES);
        members += 1;
        if members > MAX_MEMBERS {
            return Err(at(offset, format!("more than {MAX_MEMBERS} members")));
        }
        let kind = member.header().entry_type();
        if matches!(kind, EntryType::GNULongName | EntryType::XHeader) {
            if size > MAX_NAME_BYTES {
                return Err(at(
                    offset,
                    format!("an extended header of {size} bytes, at most {MAX_NAME_BYTES} are read"),
                ));
            }
            let mut bytes = Vec::new();
            let read = member.read_to_end(&mut bytes);
            read.map_err(|e| at(offset, e.to_string()))?;
            if kind == EntryType::GNULongName {
                long_name = Some(bytes.strip_suffix(b"\0").unwrap_or(&bytes).to_vec());
                continue;
            }
            for extension in PaxExtensions::new(&bytes) {
                let extension = extension.map_err(|e| at(offset, e.to_string()))?;
                match extension.key_bytes() {
                    b"path" => long_name = Some(extension.value_bytes().to_vec()),
                    b"size" => return Err(at(offset, "a member of more than 8 GiB".into())),
                    _ => {}
                }
            }
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| member.header().path_bytes().into_owned());
        if !kind.is_file() {
            continue;
        }
        let base = name.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        let Some(dot) = name[base..].iter().position(|b| *b == b'.') else {
            continue;
        };
        let ending = String::from_utf8_lossy(&name[base + dot + 1..]).to_lowercase();
        let stem = name[..base + dot].to_vec();
        let slot: fn(&mut Places) -> &mut (u64, u64) = match ending.as_str() {
            "txt" => |p| &mut p.text,
            "json" => |p| &mut p.json,
            image if IMAGE_ENDINGS.contains(&image) => |p| &mut p.image,
            _ => continue,
        };
        if key.as_ref() != Some(&stem) {
            records.push(Places::default());
            key = Some(stem);
        }
        if let Some(record) = records.last_mut() {
            *slot(record) = (offset, size);
        }
    }
    Ok(())
}
