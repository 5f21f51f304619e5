//! Pictures: read, made small, and what a request brings of its own.
//!
//! Decoding is bounded: so many at a time, the rest waits in a line of its own length. What is uploaded is never written anywhere.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::{HeaderMap, StatusCode, header};
use image::codecs::jpeg::JpegEncoder;
use simla_image::{Limits, evaluation_view, size};
use simla_pictures::canvas::fit;
use tokio::sync::Semaphore;

use crate::engine::PATIENCE;
use crate::refusal::Refusal;

/// The largest picture that may be sent, in bytes.
pub(crate) const MAX_UPLOAD: usize = 32 << 20;
/// How long it may take to send one.
const MAX_SENDING: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });
/// Pictures that are being sent at a time: their bytes are in memory.
const SENDING: usize = 8;
/// Work on pictures that may wait.
const WAITING: usize = 128;
/// Longest side of a small picture, and the quality of its JPEG.
pub(crate) const SIDE: u32 = 320;
const QUALITY: u8 = 80;
/// Bytes of small pictures that are kept.
const KEPT: usize = 64 << 20;

/// A picture, as the model reads it.
#[derive(Debug, PartialEq)]
pub struct View {
    /// RGB bytes `[S, S, 3]`.
    pub pixels: Vec<u8>,
    /// Of the upright picture.
    pub width: u32,
    pub height: u32,
}

impl View {
    /// The picture in these bytes of a file, for a model with views of `side` pixels.
    ///
    /// # Errors
    /// If they are no picture, or one beyond the limits.
    pub fn of(bytes: &[u8], side: usize) -> Result<Self, simla_image::ImageError> {
        let (width, height) = size(bytes, &Limits::default())?;
        let mut pixels = vec![0; side * side * 3];
        evaluation_view(bytes, side as u32, &Limits::default(), &mut pixels)?;
        Ok(Self { pixels, width, height })
    }
}

/// The small form of a picture, a JPEG.
///
/// # Errors
/// If the bytes are no picture, or one beyond the limits.
pub(crate) fn small(bytes: &[u8]) -> Result<Vec<u8>, simla_image::ImageError> {
    let picture = simla_image::decode(bytes, &Limits::default())?;
    let picture = fit(&picture, SIDE.min(picture.width().max(picture.height())));
    let mut jpeg = Vec::new();
    let encoded = JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(&picture);
    encoded.expect("a picture of this size is a JPEG, and memory takes it");
    Ok(jpeg)
}

/// The type of a picture's file, by its first bytes: what else it may be, no browser is told so.
pub(crate) fn kind(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// Where pictures are worked on.
pub struct Workshop {
    /// Turns at a processor.
    turns: Semaphore,
    /// Places in the line, and at a processor.
    line: Semaphore,
    sending: Semaphore,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    all: VecDeque<(String, Bytes)>,
    bytes: usize,
}

impl Default for Workshop {
    fn default() -> Self {
        let turns = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            turns: Semaphore::new(turns),
            line: Semaphore::new(turns + WAITING),
            sending: Semaphore::new(SENDING),
            kept: Mutex::default(),
        }
    }
}

impl Workshop {
    /// Work that takes a processor or waits for a disk.
    ///
    /// # Errors
    /// If too much waits, or the work's own.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let _place = self.line.try_acquire().map_err(|_| Refusal::busy())?;
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await;
        let _turn = turn.map_err(|_| Refusal::late())?.map_err(|_| Refusal::closing())?;
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Refusal::defect()))
    }

    /// The picture that a request brings.
    ///
    /// # Errors
    /// If it says that it is something else, is too large, is sent too slowly, or too many are being sent.
    pub async fn sent(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("image/") && kind != "application/octet-stream" {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format_args!("a body of type {kind:?}; expected a picture, as image/jpeg, image/png or image/webp"),
            ));
        }
        let _place = self.sending.try_acquire().map_err(|_| Refusal::busy())?;
        body_of(body, MAX_UPLOAD).await
    }

    /// The small form of a picture that is called `key`, made by `read` where it is not at hand.
    ///
    /// # Errors
    /// Of the reading.
    pub async fn small(
        self: &Arc<Self>,
        key: String,
        read: impl FnOnce() -> Result<Vec<u8>, Refusal> + Send + 'static,
    ) -> Result<Bytes, Refusal> {
        let known = self.lock().all.iter().find(|(name, _)| *name == key).map(|(_, bytes)| bytes.clone());
        if let Some(bytes) = known {
            return Ok(bytes);
        }
        let made = self.work(move || small(&read()?).map_err(unusable)).await?;
        let bytes = Bytes::from(made);
        let mut kept = self.lock();
        kept.bytes += bytes.len();
        kept.all.push_back((key, bytes.clone()));
        while kept.bytes > KEPT {
            let Some((_, old)) = kept.all.pop_front() else { break };
            kept.bytes -= old.len();
        }
        Ok(bytes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A whole body of at most `limit` bytes, which comes in time.
///
/// # Errors
/// If it is larger, slower or cut.
pub(crate) async fn body_of(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("a body of more than the {limit} bytes that are taken");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    // What says itself that it is too large is not waited for.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(MAX_SENDING, to_bytes(body, limit)).await {
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format_args!("the body was not sent within {} seconds", MAX_SENDING.as_secs()),
        )),
        Ok(Err(error)) => {
            let limited = std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("length limit"));
            Err(if limited { too_large() } else { Refusal::request(format_args!("the body cannot be read: {error}")) })
        }
        Ok(Ok(bytes)) => Ok(bytes),
    }
}

/// What is no usable picture.
pub(crate) fn unusable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, format_args!("the picture cannot be used: {error}"))
}
