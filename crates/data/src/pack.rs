//! Turning any source into tar shards, as `img2dataset` lays them out: an image, its caption as `.txt`, and a `.json` with
//! all its captions and its image id.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;
use simla_files::{UNFINISHED, sync_parent};
use simla_image::{ImageError, Limits, decode, shrink};
use tar::{Builder, Header};

use crate::dataset::Dataset;
use crate::permutation::Permutation;
use crate::random::{Purpose, stream};
use crate::record::{Record, RecordError, Unreached};
use crate::tally::{Tally, TallyReport};

/// Records that are read and checked at the same time: bounds the image files in memory.
const TOGETHER: u64 = 32;

/// How shards are written.
#[derive(Clone, Debug, PartialEq)]
pub struct PackOptions {
    /// Records of a shard.
    pub shard_size: usize,
    /// The seed of a random order; None keeps the order of the files. Since training mixes shards within a window, a
    /// random order is better for data that are sorted in any way.
    pub shuffle: Option<u64>,
    /// Pictures whose shorter side is longer are shrunk to it ([`shrink`]), in pixels; None copies all as they are.
    pub side: Option<u32>,
}

impl Default for PackOptions {
    fn default() -> Self {
        PackOptions { shard_size: 10_000, shuffle: Some(0), side: None }
    }
}

/// What was packed.
#[derive(Clone, Debug, Serialize)]
pub struct Packed {
    /// The shards, in order.
    pub shards: Vec<PathBuf>,
    /// Records in them.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What shrinking gained; None where it was not asked for.
    pub shrunk: Option<Shrunk>,
    /// What was left out, and why.
    pub report: TallyReport,
}

/// What shrinking gained, of the pictures that were shrunk alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Shrunk {
    /// Pictures that were.
    pub pictures: u64,
    /// Bytes of their files before.
    pub bytes_before: u64,
    /// Bytes of what they are now.
    pub bytes_after: u64,
    /// Seconds in which they were decoded.
    pub decode_s_before: f64,
    /// Seconds in which what they are now was.
    pub decode_s_after: f64,
}

impl Shrunk {
    fn add(&mut self, one: &Self) {
        self.pictures += one.pictures;
        self.bytes_before += one.bytes_before;
        self.bytes_after += one.bytes_after;
        self.decode_s_before += one.decode_s_before;
        self.decode_s_after += one.decode_s_after;
    }
}

/// Why packing failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PackError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: there is already {}; choose an empty folder", folder.display(), found.display())]
    NotEmpty { folder: PathBuf, found: PathBuf },
    #[error("setting `shard_size` = {value}: expected from 1 to 1000000 records")]
    ShardSize { value: usize },
    #[error("setting `side` = {value}: expected from 1 to 65535 pixels")]
    Side { value: u32 },
    #[error(transparent)]
    Unreached(#[from] Unreached),
    #[error("too many bad records, more than a share of {max_bad_share} (`max_bad_share`): {report}")]
    TooManyBad { max_bad_share: f64, report: TallyReport },
}

/// Writes the records of `dataset` as `00000.tar`, `00001.tar`, ... in `folder`, which must not be there or be empty. Records
/// whose image cannot be decoded or that have no caption are left out and counted; too many are an error. `progress` is told
/// how many records are done.
///
/// All or nothing: a part of the shards would look like a whole data set. They are written in a hidden folder beside `folder`,
/// which gets its name when all of them are on disk; what an interrupted call left there is removed by the next one.
pub fn pack(
    dataset: &Dataset,
    folder: &Path,
    options: &PackOptions,
    mut progress: impl FnMut(u64),
) -> Result<Packed, PackError> {
    let PackOptions { shard_size, shuffle, side } = *options;
    if !(1..=1_000_000).contains(&shard_size) {
        return Err(PackError::ShardSize { value: shard_size });
    }
    if let Some(value) = side.filter(|side| !(1..=65_535).contains(side)) {
        return Err(PackError::Side { value });
    }
    let io = |error| PackError::Io { path: folder.into(), error };
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
        Ok(mut files) => {
            if let Some(found) = files.next() {
                return Err(PackError::NotEmpty { folder: folder.into(), found: found.map_err(io)?.path() });
            }
        }
    }
    let aside = Aside::make(folder).map_err(io)?;

    let records = dataset.len();
    let order = shuffle.map(|seed| Permutation::draw(records, &mut stream(Purpose::Order, seed, 0, 0, 0)));
    let tally = Tally::new(records, dataset.max_bad_share());
    let read = |position: u64| {
        let index = order.as_ref().map_or(position, |order| order.get(position));
        let record = checked(dataset, index, side);
        tally.note(index, record.as_ref().err());
        record.ok()
    };
    let mut packed = Packed {
        shards: Vec::new(),
        records: 0,
        bytes: 0,
        shrunk: side.map(|_| Shrunk::default()),
        report: TallyReport::default(),
    };
    let mut shard: Option<Shard> = None;
    for start in (0..records).step_by(TOGETHER as usize) {
        let end = (start + TOGETHER).min(records);
        let together: Vec<_> = (start..end).into_par_iter().map(read).collect();
        dataset.reached()?;
        if tally.too_many_bad() {
            return Err(PackError::TooManyBad { max_bad_share: dataset.max_bad_share(), report: tally.report() });
        }
        for (record, gained) in together.into_iter().flatten() {
            if let (Some(all), Some(gained)) = (&mut packed.shrunk, &gained) {
                all.add(gained);
            }
            let open = match &mut shard {
                Some(open) => open,
                None => shard.insert(Shard::start(&aside.0, packed.shards.len(), shard_size).map_err(io)?),
            };
            open.push(record).map_err(io)?;
            packed.records += 1;
            if open.records == shard_size {
                finish(&mut shard, &mut packed).map_err(io)?;
            }
        }
        progress(end);
    }
    finish(&mut shard, &mut packed).map_err(io)?;
    std::fs::rename(&aside.0, folder).and_then(|()| sync_parent(folder)).map_err(io)?;
    for shard in &mut packed.shards {
        *shard = folder.join(shard.file_name().unwrap_or_default());
    }
    packed.report = tally.report();
    Ok(packed)
}

