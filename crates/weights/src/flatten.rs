//! Dotted names for the tensors of a graph that may be cyclic, shared and hostile.

use std::collections::BTreeMap;

use crate::archive::Archive;
use crate::error::Fault;
use crate::limits::{DEPTH, NAME_BYTES};
use crate::pickle::graph::{Graph, Id, Value};
use crate::pickle::tensor::TensorHeader;

/// The attributes of a module under which PyTorch keeps what `state_dict` names.
const MODULE_TABLES: [&str; 3] = ["_parameters", "_buffers", "_modules"];

/// For each value whether a tensor can be reached from it. Configurations and schedulers hold none, and are then never
/// walked, however their objects refer to each other.
pub(crate) fn holds_tensor(graph: &Graph) -> Vec<bool> {
    let mut parents: Vec<Vec<Id>> = vec![Vec::new(); graph.len()];
    let mut reached = vec![false; graph.len()];
    let mut open = Vec::new();
    for id in graph.ids() {
        children(graph.get(id), |child| parents[child.index()].push(id));
        if matches!(graph.get(id), Value::Tensor(_)) {
            reached[id.index()] = true;
            open.push(id);
        }
    }
    while let Some(id) = open.pop() {
        for &parent in &parents[id.index()] {
            if !std::mem::replace(&mut reached[parent.index()], true) {
                open.push(parent);
            }
        }
    }
    reached
}

fn children(value: &Value, mut each: impl FnMut(Id)) {
    match value {
        Value::List(elements) => elements.iter().copied().for_each(each),
        Value::Tuple(elements) => elements.iter().copied().for_each(each),
        Value::Dict(entries) => entries.iter().for_each(|&(_, value)| each(value)),
        Value::Object(object) => {
            object.state.into_iter().for_each(&mut each);
            object.entries.iter().for_each(|&(_, value)| each(value));
            object.elements.iter().copied().for_each(each);
        }
        _ => {}
    }
}

/// The tensors below `root` by their dotted names.
pub(crate) fn tensors(archive: &Archive, root: Id) -> Result<BTreeMap<String, &TensorHeader>, Fault> {
    let mut walk =
        Walk { archive, path: Vec::new(), name: String::new(), steps: 0, bytes: 0, tensors: BTreeMap::new() };
    walk.visit(root)?;
    Ok(walk.tensors)
}

struct Walk<'a> {
    archive: &'a Archive,
    /// The containers that we are in, so that cycles are noticed.
    path: Vec<Id>,
    name: String,
    steps: u64,
    bytes: u64,
    tensors: BTreeMap<String, &'a TensorHeader>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, id: Id) -> Result<(), Fault> {
        if !self.archive.holds_tensor[id.index()] || self.path.contains(&id) {
            return Ok(());
        }
        self.count_step()?;
        if self.path.len() as u64 >= DEPTH {
            return Err(Fault::limit("the number of containers around a tensor", DEPTH + 1, DEPTH));
        }
        self.path.push(id);
        match self.archive.contents.graph.get(id) {
            Value::Tensor(header) => self.found(header)?,
            Value::List(elements) => self.elements(elements)?,
            Value::Tuple(elements) => self.elements(elements)?,
            Value::Dict(entries) => self.entries(entries)?,
            Value::Object(object) => {
                match object.state.map(|id| (id, self.archive.contents.graph.get(id))) {
                    Some((_, Value::Dict(attributes))) => self.attributes(attributes)?,
                    Some((id, _)) => self.visit(id)?,
                    None => {}
                }
                self.entries(&object.entries)?;
                self.elements(&object.elements)?;
            }
            _ => {}
        }
        self.path.pop();
        Ok(())
    }

    fn elements(&mut self, elements: &[Id]) -> Result<(), Fault> {
        elements.iter().enumerate().try_for_each(|(i, &element)| self.named(&i.to_string(), element))
    }

    fn entries(&mut self, entries: &[(Id, Id)]) -> Result<(), Fault> {
        for &(key, value) in entries {
            if self.archive.holds_tensor[value.index()] {
                let key = self.key(key)?;
                self.named(&key, value)?;
            }
        }
        Ok(())
    }

    fn attributes(&mut self, attributes: &[(Id, Id)]) -> Result<(), Fault> {
        let graph = &self.archive.contents.graph;
        for &(key, value) in attributes {
            match (graph.text(key), graph.get(value)) {
                (Some(name), Value::Dict(entries)) if MODULE_TABLES.contains(&name) => self.entries(entries)?,
                _ => self.entries(&[(key, value)])?,
            }
        }
        Ok(())
    }

    fn key(&self, key: Id) -> Result<String, Fault> {
        match self.archive.contents.graph.get(key) {
            Value::Text(text) => Ok(text.to_string()),
            Value::Int(int) => Ok(int.to_string()),
            other => Err(Fault::tensor(&self.name, format!("its key is {}, not a string", other.kind()))),
        }
    }

    fn named(&mut self, part: &str, value: Id) -> Result<(), Fault> {
        self.count_step()?;
        let length = self.name.len();
        let longer = (length + 1 + part.len()) as u64;
        if longer > NAME_BYTES {
            return Err(Fault::limit("the length of a tensor's name", longer, NAME_BYTES));
        }
        if length > 0 {
            self.name.push('.');
        }
        self.name.push_str(part);
        self.visit(value)?;
        self.name.truncate(length);
        Ok(())
    }

    fn found(&mut self, header: &'a TensorHeader) -> Result<(), Fault> {
        self.bytes = self.bytes.saturating_add(header.elements.saturating_mul(header.dtype.size()));
        self.archive.check_size(&format!("all tensors up to {:?}", self.name), self.bytes)?;
        match self.tensors.insert(self.name.clone(), header) {
            None => Ok(()),
            Some(_) => Err(Fault::tensor(&self.name, "two tensors have this name")),
        }
    }

    fn count_step(&mut self) -> Result<(), Fault> {
        self.steps += 1;
        match self.steps <= self.archive.names {
            true => Ok(()),
            false => Err(Fault::limit("the number of names", self.steps, self.archive.names)),
        }
    }
}
