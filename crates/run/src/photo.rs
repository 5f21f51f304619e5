//! What the commands that look at one picture share: the picture, and what is drawn on it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use simla::inputs::normalized;
use simla::model::Simla;
use simla::tasks::boxes::Bounds;
use simla::tasks::gradcam::{Map, default_layer};
use simla_data::BoxedPicture;
use simla_data::record::MAX_IMAGE_BYTES;
use simla_image::{Limits, RgbImage};
use simla_pictures::heat::{BoxKind, HeatMap, Marked};
use simla_train::torch::guard::guarded;
use tch::{Tensor, no_grad};

/// A picture, for people and for the model.
pub struct Seen {
    /// Upright, at its own size.
    pub picture: RgbImage,
    /// `[1, 3, S, S]`, normalised.
    pub image: Tensor,
}

impl Seen {
    /// Reads the picture for `model`.
    pub fn open(path: &Path, model: &Simla) -> Result<Self> {
        Self::decode(&read(path)?, model).with_context(|| path.display().to_string())
    }

    /// Reads a picture of a file of boxes for `model`.
    pub fn of(boxed: &BoxedPicture, model: &Simla) -> Result<Self> {
        let mut bytes = Vec::new();
        boxed.image.read(&boxed.name, &mut bytes)?;
        Self::decode(&bytes, model).with_context(|| boxed.image.to_string())
    }

    /// The picture in these bytes of a file.
    pub fn decode(bytes: &[u8], model: &Simla) -> Result<Self> {
        let side = model.config.image_size as usize;
        let view = view(bytes, side)?;
        Ok(Self {
            picture: simla_image::decode(bytes, &Limits::default())?,
            image: guarded(|| normalized(&view, 1, side, model.online.device()))?,
        })
    }

    /// E_v's output: `[1, 1 + P, D]`.
    pub fn embeds(&self, model: &Simla) -> Result<Tensor> {
        let (w, vision) = (&model.online, &model.towers.vision);
        Ok(guarded(|| no_grad(|| vision.forward(w, &self.image, None)))?)
    }
}

/// The bytes of a picture's file.
///
/// # Errors
/// A file that cannot be read, or is larger than pictures are.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let read = || -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_IMAGE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_IMAGE_BYTES {
            bail!("larger than the {MAX_IMAGE_BYTES} bytes that are read of a picture");
        }
        Ok(bytes)
    };
    read().with_context(|| path.display().to_string())
}

/// The picture in these bytes of a file as E_v reads it: RGB bytes `[side, side, 3]`.
///
/// # Errors
/// Why they are no picture.
pub fn view(bytes: &[u8], side: usize) -> Result<Vec<u8>> {
    let mut view = vec![0; side * side * 3];
    simla_image::evaluation_view(bytes, side as u32, &Limits::default(), &mut view)?;
    Ok(view)
}

/// The layer of cross-attention that was asked for, or the paper's.
pub fn layer(asked: Option<usize>, model: &Simla) -> Result<usize> {
    let depth = model.config.text_depth;
    let default = default_layer(depth);
    match asked {
        Some(layer) if layer as i64 >= depth => {
            bail!("--layer {layer}: expected 0 to {}, a layer of this model (without the option: {default})", depth - 1)
        }
        layer => Ok(layer.unwrap_or(default)),
    }
}

/// A map of a value a patch, to be drawn.
pub fn heat(map: &Map, model: &Simla) -> HeatMap {
    let grid = model.config.grid() as usize;
    HeatMap::new(grid, grid, map.clone()).expect("a value a patch")
}

/// A box, to be drawn.
pub fn marked(bounds: Bounds, kind: BoxKind) -> Marked {
    Marked { bounds: <[f64; 4]>::from(bounds).map(|v| v as f32), kind }
}
