//! Red, green and blue of everything that is drawn.

use crate::vocabulary::{Background, Colour};

/// Red, green, blue; 0 to 255.
pub(crate) type Rgb = [u8; 3];

impl Colour {
    /// The tone of an object. Tones differ in hue first: training brightens pictures by up to 1.36.
    pub(crate) fn rgb(self) -> Rgb {
        match self {
            Colour::Red => [214, 24, 32],
            Colour::Orange => [242, 120, 12],
            Colour::Yellow => [250, 224, 30],
            Colour::Green => [28, 156, 48],
            Colour::Blue => [30, 72, 220],
            Colour::Purple => [122, 36, 176],
            Colour::Pink => [250, 130, 196],
            Colour::Brown => [112, 62, 22],
            Colour::Black => [14, 14, 14],
            Colour::White => [250, 250, 250],
        }
    }

    /// The tone of stripes, dots and checks on an object of this colour: lighter on dark ones, darker on light ones.
    pub(crate) fn accent(self) -> Rgb {
        let rgb = self.rgb();
        if luminance(rgb) < 140.0 { mix(rgb, [255; 3], 0.62) } else { mix(rgb, [0; 3], 0.5) }
    }
}

impl Background {
    /// The two tones between which the background lies; equal for a plain one.
    pub(crate) fn tones(self) -> [Rgb; 2] {
        match self {
            Background::White => [[245, 245, 245]; 2],
            Background::Grey => [[136, 136, 136]; 2],
            Background::Black => [[20, 20, 20]; 2],
            Background::Cream => [[246, 232, 196]; 2],
            Background::Gradient => [[104, 96, 112], [178, 176, 184]],
            Background::Sky => [[120, 184, 240], [214, 232, 248]],
            Background::Grass => [[64, 118, 34], [126, 176, 74]],
            Background::Sea => [[10, 92, 124], [70, 168, 186]],
            Background::Night => [[8, 10, 36], [26, 30, 78]],
            Background::Sand => [[196, 164, 112], [228, 202, 152]],
            Background::Noise => [[104, 104, 104], [176, 176, 176]],
        }
    }

    /// Whether an object of this colour stands out from the background.
    pub(crate) fn shows(self, colour: Colour) -> bool {
        /// Least distance between the object's tone and the background's tones.
        const VISIBLE: f32 = 150.0;
        self.tones().into_iter().all(|tone| tone_distance(tone, colour.rgb()) >= VISIBLE)
    }
}

/// Moves a tone towards another by `share` of the way.
pub(crate) fn mix(from: Rgb, to: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|i| (f32::from(from[i]) * (1.0 - share) + f32::from(to[i]) * share).round() as u8)
}

/// Brightness as the eye weighs it, 0 to 255 (Rec. 601).
fn luminance([r, g, b]: Rgb) -> f32 {
    0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b)
}

/// Distance between two tones roughly as seen: Euclidean, with red and blue weighted by the mean red ("redmean").
pub(crate) fn tone_distance(a: Rgb, b: Rgb) -> f32 {
    let red = (f32::from(a[0]) + f32::from(b[0])) / 2.0 / 256.0;
    let [r, g, b]: [f32; 3] = std::array::from_fn(|i| f32::from(a[i]) - f32::from(b[i]));
    ((2.0 + red) * r * r + 4.0 * g * g + (3.0 - red) * b * b).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_stay_apart_when_a_picture_is_brightened() {
        let brightened = |colour: Colour| colour.rgb().map(|value| (f32::from(value) * 1.36).min(255.0) as u8);
        for &colour in Colour::ALL {
            for &other in Colour::ALL.iter().filter(|&&other| other != colour) {
                for (a, b) in [
                    (colour.rgb(), other.rgb()),
                    (brightened(colour), brightened(other)),
                    (brightened(colour), other.rgb()),
                ] {
                    assert!(tone_distance(a, b) > 80.0, "{colour:?} and {other:?} look alike: {a:?}, {b:?}");
                }
            }
        }
    }

    #[test]
    fn every_colour_has_many_backgrounds_and_every_background_many_colours() {
        for &background in Background::ALL {
            let shown = Colour::ALL.iter().filter(|&&colour| background.shows(colour)).count();
            assert!(shown >= 6, "{background:?} shows {shown} colours");
        }
        for &colour in Colour::ALL {
            let shown = Background::ALL.iter().filter(|background| background.shows(colour)).count();
            assert!(shown >= 6, "{colour:?} shows on {shown} backgrounds");
        }
    }
}
