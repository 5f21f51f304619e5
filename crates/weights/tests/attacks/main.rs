//! Files made to hurt: each attack by name, with its outcome. All end within a second and in bounded memory.

mod damage;
mod make;
mod pickles;
mod safetensors;
mod streams;
mod tensors;
mod zips;

use std::io::Write;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use simla_weights::{Archive, Fault, Limits, Node, ReadError, TensorRef, read};

/// Counts the memory of all tests of this program together, which run at the same time.
#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

const LONGEST: Duration = Duration::from_secs(1);
const MOST_MEMORY: usize = 512 << 20;

/// What came of an attack: the archive, or the refusal.
type Outcome = Result<Archive, ReadError>;

/// Reads a file of these bytes, with a look at the clock and at the memory.
fn attack(bytes: &[u8]) -> Outcome {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    within_bounds(|| read(file.path(), &Limits::default()))
}

fn within_bounds<T>(run: impl FnOnce() -> T) -> T {
    let start = busy();
    let result = run();
    let (time, memory) = (busy() - start, MEMORY.peak_usage());
    assert!(time < LONGEST, "took {time:?}");
    assert!(memory < MOST_MEMORY, "took {} MiB", memory >> 20);
    result
}

/// Processor time of this thread: other tests and programs run at the same time.
fn busy() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// The message of a refusal, without the file's name.
#[track_caller]
fn refused<T>(outcome: Result<T, ReadError>) -> String {
    match outcome {
        Ok(_) => panic!("accepted"),
        Err(error) => error.fault.to_string(),
    }
}

/// Asserts that an attack is refused with a message that has `words` in it.
#[track_caller]
fn refused_with<T>(outcome: Result<T, ReadError>, words: &str) {
    let message = refused(outcome);
    assert!(message.contains(words), "expected {words:?} in {message:?}");
}

/// Asserts that a file is cut off, as far as the reader can tell.
fn is_truncated(outcome: &Outcome) -> bool {
    matches!(outcome, Err(error) if matches!(error.fault, Fault::Truncated { .. }))
}

/// Everything that a caller can do with an archive: walks it, names its tensors and loads them.
fn use_all(archive: &Archive) -> Result<usize, ReadError> {
    let mut count = 0;
    visit(archive.root(), 8, &mut 10_000);
    for tensor in archive.tensors()?.values() {
        load(tensor)?;
        count += 1;
    }
    Ok(count)
}

fn load(tensor: &TensorRef) -> Result<(), ReadError> {
    let loaded = tensor.load()?;
    let elements: usize = loaded.shape.iter().product();
    assert_eq!(loaded.bytes.len() as u64, elements as u64 * loaded.dtype.size());
    assert_eq!(loaded.to_f32().len(), elements);
    assert!(loaded.to_i64().is_none_or(|ints| ints.len() == elements));
    Ok(())
}

fn visit(node: Node, depth: usize, budget: &mut usize) {
    if depth == 0 || *budget == 0 {
        return;
    }
    *budget -= 1;
    let _ = (node.kind(), node.class(), node.as_str(), node.as_bool(), node.as_f64());
    if let Some(tensor) = node.as_tensor() {
        let _ = tensor.load();
    }
    for (key, value) in node.entries() {
        visit(key, depth - 1, budget);
        visit(value, depth - 1, budget);
    }
    for element in node.elements() {
        visit(element, depth - 1, budget);
    }
}
