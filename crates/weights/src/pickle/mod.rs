//! A machine for pickles that only describes: it builds lists, dicts, strings, numbers and tensors, and notes the class
//! names and arguments of everything else. It imports nothing and calls nothing.
//!
//! Understood are the instructions of protocols 2 to 5 that Python's pickler writes for data, and in pickles of data those of
//! protocols 0 and 1 ([`old`]), which no file of PyTorch has. The extension registry is refused.

mod build;
pub(crate) mod graph;
pub(crate) mod input;
mod old;
pub(crate) mod tensor;

use std::collections::HashMap;
use std::io::BufRead;

use crate::error::Fault;
use crate::limits::{CLASS_NAME_BYTES, INTEGER_BYTES, Limits};
use graph::{Class, Graph, Id, Value};
use input::Input;

/// Reads one pickle up to its STOP and returns the value that it describes, added to `graph`.
pub(crate) fn read<R: BufRead>(input: &mut Input<R>, graph: &mut Graph, limits: &Limits) -> Result<Id, Fault> {
    input.begin_pickle();
    Machine { input, graph, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), steps: 0, limits }.run()
}

struct Machine<'a, R> {
    input: &'a mut Input<R>,
    graph: &'a mut Graph,
    stack: Vec<Id>,
    /// Heights of the stack where a MARK was set.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    steps: u64,
    limits: &'a Limits,
}

