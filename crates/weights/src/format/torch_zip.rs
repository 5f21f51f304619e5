//! PyTorch's files since 1.6: a zip archive whose entries are stored uncompressed, `<name>/data.pkl` with the
//! structure and `<name>/data/<key>` with the bytes of each storage.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use zip::{CompressionMethod, ZipArchive};

use super::{Contents, Place};
use crate::error::Fault;
use crate::limits::Limits;
use crate::pickle::graph::Graph;
use crate::pickle::{self, input::Input};

/// An entry of the archive, checked to be stored and to lie in the file.
struct Entry {
    offset: u64,
    length: u64,
    crc32: u32,
}

pub(super) fn parse(mut file: &File, length: u64, limits: &Limits) -> Result<Contents, Fault> {
    let entries = directory(file, length, limits)?;
    let mut roots = entries.keys().filter_map(|name| name.strip_suffix("/data.pkl")).filter(|root| !root.contains('/'));
    let root = match (roots.next(), roots.next()) {
        (Some(root), None) => root,
        (None, _) => {
            return Err(Fault::entry("data.pkl", "missing: torch.save did not write this archive"));
        }
        _ => return Err(Fault::entry("data.pkl", "there are several")),
    };
    let entry = |name: &str| entries.get(&format!("{root}/{name}"));
    if entry("constants.pkl").is_some() {
        return Err(Fault::entry("constants.pkl", "a TorchScript program, expected weights written by torch.save"));
    }
    let big_endian = match entry("byteorder") {
        None => false,
        Some(entry) => match &read(file, entry, "byteorder", 16)?[..] {
            b"little" => false,
            b"big" => true,
            other => {
                return Err(Fault::entry("byteorder", format!("it says {}", other.escape_ascii())));
            }
        },
    };

    let pickle = entry("data.pkl").ok_or_else(|| Fault::entry("data.pkl", "missing"))?;
    let pickle = read(file, pickle, "data.pkl", limits.pickle_bytes)?;
    let mut graph = Graph::new(limits.pickle_values);
    let value = pickle::read(&mut Input::new(&pickle[..], limits.pickle_bytes), &mut graph, limits)?;

    let mut places = Vec::new();
    for storage in graph.storages() {
        let name = format!("data/{}", storage.key);
        let entry = entry(&name).ok_or_else(|| Fault::entry(&name, "missing, although a tensor lies there"))?;
        if storage.bytes()? != entry.length {
            return Err(Fault::entry(
                &name,
                format!(
                    "{} bytes, but {} elements of {:?} are declared",
                    entry.length, storage.elements, storage.dtype
                ),
            ));
        }
        places.push(Place { offset: entry.offset, crc32: Some(entry.crc32) });
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(Contents { graph, root: value, places, big_endian })
}

/// All entries by name. Refuses whatever makes an archive mean different things to different readers.
fn directory(file: &File, length: u64, limits: &Limits) -> Result<HashMap<String, Entry>, Fault> {
    let damaged = |error: zip::result::ZipError| Fault::Zip(error.to_string());
    let reader = Metered { inner: BufReader::new(file), left: limits.zip_directory_bytes };
    let mut archive = ZipArchive::new(reader).map_err(damaged)?;
    if archive.len() as u64 > limits.zip_entries {
        return Err(Fault::limit("the number of zip entries", archive.len() as u64, limits.zip_entries));
    }
    if archive.has_duplicate_names() {
        return Err(Fault::Zip("two entries have the same name".into()));
    }
    let mut entries = HashMap::with_capacity(archive.len());
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(damaged)?;
        let name = std::str::from_utf8(entry.name_raw())
            .map_err(|_| Fault::entry(entry.name_raw().escape_ascii().to_string(), "the name is not UTF-8"))?;
        if !is_plain(name) {
            return Err(Fault::entry(name, "a name that could lead out of a folder"));
        }
        if entry.encrypted() {
            return Err(Fault::entry(name, "encrypted"));
        }
        // Uncompressed entries cannot be bombs: what they hold is in the file. PyTorch writes no others.
        if entry.compression() != CompressionMethod::Stored || entry.compressed_size() != entry.size() {
            return Err(Fault::entry(name, "compressed, which torch.save never does; save it again with torch.save"));
        }
        let offset = entry.data_start().ok_or_else(|| Fault::entry(name, "its data cannot be found"))?;
        if offset.checked_add(entry.size()).is_none_or(|end| end > length) {
            return Err(Fault::truncated(format!("zip entry {name:?}"), entry.size(), length.saturating_sub(offset)));
        }
        entries.insert(name.to_owned(), Entry { offset, length: entry.size(), crc32: entry.crc32() });
    }
    if archive.has_overlapping_entries().map_err(damaged)? {
        return Err(Fault::Zip("two entries share bytes".into()));
    }
    Ok(entries)
}

/// Whether a name has only plain parts. (Nothing is ever written under these names; such an archive is still no
/// checkpoint.)
fn is_plain(name: &str) -> bool {
    !name.contains(['\\', '\0']) && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The bytes of a small entry.
fn read(mut file: &File, entry: &Entry, name: &str, limit: u64) -> Result<Vec<u8>, Fault> {
    if entry.length > limit {
        return Err(Fault::limit(format!("the length of {name}"), entry.length, limit));
    }
    file.seek(SeekFrom::Start(entry.offset))?;
    let mut bytes = Vec::new();
    file.take(entry.length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < entry.length {
        return Err(Fault::truncated(name, entry.length, bytes.len() as u64));
    }
    if crc32fast::hash(&bytes) != entry.crc32 {
        return Err(Fault::entry(name, "damaged: its checksum is wrong"));
    }
    Ok(bytes)
}

/// A reader that stops after so many bytes: bounds a directory that goes on and on.
struct Metered<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let longest = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if longest == 0 && !buffer.is_empty() {
            return Err(io::Error::other("the directory of the archive is too long for a checkpoint"));
        }
        let read = self.inner.read(&mut buffer[..longest])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}
