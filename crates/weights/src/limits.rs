//! How much a file may ask of us. Every limit is far above what the published checkpoints need (the authors' largest
//! has about 2,200 tensors and a pickle of 0.5 MB) and far below what hurts.

/// Bytes of one pickle (the structure around the tensors, not their data).
pub const PICKLE_BYTES: u64 = 64 << 20;
/// Instructions that one pickle may execute, copied elements included.
pub const PICKLE_STEPS: u64 = 2_000_000;
/// Values that the pickles of one file may create.
pub const PICKLE_VALUES: u64 = 1_000_000;
/// Bytes of an integer in a pickle. PyTorch's own magic number has 10.
pub const INTEGER_BYTES: u64 = 64;
/// Bytes of a module or class name in a pickle.
pub const CLASS_NAME_BYTES: u64 = 1 << 10;
/// Bytes read while a zip archive's directory and entry headers are parsed.
pub const ZIP_DIRECTORY_BYTES: u64 = 16 << 20;
/// Entries of a zip archive.
pub const ZIP_ENTRIES: u64 = 100_000;
/// Bytes of the JSON header of a safetensors file.
pub const SAFETENSORS_HEADER_BYTES: u64 = 16 << 20;
/// Dimensions of a tensor.
pub const DIMENSIONS: u64 = 16;
/// Containers around a tensor, hence the number of parts of its dotted name.
pub const DEPTH: u64 = 64;
/// Bytes of a tensor's dotted name.
pub const NAME_BYTES: u64 = 1 << 10;
/// Steps of the walk that gives tensors their dotted names: bounds containers that hold each other many times over.
pub const NAMES: u64 = 200_000;
/// All tensors together may be this many times the file: tied weights are named twice, not a thousand times.
pub const SHARING: u64 = 8;
/// Bytes that tensors may take beyond [`SHARING`] times the file, so that small files may hold broadcast tensors.
pub const SHARING_FLOOR: u64 = 64 << 20;

/// [`PICKLE_BYTES`] of a pickle of data: RefCOCOg's, the longest of REFER's, has some 50 MB in the oldest protocol.
pub const DATA_BYTES: u64 = 256 << 20;
/// [`PICKLE_STEPS`] of one: RefCOCO+'s takes about 6 million.
pub const DATA_STEPS: u64 = 32_000_000;
/// [`PICKLE_VALUES`] of one: RefCOCO+'s has about 2 million.
pub const DATA_VALUES: u64 = 8_000_000;

/// The limits that [`crate::read`] works under; the default is the constants of this module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`PICKLE_BYTES`].
    pub pickle_bytes: u64,
    /// See [`PICKLE_STEPS`].
    pub pickle_steps: u64,
    /// See [`PICKLE_VALUES`].
    pub pickle_values: u64,
    /// See [`ZIP_DIRECTORY_BYTES`].
    pub zip_directory_bytes: u64,
    /// See [`ZIP_ENTRIES`].
    pub zip_entries: u64,
    /// See [`SAFETENSORS_HEADER_BYTES`].
    pub safetensors_header_bytes: u64,
    /// See [`NAMES`].
    pub names: u64,
    /// Whether the instructions of protocols 0 and 1 are read: Python 2 wrote data with them, PyTorch never its files.
    pub old_protocols: bool,
}

impl Limits {
    /// Those of [`crate::read_data`].
    pub fn of_data() -> Self {
        Self {
            pickle_bytes: DATA_BYTES,
            pickle_steps: DATA_STEPS,
            pickle_values: DATA_VALUES,
            old_protocols: true,
            ..Self::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pickle_bytes: PICKLE_BYTES,
            pickle_steps: PICKLE_STEPS,
            pickle_values: PICKLE_VALUES,
            zip_directory_bytes: ZIP_DIRECTORY_BYTES,
            zip_entries: ZIP_ENTRIES,
            safetensors_header_bytes: SAFETENSORS_HEADER_BYTES,
            names: NAMES,
            old_protocols: false,
        }
    }
}