/// The folder that is filled; removed when it is dropped under this name.
struct Aside(PathBuf);

impl Aside {
    fn make(folder: &Path) -> io::Result<Self> {
        let name = folder.file_name().unwrap_or_default();
        let aside = folder.with_file_name(format!("{UNFINISHED}{}", name.display()));
        if aside.exists() {
            std::fs::remove_dir_all(&aside)?;
        }
        std::fs::create_dir_all(&aside)?;
        Ok(Aside(aside))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // not there any more where all went well
    }
}

/// A record whose image can be decoded, shrunk where that is asked for and makes it smaller; and what that gained.
fn checked(dataset: &Dataset, index: u64, side: Option<u32>) -> Result<(Record, Option<Shrunk>), RecordError> {
    let mut record = dataset.record(index)?;
    match smaller(&record.image, side) {
        Ok(None) => Ok((record, None)),
        Ok(Some((image, gained))) => {
            record.image = image;
            Ok((record, Some(gained)))
        }
        Err(error) => Err(dataset.entry(index)?.unreadable(error)),
    }
}

fn smaller(image: &[u8], side: Option<u32>) -> Result<Option<(Vec<u8>, Shrunk)>, ImageError> {
    let limits = Limits::default();
    let timed = |bytes: &[u8]| -> Result<Duration, ImageError> {
        let start = Instant::now();
        decode(bytes, &limits)?;
        Ok(start.elapsed())
    };
    let before = timed(image)?;
    let Some(shrunk) = side.map(|side| shrink(image, side, &limits)).transpose()?.flatten() else {
        return Ok(None);
    };
    let gained = Shrunk {
        pictures: 1,
        bytes_before: image.len() as u64,
        bytes_after: shrunk.len() as u64,
        decode_s_before: before.as_secs_f64(),
        decode_s_after: timed(&shrunk)?.as_secs_f64(),
    };
    Ok(Some((shrunk, gained)))
}

fn finish(shard: &mut Option<Shard>, packed: &mut Packed) -> io::Result<()> {
    if let Some(shard) = shard.take() {
        let (path, bytes) = shard.finish()?;
        packed.shards.push(path);
        packed.bytes += bytes;
    }
    Ok(())
}

/// A shard that is being written.
struct Shard {
    tar: Builder<BufWriter<File>>,
    path: PathBuf,
    number: usize,
    /// Digits of a record's number in its name.
    digits: usize,
    records: usize,
}

impl Shard {
    fn start(folder: &Path, number: usize, size: usize) -> io::Result<Self> {
        let path = folder.join(format!("{number:05}.tar"));
        let file = File::create_new(&path)?;
        let digits = (size - 1).max(1).ilog10() as usize + 1;
        Ok(Shard { tar: Builder::new(BufWriter::new(file)), path, number, digits: digits.max(4), records: 0 })
    }

    fn push(&mut self, record: Record) -> io::Result<()> {
        let Record { image, captions, image_id, .. } = record;
        let key = format!("{:05}{:0digits$}", self.number, self.records, digits = self.digits);
        let text = captions.first().map_or("", String::as_str);
        let beside = json!({"caption": captions, "image_id": image_id}).to_string();
        for (ending, bytes) in
            [(ending(&image), image.as_slice()), ("txt", text.as_bytes()), ("json", beside.as_bytes())]
        {
            let mut header = Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            self.tar.append_data(&mut header, format!("{key}.{ending}"), bytes)?;
        }
        self.records += 1;
        Ok(())
    }

    fn finish(self) -> io::Result<(PathBuf, u64)> {
        let mut writer = self.tar.into_inner()?;
        writer.flush()?;
        let file = writer.into_inner().map_err(|e| e.into_error())?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        sync_parent(&self.path)?;
        Ok((self.path, bytes))
    }
}

/// The ending for an image that was decoded, by its first bytes.
fn ending(image: &[u8]) -> &'static str {
    match image {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [b'R', b'I', b'F', b'F', ..] => "webp",
        _ => "jpg",
    }
}
