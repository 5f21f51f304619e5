//! The values that a pickle describes, as a graph.
//!
//! Values refer to each other by number. A list that holds itself, or a thousand nested ones, is then nothing special:
//! no recursion when values are built, walked or dropped, and no reference counts.

use std::collections::HashMap;

use super::tensor::TensorHeader;
use crate::error::Fault;
use crate::tensor::DType;

/// The number of a value in a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id(u32);

impl Id {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A class or function that the pickle names. It is never looked up, let alone called.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub module: Box<str>,
    pub name: Box<str>,
}

/// What the pickle says about an instance of a class that we do not know: kept, never run.
#[derive(Debug)]
pub(crate) struct Object {
    /// Usually a [`Value::Class`].
    pub class: Id,
    /// What its `__setstate__` would have been given; for most objects a dict of attributes.
    pub state: Option<Id>,
    /// Entries, when it is a kind of dict.
    pub entries: Vec<(Id, Id)>,
    /// Elements, when it is a kind of list or set.
    pub elements: Vec<Id>,
}

/// A (part of a) storage as a persistent id names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StorageView {
    /// Index into [`Graph::storages`].
    pub storage: usize,
    /// First element.
    pub offset: u64,
    /// Elements from there on.
    pub elements: u64,
}

#[derive(Debug)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits. Nothing that we read needs its digits.
    Long,
    Float(f64),
    Text(Box<str>),
    /// Bytes that are no text. Nothing that we read needs them.
    Bytes,
    List(Vec<Id>),
    Tuple(Box<[Id]>),
    /// In order of insertion; a later entry of the same key counts.
    Dict(Vec<(Id, Id)>),
    Set(Vec<Id>),
    Class(Box<Class>),
    Object(Box<Object>),
    Storage(StorageView),
    Tensor(Box<TensorHeader>),
}

impl Value {
    /// What to call it in a message.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Long => "an integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::Bytes => "bytes",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::Set(_) => "a set",
            Self::Class(_) => "a class",
            Self::Object(_) => "an object",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// A storage that the pickle declares; its bytes lie elsewhere in the file.
#[derive(Debug)]
pub(crate) struct Storage {
    pub key: Box<str>,
    pub dtype: DType,
    /// Number of elements.
    pub elements: u64,
}

impl Storage {
    /// Size in bytes.
    pub(crate) fn bytes(&self) -> Result<u64, Fault> {
        self.elements
            .checked_mul(self.dtype.size())
            .ok_or_else(|| Fault::tensor(&*self.key, format!("its storage declares {} elements", self.elements)))
    }
}

#[derive(Debug)]
pub(crate) struct Graph {
    values: Vec<Value>,
    storages: Vec<Storage>,
    by_key: HashMap<Box<str>, usize>,
    limit: u64,
}

impl Graph {
    /// A graph of at most `limit` values.
    pub(crate) fn new(limit: u64) -> Self {
        Self { values: Vec::new(), storages: Vec::new(), by_key: HashMap::new(), limit }
    }

    pub(crate) fn add(&mut self, value: Value) -> Result<Id, Fault> {
        let count = self.values.len() as u64;
        if count >= self.limit.min(u64::from(u32::MAX)) {
            return Err(Fault::limit("the number of values in the pickle", count + 1, self.limit));
        }
        self.values.push(value);
        Ok(Id(count as u32))
    }

    pub(crate) fn get(&self, id: Id) -> &Value {
        &self.values[id.index()]
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> &mut Value {
        &mut self.values[id.index()]
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = Id> {
        (0..self.values.len() as u32).map(Id)
    }

    pub(crate) fn storages(&self) -> &[Storage] {
        &self.storages
    }

    pub(crate) fn storage_of_key(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// Declares a storage, or finds the one of that key and checks that both declarations agree.
    pub(crate) fn declare(&mut self, storage: Storage) -> Result<usize, Fault> {
        if let Some(&index) = self.by_key.get(&storage.key) {
            let first = &self.storages[index];
            if first.dtype != storage.dtype || first.elements != storage.elements {
                return Err(Fault::tensor(
                    &*storage.key,
                    format!(
                        "its storage is declared as {} {:?} and as {} {:?}",
                        first.elements, first.dtype, storage.elements, storage.dtype
                    ),
                ));
            }
            return Ok(index);
        }
        storage.bytes()?;
        let index = self.storages.len();
        self.by_key.insert(storage.key.clone(), index);
        self.storages.push(storage);
        Ok(index)
    }

    pub(crate) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn int(&self, id: Id) -> Option<i64> {
        match self.get(id) {
            Value::Int(int) => Some(*int),
            _ => None,
        }
    }

    pub(crate) fn class(&self, id: Id) -> Option<&Class> {
        match self.get(id) {
            Value::Class(class) => Some(class),
            _ => None,
        }
    }

    /// The elements of a list or tuple.
    pub(crate) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::List(elements) => Some(elements),
            Value::Tuple(elements) => Some(elements),
            _ => None,
        }
    }
}
