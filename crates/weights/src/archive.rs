//! A checkpoint that was read: its structure in memory, its tensors' data still in the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Fault, ReadError};
use crate::flatten;
use crate::format::{self, Contents};
use crate::limits::{Limits, SHARING, SHARING_FLOOR};
use crate::pickle::graph::{Id, Value};
use crate::pickle::tensor::TensorHeader;
use crate::tensor::{DType, Tensor};

/// Reads the structure of a checkpoint: a PyTorch file (since 1.6 a zip archive, before a stream of pickles) or
/// safetensors, whichever it is. Nothing that the file says is run. The tensors' data stays in the file until
/// [`TensorRef::load`].
///
/// # Errors
/// A [`ReadError`] that names the file and what is wrong with it, within a second and in memory bounded by `limits`,
/// however hostile the file.
pub fn read(path: &Path, limits: &Limits) -> Result<Archive, ReadError> {
    open(path, limits, format::parse)
}

/// Reads a pickle of data, of any protocol: lists, dicts, strings and numbers, and no tensors. Nothing that it says is run.
///
/// # Errors
/// As [`read`].
pub fn read_data(path: &Path, limits: &Limits) -> Result<Archive, ReadError> {
    open(path, limits, format::parse_data)
}

fn open(
    path: &Path,
    limits: &Limits,
    parse: fn(&File, &Limits) -> Result<Contents, Fault>,
) -> Result<Archive, ReadError> {
    let error = |fault| ReadError { path: path.to_owned(), fault };
    let open = || -> Result<Archive, Fault> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(Fault::UnknownFormat { found: "a folder or device".into() });
        }
        let length = file.metadata()?.len();
        let contents = parse(&file, limits)?;
        let holds_tensor = flatten::holds_tensor(&contents.graph);
        let file = Mutex::new(file);
        Ok(Archive { path: path.to_owned(), file, length, contents, holds_tensor, names: limits.names })
    };
    open().map_err(error)
}

/// A checkpoint file whose structure is in memory.
pub struct Archive {
    path: PathBuf,
    file: Mutex<File>,
    length: u64,
    pub(crate) contents: Contents,
    /// For each value of the graph, whether a tensor can be reached from it.
    pub(crate) holds_tensor: Vec<bool>,
    /// Limit of steps for a walk over the graph.
    pub(crate) names: u64,
}

impl Archive {
    /// The file that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The outermost value.
    pub fn root(&self) -> Node<'_> {
        Node { archive: self, id: self.contents.root }
    }

    /// Every tensor of the file by its dotted name, see [`Node::tensors`].
    ///
    /// # Errors
    /// As [`Node::tensors`].
    pub fn tensors(&self) -> Result<BTreeMap<String, TensorRef<'_>>, ReadError> {
        self.root().tensors()
    }

    fn error(&self, fault: Fault) -> ReadError {
        ReadError { path: self.path.clone(), fault }
    }

    /// Refuses tensors that are far larger than the file: broadcast or named a thousand times.
    pub(crate) fn check_size(&self, what: &str, bytes: u64) -> Result<(), Fault> {
        let limit = self.length.saturating_mul(SHARING).saturating_add(SHARING_FLOOR);
        match bytes <= limit {
            true => Ok(()),
            false => Err(Fault::limit(format!("the size of {what} in bytes"), bytes, limit)),
        }
    }

    /// Bytes `[offset, offset + length)` of the file.
    fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>, Fault> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length as usize).map_err(|error| Fault::Io(std::io::Error::other(error)))?;
        (&mut *file).take(length).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < length {
            return Err(Fault::truncated("a tensor", length, bytes.len() as u64));
        }
        Ok(bytes)
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive")
            .field("path", &self.path)
            .field("values", &self.contents.graph.len())
            .field("storages", &self.contents.graph.storages().len())
            .finish()
    }
}

/// A value in a checkpoint: a dict, list, string, number, tensor, or an object of a class that is not run.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    pub(crate) archive: &'a Archive,
    pub(crate) id: Id,
}

