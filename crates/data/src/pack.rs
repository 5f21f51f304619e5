//! Turning any source into tar shards, as `img2dataset` lays them out: an image, its caption as `.txt`, and a `.json` with
//! all its captions and its image id.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;
use simla_image::Limits;
use tar::{Builder, Header};
use tempfile::NamedTempFile;

use crate::dataset::Dataset;
use crate::permutation::Permutation;
use crate::random::{Purpose, stream};
use crate::record::{Record, RecordError};
use crate::tally::{Report, Tally};

/// Records that are read and checked at the same time.
const TOGETHER: u64 = 128;

/// How shards are written.
#[derive(Clone, Debug, PartialEq)]
pub struct PackOptions {
    /// Records of a shard.
    pub shard_size: usize,
    /// The seed of a random order; None keeps the order of the files. Since training mixes shards within a window, a
    /// random order is better for data that are sorted in any way.
    pub shuffle: Option<u64>,
}

impl Default for PackOptions {
    fn default() -> Self {
        PackOptions {
            shard_size: 10_000,
            shuffle: Some(0),
        }
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
    /// What was left out, and why.
    pub report: Report,
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
    #[error(
        "too many bad records, more than a share of {max_bad_share} (`max_bad_share`): {report}"
    )]
    TooManyBad { max_bad_share: f64, report: Report },
}

/// Writes the records of `dataset` as `00000.tar`, `00001.tar`, ... in `folder`, which is made if it is not there. Records
/// whose image cannot be decoded or that have no caption are left out and counted; too many are an error. A shard gets its
/// name when it is complete and on disk. `progress` is told how many records are done.
pub fn pack(
    dataset: &Dataset,
    folder: &Path,
    options: &PackOptions,
    mut progress: impl FnMut(u64),
) -> Result<Packed, PackError> {
    let PackOptions {
        shard_size,
        shuffle,
    } = *options;
    if !(1..=1_000_000).contains(&shard_size) {
        return Err(PackError::ShardSize { value: shard_size });
    }
    let io = |error| PackError::Io {
        path: folder.into(),
        error,
    };
    std::fs::create_dir_all(folder).map_err(io)?;
    if let Some(found) = std::fs::read_dir(folder).map_err(io)?.next() {
        return Err(PackError::NotEmpty {
            folder: folder.into(),
            found: found.map_err(io)?.path(),
        });
    }

    let records = dataset.len();
    let order =
        shuffle.map(|seed| Permutation::draw(records, &mut stream(Purpose::Order, seed, 0, 0, 0)));
    let tally = Tally::new(records, dataset.max_bad_share());
    let read = |position: u64| {
        let index = order.as_ref().map_or(position, |order| order.get(position));
        let record = checked(dataset, index);
        tally.note(index, record.as_ref().err());
        record.ok()
    };
    let mut packed = Packed {
        shards: Vec::new(),
        records: 0,
        bytes: 0,
        report: Report::default(),
    };
    let mut shard: Option<Shard> = None;
    for start in (0..records).step_by(TOGETHER as usize) {
        let end = (start + TOGETHER).min(records);
        let together: Vec<_> = (start..end).into_par_iter().map(read).collect();
        if tally.too_many_bad() {
            return Err(PackError::TooManyBad {
                max_bad_share: dataset.max_bad_share(),
                report: tally.report(),
            });
        }
        for record in together.into_iter().flatten() {
            let open = match &mut shard {
                Some(open) => open,
                None => {
                    shard.insert(Shard::start(folder, packed.shards.len(), shard_size).map_err(io)?)
                }
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
    packed.report = tally.report();
    Ok(packed)
}

fn checked(dataset: &Dataset, index: u64) -> Result<Record, RecordError> {
    let record = dataset.record(index)?;
    match simla_image::decode(&record.image, &Limits::default()) {
        Ok(_) => Ok(record),
        Err(error) => Err(dataset.entry(index)?.unreadable(error)),
    }
}

fn finish(shard: &mut Option<Shard>, packed: &mut Packed) -> io::Result<()> {
    if let Some(shard) = shard.take() {
        let (path, bytes) = shard.finish()?;
        packed.shards.push(path);
        packed.bytes += bytes;
    }
    Ok(())
}

/// A shard that is being written, under a temporary name.
struct Shard {
    tar: Builder<BufWriter<NamedTempFile>>,
    path: PathBuf,
    number: usize,
    /// Digits of a record's number in its name.
    digits: usize,
    records: usize,
}

impl Shard {
    fn start(folder: &Path, number: usize, size: usize) -> io::Result<Self> {
        let file = tempfile::Builder::new()
            .prefix(".unfinished-")
            .suffix(".tar")
            .tempfile_in(folder)?;
        let digits = (size - 1).max(1).ilog10() as usize + 1;
        let path = folder.join(format!("{number:05}.tar"));
        Ok(Shard {
            tar: Builder::new(BufWriter::new(file)),
            path,
            number,
            digits: digits.max(4),
            records: 0,
        })
    }

    fn push(&mut self, record: Record) -> io::Result<()> {
        let Record {
            image,
            captions,
            image_id,
            ..
        } = record;
        let key = format!(
            "{:05}{:0digits$}",
            self.number,
            self.records,
            digits = self.digits
        );
        let text = captions.first().map_or("", String::as_str);
        let beside = json!({"caption": captions, "image_id": image_id}).to_string();
        for (ending, bytes) in [
            (ending(&image), image.as_slice()),
            ("txt", text.as_bytes()),
            ("json", beside.as_bytes()),
        ] {
            let mut header = Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            self.tar
                .append_data(&mut header, format!("{key}.{ending}"), bytes)?;
        }
        self.records += 1;
        Ok(())
    }

    fn finish(self) -> io::Result<(PathBuf, u64)> {
        let mut writer = self.tar.into_inner()?;
        writer.flush()?;
        let file = writer.into_inner().map_err(|e| e.into_error())?;
        file.as_file().sync_all()?;
        let bytes = file.as_file().metadata()?.len();
        file.persist(&self.path).map_err(|e| e.error)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?; // the name, too, is on disk
        }
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
