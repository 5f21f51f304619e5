//! The few calls that tensors need. Any other call only notes which class was meant.

use super::graph::{Class, Graph, Id, Object, Storage, StorageView, Value};
use super::tensor::{TensorHeader, sizes};
use crate::error::Fault;
use crate::limits::DIMENSIONS;
use crate::tensor::DType;

/// What calling `callable` with `arguments` (a tuple) stands for. Returns the value and how many elements were copied,
/// so that the caller can charge for them.
pub(super) fn call(graph: &mut Graph, callable: Id, arguments: Id) -> Result<(Id, u64), String> {
    let Value::Tuple(arguments) = graph.get(arguments) else {
        return Err(format!("the arguments of a call are {}, not a tuple", graph.get(arguments).kind()));
    };
    let arguments: Vec<Id> = arguments.to_vec();
    let copied = arguments.len() as u64;
    let opaque = |graph: &mut Graph| add(graph, opaque(callable));
    let Some(Class { module, name }) = graph.class(callable) else {
        return Ok((opaque(graph)?, copied));
    };
    let value = match (&**module, &**name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => match tensor(graph, &arguments)? {
            Some(header) => add(graph, Value::Tensor(Box::new(header)))?,
            None => opaque(graph)?,
        },
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => match arguments.first() {
            Some(&data) if matches!(graph.get(data), Value::Tensor(_) | Value::Object(_)) => data,
            Some(&data) => return Err(format!("a parameter of {}", graph.get(data).kind())),
            None => return Err("a parameter of nothing".into()),
        },
        // A subclass of Tensor: (function that rebuilds the tensor, its type, that function's arguments, state).
        ("torch._tensor", "_rebuild_from_type_v2") => match arguments[..] {
            [function, _, inner, _] if graph.class(function).is_some_and(|c| &*c.module == "torch._utils") => {
                return call(graph, function, inner);
            }
            _ => opaque(graph)?,
        },
        ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => {
            let entries = pairs(graph, &arguments)?;
            let copied = copied + entries.len() as u64;
            return Ok((add(graph, Value::Dict(entries))?, copied));
        }
        ("collections", "defaultdict") => add(graph, Value::Dict(Vec::new()))?,
        ("torch", "Size") if arguments.len() == 1 => arguments[0],
        _ => opaque(graph)?,
    };
    Ok((value, copied))
}

/// An instance of a class that is not run.
pub(super) fn opaque(class: Id) -> Value {
    Value::Object(Box::new(Object { class, state: None, entries: Vec::new(), elements: Vec::new() }))
}

/// What a persistent id stands for: a storage `("storage", class, key, location, elements[, view])`, or a module's
/// class `("module", class, source file, source)`. A storage of a type that we do not know gives an opaque object.
pub(super) fn persistent(graph: &mut Graph, id: Id) -> Result<Id, Fault> {
    let wrong = |problem: &str| Fault::tensor("(persistent id)", problem);
    let parts = match graph.get(id) {
        Value::Tuple(parts) if parts.len() <= 6 => parts.to_vec(),
        Value::Tuple(parts) => return Err(wrong(&format!("it has {} parts", parts.len()))),
        other => return Err(wrong(&format!("it is {}, not a tuple", other.kind()))),
    };
    match (parts.first().and_then(|&tag| graph.text(tag)), &parts[..]) {
        (Some("module"), [_, class, ..]) => Ok(*class),
        (Some("storage"), [_, class, key, _, elements, view @ ..]) if view.len() <= 1 => {
            let key = graph.text(*key).ok_or_else(|| wrong("the storage's key is not a string"))?;
            let class_name = match graph.get(*class) {
                Value::Class(class) if &*class.module == "torch" => &*class.name,
                Value::Class(_) => "",
                other => {
                    return Err(wrong(&format!("the storage's type is {}, not a class", other.kind())));
                }
            };
            let Some(dtype) = DType::from_storage_class(class_name) else {
                return graph.add(opaque(*class));
            };
            let elements = graph
                .int(*elements)
                .and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| wrong("the storage's number of elements is not an integer from 0"))?;
            let storage = Storage { key: key.into(), dtype, elements };
            let storage = graph.declare(storage)?;
            let (offset, elements) = match view.first().map(|&view| (view, graph.get(view))) {
                None | Some((_, Value::None)) => (0, elements),
                Some((view, _)) => part_of_storage(graph, view, elements)
                    .ok_or_else(|| wrong("the view of the storage is not (key, offset, size) inside it"))?,
            };
            graph.add(Value::Storage(StorageView { storage, offset, elements }))
        }
        _ => Err(wrong("neither a storage nor a module")),
    }
}

/// Offset and size from a view `(key, offset, size)` of a storage (files written before PyTorch 0.4).
fn part_of_storage(graph: &Graph, view: Id, elements: u64) -> Option<(u64, u64)> {
    let &[_, offset, size] = graph.sequence(view)? else {
        return None;
    };
    let offset = u64::try_from(graph.int(offset)?).ok()?;
    let size = u64::try_from(graph.int(size)?).ok()?;
    (offset.checked_add(size)? <= elements).then_some((offset, size))
}

/// `(storage, offset, size, stride, ...)`; `None` when the storage is of a type that we do not know.
fn tensor(graph: &Graph, arguments: &[Id]) -> Result<Option<TensorHeader>, String> {
    let [storage, offset, size, stride, ..] = *arguments else {
        return Err(format!("a tensor from {} arguments", arguments.len()));
    };
    let view = match graph.get(storage) {
        Value::Storage(view) => *view,
        Value::Object(_) => return Ok(None),
        other => return Err(format!("a tensor on {}, not on a storage", other.kind())),
    };
    let offset = graph
        .int(offset)
        .and_then(|offset| u64::try_from(offset).ok())
        .ok_or("a tensor's offset is not an integer from 0")?;
    let shape = sizes(graph, size)
        .ok_or_else(|| format!("a tensor's shape is not a tuple of at most {DIMENSIONS} integers from 0"))?;
    let strides = sizes(graph, stride)
        .ok_or_else(|| format!("a tensor's strides are not a tuple of at most {DIMENSIONS} integers from 0"))?;
    TensorHeader::new(graph, view, offset, shape, strides).map(Some).map_err(|fault| fault.to_string())
}

/// The entries of `dict(pairs)`; none when called without arguments.
fn pairs(graph: &Graph, arguments: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    let Some(&list) = arguments.first() else {
        return Ok(Vec::new());
    };
    let list = graph.sequence(list).ok_or("a dict of something other than pairs")?;
    list.iter()
        .map(|&pair| match graph.sequence(pair) {
            Some(&[key, value]) => Ok((key, value)),
            _ => Err("a dict of something other than pairs".into()),
        })
        .collect()
}

fn add(graph: &mut Graph, value: Value) -> Result<Id, String> {
    graph.add(value).map_err(|fault| fault.to_string())
}
