//! EXIF orientation and the random flip, as one way of reading a stored picture.
//!
//! A picture is cropped and resized as it is stored, and only the small square result is turned upright: that moves 256 x 256 pixels
//! instead of millions, and gives the same square, since resizing treats both directions alike.

use image::metadata::Orientation;

/// Where an upright pixel (x, y) lies in the stored picture of width W and height H: with (a, b) = (y, x) if `transpose` else (x, y),
/// at (`flip_x` ? W - 1 - a : a, `flip_y` ? H - 1 - b : b).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Turn {
    transpose: bool,
    flip_x: bool,
    flip_y: bool,
}

/// A box of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rect {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

impl From<Orientation> for Turn {
    fn from(orientation: Orientation) -> Self {
        let (transpose, flip_x, flip_y) = match orientation {
            Orientation::NoTransforms => (false, false, false),
            Orientation::FlipHorizontal => (false, true, false),
            Orientation::Rotate180 => (false, true, true),
            Orientation::FlipVertical => (false, false, true),
            Orientation::Rotate90FlipH => (true, false, false),
            Orientation::Rotate90 => (true, false, true),
            Orientation::Rotate270FlipH => (true, true, true),
            Orientation::Rotate270 => (true, true, false),
        };
        Turn { transpose, flip_x, flip_y }
    }
}

impl Turn {
    /// This turn followed by a horizontal flip of the upright picture.
    pub(crate) fn flipped(self) -> Self {
        Turn { flip_x: self.flip_x ^ !self.transpose, flip_y: self.flip_y ^ self.transpose, ..self }
    }

    /// Width and height of the upright picture, from those of the stored one (or the other way round).
    pub(crate) fn size(self, width: u32, height: u32) -> (u32, u32) {
        if self.transpose { (height, width) } else { (width, height) }
    }

    /// The box in the stored picture (`width` x `height`) that shows what `upright` shows in the upright one.
    pub(crate) fn stored(self, upright: Rect, width: u32, height: u32) -> Rect {
        let mut stored = upright;
        if self.transpose {
            stored = Rect { left: upright.top, top: upright.left, width: upright.height, height: upright.width };
        }
        if self.flip_x {
            stored.left = width - stored.left - stored.width;
        }
        if self.flip_y {
            stored.top = height - stored.top - stored.height;
        }
        stored
    }

    /// Whether stored and upright pictures are the same.
    pub(crate) fn is_none(self) -> bool {
        self == Turn::default()
    }

    /// Writes the upright form of the stored picture `from` (`width` x `height`, RGB) to `to`.
    pub(crate) fn apply(self, from: &[u8], width: u32, height: u32, to: &mut [u8]) {
        let (width, height) = (width as usize, height as usize);
        let (upright_width, _) = if self.transpose { (height, width) } else { (width, height) };
        for (y, row) in to.chunks_exact_mut(upright_width * 3).enumerate() {
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let (a, b) = if self.transpose { (y, x) } else { (x, y) };
                let a = if self.flip_x { width - 1 - a } else { a };
                let b = if self.flip_y { height - 1 - b } else { b };
                let at = (b * width + a) * 3;
                pixel.copy_from_slice(&from[at..at + 3]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, RgbImage};

    const ALL: [Orientation; 8] = [
        Orientation::NoTransforms,
        Orientation::FlipHorizontal,
        Orientation::Rotate180,
        Orientation::FlipVertical,
        Orientation::Rotate90FlipH,
        Orientation::Rotate90,
        Orientation::Rotate270FlipH,
        Orientation::Rotate270,
    ];

    fn numbered(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]))
    }

    #[test]
    fn every_orientation_agrees_with_the_image_crate() {
        for orientation in ALL {
            let stored = numbered(5, 3);
            let mut expected = DynamicImage::from(stored.clone());
            expected.apply_orientation(orientation);
            let turn = Turn::from(orientation);
            let mut upright = vec![0; stored.len()];
            turn.apply(&stored, 5, 3, &mut upright);
            assert_eq!(turn.size(5, 3), (expected.width(), expected.height()));
            assert_eq!(upright, expected.clone().into_rgb8().into_raw());

            let mut flipped = vec![0; stored.len()];
            turn.flipped().apply(&stored, 5, 3, &mut flipped);
            assert_eq!(flipped, expected.fliph().into_rgb8().into_raw());
        }
    }

    #[test]
    fn a_box_of_the_upright_picture_is_found_in_the_stored_one() {
        let upright_box = Rect { left: 1, top: 0, width: 2, height: 3 };
        for orientation in ALL {
            let (width, height) = (5, 4);
            let stored = numbered(width, height);
            let mut expected = DynamicImage::from(stored.clone());
            expected.apply_orientation(orientation);
            let expected = expected.crop_imm(1, 0, 2, 3).into_rgb8().into_raw();

            let turn = Turn::from(orientation);
            let found = turn.stored(upright_box, width, height);
            let cut = DynamicImage::from(stored)
                .crop_imm(found.left, found.top, found.width, found.height)
                .into_rgb8()
                .into_raw();
            let mut upright = vec![0; cut.len()];
            turn.apply(&cut, found.width, found.height, &mut upright);
            assert_eq!(upright, expected, "{orientation:?}");
        }
    }
}
