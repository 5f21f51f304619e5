//! A finished scene, a pure function of (seed, index, split, side).

use image::RgbImage;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::describe::{captions, phrase};
use crate::draw::draw;
use crate::plan::{Plan, plan};
use crate::vocabulary::{Background, Colour, Shape, Size, Texture, is_unseen};

/// Captions of a scene. The first three mention every object with its attributes, the others less.
pub const CAPTIONS: usize = 5;

/// Most words of a caption: with `[CLS]` and `[SEP]` the 25 word pieces of the recipe (section 2.5).
pub const MAX_WORDS: usize = 23;

/// Which scenes: the two share no random numbers, and `Train` sees no combination that is [`is_unseen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// For training.
    Train,
    /// Held out: about half of the scenes have an unseen combination.
    Test,
}

/// A picture with what is true of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// Square.
    pub picture: RgbImage,
    /// What is behind the objects.
    pub background: Background,
    /// [`CAPTIONS`] different ones.
    pub captions: Vec<String>,
    /// One to four; no two look the same, none covers another.
    pub objects: Vec<Object>,
    /// What it was drawn from.
    pub(crate) plan: Plan,
}

/// An object of a scene.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Names this object and no other of the scene, e.g. "the striped blue circle".
    pub phrase: String,
    /// The tight box of the visible object: left, top, width, height in pixels.
    pub bbox: [u32; 4],
    /// Outline.
    pub shape: Shape,
    /// Main colour.
    pub colour: Colour,
    /// Pattern.
    pub texture: Texture,
    /// How large.
    pub size: Size,
}

impl Object {
    /// Whether training never sees this shape, colour and texture together.
    pub fn is_unseen(&self) -> bool {
        is_unseen(self.shape, self.colour, self.texture)
    }
}

impl Scene {
    /// Whether the scene has an object whose combination training never sees.
    pub fn is_compositional(&self) -> bool {
        self.objects.iter().any(Object::is_unseen)
    }
}

/// Draws and describes scene `index` of a split at `side` x `side` pixels, brought into
/// [`MIN_SIDE`](crate::MIN_SIDE)..=[`MAX_SIDE`](crate::MAX_SIDE). Words, places and relations do not depend on the side.
pub fn generate(seed: u64, index: u64, split: Split, side: u32) -> Scene {
    let random = |purpose: u64| {
        // One stream a scene and purpose: scenes do not depend on each other, captions not on what is drawn.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index.wrapping_mul(6).wrapping_add(3 * u64::from(split == Split::Test) + purpose));
        rng
    };
    let plan = plan(&mut random(0), split);
    let (picture, boxes) = draw(&plan, &mut random(1), side.clamp(crate::MIN_SIDE, crate::MAX_SIDE));
    let captions = captions(&plan, &mut random(2));
    let objects = plan
        .objects
        .iter()
        .zip(boxes)
        .map(|(object, bbox)| Object {
            phrase: phrase(&plan, object),
            bbox,
            shape: object.shape,
            colour: object.colour,
            texture: object.texture,
            size: object.size,
        })
        .collect();
    Scene { picture, background: plan.background, captions, objects, plan }
}
