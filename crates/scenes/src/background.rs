//! Draws what is behind the objects.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tiny_skia::{
    Color, FillRule, GradientStop, LinearGradient, Paint, PathBuilder, Pixmap, Point, PremultipliedColorU8, Rect,
    Shader, SpreadMode, Stroke, Transform,
};

use crate::palette::{Rgb, mix};
use crate::vocabulary::Background;

/// Fills the canvas.
pub(crate) fn draw_background(canvas: &mut Pixmap, background: Background, rng: &mut ChaCha8Rng) {
    let [from, to] = background.tones();
    let shift: [i16; 3] = [rng.random_range(-6..=6); 3];
    let [from, to] =
        [from, to].map(|tone| std::array::from_fn(|i| (i16::from(tone[i]) + shift[i]).clamp(0, 255) as u8));
    match background {
        Background::White | Background::Grey | Background::Black | Background::Cream => canvas.fill(color(from)),
        Background::Gradient => {
            let degrees = rng.random_range(0.0..360.0);
            gradient(canvas, from, to, degrees);
        }
        Background::Sky => {
            gradient(canvas, from, to, 90.0);
            clouds(canvas, rng);
        }
        Background::Grass => {
            canvas.fill(color(mix(from, to, 0.5)));
            strokes(canvas, rng, [from, to], 420, 0.05, 90.0);
        }
        Background::Sea => {
            gradient(canvas, mix(from, to, 0.7), from, 90.0);
            strokes(canvas, rng, [from, to], 70, 0.16, 0.0);
        }
        Background::Night => {
            gradient(canvas, from, to, 90.0);
            stars(canvas, rng);
        }
        Background::Sand => grain(canvas, rng, from, to, 0.012),
        Background::Noise => grain(canvas, rng, from, to, 0.03),
    }
}

fn gradient(canvas: &mut Pixmap, from: Rgb, to: Rgb, degrees: f32) {
    let side = canvas.width() as f32;
    let (sin, cos) = degrees.to_radians().sin_cos();
    let at = |sign: f32| Point::from_xy(side * (0.5 + sign * 0.5 * cos), side * (0.5 + sign * 0.5 * sin));
    let stops = vec![GradientStop::new(0.0, color(from)), GradientStop::new(1.0, color(to))];
    let shader = LinearGradient::new(at(-1.0), at(1.0), stops, SpreadMode::Pad, Transform::identity())
        .expect("two stops and two different points");
    fill_all(canvas, shader);
}

fn fill_all(canvas: &mut Pixmap, shader: Shader) {
    let all = Rect::from_xywh(0.0, 0.0, canvas.width() as f32, canvas.height() as f32).expect("a side is positive");
    canvas.fill_rect(all, &Paint { shader, ..Paint::default() }, Transform::identity(), None);
}

/// Short strokes everywhere, in tones between the two: blades of grass, waves.
fn strokes(canvas: &mut Pixmap, rng: &mut ChaCha8Rng, tones: [Rgb; 2], count: usize, length: f32, degrees: f32) {
    /// Strokes of one tone are one path: drawing costs by the path.
    const TONES: usize = 5;
    let side = canvas.width() as f32;
    let stroke = Stroke { width: 0.012 * side, ..Stroke::default() };
    for tone in 0..TONES {
        let mut path = PathBuilder::new();
        for _ in 0..count / TONES {
            let [x, y]: [f32; 2] = std::array::from_fn(|_| rng.random_range(0.0..side));
            let (sin, cos) = (degrees + rng.random_range(-20.0_f32..20.0)).to_radians().sin_cos();
            let half = 0.5 * length * side;
            path.move_to(x - half * cos, y - half * sin);
            path.line_to(x + half * cos, y + half * sin);
        }
        let tone = paint(mix(tones[0], tones[1], tone as f32 / (TONES - 1) as f32));
        let path = path.finish().expect("strokes have a length");
        canvas.stroke_path(&path, &tone, &stroke, Transform::identity(), None);
    }
}

fn clouds(canvas: &mut Pixmap, rng: &mut ChaCha8Rng) {
    let side = canvas.width() as f32;
    let white = {
        let mut paint = paint([255; 3]);
        paint.set_color_rgba8(255, 255, 255, 190);
        paint
    };
    for _ in 0..5 {
        let [x, y]: [f32; 2] = std::array::from_fn(|_| rng.random_range(0.0..side));
        let mut path = PathBuilder::new();
        for puff in -1..=1 {
            let radius = side * rng.random_range(0.03..0.055);
            path.push_circle(x + puff as f32 * 0.05 * side, y - (1 - puff * puff) as f32 * 0.02 * side, radius);
        }
        let path = path.finish().expect("a cloud has puffs");
        canvas.fill_path(&path, &white, FillRule::Winding, Transform::identity(), None);
    }
}

fn stars(canvas: &mut Pixmap, rng: &mut ChaCha8Rng) {
    let side = canvas.width() as f32;
    for _ in 0..45 {
        let [x, y]: [f32; 2] = std::array::from_fn(|_| rng.random_range(0.0..side));
        let star = PathBuilder::from_circle(x, y, side * rng.random_range(0.003..0.007)).expect("a positive radius");
        canvas.fill_path(&star, &paint([255, 250, 214]), FillRule::Winding, Transform::identity(), None);
    }
}

/// Squares of random tones between the two; `size` of the side.
fn grain(canvas: &mut Pixmap, rng: &mut ChaCha8Rng, from: Rgb, to: Rgb, size: f32) {
    let side = canvas.width() as usize;
    let cell = ((size * side as f32).round() as usize).max(1);
    let cells = side.div_ceil(cell);
    let tones: Vec<Rgb> = (0..cells * cells).map(|_| mix(from, to, rng.random_range(0.0..1.0))).collect();
    for (index, pixel) in canvas.pixels_mut().iter_mut().enumerate() {
        let [r, g, b] = tones[index / side / cell * cells + index % side / cell];
        *pixel = PremultipliedColorU8::from_rgba(r, g, b, 255).expect("opaque");
    }
}

fn color([r, g, b]: Rgb) -> Color {
    Color::from_rgba8(r, g, b, 255)
}

/// An opaque tone.
pub(crate) fn paint(rgb: Rgb) -> Paint<'static> {
    Paint { shader: Shader::SolidColor(color(rgb)), ..Paint::default() }
}
