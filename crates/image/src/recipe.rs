//! The training view of a photograph and its half-size twin; the evaluation view.

use fast_image_resize::Resizer;
use image::RgbImage;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::decoder::Decoder;
use crate::error::ImageError;
use crate::limits::Limits;
use crate::operations::{Operation, Sign, copy};
use crate::resize::resize;
use crate::turn::Rect;
use crate::views;

/// Tries to fit a random box into the picture before the central square is taken.
const TRIES: usize = 10;
/// Working memory that a worker keeps from picture to picture, in bytes a buffer: a giant among them must not hold
/// its memory for days. Photographs of 20 megapixels are usual.
const KEPT: usize = 64 << 20;
/// Operations drawn for each view.
const OPERATIONS: usize = 2;

/// How training views are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Side of the view in pixels; even.
    pub side: u32,
    /// Whether the whole picture is shown, resized as it may be, in place of a crop.
    pub whole: bool,
    /// Share of the picture's area that a crop covers, from and to.
    pub scale: (f64, f64),
    /// Width over height of a crop, from and to, drawn log-uniformly.
    pub ratio: (f64, f64),
    /// Whether half of the views are mirrored.
    pub flip: bool,
    /// Whether RandAugment's operations are applied.
    pub augment: bool,
    /// What a picture may declare.
    pub limits: Limits,
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            side: 256,
            whole: false,
            scale: (0.2, 1.0),
            ratio: (3.0 / 4.0, 4.0 / 3.0),
            flip: true,
            augment: true,
            limits: Limits::default(),
        }
    }
}

/// Working memory of one worker, kept from picture to picture.
#[derive(Default)]
pub struct Scratch {
    pixels: Vec<u8>,
    spare: Vec<u8>,
    resizer: Resizer,
}

impl Scratch {
    /// Gives back what an unusually large picture took.
    fn trim(&mut self) {
        if self.pixels.capacity() > KEPT {
            self.pixels = Vec::new();
        }
        if self.resizer.size_of_internal_buffers() > KEPT {
            self.resizer.reset_internal_buffers();
        }
    }
}

/// Everything about a view that is random.
#[derive(Debug, Clone, PartialEq)]
struct Choice {
    crop: Rect,
    flip: bool,
    operations: [Option<(Operation, Sign)>; OPERATIONS],
}

/// The parts that a view's time goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Decode,
    Resize,
    Operations,
    Half,
}

impl Recipe {
    /// Refuses settings out of their range.
    ///
    /// # Errors
    /// [`ImageError::Setting`] with the field, its value and what it may be.
    pub fn check(&self) -> Result<(), ImageError> {
        let wrong = |field, value: String, expected| Err(ImageError::Setting { field, value, expected });
        let ordered = |(low, high): (f64, f64)| low > 0.0 && low <= high && high.is_finite();
        if self.side == 0 || !self.side.is_multiple_of(2) || self.side > u32::from(u16::MAX) {
            return wrong("side", self.side.to_string(), "an even number of pixels from 2 to 65534");
        }
        if !ordered(self.scale) || self.scale.1 > 1.0 {
            return wrong("scale", format!("{:?}", self.scale), "two shares in (0, 1], the smaller first");
        }
        if !ordered(self.ratio) {
            return wrong("ratio", format!("{:?}", self.ratio), "two positive ratios, the smaller first");
        }
        Ok(())
    }

    /// Draws one training view and its half-size twin, RGB in rows, straight into the batch's memory: `side` x `side` x 3 bytes to
    /// `view` and a quarter of that to `half`. The result depends on the bytes and the state of `rng` alone.
    ///
    /// # Errors
    /// When the picture is refused, a setting is out of range, or the memory has another size. What `view` and `half` hold is then
    /// not defined.
    pub fn draw(
        &self,
        bytes: &[u8],
        rng: &mut ChaCha8Rng,
        scratch: &mut Scratch,
        view: &mut [u8],
        half: &mut [u8],
    ) -> Result<(), ImageError> {
        self.draw_staged(bytes, rng, scratch, view, half, |_| {})
    }

