//! Files from strangers: cut off, corrupted, of absurd sizes. Correct or refused, never a panic.

use std::path::Path;

use image::{ExtendedColorType, ImageEncoder, RgbImage, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use simla_image::{Format, ImageError, Limits, Recipe, Scratch, decode};

/// One of each decoder's paths.
const KINDS: [&str; 14] = [
    "ycbcr-420.jpg",
    "restarts.jpg",
    "grey.jpg",
    "poor.jpg",
    "turned-6.jpg",
    "progressive.jpg",
    "cmyk.jpg",
    "raw-profile-compressed-6.png",
    "xmp-6.webp",
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
                // Only the mark of the end is missing.
                Ok(picture) => assert!(picture == whole, "{name} cut to {length} bytes gives another picture"),
                Err(ImageError::DecoderPanicked { reason, .. }) => {
                    panic!("{name} cut to {length}: {reason}")
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused * 10 > bytes.len() * 9, "{name}: {refused} refused");
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
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    let avif = b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif";
    let kinds: [(&[u8], &str, &str); 22] = [
        (b"", "an empty file", "again"),
        (heic, "a HEIC picture", "convert it first"),
        (avif, "an AVIF picture", "convert it first"),
        (b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2", "a video", "convert it first"),
        (b"GIF89a\x10\0\x10\0", "a GIF picture", "convert it first"),
        (b"BM\x36\x30\0\0\0\0\0\0\x36\0\0\0", "a BMP picture", "convert it first"),
        (b"II*\0\x08\0\0\0", "a TIFF or camera raw picture", "convert it first"),
        (b"MM\0*\0\0\0\x08", "a TIFF or camera raw picture", "convert it first"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL picture", "convert it first"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture", "convert it first"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing", "convert it first"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html>403</html>", "a web page", "download"),
        (b"\xef\xbb\xbf\r\n <html>404</html>", "a web page", "download"),
        (b"<?xml version='1.0'?><Error/>", "an XML text", "leave it out"),
        (b"PK\x03\x04\x14\0", "a zip archive", "unpack"),
        (b"\x1f\x8b\x08\0", "a gzip file", "unpack"),
        (&[0; 4096], "a file of zeros", "download"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "a sound or video", "leave it out"),
        (b"BMW parked beside a tree", "a text that begins with \"BMW parked", "download"),
        ("Zugriff verweigert für diß".as_bytes(), "a text that begins with \"Zugriff", "download"),
        (b"\x01\x02\xc3\x28\x1b[31m", r"a file that begins with \x01\x02\xc3(\x1b[31m", "download"),
    ];
    for (bytes, found, todo) in kinds {
        let error = open(bytes).unwrap_err();
        assert!(matches!(error, ImageError::NoPicture { .. }), "{error}");
        let words = error.to_string();
        assert!(words.starts_with(&format!("this is {found}")) && words.contains(todo), "{words}");
        assert!(words.contains("not a JPEG, PNG or WebP picture"), "{words}");
        assert!(!words.contains(char::is_control), "{words:?}");
    }
    for start in [&b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n", b"RIFF\x04\0\0\0WEBP"] {
        assert!(!matches!(open(start), Ok(_) | Err(ImageError::NoPicture { .. })));
    }
}

/// JPEGs that the decoder would give wrong pixels for, without an error: each is refused, with the reason that its name begins with.
#[test]
fn what_would_be_decoded_wrongly_is_refused() {
    let reasons = [
        ("several-scans", "baseline with its colours in several scans", 4),
        ("sampling", "expected the first to be the finest", 3),
        ("colours", "what it says of its colours contradicts itself", 5),
        ("components", "it has 2 components", 1),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/refused");
    let mut seen = [0; 4];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let kind = reasons.iter().position(|(start, ..)| name.starts_with(start)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for error in [open(&bytes).unwrap_err(), small_view(&bytes, 0).unwrap_err()] {
            assert!(matches!(error, ImageError::Broken { format: Format::Jpeg, .. }), "{name}: {error}");
            assert!(error.to_string().contains(reasons[kind].1), "{name}: {error}");
        }
        seen[kind] += 1;
    }
    assert_eq!(seen, reasons.map(|(.., count)| count));
}

#[test]
fn damage_inside_a_scan_is_refused_and_not_filled_with_grey() {
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    for name in ["ycbcr-420.jpg", "restarts.jpg", "progressive.jpg"] {
        let bytes = fixture(name);
        let scan = bytes.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
        let refused = (0..50).filter(|_| {
            let mut noisy = bytes.clone();
            // Noise has codes that the tables do not; the mark of the end is there.
            rng.fill(&mut noisy[scan + 20..bytes.len() - 2]);
            open(&noisy).is_err()
        });
        assert!(refused.count() >= 40, "{name}");
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

/// Lossy frames that say another size than the file around them; found by fuzzing: the library took memory for them.
#[test]
fn frames_larger_than_their_webp_are_refused_by_their_size() {
    for name in ["lossy.webp", "lossy-alpha.webp", "animated-lossy.webp"] {
        let mut bytes = match name {
            // A frame of an animation: its place and size (75 x 53 less one, in three bytes each), 100 ms, flags; then its chunks.
            "animated-lossy.webp" => {
                let lossy = fixture("lossy.webp");
                let frame = [&[0; 6][..], &[74, 0, 0, 52, 0, 0, 100, 0, 0, 0], &lossy[12..]].concat();
                let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
                let chunk = |kind: &[u8], data: &[u8]| [kind, &length(data), data].concat();
                let chunks = [
                    chunk(b"VP8X", &[2, 0, 0, 0, 74, 0, 0, 52, 0, 0]),
                    chunk(b"ANIM", &[0; 6]),
                    chunk(b"ANMF", &frame),
                ];
                chunk(b"RIFF", &[b"WEBP", &chunks.concat()[..]].concat())
            }
            _ => fixture(name),
        };
        assert_eq!(open(&bytes).unwrap().dimensions(), (75, 53), "{name}");
        let frame = bytes.windows(3).position(|w| w == [0x9d, 0x01, 0x2a]).unwrap();
        bytes[frame + 3..frame + 7].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
        assert!(matches!(open(&bytes), Err(ImageError::TooLarge { width: 16_383, .. })), "{name}");
    }
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
            let words = error.to_string();
            assert!(words.contains("--max-pixels N raises") || words.contains("more than max_side"), "{words}");
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
        let error = decode(&fixture(name), &limits).unwrap_err().to_string();
        assert!(error.contains("75 x 53 pixels, more than max_pixels=3974 allows"), "{name}: {error}");
    }
    let limits = Limits { max_pixels: 75 * 53, max_side: 75 };
    assert!(decode(&fixture("rgb.png"), &limits).is_ok());
    let limits = Limits { max_side: 74, ..limits };
    let error = decode(&fixture("rgb.png"), &limits).unwrap_err().to_string();
    assert!(error.contains("max_side=74"), "{error}");
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
