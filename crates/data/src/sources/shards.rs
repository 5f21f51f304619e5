//! Tar shards as `img2dataset` and `webdataset` write them: the members of a record share a name up to the last dot, in whatever
//! order they come. Several archives, one behind the other in a file, are read all.
//!
//! The headers are read once; which bytes of which shard hold a record's image and captions goes into a table on disk. A
//! record is then read straight from its place. Names of members are only ever shown; a hard link is the member before it
//! that it names, other links and special members are never followed.
//!
//! Nothing is lost without a word: what is no record's image or caption is counted by its kind; of a name that comes twice
//! before its record is complete, nobody knows what belongs together, and the record is a bad one. A shard that is cut off or
//! damaged gives the records before the damage, and one record that stands for the rest and says why it cannot be used.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tar::{EntryType, GnuExtSparseHeader, Header, PaxExtensions};

use super::beside::{self, IMAGE_ENDINGS, MAX_TEXT_BYTES};
use super::opened::{Shard, Shards};
use super::unread::Unread;
use super::{MALFORMED_EXAMPLES, Malformed, OpenError, Options, Records, Watch, sniff};
use crate::record::{Entry, Location, RecordError, Unreached};
use crate::table::Table;

/// Longest name of a member, and longest extended header.
pub const MAX_NAME_BYTES: u64 = 1 << 16;
/// Most members of a shard.
pub const MAX_MEMBERS: usize = 10_000_000;
/// Zeros that mark the end of an archive.
const END_MARK: u64 = 2 * HEADER_BYTES;
/// Most zeros between two archives in a file; writers fill up to 10 KiB, some to 1 MiB.
const MAX_PADDING: u64 = 16 << 20;
/// What is kept of an object's headers: another name wherever they are read in another way.
const FOUND: &str = "records-1";
/// Shards whose headers are read at the same time.
const SCANNED_TOGETHER: usize = 32;
/// Longest member that a header tells without an extended one.
const MAX_PLAIN_BYTES: u64 = 8 << 30;
/// Size of a tar header.
const HEADER_BYTES: u64 = 512;

/// The records of some shards.
#[derive(Debug)]
pub(crate) struct ShardRecords {
    shards: Shards,
    /// The first record of each shard.
    starts: Vec<u64>,
    places: Table<{ Places::NUMBERS }>,
    /// Why a shard cannot be read to its end.
    broken: BTreeMap<usize, String>,
    warnings: Vec<String>,
}

/// Where a part of a record is, or why it cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Part {
    /// There is none.
    #[default]
    None,
    /// First byte and length; no member begins at byte 0.
    At(u64, u64),
    /// A link that is not followed.
    Link,
    /// Stored with holes.
    Sparse,
    /// A device, a pipe.
    Special,
    /// There are two, before the record is complete.
    Twice,
    /// What a broken shard does not give.
    Rest,
}

impl Part {
    /// Reasons are written as lengths, at byte 0.
    const REASONS: [Part; 6] = [Part::None, Part::Link, Part::Sparse, Part::Special, Part::Twice, Part::Rest];

    fn numbers(self) -> [u64; 2] {
        match self {
            Part::At(offset, length) => [offset, length],
            reason => [0, Self::REASONS.iter().position(|r| *r == reason).unwrap_or(0) as u64],
        }
    }

    fn from_numbers([offset, length]: [u64; 2]) -> Self {
        match offset {
            0 => Self::REASONS.get(length as usize).copied().unwrap_or_default(),
            _ => Part::At(offset, length),
        }
    }

    fn is_there(self) -> bool {
        matches!(self, Part::At(..))
    }

    /// Why there is a member that cannot be read.
    fn reason(self) -> Option<&'static str> {
        match self {
            Part::None | Part::At(..) | Part::Rest => None,
            Part::Link => Some("is a link to no file before it in the shard (tar: --dereference --hard-dereference)"),
            Part::Sparse => Some("is stored with holes (tar: without --sparse)"),
            Part::Special => Some("is a device or a pipe"),
            Part::Twice => Some("comes twice under one name, which leaves open what belongs together"),
        }
    }
}

