//! Event files that TensorBoard opens: numbers and pictures by step.
//!
//! A file is a chain of records: length (u64), its masked CRC-32C, the message, its masked
//! CRC-32C, all little-endian (TensorFlow's TFRecord). A resumed run opens a new file in the same
//! folder that tells TensorBoard from which step on older files no longer count.

mod messages;

use crate::canvas::png_bytes;
use crate::error::PicturesError;
use image::RgbImage;
use messages::{Content, Event, Image, SessionLog, SessionStatus, Summary, Value, What};
use prost::Message;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// From this version on, TensorBoard heeds the start of a session.
const FILE_VERSION: &str = "brain.Event:2";

const PREFIX: &str = "events.out.tfevents.";

/// Writes one event file.
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Starts a new event file in `folder`, which is made if need be. With `purge_step`, what older
    /// files in the folder say about that step and later ones is dropped by TensorBoard: give the
    /// first step of a resumed run.
    ///
    /// # Errors
    /// When the folder or file cannot be written.
    pub fn create(folder: &Path, purge_step: Option<u64>) -> Result<Self, PicturesError> {
        fs::create_dir_all(folder).map_err(PicturesError::write(folder))?;
        let number = next_number(folder)?;
        let path = folder.join(format!("{PREFIX}{number:010}.simla"));
        let file = File::create_new(&path).map_err(PicturesError::write(&path))?;
        let file = BufWriter::new(file);
        let mut writer = Self { path, file };
        writer.write(0, What::FileVersion(FILE_VERSION.into()))?;
        if let Some(step) = purge_step {
            let status = SessionStatus::Start.into();
            writer.write(step, What::SessionLog(SessionLog { status }))?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes numbers of one step by name, "loss/itc" for example: TensorBoard groups by what is before the stroke.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn scalars<'a>(
        &mut self,
        step: u64,
        numbers: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<(), PicturesError> {
        let values = numbers
            .into_iter()
            .map(|(tag, number)| Value { tag: tag.into(), content: Some(Content::SimpleValue(number as f32)) });
        let value = values.collect();
        self.write(step, What::Summary(Summary { value }))
    }

    /// Writes a picture.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn image(&mut self, step: u64, tag: &str, picture: &RgbImage) -> Result<(), PicturesError> {
        let image = Image {
            height: picture.height() as i32,
            width: picture.width() as i32,
            colorspace: 3,
            encoded: png_bytes(picture),
        };
        let value = Value { tag: tag.into(), content: Some(Content::Image(image)) };
        self.write(step, What::Summary(Summary { value: vec![value] }))
    }

    /// Hands everything written so far to the system, for TensorBoard to see.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn flush(&mut self) -> Result<(), PicturesError> {
        self.file.flush().map_err(PicturesError::write(&self.path))
    }

    fn write(&mut self, step: u64, what: What) -> Result<(), PicturesError> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = Event {
            wall_time: since_1970.unwrap_or_default().as_secs_f64(),
            step: i64::try_from(step).unwrap_or(i64::MAX),
            what: Some(what),
        };
        let record = framed(&event.encode_to_vec());
        let written = self.file.write_all(&record);
        written.map_err(PicturesError::write(&self.path))
    }
}

/// TensorBoard reads the files of a folder in the order of their names, which begin with a time in
/// seconds: now, or later than every file that is there.
fn next_number(folder: &Path) -> Result<u64, PicturesError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut number = now.unwrap_or_default().as_secs();
    for entry in fs::read_dir(folder).map_err(PicturesError::read(folder))? {
        let name = entry.map_err(PicturesError::read(folder))?.file_name();
        let name = name.to_string_lossy();
        let rest = name.strip_prefix(PREFIX).unwrap_or_default();
        let digits = rest.split('.').next().unwrap_or_default();
        if let Ok(taken) = digits.parse::<u64>() {
            number = number.max(taken.saturating_add(1));
        }
    }
    Ok(number)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(message.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(message);
    record.extend(masked_crc(message).to_le_bytes());
    record
}

/// CRC-32C, rotated and shifted so that a checksum of data that holds checksums stays good.
fn masked_crc(bytes: &[u8]) -> u32 {
    const MASK: u32 = 0xa282_ead8;
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an event file as TensorBoard does: every length and checksum is checked.
    fn events(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).unwrap();
        let mut rest = &bytes[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<8>().unwrap();
            let (check, after) = after.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*check), masked_crc(length));
            let (message, after) = after.split_at(u64::from_le_bytes(*length) as usize);
            let (check, after) = after.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*check), masked_crc(message));
            events.push(Event::decode(message).unwrap());
            rest = after;
        }
        events
    }

    #[test]
    fn checksums_are_those_of_the_format() {
        // The standard check value, and the start of any event file that TensorFlow writes: a
        // first message of 24 bytes.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_crc(&24u64.to_le_bytes()).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), None).unwrap();
        writer.scalars(3, [("loss/itc", 2.5), ("bad", f64::NAN)]).unwrap();
        let picture = RgbImage::from_pixel(5, 4, image::Rgb([1, 2, 3]));
        writer.image(4, "samples", &picture).unwrap();
        writer.flush().unwrap();

        let events = events(writer.path());
        assert_eq!(events[0].what, Some(What::FileVersion(FILE_VERSION.into())));
        let values: Vec<&Value> = events
            .iter()
            .filter_map(|event| match &event.what {
                Some(What::Summary(summary)) => Some(&summary.value),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(values[0].content, Some(Content::SimpleValue(2.5)));
        assert!(matches!(values[1].content, Some(Content::SimpleValue(v)) if v.is_nan()));
        let Some(Content::Image(image)) = &values[2].content else {
            panic!("{:?}", values[2]);
        };
        let decoded = image::load_from_memory(&image.encoded).unwrap().to_rgb8();
        assert_eq!((decoded, image.width, image.height), (picture, 5, 4));
        assert_eq!(events.iter().map(|e| e.step).collect::<Vec<_>>(), [0, 3, 4]);
    }

    #[test]
    fn a_resumed_run_purges_and_its_file_comes_last() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventWriter::create(folder.path(), None).unwrap();
        let second = EventWriter::create(folder.path(), Some(100)).unwrap();
        let third = EventWriter::create(folder.path(), Some(50)).unwrap();
        assert!(first.path() < second.path() && second.path() < third.path());
        let events = events(second.path());
        let started = What::SessionLog(SessionLog { status: 1 });
        assert_eq!((events[1].step, &events[1].what), (100, &Some(started)));
    }

    #[test]
    fn errors_name_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = EventWriter::create(&file.join("events"), None).err().unwrap();
        assert!(error.to_string().contains("file/events"), "{error}");
    }
}