impl<R: BufRead> Machine<'_, R> {
    fn run(mut self) -> Result<Id, Fault> {
        loop {
            self.charge(1)?;
            let opcode = self.input.byte()?;
            if opcode == b'.' {
                return match self.stack[..] {
                    [value] if self.marks.is_empty() => Ok(value),
                    _ => Err(self.input.fault(format!("it stops with {} values instead of one", self.stack.len()))),
                };
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            0x80 => match self.input.byte()? {
                2..=5 => Ok(()),
                version => Err(self.input.fault(format!("protocol {version}, expected 2 to 5"))),
            },
            0x95 => self.input.array::<8>().map(drop), // FRAME: a hint for buffering
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }

            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let bytes = self.input.array()?;
                self.push(Value::Int(i32::from_le_bytes(bytes).into()))
            }
            b'K' => {
                let byte = self.input.byte()?;
                self.push(Value::Int(byte.into()))
            }
            b'M' => {
                let bytes = self.input.array()?;
                self.push(Value::Int(u16::from_le_bytes(bytes).into()))
            }
            0x8a => {
                let length = self.input.byte()?;
                self.long(length.into())
            }
            0x8b => {
                let length = i32::from_le_bytes(self.input.array()?);
                let length =
                    u64::try_from(length).map_err(|_| self.input.fault(format!("an integer of {length} bytes")))?;
                self.long(length)
            }
            b'G' => {
                let bytes = self.input.array()?;
                self.push(Value::Float(f64::from_be_bytes(bytes)))
            }

            b'X' => self.text(u32_length),
            0x8c => self.text(u8_length),
            0x8d => self.text(u64_length),
            b'B' => self.bytes(u32_length),
            b'C' => self.bytes(u8_length),
            0x8e | 0x96 => self.bytes(u64_length),
            // Strings of Python 2: text if it is UTF-8.
            b'T' => self.bytes_or_text(u32_length),
            b'U' => self.bytes_or_text(u8_length),

            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let elements = self.pop_mark()?;
                self.push(Value::List(elements))
            }
            b'a' => {
                let element = self.pop()?;
                self.extend(vec![element])
            }
            b'e' | 0x90 => {
                let elements = self.pop_mark()?;
                self.extend(elements)
            }
            b')' => self.tuple(Vec::new()),
            b't' => {
                let elements = self.pop_mark()?;
                self.tuple(elements)
            }
            0x85..=0x87 => {
                let mut elements = Vec::new();
                for _ in 0..=opcode - 0x85 {
                    elements.insert(0, self.pop()?);
                }
                self.tuple(elements)
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let elements = self.pop_mark()?;
                let entries = self.entries(elements)?;
                self.push(Value::Dict(entries))
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_entries(vec![(key, value)])
            }
            b'u' => {
                let elements = self.pop_mark()?;
                let entries = self.entries(elements)?;
                self.set_entries(entries)
            }
            0x8f => self.push(Value::Set(Vec::new())),
            0x91 => {
                let elements = self.pop_mark()?;
                self.push(Value::Set(elements))
            }

            b'h' => {
                let index = self.input.byte()?;
                self.get(index.into())
            }
            b'j' => {
                let index = u32::from_le_bytes(self.input.array()?);
                self.get(index)
            }
            b'q' => {
                let index = self.input.byte()?;
                self.put(index.into())
            }
            b'r' => {
                let index = u32::from_le_bytes(self.input.array()?);
                self.put(index)
            }
            0x94 => self.put(self.memo.len() as u32),

            b'c' => {
                let module = self.input.line("a module name", CLASS_NAME_BYTES)?;
                let name = self.input.line("a class name", CLASS_NAME_BYTES)?;
                self.push(Value::Class(Box::new(Class { module, name })))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(module), Some(name)) = (self.graph.text(module), self.graph.text(name)) else {
                    return Err(self.input.fault("a class whose module or name is not a string"));
                };
                let longest = module.len().max(name.len()) as u64;
                if longest > CLASS_NAME_BYTES {
                    return Err(Fault::limit("the length of a class name", longest, CLASS_NAME_BYTES));
                }
                let copied = (module.len() + name.len()) as u64;
                let class = Class { module: module.into(), name: name.into() };
                self.charge(copied)?;
                self.push(Value::Class(Box::new(class)))
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, arguments)
            }
            0x92 => {
                let (_keywords, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(class, arguments)
            }
            b'b' => self.set_state(),
            b'Q' => {
                let id = self.pop()?;
                let value = build::persistent(self.graph, id)?;
                self.stack.push(value);
                Ok(())
            }
            old if self.limits.old_protocols && old::INSTRUCTIONS.contains(&old) => self.old_step(old),
            other => Err(self
                .input
                .fault(format!("instruction 0x{other:02x}, which no checkpoint needs (or the file is damaged)"))),
        }
    }

    fn charge(&mut self, steps: u64) -> Result<(), Fault> {
        self.steps += steps;
        match self.steps <= self.limits.pickle_steps {
            true => Ok(()),
            false => Err(Fault::limit("the number of instructions", self.steps, self.limits.pickle_steps)),
        }
    }

    fn push(&mut self, value: Value) -> Result<(), Fault> {
        self.stack.push(self.graph.add(value)?);
        Ok(())
    }

    /// The height of the stack below which the current instructions may not reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, Fault> {
        match self.stack.last() {
            Some(&top) if self.stack.len() > self.floor() => Ok(top),
            _ => Err(self.input.fault("an instruction that needs a value where there is none")),
        }
    }

    fn pop(&mut self) -> Result<Id, Fault> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, Fault> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err(self.input.fault("an instruction that needs a mark where there is none")),
        }
    }

    fn get(&mut self, index: u32) -> Result<(), Fault> {
        match self.memo.get(&index) {
            Some(&id) => {
                self.stack.push(id);
                Ok(())
            }
            None => Err(self.input.fault(format!("value {index} is used before it is stored"))),
        }
    }

    fn put(&mut self, index: u32) -> Result<(), Fault> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn long(&mut self, length: u64) -> Result<(), Fault> {
        if length > INTEGER_BYTES {
            return Err(Fault::limit("the length of an integer", length, INTEGER_BYTES));
        }
        let bytes = self.input.bytes("an integer", length)?;
        if bytes.len() > 8 {
            return self.push(Value::Long);
        }
        let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut word = [sign; 8];
        word[..bytes.len()].copy_from_slice(&bytes);
        self.push(Value::Int(i64::from_le_bytes(word)))
    }

    fn text(&mut self, length: fn(&mut Input<R>) -> Result<u64, Fault>) -> Result<(), Fault> {
        let length = length(self.input)?;
        let text = self.input.text("a string", length)?;
        self.push(Value::Text(text))
    }

    fn bytes(&mut self, length: fn(&mut Input<R>) -> Result<u64, Fault>) -> Result<(), Fault> {
        let length = length(self.input)?;
        self.input.bytes("a string of bytes", length)?;
        self.push(Value::Bytes)
    }

    fn bytes_or_text(&mut self, length: fn(&mut Input<R>) -> Result<u64, Fault>) -> Result<(), Fault> {
        let length = length(self.input)?;
        let bytes = self.input.bytes("a string", length)?;
        self.push(match String::from_utf8(bytes) {
            Ok(text) => Value::Text(text.into()),
            Err(_) => Value::Bytes,
        })
    }

    fn tuple(&mut self, elements: Vec<Id>) -> Result<(), Fault> {
        self.push(Value::Tuple(elements.into()))
    }

    /// Pairs up keys and values.
    fn entries(&self, elements: Vec<Id>) -> Result<Vec<(Id, Id)>, Fault> {
        let (pairs, rest) = elements.as_chunks::<2>();
        match rest {
            [] => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
            _ => Err(self.input.fault("a key without a value")),
        }
    }

    /// Adds elements to the list, set or object on top of the stack.
    fn extend(&mut self, mut elements: Vec<Id>) -> Result<(), Fault> {
        let target = self.top()?;
        match self.graph.get_mut(target) {
            Value::List(list) | Value::Set(list) => list.append(&mut elements),
            Value::Object(object) => object.elements.append(&mut elements),
            other => {
                let kind = other.kind();
                return Err(self.input.fault(format!("elements for {kind}")));
            }
        }
        Ok(())
    }

    /// Adds entries to the dict or object on top of the stack.
    fn set_entries(&mut self, mut entries: Vec<(Id, Id)>) -> Result<(), Fault> {
        let target = self.top()?;
        match self.graph.get_mut(target) {
            Value::Dict(dict) => dict.append(&mut entries),
            Value::Object(object) => object.entries.append(&mut entries),
            other => {
                let kind = other.kind();
                return Err(self.input.fault(format!("entries for {kind}")));
            }
        }
        Ok(())
    }

    fn call(&mut self, callable: Id, arguments: Id) -> Result<(), Fault> {
        let (value, copied) =
            build::call(self.graph, callable, arguments).map_err(|problem| self.input.fault(problem))?;
        self.charge(copied)?;
        self.stack.push(value);
        Ok(())
    }

    fn set_state(&mut self) -> Result<(), Fault> {
        let (state, target) = (self.pop()?, self.top()?);
        match self.graph.get_mut(target) {
            Value::Object(object) => object.state = Some(state),
            // Attributes of a dict (a state dict's `_metadata`) or of a tensor mean nothing to us.
            Value::Dict(_) | Value::Tensor(_) => {}
            other => {
                let kind = other.kind();
                return Err(self.input.fault(format!("attributes for {kind}")));
            }
        }
        Ok(())
    }
}

fn u8_length<R: BufRead>(input: &mut Input<R>) -> Result<u64, Fault> {
    Ok(input.byte()?.into())
}

fn u32_length<R: BufRead>(input: &mut Input<R>) -> Result<u64, Fault> {
    Ok(u32::from_le_bytes(input.array()?).into())
}

fn u64_length<R: BufRead>(input: &mut Input<R>) -> Result<u64, Fault> {
    Ok(u64::from_le_bytes(input.array()?))
}
