//! safetensors: a JSON header with the name, type, shape and place of each tensor, then their bytes.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use safetensors::tensor::Metadata;

use super::{Contents, Place};
use crate::error::Fault;
use crate::limits::{DIMENSIONS, Limits};
use crate::pickle::graph::{Graph, Storage, Value};
use crate::pickle::tensor::TensorHeader;
use crate::tensor::DType;

pub(super) fn parse(mut file: &File, length: u64, limits: &Limits) -> Result<Contents, Fault> {
    let mut reader = BufReader::new(file);
    let mut header_length = [0; 8];
    reader.read_exact(&mut header_length)?;
    let header_length = u64::from_le_bytes(header_length);
    if header_length > limits.safetensors_header_bytes {
        return Err(Fault::limit("the length of the header", header_length, limits.safetensors_header_bytes));
    }
    let data = 8 + header_length;
    if data > length {
        return Err(Fault::truncated("the safetensors header", header_length, length.saturating_sub(8)));
    }
    // The library checks that the tensors lie one after the other without gaps, each as long as its shape.
    let metadata: Metadata = serde_json::from_reader((&mut reader).take(header_length))
        .map_err(|error| Fault::Safetensors(error.to_string()))?;
    let declared = metadata.data_len() as u64;
    if declared != length - data {
        return Err(Fault::truncated("the tensors' data", declared, length - data));
    }

    let mut graph = Graph::new(limits.pickle_values);
    let (mut places, mut entries) = (Vec::new(), Vec::new());
    for (name, info) in metadata.tensors() {
        let dtype = DType::from_safetensors(info.dtype)
            .ok_or_else(|| Fault::tensor(&name, format!("elements of type {:?} are not supported", info.dtype)))?;
        let shape: Vec<u64> = info.shape.iter().map(|&size| size as u64).collect();
        if shape.len() as u64 > DIMENSIONS {
            return Err(Fault::limit(format!("the dimensions of tensor {name:?}"), shape.len() as u64, DIMENSIONS));
        }
        let elements = shape.iter().product(); // does not overflow: checked by the library
        let key = graph.add(Value::Text(name.as_str().into()))?;
        let storage = graph.declare(Storage { key: name.into(), dtype, elements })?;
        places.push(Place { offset: data + info.data_offsets.0 as u64, crc32: None });
        let header = TensorHeader::whole(&graph, storage, shape)?;
        entries.push((key, graph.add(Value::Tensor(Box::new(header)))?));
    }
    let root = graph.add(Value::Dict(entries))?;
    file.seek(SeekFrom::Start(0))?;
    Ok(Contents { graph, root, places, big_endian: false })
}
