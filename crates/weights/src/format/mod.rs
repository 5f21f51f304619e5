//! The containers in which checkpoints come: which one a file is, and where its tensors' bytes lie.

mod safetensors;
mod torch_stream;
mod torch_zip;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use crate::error::Fault;
use crate::limits::Limits;
use crate::pickle::graph::{Graph, Id};
use crate::pickle::{self, input::Input};

/// A parsed file: its structure, and the place of every storage of the graph.
pub(crate) struct Contents {
    pub graph: Graph,
    pub root: Id,
    /// Where in the file each of `graph.storages()` begins.
    pub places: Vec<Place>,
    /// Whether numbers are big-endian.
    pub big_endian: bool,
}

/// Where a storage lies. Its length is that of the graph's declaration, checked against the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// First byte in the file.
    pub offset: u64,
    /// Checksum of the bytes, where the format has one.
    pub crc32: Option<u32>,
}

/// Recognises the format and parses everything but the tensors' data.
pub(crate) fn parse(file: &File, limits: &Limits) -> Result<Contents, Fault> {
    let length = file.metadata()?.len();
    let mut begin = Vec::new();
    file.take(16).read_to_end(&mut begin)?;
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    match begin[..] {
        [b'P', b'K', 3, 4, ..] => torch_zip::parse(file, length, limits),
        [0x80, 2, ..] if torch_stream::is_magic(&begin) => torch_stream::parse(file, length, limits),
        [_, _, _, _, _, _, _, 0, b'{', ..] => safetensors::parse(file, length, limits),
        _ => Err(Fault::UnknownFormat { found: describe(&begin) }),
    }
}

/// Parses a pickle that is the whole file and holds data alone.
pub(crate) fn parse_data(file: &File, limits: &Limits) -> Result<Contents, Fault> {
    let mut graph = Graph::new(limits.pickle_values);
    let mut input = Input::new(BufReader::new(file), limits.pickle_bytes);
    let root = pickle::read(&mut input, &mut graph, limits)?;
    match graph.storages() {
        [] => Ok(Contents { graph, root, places: vec![], big_endian: false }),
        [storage, ..] => Err(Fault::tensor(&*storage.key, "expected data alone, found a tensor")),
    }
}

/// Says what a file is that we cannot read; the first ones are what failed downloads leave.
fn describe(begin: &[u8]) -> String {
    let what = match begin {
        [] => "an empty file",
        _ if begin.starts_with(b"version https://") => "a Git LFS pointer (the file itself has still to be fetched)",
        [b'<', ..] => "a web page, by its first character",
        [0x80, 2..=5, ..] => "a pickle that torch.save did not write",
        [0x1f, 0x8b, ..] => "a gzip file (unpack it first)",
        [b'P', b'K', ..] => "a zip archive without entries",
        _ => "",
    };
    match what {
        "" => format!("a file that begins with {}", begin.escape_ascii()),
        what => what.into(),
    }
}