    /// As [`draw`](Self::draw); `done` is told when a stage ends.
    pub(crate) fn draw_staged(
        &self,
        bytes: &[u8],
        rng: &mut ChaCha8Rng,
        scratch: &mut Scratch,
        view: &mut [u8],
        half: &mut [u8],
        mut done: impl FnMut(Stage),
    ) -> Result<(), ImageError> {
        self.check()?;
        let area = self.side as usize * self.side as usize * 3;
        expect_size("view", area, view)?;
        expect_size("half-size view", area / 4, half)?;

        let picture = Decoder::open(bytes, &self.limits)?;
        let (width, height) = picture.turn.size(picture.width, picture.height);
        let choice = self.choose(width, height, rng);
        square(picture, choice.crop, choice.flip, self.side, scratch, view, &mut done)?;
        for (operation, sign) in choice.operations.into_iter().flatten() {
            operation.apply(sign, view, self.side, &mut scratch.spare);
        }
        done(Stage::Operations);
        views::halve(view, self.side, half);
        done(Stage::Half);
        Ok(())
    }

    fn choose(&self, width: u32, height: u32, rng: &mut ChaCha8Rng) -> Choice {
        let crop = match self.whole {
            true => Rect { left: 0, top: 0, width, height },
            false => self.crop(width, height, rng),
        };
        let flip = self.flip && rng.random_bool(0.5);
        let mut operations = [None; OPERATIONS];
        if self.augment {
            operations = std::array::from_fn(|_| {
                let operation = Operation::ALL[rng.random_range(0..Operation::ALL.len())];
                let sign = if rng.random_bool(0.5) { Sign::Plus } else { Sign::Minus };
                rng.random_bool(0.5).then_some((operation, sign))
            });
        }
        Choice { crop, flip, operations }
    }

    /// A random box: its share of the area uniform in `scale`, its ratio log-uniform in `ratio`, its place uniform. If ten draws do not fit,
    /// the central square.
    fn crop(&self, width: u32, height: u32, rng: &mut ChaCha8Rng) -> Rect {
        for _ in 0..TRIES {
            let area = f64::from(width) * f64::from(height) * rng.random_range(self.scale.0..=self.scale.1);
            let ratio = rng.random_range(self.ratio.0.ln()..=self.ratio.1.ln()).exp();
            let wide = (area * ratio).sqrt().round_ties_even();
            let high = (area / ratio).sqrt().round_ties_even();
            if wide >= 1.0 && wide <= f64::from(width) && high >= 1.0 && high <= f64::from(height) {
                let (wide, high) = (wide as u32, high as u32);
                return Rect {
                    left: rng.random_range(0..=width - wide),
                    top: rng.random_range(0..=height - high),
                    width: wide,
                    height: high,
                };
            }
        }
        let side = width.min(height);
        Rect { left: (width - side) / 2, top: (height - side) / 2, width: side, height: side }
    }
}

/// The whole picture, upright, resized bicubically to `side` x `side` RGB pixels in `view`.
///
/// # Errors
/// When the picture is refused or `view` does not hold `side` x `side` x 3 bytes.
pub fn evaluation_view(bytes: &[u8], side: u32, limits: &Limits, view: &mut [u8]) -> Result<(), ImageError> {
    evaluation_view_with(bytes, side, limits, &mut Scratch::default(), view)
}

/// [`evaluation_view`] with working memory that is kept from picture to picture.
///
/// # Errors
/// As [`evaluation_view`].
pub fn evaluation_view_with(
    bytes: &[u8],
    side: u32,
    limits: &Limits,
    scratch: &mut Scratch,
    view: &mut [u8],
) -> Result<(), ImageError> {
    expect_size("view", side as usize * side as usize * 3, view)?;
    let picture = Decoder::open(bytes, limits)?;
    let (width, height) = picture.turn.size(picture.width, picture.height);
    let whole = Rect { left: 0, top: 0, width, height };
    square(picture, whole, false, side, scratch, view, &mut |_| {})
}