/// What makes a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "[u64; 6]", from = "[u64; 6]")]
struct Places {
    image: Part,
    text: Part,
    json: Part,
}

impl From<Places> for [u64; Places::NUMBERS] {
    fn from(places: Places) -> Self {
        let parts = [places.image, places.text, places.json].map(Part::numbers);
        [parts[0][0], parts[0][1], parts[1][0], parts[1][1], parts[2][0], parts[2][1]]
    }
}

impl From<[u64; Places::NUMBERS]> for Places {
    fn from([a, b, c, d, e, f]: [u64; Places::NUMBERS]) -> Self {
        let [image, text, json] = [[a, b], [c, d], [e, f]].map(Part::from_numbers);
        Places { image, text, json }
    }
}

impl Places {
    const NUMBERS: usize = 6;
    /// Stands for what a broken shard does not give.
    const REST: Places = Places { image: Part::Rest, text: Part::None, json: Part::None };

    fn is_complete(&self) -> bool {
        self.image.is_there() && (self.text.is_there() || self.json.is_there())
    }

    /// Why the record called `name` cannot be used, as far as the headers tell.
    fn problem(&self, name: String) -> Option<RecordError> {
        let malformed = |problem: String| Some(RecordError::Malformed { name: name.clone(), problem });
        let image = "no image: expected a .jpg, .jpeg, .png or .webp member";
        match (self.image, self.image.reason()) {
            (Part::At(..), _) => {}
            (_, Some(reason)) => return malformed(format!("{image}; its member {reason}")),
            (_, None) => return malformed(image.into()),
        }
        let caption = [(self.text, "txt"), (self.json, "json")];
        if let Some((reason, ending)) = caption.iter().find_map(|(part, ending)| Some((part.reason()?, ending))) {
            return malformed(format!("its .{ending} member {reason}"));
        }
        (!self.is_complete()).then(|| beside::no_caption(name))
    }
}

impl ShardRecords {
    /// Opens the shards, which together are the source `source`; `beside` is what else there is.
    pub(crate) fn open(
        source: &Path,
        shards: Shards,
        beside: &Unread,
        options: &Options,
        watch: Watch,
    ) -> Result<Self, OpenError> {
        let mut places = options.index()?;
        let mut starts = Vec::with_capacity(shards.len());
        let mut malformed = Malformed::default();
        let (mut count, mut broken) = (0, BTreeMap::new());
        let (mut unread, mut unended) = (Unread::default(), Vec::new());
        for first in (0..shards.len()).step_by(SCANNED_TOGETHER) {
            let together = first..shards.len().min(first + SCANNED_TOGETHER);
            let scanned: Vec<_> = together.clone().into_par_iter().map(|shard| scan(&shards, shard)).collect();
            for (shard, scanned) in together.map(|shard| shards.path(shard)).zip(scanned) {
                let mut scanned = scanned.map_err(|error| match shards.failure() {
                    Some(failure) => Unreached(failure.into()).into(),
                    None => OpenError::Io { path: shard.into(), error },
                })?;
                if let Some(problem) = scanned.problem {
                    scanned.records.push(Places::REST);
                    broken.insert(starts.len(), problem);
                }
                if scanned.unended {
                    unended.push(format!("{}: ends without the mark of an end: is it cut off?", shard.display()));
                }
                unread.add(scanned.unread);
                starts.push(count);
                for (nth, record) in (1..).zip(scanned.records) {
                    let problem = match record {
                        Places::REST => Some(rest(name(shard, nth, None), &broken[&(starts.len() - 1)])),
                        record => record.problem(name(shard, nth, None)),
                    };
                    malformed.note(problem.map_or(Ok(()), Err));
                    places.push(record.into()).map_err(|e| options.index_error(e))?;
                    count += 1;
                }
            }
            watch(starts.len() as u64, shards.len() as u64);
        }
        let max_bad_share = options.max_bad_share;
        let mut warnings: Vec<String> = warnings(&shards, &broken).collect();
        // One with records before the damage is judged by those.
        let few = broken.len() == 1 && malformed.count < count;
        if !few && broken.len() as f64 > max_bad_share * shards.len() as f64 {
            warnings.truncate(MALFORMED_EXAMPLES);
            return Err(OpenError::Shards {
                path: source.into(),
                broken: broken.len(),
                shards: shards.len(),
                max_bad_share,
                examples: warnings,
            });
        }
        if count == 0 && !unread.is_empty() {
            return Err(OpenError::Unread { path: source.into(), unread });
        }
        malformed.check(source, count, options)?;
        warnings.append(&mut unended);
        warnings.extend(shards.warning().map(|warning| format!("{}: {warning}", source.display())));
        if !unread.is_empty() {
            warnings.push(format!("{}: members that are no image or caption: {unread}", source.display()));
        }
        if !beside.is_empty() {
            warnings.push(format!("{}: files that are no shard: {beside}", source.display()));
        }
        let places = places.finish().map_err(|e| options.index_error(e))?;
        Ok(ShardRecords { shards, starts, places, broken, warnings })
    }

