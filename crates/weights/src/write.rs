//! Weights as `torch.save` writes them, for programs that read nothing else.

use std::io::{self, Seek, Write};

use zip::write::{SimpleFileOptions, ZipWriter};

use crate::tensor::{DType, Tensor};

/// A tensor to be written, before its bytes are asked for.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its name in the state dict.
    pub name: String,
    /// Type of the elements.
    pub dtype: DType,
    /// Size of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
}

/// Writes `{key: {name: tensor, ...}}` as a file of PyTorch (since 1.6), which `torch.load` reads, also with `weights_only=True`. The
/// bytes of each tensor are asked for when its turn comes.
///
/// # Errors
/// What the system said.
///
/// # Panics
/// When `load` gives a tensor of another size than was declared.
pub fn write_torch(
    out: impl Write + Seek,
    key: &str,
    tensors: &[Declared],
    mut load: impl FnMut(&Declared) -> Tensor,
) -> io::Result<()> {
    let mut zip = ZipWriter::new(out);
    // What `torch.save` calls the folder of a file that it is not told the name of.
    let mut entry = |name: &str, bytes: &[u8]| -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .large_file(bytes.len() as u64 >= u64::from(u32::MAX));
        zip.start_file(format!("archive/{name}"), options)?;
        zip.write_all(bytes)
    };
    entry("data.pkl", &structure(key, tensors))?;
    entry("byteorder", b"little")?;
    for (index, declared) in tensors.iter().enumerate() {
        let tensor = load(declared);
        assert_eq!(tensor.bytes.len() as u64, elements(declared) * declared.dtype.size(), "{}", declared.name);
        entry(&format!("data/{index}"), &tensor.bytes)?;
    }
    entry("version", b"3\n")?;
    zip.finish()?.flush()
}

fn elements(declared: &Declared) -> u64 {
    declared.shape.iter().product::<usize>() as u64
}

/// `data.pkl`: a pickle of protocol 2 that builds the dict.
fn structure(key: &str, tensors: &[Declared]) -> Vec<u8> {
    let mut pickle = Pickle(vec![0x80, 2]);
    pickle.push(b"}(");
    pickle.text(key);
    pickle.push(b"}(");
    for (index, declared) in tensors.iter().enumerate() {
        pickle.text(&declared.name);
        // torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)
        pickle.push(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        // The storage's persistent id: ("storage", type, key, device, elements).
        pickle.text("storage");
        pickle.push(format!("ctorch\n{}\n", declared.dtype.storage_class()).as_bytes());
        pickle.text(&index.to_string());
        pickle.text("cpu");
        pickle.int(elements(declared));
        pickle.push(b"tQ");
        pickle.int(0);
        let mut strides = vec![1; declared.shape.len()];
        for i in (1..strides.len()).rev() {
            strides[i - 1] = strides[i] * declared.shape[i] as u64;
        }
        pickle.tuple(declared.shape.iter().map(|&size| size as u64));
        pickle.tuple(strides.into_iter());
        pickle.push(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.push(b"uu.");
    pickle.0
}

/// The few instructions that are needed.
struct Pickle(Vec<u8>);

impl Pickle {
    fn push(&mut self, instructions: &[u8]) {
        self.0.extend_from_slice(instructions);
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.push(&(text.len() as u32).to_le_bytes());
        self.push(text.as_bytes());
    }

    fn int(&mut self, int: u64) {
        match i32::try_from(int) {
            Ok(int) => {
                self.0.push(b'J');
                self.push(&int.to_le_bytes());
            }
            // LONG1 of nine bytes, the last one for the sign.
            Err(_) => {
                self.push(&[0x8a, 9]);
                self.push(&int.to_le_bytes());
                self.0.push(0);
            }
        }
    }

    fn tuple(&mut self, ints: impl Iterator<Item = u64>) {
        self.0.push(b'(');
        ints.for_each(|int| self.int(int));
        self.0.push(b't');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    #[test]
    fn what_is_written_is_read() {
        let float = |shape: &[usize], values: &[f32]| Tensor {
            dtype: DType::F32,
            shape: shape.into(),
            bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        let all = [
            ("a.weight", float(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, -5.0])),
            ("temp", float(&[], &[0.07])),
            ("empty", float(&[0, 4], &[])),
            ("ids", Tensor { dtype: DType::I64, shape: vec![1, 2], bytes: [[7; 8], [0; 8]].concat() }),
            ("half", Tensor { dtype: DType::F16, shape: vec![3], bytes: vec![0, 60, 0, 64, 0, 66] }),
        ];
        let declared = |(name, tensor): &(&str, Tensor)| Declared {
            name: (*name).into(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
        };
        let declared: Vec<Declared> = all.iter().map(declared).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        let of = |wanted: &Declared| all.iter().find(|(name, _)| *name == wanted.name).unwrap().1.clone();
        write_torch(file.as_file(), "model", &declared, of).unwrap();

        let archive = crate::read(file.path(), &Limits::default()).unwrap();
        let model = archive.root().get("model").unwrap().tensors().unwrap();
        assert_eq!(model.len(), all.len());
        for (name, tensor) in &all {
            assert_eq!(model[*name].load().unwrap(), *tensor, "{name}");
        }
    }

    #[test]
    fn integers_of_every_size() {
        let bytes = |int| {
            let mut pickle = Pickle(vec![]);
            pickle.int(int);
            pickle.0
        };
        assert_eq!(bytes(258), [b'J', 2, 1, 0, 0]);
        assert_eq!(bytes(1 << 31), [0x8a, 9, 0, 0, 0, 0x80, 0, 0, 0, 0, 0]);
    }
}
