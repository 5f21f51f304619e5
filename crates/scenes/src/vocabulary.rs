//! The attributes of a scene, the words for them, and the combinations that training never sees.

use serde::{Deserialize, Serialize};

/// Declares an attribute: its values and the words (the first is its usual name) that captions use for each.
macro_rules! attribute {
    ($(#[$doc:meta])* $name:ident { $($value:ident: $words:expr),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $(#[allow(missing_docs)] $value),+ }

        impl $name {
            /// Every value, in a fixed order.
            pub const ALL: &'static [$name] = &[$($name::$value),+];

            /// The words or phrases for this value; the first is its usual name.
            pub fn words(self) -> &'static [&'static str] {
                match self { $($name::$value => &$words),+ }
            }
        }
    };
}

attribute! {
    /// The outline of an object.
    Shape {
        Circle: ["circle", "disc"],
        Square: ["square"],
        Triangle: ["triangle"],
        Star: ["star"],
        Ring: ["ring", "hoop"],
        Cross: ["cross"],
        Heart: ["heart"],
        Hexagon: ["hexagon"],
        Diamond: ["diamond"],
        Crescent: ["crescent", "moon"],
    }
}

attribute! {
    /// The main colour of an object.
    Colour {
        Red: ["red"],
        Orange: ["orange"],
        Yellow: ["yellow"],
        Green: ["green"],
        Blue: ["blue"],
        Purple: ["purple"],
        Pink: ["pink"],
        Brown: ["brown"],
        Black: ["black"],
        White: ["white"],
    }
}

attribute! {
    /// The pattern on an object, in a lighter or darker tone of its colour.
    Texture {
        Plain: ["plain", "solid"],
        Striped: ["striped"],
        Dotted: ["dotted", "spotted"],
        Checkered: ["checkered", "checked"],
    }
}

attribute! {
    /// How large an object is: every large one is at least 1.5 times as wide as every small one of its shape.
    Size {
        Small: ["small", "little"],
        Large: ["large", "big"],
    }
}

attribute! {
    /// What is behind the objects. The words are whole phrases that can end or begin a caption.
    Background {
        White: ["on a white background", "on white"],
        Grey: ["on a grey background", "on grey"],
        Black: ["on a black background", "on black"],
        Cream: ["on a cream background", "on cream"],
        Gradient: ["on a gradient", "on a shaded background"],
        Sky: ["in the sky", "against a cloudy sky"],
        Grass: ["on grass", "on a meadow"],
        Sea: ["in the sea", "on the water"],
        Night: ["at night", "in the night sky"],
        Sand: ["on sand", "on a sandy beach"],
        Noise: ["on noise", "on a noisy background"],
    }
}

impl Texture {
    /// How the texture is said after the noun ("with stripes"); plain has no such form.
    pub(crate) fn suffix(self) -> Option<&'static str> {
        match self {
            Texture::Plain => None,
            Texture::Striped => Some("with stripes"),
            Texture::Dotted => Some("with dots"),
            Texture::Checkered => Some("with checks"),
        }
    }
}

/// Whether the combination is kept out of training: 40 of the 400. Every colour with every texture is seen in nine of
/// the ten shapes, every shape with every texture in nine colours, every shape with every colour in two textures or more.
pub fn is_unseen(shape: Shape, colour: Colour, texture: Texture) -> bool {
    // 1 and 3 have no factor in common with 10: each (colour, texture) loses one shape, each (shape, texture) one colour.
    (shape as usize + 3 * colour as usize + 5 * texture as usize) % 10 == 7
}