    /// The shard that a record is in.
    fn shard(&self, index: u64) -> usize {
        self.starts.partition_point(|start| *start <= index) - 1
    }
}

impl Records for ShardRecords {
    fn len(&self) -> u64 {
        self.places.len()
    }

    fn entry(&self, index: u64) -> Result<Entry, RecordError> {
        let shard = self.shard(index);
        let path = self.shards.path(shard);
        let nth = index - self.starts[shard] + 1;
        let failed = |e: io::Error| RecordError::Malformed {
            name: name(path, nth, None),
            problem: format!("cannot be read: {e}"),
        };
        let places = Places::from(self.places.row(index).map_err(failed)?);
        if places == Places::REST {
            return Err(rest(name(path, nth, None), &self.broken[&shard]));
        }
        let Part::At(offset, length) = places.image else {
            return Err(places
                .problem(name(path, nth, None))
                .unwrap_or_else(|| failed(io::ErrorKind::NotFound.into())));
        };
        let file = self.shards.open(shard).map_err(failed)?;
        let member = member_name(&file, offset);
        if let Some(problem) = places.problem(name(path, nth, Some(&member))) {
            return Err(problem);
        }
        let read = |part: Part| -> Result<Option<Vec<u8>>, RecordError> {
            let Part::At(offset, length) = part else {
                return Ok(None);
            };
            if length > MAX_TEXT_BYTES {
                return Err(failed(io::Error::other(format!(
                    "its caption file has {length} bytes, at most {MAX_TEXT_BYTES} are read"
                ))));
            }
            let mut bytes = vec![0; length as usize];
            file.read_exact_at(&mut bytes, offset).map_err(failed)?;
            Ok(Some(bytes))
        };
        let (text, json) = (read(places.text)?, read(places.json)?);
        let identity = format!("{}/{nth}", path.display());
        let location = Location::Range { shard: Arc::clone(&file), offset, length, name: member.clone() };
        beside::entry(location, text, json, name(path, nth, Some(&member)), identity.as_bytes())
    }