/// Width and height of the upright picture, by its header alone.
///
/// # Errors
/// When the picture is refused by what its header says.
pub fn size(bytes: &[u8], limits: &Limits) -> Result<(u32, u32), ImageError> {
    let picture = Decoder::open(bytes, limits)?;
    Ok(picture.turn.size(picture.width, picture.height))
}

/// Decodes a picture, whole and upright, to 8 bit RGB.
///
/// Grey and palette pictures are expanded, 16 bit ones rounded to 8, CMYK converted; transparency is dropped and what lies behind
/// it shown, as Pillow's `convert("RGB")` does. Colour profiles are not applied.
///
/// # Errors
/// When the picture is refused: no format that is read, larger than `limits`, truncated or broken.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let picture = Decoder::open(bytes, limits)?;
    let (width, height, turn) = (picture.width, picture.height, picture.turn);
    let mut pixels = Vec::new();
    picture.decode(&mut pixels)?;
    if !turn.is_none() {
        let mut upright = vec![0; pixels.len()];
        turn.apply(&pixels, width, height, &mut upright);
        pixels = upright;
    }
    let (width, height) = turn.size(width, height);
    Ok(RgbImage::from_raw(width, height, pixels).unwrap_or_default())
}

/// The box `crop` of the upright picture, mirrored if `flip`, at `side` x `side` pixels.
fn square(
    picture: Decoder,
    crop: Rect,
    flip: bool,
    side: u32,
    scratch: &mut Scratch,
    view: &mut [u8],
    done: &mut impl FnMut(Stage),
) -> Result<(), ImageError> {
    let (width, height, turn) = (picture.width, picture.height, picture.turn);
    let crop = turn.stored(crop, width, height);
    let turn = if flip { turn.flipped() } else { turn };
    picture.decode(&mut scratch.pixels)?;
    done(Stage::Decode);
    resize(&mut scratch.resizer, &scratch.pixels, (width, height), crop, (side, side), view)?;
    scratch.trim();
    if !turn.is_none() {
        copy(view, &mut scratch.spare);
        turn.apply(&scratch.spare, side, side, view);
    }
    done(Stage::Resize);
    Ok(())
}