impl<'a> Node<'a> {
    fn value(self) -> &'a Value {
        self.archive.contents.graph.get(self.id)
    }

    fn at(self, id: Id) -> Self {
        Self { archive: self.archive, id }
    }

    /// What it is, for messages: "a dict", "a string", ...
    pub fn kind(self) -> &'static str {
        self.value().kind()
    }

    /// The value of `key`: an entry of a dict, an attribute or entry of an object.
    pub fn get(self, key: &str) -> Option<Self> {
        self.entries().into_iter().rev().find(|(k, _)| k.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// The entries of a dict, or the attributes and entries of an object, in the file's order; otherwise none.
    pub fn entries(self) -> Vec<(Self, Self)> {
        let pairs = |entries: &[(Id, Id)]| entries.iter().map(|&(k, v)| (self.at(k), self.at(v))).collect();
        match self.value() {
            Value::Dict(entries) => pairs(entries),
            Value::Object(object) => {
                let mut entries: Vec<_> = pairs(&object.entries);
                if let Some(Value::Dict(attributes)) = object.state.map(|id| self.at(id).value()) {
                    entries.extend(pairs(attributes));
                }
                entries
            }
            _ => Vec::new(),
        }
    }

    /// The elements of a list, tuple, set or list-like object; otherwise none.
    pub fn elements(self) -> Vec<Self> {
        let ids: &[Id] = match self.value() {
            Value::List(elements) | Value::Set(elements) => elements,
            Value::Tuple(elements) => elements,
            Value::Object(object) => &object.elements,
            _ => &[],
        };
        ids.iter().map(|&id| self.at(id)).collect()
    }

    /// The text, when it is a string.
    pub fn as_str(self) -> Option<&'a str> {
        match self.value() {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, when it is an integer.
    pub fn as_i64(self) -> Option<i64> {
        match self.value() {
            Value::Int(int) => Some(*int),
            _ => None,
        }
    }

    /// The number, when it is an integer or a float.
    pub fn as_f64(self) -> Option<f64> {
        match self.value() {
            Value::Int(int) => Some(*int as f64),
            Value::Float(float) => Some(*float),
            _ => None,
        }
    }

    /// The truth value, when it is a boolean.
    pub fn as_bool(self) -> Option<bool> {
        match self.value() {
            Value::Bool(bool) => Some(*bool),
            _ => None,
        }
    }

    /// Module and name of the class, when it is an object.
    pub fn class(self) -> Option<(&'a str, &'a str)> {
        match self.value() {
            Value::Object(object) => {
                self.archive.contents.graph.class(object.class).map(|class| (&*class.module, &*class.name))
            }
            _ => None,
        }
    }

    /// The tensor, when it is one.
    pub fn as_tensor(self) -> Option<TensorRef<'a>> {
        match self.value() {
            Value::Tensor(header) => Some(TensorRef { archive: self.archive, header }),
            _ => None,
        }
    }

    /// Every tensor below this value by its dotted name: dict keys, list indices and attributes, joined by dots.
    /// Modules are walked as `state_dict` does, their `_parameters`, `_buffers` and `_modules` left out of the names.
    ///
    /// # Errors
    /// When two tensors have the same name, when tensors are nested or repeated beyond the limits, or when they
    /// together are far larger than the file.
    pub fn tensors(self) -> Result<BTreeMap<String, TensorRef<'a>>, ReadError> {
        let tensors = flatten::tensors(self.archive, self.id).map_err(|fault| self.archive.error(fault))?;
        Ok(tensors.into_iter().map(|(name, header)| (name, TensorRef { archive: self.archive, header })).collect())
    }
}

impl std::fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.value())
    }
}

/// A tensor in a checkpoint, its data still in the file.
#[derive(Clone, Copy)]
pub struct TensorRef<'a> {
    archive: &'a Archive,
    header: &'a TensorHeader,
}

impl<'a> TensorRef<'a> {
    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.header.dtype
    }

    /// Size of each dimension; empty for a scalar.
    pub fn shape(&self) -> Vec<usize> {
        self.header.shape.iter().map(|&size| size as usize).collect()
    }

    /// What tells this tensor from the others of its file: equal for two names of the same elements (tied weights).
    pub fn identity(&self) -> impl Eq + std::hash::Hash + use<'a> {
        let header = self.header;
        (header.storage, header.offset, &header.shape[..], &header.strides[..])
    }

    /// Whether two names mean the same elements (tied weights).
    pub fn is_same(&self, other: &TensorRef<'a>) -> bool {
        std::ptr::eq(self.archive, other.archive) && self.identity() == other.identity()
    }

    /// Reads the data: contiguous, whatever the strides in the file.
    ///
    /// # Errors
    /// When the file cannot be read any more, fails its checksum, or the tensor is far larger than the file.
    pub fn load(&self) -> Result<Tensor, ReadError> {
        self.read().map_err(|fault| self.archive.error(fault))
    }

    fn read(&self) -> Result<Tensor, Fault> {
        let header = self.header;
        let contents = &self.archive.contents;
        let place = contents.places[header.storage];
        let storage = &contents.graph.storages()[header.storage];
        let size = header.dtype.size();
        self.archive.check_size("a tensor", header.elements * size)?;
        let window = self.archive.bytes(place.offset + header.offset * size, header.span * size)?;
        if let Some(expected) = place.crc32
            && header.span == storage.elements
            && crc32fast::hash(&window) != expected
        {
            return Err(Fault::tensor(format!("storage {}", storage.key), "damaged: its checksum is wrong"));
        }
        let mut bytes = if header.is_contiguous() { window } else { gather(header, &window) };
        if contents.big_endian {
            bytes.chunks_exact_mut(size as usize).for_each(<[u8]>::reverse);
        }
        Ok(Tensor { dtype: header.dtype, shape: self.shape(), bytes })
    }
}

/// The elements of a strided window in order, last dimension fastest.
fn gather(header: &TensorHeader, window: &[u8]) -> Vec<u8> {
    let size = header.dtype.size() as usize;
    let mut bytes = Vec::with_capacity(header.elements as usize * size);
    let mut index = vec![0; header.shape.len()];
    let mut at = 0; // sum of index times stride
    for _ in 0..header.elements {
        bytes.extend_from_slice(&window[at as usize * size..][..size]);
        for d in (0..index.len()).rev() {
            index[d] += 1;
            at += header.strides[d];
            if index[d] < header.shape[d] {
                break;
            }
            at -= header.shape[d] * header.strides[d];
            index[d] = 0;
        }
    }
    bytes
}