    fn shards(&self) -> Vec<u64> {
        self.starts.clone()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn failure(&self) -> Option<&str> {
        self.shards.failure()
    }

    fn read_soon(&self, index: u64) {
        self.shards.read_soon(self.shard(index));
    }
}

fn warnings(shards: &Shards, broken: &BTreeMap<usize, String>) -> impl Iterator<Item = String> {
    let warning = |(&shard, problem): (&usize, &String)| format!("{}: {problem}", shards.path(shard).display());
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

/// The name in the header right before a member's bytes, for messages; a very long one is cut there.
fn member_name(file: &Shard, offset: u64) -> String {
    let mut header = Header::new_old();
    match file.read_exact_at(header.as_mut_bytes(), offset.saturating_sub(HEADER_BYTES)) {
        Ok(()) => String::from_utf8_lossy(&header.path_bytes()).into_owned(),
        Err(_) => String::new(),
    }
}

/// What one shard gives.
#[derive(Default, Serialize, Deserialize)]
struct Scanned {
    records: Vec<Places>,
    unread: Unread,
    /// Why the records end before the shard does.
    problem: Option<String>,
    /// Whether the file ends without the whole mark of an end: whole members, but perhaps not all.
    unended: bool,
}

/// The records of one shard, from its headers. Those of an object are read once for as long as the cache keeps what was found.
fn scan(shards: &Shards, shard: usize) -> io::Result<Scanned> {
    if let Shards::Files { paths, .. } = shards
        && !std::fs::metadata(&paths[shard])?.is_file()
    {
        return Err(io::Error::other("not a file"));
    }
    let opened = shards.open(shard)?;
    let Shard::Object(object) = &*opened else { return walk(&opened) };
    if let Some(known) = object.kept(FOUND).and_then(|known| serde_json::from_slice(&known).ok()) {
        return Ok(known);
    }
    let scanned = walk(&opened)?;
    // What was not reached is not damaged.
    if let Some(failure) = shards.failure() {
        return Err(io::Error::other(failure));
    }
    object.keep(FOUND, &serde_json::to_vec(&scanned)?);
    Ok(scanned)
}

fn walk(shard: &Arc<Shard>) -> io::Result<Scanned> {
    let mut walk = Walk::new(Arc::clone(shard))?;
    if let Some((kind, command)) = sniff::compression(&walk.head()?) {
        let problem = format!("at byte 0: compressed with {kind}; expected a plain tar file: `{command}`");
        return Ok(Scanned { problem: Some(problem), ..Scanned::default() });
    }
    let walked = walk.members();
    walk.end_of_archive();
    let problem = walked
        .err()
        .map(|(offset, problem)| format!("at byte {offset}: {problem}; expected a tar file of images with captions"));
    // The last block may be counted whole and be there in part.
    let zeros = walk.zeros.saturating_sub(walk.at.saturating_sub(walk.length));
    let unended = problem.is_none() && zeros < END_MARK;
    Ok(Scanned { records: walk.records, unread: walk.unread, problem, unended })
}

/// What extended headers say about the member behind them.
#[derive(Default)]
struct Described {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

/// What a member is to its record.
#[derive(Clone, Copy)]
enum Role {
    Image,
    Text,
    Json,
}

impl Role {
    /// The role of the member called `name`, with the name that its record's members share; else a kind to count it by.
    fn of(name: &[u8]) -> Option<(&[u8], Role)> {
        let base = name.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        let dot = base + name[base..].iter().rposition(|b| *b == b'.')?;
        let role = match String::from_utf8_lossy(&name[dot + 1..]).to_lowercase().as_str() {
            "txt" => Role::Text,
            "json" => Role::Json,
            image if IMAGE_ENDINGS.contains(&image) => Role::Image,
            _ => return None,
        };
        // Hidden ones are a Mac's notes about a file.
        (name[base] != b'.').then_some((&name[..dot], role))
    }

    fn part(self, record: &mut Places) -> &mut Part {
        match self {
            Role::Image => &mut record.image,
            Role::Text => &mut record.text,
            Role::Json => &mut record.json,
        }
    }
}

/// A walk over the headers of a shard.
struct Walk {
    file: Arc<Shard>,
    length: u64,
    at: u64,
    /// Zeros right before.
    zeros: u64,
    count: usize,
    described: Described,
    records: Vec<Places>,
    /// The first record of this archive of the file.
    first: usize,
    /// The record of each name in this archive.
    names: HashMap<Vec<u8>, usize>,
    unread: Unread,
}

/// A byte, and what is wrong there.
type Damage = (u64, String);

impl Walk {
    fn new(file: Arc<Shard>) -> io::Result<Self> {
        Ok(Walk {
            length: file.size()?,
            file,
            at: 0,
            zeros: 0,
            count: 0,
            described: Described::default(),
            records: Vec::new(),
            first: 0,
            names: HashMap::new(),
            unread: Unread::default(),
        })
    }

    /// The first bytes, which tell what it is.
    fn head(&self) -> io::Result<Vec<u8>> {
        let mut head = vec![0; self.length.min(sniff::HEAD) as usize];
        self.file.read_exact_at(&mut head, 0)?;
        Ok(head)
    }

    /// Finds the records as far as the shard makes sense.
    fn members(&mut self) -> Result<(), Damage> {
        if self.length == 0 {
            return Err((0, "the file is empty".into()));
        }
        while self.at < self.length {
            let at = self.at;
            let Some(header) = self.header(at)? else {
                if self.zeros == 0 {
                    self.end_of_archive();
                }
                self.zeros += HEADER_BYTES;
                self.at += HEADER_BYTES;
                if self.zeros > MAX_PADDING {
                    return Err((at, format!("more than {MAX_PADDING} zeros behind the mark of the end")));
                }
                continue;
            };
            self.zeros = 0;
            self.at += HEADER_BYTES;
            self.count += 1;
            if self.count > MAX_MEMBERS {
                return Err((at, format!("more than {MAX_MEMBERS} members")));
            }
            self.member(&header).map_err(|problem| (at, problem))?;
        }
        Ok(())
    }

    /// The header at a byte; none where there are only zeros.
    fn header(&self, at: u64) -> Result<Option<Header>, Damage> {
        let mut header = Header::new_old();
        let left = (self.length - at).min(HEADER_BYTES) as usize;
        let bytes = header.as_mut_bytes();
        bytes.fill(0);
        self.file.read_exact_at(&mut bytes[..left], at).map_err(|e| (at, e.to_string()))?;
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        if left < HEADER_BYTES as usize {
            return Err((at, format!("a header is cut off after {left} bytes: is the file truncated?")));
        }
        let mut summed = header.clone();
        summed.set_cksum();
        match header.cksum() {
            Ok(sum) if summed.cksum().is_ok_and(|right| right == sum) => Ok(Some(header)),
            _ => Err((at, "archive header checksum mismatch".into())),
        }
    }

    /// Takes in the member whose header was just read, and steps behind it.
    fn member(&mut self, header: &Header) -> Result<(), String> {
        let kind = header.entry_type();
        let describes = matches!(kind.as_byte(), b'L' | b'K' | b'x' | b'X' | b'g');
        let described = if describes { Described::default() } else { std::mem::take(&mut self.described) };
        let declared = described.size.map_or_else(|| header.entry_size(), Ok).map_err(|e| e.to_string())?;
        let size = match kind {
            EntryType::Directory | EntryType::Symlink | EntryType::Char | EntryType::Block | EntryType::Fifo => 0,
            // Some writers give a hard link the size of what it links to, a few its bytes, too.
            EntryType::Link if self.header(self.at).is_ok() => 0,
            _ => declared,
        };
        if kind == EntryType::GNUSparse {
            self.skip_sparse_headers(header)?;
        }
        let offset = self.at;
        if offset.checked_add(size).is_none_or(|end| end > self.length) {
            let left = self.length.saturating_sub(offset);
            let large = if size > MAX_PLAIN_BYTES { "of more than 8 GiB " } else { "" };
            return Err(format!(
                "a member {large}declares {size} bytes, but the file ends after {left}: is it truncated?"
            ));
        }
        self.at = (offset + size).next_multiple_of(HEADER_BYTES);
        if describes {
            return self.describe(kind, offset, size);
        }
        let name = described.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let part = match kind {
            _ if kind == EntryType::Directory || name.ends_with(b"/") => return Ok(()),
            _ if described.sparse || kind == EntryType::GNUSparse => Part::Sparse,
            EntryType::Link if size == 0 => {
                let to = described.link.or_else(|| Some(header.link_name_bytes()?.into_owned()));
                self.linked(&to.unwrap_or_default())
            }
            EntryType::Symlink => Part::Link,
            EntryType::Regular | EntryType::Continuous | EntryType::Link => Part::At(offset, size),
            _ => Part::Special,
        };
        match Role::of(&name) {
            Some((shared, role)) => self.put(shared, role, part),
            None => self.unread.note_file(Path::new(OsStr::from_bytes(&name))),
        }
        Ok(())
    }

    /// Old GNU tar's headers behind the header of a file with holes, which no size counts.
    fn skip_sparse_headers(&mut self, header: &Header) -> Result<(), String> {
        let mut more = header.as_gnu().is_some_and(|gnu| gnu.is_extended());
        while more {
            let mut extended = GnuExtSparseHeader::new();
            let read = self.file.read_exact_at(extended.as_mut_bytes(), self.at);
            read.map_err(|e| format!("the map of a file with holes: {e}"))?;
            more = extended.is_extended();
            self.at += HEADER_BYTES;
        }
        Ok(())
    }

    /// Reads what an extended header says about the member behind it.
    fn describe(&mut self, kind: EntryType, offset: u64, size: u64) -> Result<(), String> {
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        if size > MAX_NAME_BYTES {
            return Err(format!("an extended header of {size} bytes, at most {MAX_NAME_BYTES} are read"));
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, offset).map_err(|e| e.to_string())?;
        let described = &mut self.described;
        if let EntryType::GNULongName | EntryType::GNULongLink = kind {
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            bytes.truncate(end);
            let field = if kind == EntryType::GNULongName { &mut described.name } else { &mut described.link };
            *field = Some(bytes);
            return Ok(());
        }
        for extension in PaxExtensions::new(&bytes) {
            let extension = extension.map_err(|e| e.to_string())?;
            let value = extension.value_bytes();
            match extension.key_bytes() {
                b"path" if !described.sparse => described.name = Some(value.to_vec()),
                b"linkpath" => described.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    described.size = Some(size.ok_or("an extended header gives a size that is no number")?);
                }
                b"GNU.sparse.name" => (described.sparse, described.name) = (true, Some(value.to_vec())),
                key => described.sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
        Ok(())
    }

    /// The part that a hard link to the member `to` is.
    fn linked(&mut self, to: &[u8]) -> Part {
        let found = Role::of(to).and_then(|(shared, role)| {
            let record = *self.names.get(shared)?;
            Some(*role.part(&mut self.records[record]))
        });
        match found {
            Some(part) if part.is_there() => part,
            _ => Part::Link,
        }
    }

    /// Gives a part to its record.
    fn put(&mut self, shared: &[u8], role: Role, part: Part) {
        if let Some(record) = self.names.get(shared).map(|record| &mut self.records[*record]) {
            let complete = record.is_complete();
            let place = role.part(record);
            if *place == Part::None || !complete {
                *place = if *place == Part::None { part } else { Part::Twice };
                return;
            }
        }
        self.names.insert(shared.to_vec(), self.records.len());
        self.records.push(Places::default());
        if let Some(record) = self.records.last_mut() {
            *role.part(record) = part;
        }
    }

    /// Names begin anew. What belongs to a record under a longer name (`000.seg.png` to `000`) and makes none of its own is
    /// no record.
    fn end_of_archive(&mut self) {
        let mut parts = Vec::new();
        let is_complete = |record: &usize| self.records[*record].is_complete();
        for (name, record) in &self.names {
            let base = name.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
            let dots = (base..name.len()).filter(|at| name[*at] == b'.');
            let of = dots.rev().find(|dot| self.names.get(&name[..*dot]).is_some_and(is_complete));
            if let (Some(dot), false) = (of, is_complete(record)) {
                parts.push((*record, String::from_utf8_lossy(&name[dot..]).into_owned()));
            }
        }
        for (record, kind) in &parts {
            let Places { image, text, json } = std::mem::replace(&mut self.records[*record], Places::REST);
            let members = [image, text, json].iter().filter(|part| **part != Part::None).count();
            self.unread.note(format!("{kind}.*").as_str(), members as u64);
        }
        if !parts.is_empty() {
            let archive = self.records.split_off(self.first);
            self.records.extend(archive.into_iter().filter(|record| *record != Places::REST));
        }
        self.names.clear();
        self.first = self.records.len();
        self.described = Described::default();
    }
}
