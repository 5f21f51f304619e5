//! Files from strangers: cut off, corrupted, of absurd sizes. Correct or refused, never a panic.

use std::path::Path;

use image::{ExtendedColorType, ImageEncoder, RgbImage, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use simla_image::{Format, ImageError, Limits, Recipe, Scratch, decode};

/// One of each decoder's paths.
const KINDS: [&str; 12] = [
    "ycbcr-420.jpg",
    "restarts.jpg",
    "grey.jpg",
    "poor.jpg",
    "turned-6.jpg",
    "progressive.jpg",
    "cmyk.jpg",
    "palette.png",
    "bits-16.png",
    "lossy-alpha.webp",
    "lossless.webp",
    "animated.webp",
];

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    std::fs::read(folder.join(name)).unwrap()
}

fn open(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode(bytes, &Limits::default())
}

fn small_view(bytes: &[u8], seed: u64) -> Result<Vec<u8>, ImageError> {
    let recipe = Recipe { side: 16, ..Recipe::default() };
    let (mut view, mut half) = (vec![0; 16 * 16 * 3], vec![0; 8 * 8 * 3]);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    recipe.draw(bytes, &mut rng, &mut Scratch::default(), &mut view, &mut half)?;
    Ok(view)
}

#[test]
fn every_truncation_is_refused_or_harmless() {
    for name in KINDS {
        let bytes = fixture(name);
        let whole = open(&bytes).unwrap();
        let mut refused = 0;
        for length in 0..bytes.len() {
            match open(&bytes[..length]) {
                // Only the mark of the end, or a second frame, is missing.
                Ok(picture) => assert!(picture == whole, "{name} cut to {length} bytes gives another picture"),
                Err(ImageError::DecoderPanicked { reason, .. }) => {
                    panic!("{name} cut to {length}: {reason}")
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused * 10 > bytes.len() * if name == "animated.webp" { 3 } else { 9 }, "{name}: {refused} refused");
    }
}

#[test]
fn corrupted_bytes_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for name in KINDS {
        let bytes = fixture(name);
        let (mut read, mut refused) = (0, 0);
        for seed in 0..400 {
            let mut bytes = bytes.clone();
            for _ in 0..rng.random_range(1..6) {
                // Half of the changes in the header, where they do most harm.
                let end = if rng.random_bool(0.5) { bytes.len().min(200) } else { bytes.len() };
                let at = rng.random_range(0..end);
                if rng.random_bool(0.5) {
                    bytes[at] ^= 1 << rng.random_range(0..8);
                } else {
                    bytes[at] = rng.random();
                }
            }
            for outcome in [open(&bytes).map(|_| ()), small_view(&bytes, seed).map(|_| ())] {
                match outcome {
                    Ok(()) => read += 1,
                    Err(ImageError::DecoderPanicked { format, reason }) => {
                        panic!("{name}, {seed}: {format} {reason}")
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 0, "{name}: all of {read} were read");
        // A PNG has checksums; in the others some damage goes unseen.
        assert!(read > 0 || name.ends_with(".png"), "{name}: none was read");
    }
}

#[test]
fn noise_behind_a_good_start_never_panics() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    for name in KINDS {
        let bytes = fixture(name);
        for seed in 0..100 {
            let mut bytes = bytes.clone();
            let from = rng.random_range(8..bytes.len());
            rng.fill(&mut bytes[from..]);
            let _ = open(&bytes);
            if let Err(ImageError::DecoderPanicked { reason, .. }) = small_view(&bytes, seed) {
                panic!("{name}, {seed}: {reason}");
            }
        }
    }
}

#[test]
fn what_is_no_picture_is_named() {
    assert!(matches!(open(b""), Err(ImageError::Empty)));
    let error = open(b"<html>404</html>").unwrap_err();
    assert!(matches!(error, ImageError::UnknownFormat { .. }));
    assert!(error.to_string().contains("not a JPEG, PNG or WebP picture"), "{error}");
    assert!(matches!(open(b"GIF89a......"), Err(ImageError::UnknownFormat { .. })));
    for start in [&b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n", b"RIFF\x04\0\0\0WEBP"] {
        assert!(open(start).is_err());
    }
}

/// A PNG of nothing but a header.
fn declared_png(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let crc = header.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(header);
    png.extend((!crc).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    png
}

/// A good JPEG whose frame says another size.
fn declared_jpeg(name: &str, width: u16, height: u16) -> Vec<u8> {
    let mut bytes = fixture(name);
    let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0] || w == [0xff, 0xc2]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

/// A lossless WebP whose header says another size.
fn declared_webp(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = fixture("lossless.webp");
    assert_eq!(&bytes[12..16], b"VP8L");
    let packed = (width - 1) | (height - 1) << 14;
    bytes[21..25].copy_from_slice(&packed.to_le_bytes());
    bytes
}

#[test]
fn bombs_are_refused_by_their_declared_size() {
    let bombs = [
        (declared_png(60_000, 60_000), Format::Png),
        (declared_png(u32::MAX >> 1, 1), Format::Png),
        (declared_jpeg("ycbcr-420.jpg", 65_500, 65_500), Format::Jpeg),
        (declared_jpeg("progressive.jpg", 65_500, 65_500), Format::Jpeg),
        (declared_jpeg("cmyk.jpg", 65_500, 65_500), Format::Jpeg),
        (declared_webp(16_383, 16_383), Format::WebP),
    ];
    for (bytes, kind) in bombs {
        for error in [open(&bytes).unwrap_err(), small_view(&bytes, 0).unwrap_err()] {
            assert!(matches!(error, ImageError::TooLarge { format, .. } if format == kind), "{error}");
        }
    }
    assert!(matches!(open(&declared_png(0, 5)), Err(ImageError::Broken { .. } | ImageError::NoPixels { .. })));
    assert!(open(&declared_jpeg("ycbcr-420.jpg", 0, 5)).is_err());
    // Within the limits, but more than the file can hold: refused before memory is taken.
    let error = open(&declared_jpeg("ycbcr-420.jpg", 8_000, 8_000)).unwrap_err();
    assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
    // A limit of one's own, the file itself within reason.
    let limits = Limits { max_pixels: 75 * 53 - 1, ..Limits::default() };
    for name in KINDS {
        assert!(matches!(decode(&fixture(name), &limits), Err(ImageError::TooLarge { .. })), "{name}");
    }
    let limits = Limits { max_pixels: 75 * 53, max_side: 75 };
    assert!(decode(&fixture("rgb.png"), &limits).is_ok());
    let limits = Limits { max_side: 74, ..limits };
    assert!(decode(&fixture("rgb.png"), &limits).is_err());
}

#[test]
fn extreme_shapes_give_views() {
    for (width, height) in [(1, 1), (20_000, 2), (2, 20_000), (1, 300), (4_000, 3)] {
        let picture = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 90]));
        let (mut png, mut jpeg) = (Vec::new(), Vec::new());
        PngEncoder::new(&mut png).write_image(&picture, width, height, ExtendedColorType::Rgb8).unwrap();
        JpegEncoder::new_with_quality(&mut jpeg, 90).encode_image(&picture).unwrap();
        assert!(open(&png).unwrap() == picture);
        assert_eq!(open(&jpeg).unwrap().dimensions(), (width, height));
        for bytes in [&png, &jpeg] {
            for seed in 0..5 {
                let view = small_view(bytes, seed).unwrap();
                assert_eq!(view.len(), 16 * 16 * 3);
            }
        }
    }
}

#[test]
fn memory_of_another_size_is_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let bytes = fixture("rgb.png");
    let recipe = Recipe { side: 16, ..Recipe::default() };
    let outcome = recipe.draw(&bytes, &mut rng, &mut Scratch::default(), &mut [0; 768], &mut [0; 191]);
    assert!(matches!(outcome, Err(ImageError::ViewSize { expected: 192, found: 191, .. })));
}
