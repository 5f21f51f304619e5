//! Agreement with Pillow, on pictures that `fixtures/make.py` drew.

use std::path::{Path, PathBuf};

use image::RgbImage;
use simla_image::{Limits, Operation, Sign, decode, evaluation_view};

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder)
}

fn read(path: &Path) -> RgbImage {
    decode(&std::fs::read(path).unwrap(), &Limits::default()).unwrap()
}

/// Mean and largest absolute difference of two pictures, in 255ths.
fn difference(found: &[u8], expected: &[u8]) -> (f64, u8) {
    assert_eq!(found.len(), expected.len());
    let apart = || found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = apart().map(f64::from).sum();
    (sum / found.len() as f64, apart().max().unwrap_or(0))
}

#[test]
fn every_operation_and_sign() {
    let folder = fixtures("operations");
    let input = read(&folder.join("input.png"));
    let cases = [
        (Operation::Identity, "", "input.png"),
        (Operation::AutoContrast, "", "auto_contrast.plus.png"),
        (Operation::Equalize, "", "equalize.plus.png"),
        (Operation::Brightness, "", "brightness.plus.png"),
        (Operation::Sharpness, "", "sharpness.plus.png"),
        (Operation::ShearX, "sign", "shear_x"),
        (Operation::ShearY, "sign", "shear_y"),
        (Operation::TranslateX, "sign", "translate_x"),
        (Operation::TranslateY, "sign", "translate_y"),
        (Operation::Rotate, "sign", "rotate"),
    ];
    for (operation, kind, name) in cases {
        for (sign, tag) in [(Sign::Plus, "plus"), (Sign::Minus, "minus")] {
            let name = if kind.is_empty() { name.to_owned() } else { format!("{name}.{tag}.png") };
            let expected = read(&folder.join(&name));
            let mut found = input.clone();
            operation.apply(sign, &mut found, 256, &mut Vec::new());
            let (mean, most) = difference(&found, &expected);
            println!("{name}: mean {mean:.5}, most {most}");
            match operation {
                // Rounding of the interpolated values.
                Operation::ShearX | Operation::ShearY | Operation::Rotate => {
                    assert!(mean < 0.01 && most <= 1, "{name}: mean {mean}, most {most}");
                }
                _ => assert_eq!((mean, most), (0.0, 0), "{name}"),
            }
            if operation != Operation::Identity {
                assert!(difference(&input, &expected).0 > 1.0, "{name} must change the picture for this test to tell");
            }
        }
    }
}

#[test]
fn every_kind_of_file() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(fixtures("formats")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let expected = read(&fixtures("expected").join(format!("{name}.png")));
        let found = read(&path);
        assert_eq!(found.dimensions(), expected.dimensions(), "{name}");
        let (mean, most) = difference(&found, &expected);
        println!("{name}: mean {mean:.4}, most {most}");
        let (mean_limit, most_limit) = match name.as_str() {
            // Of chroma at most two columns wide, libjpeg repeats what is smoothed elsewhere.
            "narrow.jpg" => (7.0, 40),
            // Cosines, colours and the smoothing of chroma are rounded otherwise than in libjpeg.
            _ if name.ends_with(".jpg") => (0.5, 4),
            // Pillow reads no such colours: expected is the high byte.
            _ if name.starts_with("bits-16") => (0.1, 1),
            _ => (0.0, 0),
        };
        if mean > mean_limit || most > most_limit {
            wrong.push(format!("{name}: mean {mean:.3}, most {most}"));
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen >= 60, "{seen} files");
}

#[test]
fn the_evaluation_view_is_the_whole_picture_upright() {
    let upright = read(&fixtures("expected").join("turned-1.jpg.png"));
    let mut views = Vec::new();
    for orientation in 1..=8 {
        let bytes = std::fs::read(fixtures("formats").join(format!("turned-{orientation}.jpg"))).unwrap();
        let mut view = vec![0; 32 * 32 * 3];
        evaluation_view(&bytes, 32, &Limits::default(), &mut view).unwrap();
        views.push(view);
    }
    // The files hold one picture, said to lie in eight ways: turning the views back gives the same, up to the order of rounding.
    let whole =
        image::DynamicImage::from(upright).resize_exact(32, 32, image::imageops::FilterType::CatmullRom).into_rgb8();
    let (mean, _) = difference(&views[0], &whole);
    assert!(mean < 0.6, "mean {mean}");
    for (orientation, view) in (1..).zip(&views) {
        let mut expected = image::DynamicImage::from(RgbImage::from_raw(32, 32, views[0].clone()).unwrap());
        expected.apply_orientation(image::metadata::Orientation::from_exif(orientation).unwrap());
        let (_, most) = difference(view, expected.as_bytes());
        assert!(most <= 1, "orientation {orientation}: {most}");
    }
}
