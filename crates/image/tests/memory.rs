//! Memory is bounded by the limits and the file, whatever a header declares.
//!
//! One test in a file of its own: it watches the process's allocations.

use std::path::Path;

use image::{ExtendedColorType, ImageEncoder, RgbImage, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};
use peak_alloc::PeakAlloc;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use simla_image::{ImageError, Limits, Recipe, Scratch, decode};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes allocated at once beyond what was there before, while `work` runs.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let result = work();
    (result, MEMORY.peak_usage().saturating_sub(before))
}

fn jpeg_declaring(name: &str, width: u16, height: u16) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    let mut bytes = std::fs::read(folder.join(name)).unwrap();
    let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0] || w == [0xff, 0xc2]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

#[test]
fn memory_is_bounded() {
    // Beyond the limits, or more than a JPEG of that length can hold: nothing is taken but a header's worth.
    for (name, side) in [
        ("progressive.jpg", 65_500),
        ("ycbcr-420.jpg", 65_500),
        ("ycbcr-420.jpg", 8_000),
        ("progressive.jpg", 8_000),
        ("cmyk.jpg", 8_000),
    ] {
        let bytes = jpeg_declaring(name, side, side);
        let (outcome, taken) = peak(|| decode(&bytes, &Limits::default()));
        assert!(matches!(outcome, Err(ImageError::TooLarge { .. } | ImageError::Truncated { .. })));
        assert!(taken < 1 << 20, "{name}: {taken} bytes");
    }

    // Within the limits, and long enough a file: what the documentation says, whatever the scans hold.
    for name in ["progressive.jpg", "progressive-cmyk.jpg", "ycbcr-420.jpg"] {
        let mut bytes = jpeg_declaring(name, 4_000, 4_000);
        let end = bytes.len() - 2;
        bytes.splice(end..end, std::iter::repeat_n(0, 200_000));
        let (_, taken) = peak(|| decode(&bytes, &Limits::default()));
        assert!((16_000_000..12 * 16_000_000).contains(&taken), "{name}: {taken} bytes");
    }

    // A large picture takes its pixels and little more, and a worker does not keep it.
    let (width, height) = (6_000, 4_000);
    let large = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, (x / 16) as u8]));
    let (mut jpeg, mut png) = (Vec::new(), Vec::new());
    JpegEncoder::new_with_quality(&mut jpeg, 80).encode_image(&large).unwrap();
    PngEncoder::new(&mut png).write_image(&large, width, height, ExtendedColorType::Rgb8).unwrap();
    drop(large);
    let recipe = Recipe { side: 64, ..Recipe::default() };
    let (mut view, mut half) = (vec![0; 64 * 64 * 3], vec![0; 32 * 32 * 3]);
    let mut scratch = Scratch::default();
    let pixels = (width * height) as usize;
    for (bytes, most) in [(&jpeg, 4 * pixels), (&png, 7 * pixels)] {
        let before = MEMORY.current_usage();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let ((), taken) = peak(|| recipe.draw(bytes, &mut rng, &mut scratch, &mut view, &mut half).unwrap());
        assert!(taken < most, "{taken} bytes, more than {most}");
        let kept = MEMORY.current_usage().saturating_sub(before);
        assert!(kept < 40 << 20, "{kept} bytes kept");
    }
}
