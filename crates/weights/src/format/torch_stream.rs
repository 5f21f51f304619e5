//! PyTorch's files before 1.6: five pickles (magic number, version, machine, structure, keys of the storages), then for
//! each key the number of elements and the bytes.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use super::{Contents, Place};
use crate::error::Fault;
use crate::limits::Limits;
use crate::pickle::graph::{Graph, Id, Value};
use crate::pickle::{self, input::Input};

/// `0x1950a86a20f9469cfc6c` as a pickled integer: LONG1 of ten bytes, little-endian.
const MAGIC: [u8; 12] = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The only version there ever was.
const VERSION: i64 = 1001;

/// Whether a file that begins so is of this format.
pub(super) fn is_magic(begin: &[u8]) -> bool {
    begin.get(2..).is_some_and(|rest| rest.starts_with(&MAGIC))
}

pub(super) fn parse(mut file: &File, length: u64, limits: &Limits) -> Result<Contents, Fault> {
    let mut graph = Graph::new(limits.pickle_values);
    let mut input = Input::new(BufReader::new(file), limits.pickle_bytes);
    let [_magic, version, machine, root, keys] = {
        let mut next = || pickle::read(&mut input, &mut graph, limits);
        [next()?, next()?, next()?, next()?, next()?]
    };
    let mut offset = input.position();
    drop(input);

    if graph.int(version) != Some(VERSION) {
        return Err(Fault::Pickle { at: offset, problem: format!("a format version other than {VERSION}") });
    }
    let big_endian = !is_little_endian(&graph, machine);
    let wrong_keys = || Fault::Pickle { at: offset, problem: "the storages' keys are not a list of strings".into() };
    let keys = graph.sequence(keys).ok_or_else(wrong_keys)?;
    let keys: Vec<&str> = keys.iter().map(|&key| graph.text(key)).collect::<Option<_>>().ok_or_else(wrong_keys)?;

    let mut places = vec![None; graph.storages().len()];
    for key in keys {
        let index = graph
            .storage_of_key(key)
            .ok_or_else(|| Fault::tensor(format!("storage {key}"), "it has data, but is declared nowhere"))?;
        let storage = &graph.storages()[index];
        let name = || format!("storage {key}");
        file.seek(SeekFrom::Start(offset))?;
        let mut elements = [0; 8];
        file.read_exact(&mut elements).map_err(|_| Fault::truncated(name(), 8, length.saturating_sub(offset)))?;
        let elements = if big_endian { u64::from_be_bytes(elements) } else { u64::from_le_bytes(elements) };
        if elements != storage.elements {
            return Err(Fault::tensor(name(), format!("{elements} elements, but {} are declared", storage.elements)));
        }
        offset += 8;
        let left = length.saturating_sub(offset);
        if storage.bytes()? > left {
            return Err(Fault::truncated(name(), storage.bytes()?, left));
        }
        if places[index].replace(Place { offset, crc32: None }).is_some() {
            return Err(Fault::tensor(name(), "its data is there twice"));
        }
        offset += storage.bytes()?;
    }
    let places = places
        .into_iter()
        .zip(graph.storages())
        .map(|(place, storage)| {
            place.ok_or_else(|| Fault::tensor(format!("storage {}", storage.key), "its data is missing"))
        })
        .collect::<Result<_, _>>()?;
    Ok(Contents { graph, root, places, big_endian })
}

/// What the third pickle, a dict, says about the machine that wrote the file.
fn is_little_endian(graph: &Graph, machine: Id) -> bool {
    let Value::Dict(entries) = graph.get(machine) else {
        return true;
    };
    let entry = entries.iter().rfind(|(key, _)| graph.text(*key) == Some("little_endian"));
    entry.is_none_or(|(_, value)| !matches!(graph.get(*value), Value::Bool(false)))
}