fn expect_size(what: &'static str, expected: usize, memory: &[u8]) -> Result<(), ImageError> {
    let found = memory.len();
    if found == expected { Ok(()) } else { Err(ImageError::ViewSize { what, expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn crops(width: u32, height: u32, count: usize) -> Vec<Rect> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let recipe = Recipe::default();
        (0..count).map(|_| recipe.crop(width, height, &mut rng)).collect()
    }

    #[test]
    fn crops_are_spread_as_the_recipe_says() {
        // Wide enough a picture for nearly every first draw to fit if its area is below 3/4 of the whole: there, the share of
        // the area is uniform and the logarithm of the ratio too.
        let (width, height) = (1000, 1000);
        let all = crops(width, height, 40_000);
        let share = |c: &Rect| f64::from(c.width) * f64::from(c.height) / 1e6;
        let ratio = |c: &Rect| (f64::from(c.width) / f64::from(c.height)).ln() / (4.0_f64 / 3.0).ln();
        let small: Vec<&Rect> = all.iter().filter(|c| share(c) < 0.7).collect();
        let mean = |f: &dyn Fn(&Rect) -> f64| small.iter().map(|c| f(c)).sum::<f64>() / small.len() as f64;
        assert!(small.iter().all(|c| share(c) > 0.199 && ratio(c).abs() < 1.02));
        // Uniform in [0.2, 0.7]: mean 0.45, variance 0.5^2 / 12. Uniform in [-1, 1]: mean 0, variance 1/3.
        assert!((mean(&share) - 0.45).abs() < 0.005, "{}", mean(&share));
        assert!((mean(&|c| (share(c) - 0.45).powi(2)) - 0.25 / 12.0).abs() < 0.0005);
        assert!(mean(&ratio).abs() < 0.015, "{}", mean(&ratio));
        assert!((mean(&|c| ratio(c).powi(2)) - 1.0 / 3.0).abs() < 0.01);
        // The place is uniform over what the box leaves free.
        let place = |c: &Rect| f64::from(c.left) / f64::from(width - c.width);
        assert!((mean(&place) - 0.5).abs() < 0.01);
        assert!((mean(&|c| (place(c) - 0.5).powi(2)) - 1.0 / 12.0).abs() < 0.003);
        let place = |c: &Rect| f64::from(c.top) / f64::from(height - c.height);
        assert!((mean(&place) - 0.5).abs() < 0.01);
    }

    #[test]
    fn a_box_that_never_fits_gives_the_central_square() {
        let central = Rect { left: 9_999, top: 0, width: 2, height: 2 };
        assert!(crops(20_000, 2, 100).iter().all(|c| *c == central));
        let one = Rect { left: 0, top: 0, width: 1, height: 1 };
        assert!(crops(1, 1, 100).iter().all(|c| *c == one));
    }

    #[test]
    fn flips_and_operations_are_drawn_as_often_as_the_recipe_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let recipe = Recipe::default();
        let count = 40_000;
        let choices: Vec<Choice> = (0..count).map(|_| recipe.choose(640, 480, &mut rng)).collect();
        let close = |found: usize, expected: f64| {
            let deviation = (expected * (1.0 - expected) / f64::from(count)).sqrt();
            assert!(
                (found as f64 / f64::from(count) - expected).abs() < 4.0 * deviation,
                "{found} of {count}, {expected}"
            );
        };
        close(choices.iter().filter(|c| c.flip).count(), 0.5);
        for place in 0..OPERATIONS {
            close(choices.iter().filter(|c| c.operations[place].is_some()).count(), 0.5);
            for operation in Operation::ALL {
                for sign in [Sign::Plus, Sign::Minus] {
                    let drawn = choices.iter().filter(|c| c.operations[place] == Some((operation, sign)));
                    close(drawn.count(), 0.5 / 20.0);
                }
            }
        }
        // With replacement: the same operation twice in one of ten pairs.
        let twice = choices.iter().filter(|c| matches!(c.operations, [Some((a, _)), Some((b, _))] if a == b));
        close(twice.count(), 0.25 * 0.1);
        let whole = Recipe { whole: true, ..Recipe::default() }.choose(640, 480, &mut rng);
        assert_eq!(whole.crop, Rect { left: 0, top: 0, width: 640, height: 480 });
        let plain = Recipe { flip: false, augment: false, ..Recipe::default() };
        assert!((0..100).all(|_| {
            let choice = plain.choose(640, 480, &mut rng);
            !choice.flip && choice.operations == [None; OPERATIONS]
        }));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let wrong = [
            ("side", Recipe { side: 255, ..Recipe::default() }),
            ("side", Recipe { side: 0, ..Recipe::default() }),
            ("scale", Recipe { scale: (0.0, 1.0), ..Recipe::default() }),
            ("scale", Recipe { scale: (0.5, 0.2), ..Recipe::default() }),
            ("scale", Recipe { scale: (0.5, 1.5), ..Recipe::default() }),
            ("ratio", Recipe { ratio: (0.0, 1.0), ..Recipe::default() }),
            ("ratio", Recipe { ratio: (1.0, f64::NAN), ..Recipe::default() }),
        ];
        for (name, recipe) in wrong {
            let error = recipe.check().unwrap_err();
            assert!(matches!(error, ImageError::Setting { field, .. } if field == name), "{error}");
        }
    }
}
