//! Small valid files, made with the libraries that write them; the tests' fixtures of other crates where none does.

use std::io::{Cursor, Read};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{DynamicImage, ExtendedColorType, ImageEncoder, RgbaImage};
use image_webp::{ColorType, WebPEncoder};
use safetensors::tensor::{Dtype, TensorView};

/// A file of another crate's tests.
macro_rules! fixture {
    ($path:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/", $path)).to_vec()
    };
}

const SIDE: u32 = 24;

/// A transition with some noise in it.
fn picture() -> DynamicImage {
    let pixel = |x: u32, y: u32| image::Rgba([x as u8 * 10, y as u8 * 10, (x * y * 37) as u8, 255 - x as u8]);
    RgbaImage::from_fn(SIDE, SIDE, pixel).into()
}

/// EXIF that says how a picture is turned.
fn exif(orientation: u8) -> Vec<u8> {
    [&b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"[..], &[orientation, 0, 0, 0], &[0; 4]].concat()
}

/// JPEG: grey and colour, turned, with a profile; progressive, in four colours, with restarts.
pub(crate) fn jpeg() -> Vec<Vec<u8>> {
    let mut files = vec![
        fixture!("image/tests/fixtures/formats/progressive.jpg"),
        fixture!("image/tests/fixtures/formats/cmyk.jpg"),
        fixture!("image/tests/fixtures/formats/restarts.jpg"),
        fixture!("image/tests/fixtures/formats/ycbcr-420.jpg"),
    ];
    for picture in [DynamicImage::from(picture().to_rgb8()), picture().to_luma8().into()] {
        let mut file = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut file, 60);
        encoder.set_exif_metadata(exif(6)).expect("JPEG has EXIF");
        encoder.set_icc_profile(vec![7; 200]).expect("JPEG has profiles");
        encoder.encode_image(&picture).expect("memory is written");
        files.push(file);
    }
    files
}

/// PNG: grey and colour, with and without alpha, of 8 and 16 bits, turned; with a palette, of one bit, animated.
pub(crate) fn png() -> Vec<Vec<u8>> {
    let mut files = vec![
        fixture!("image/tests/fixtures/formats/palette-transparent.png"),
        fixture!("image/tests/fixtures/formats/bits-1.png"),
        fixture!("image/tests/fixtures/formats/animated.png"),
    ];
    let picture = picture();
    let kinds: [DynamicImage; 5] = [
        picture.to_luma8().into(),
        picture.to_luma_alpha8().into(),
        picture.to_rgb8().into(),
        picture.to_rgba8().into(),
        picture.to_rgb16().into(),
    ];
    for picture in kinds {
        let mut file = Vec::new();
        let mut encoder = PngEncoder::new_with_quality(&mut file, CompressionType::Fast, FilterType::Adaptive);
        encoder.set_exif_metadata(exif(8)).expect("PNG has EXIF");
        encoder.set_icc_profile(vec![7; 200]).expect("PNG has profiles");
        let colours = ExtendedColorType::from(picture.color());
        encoder.write_image(picture.as_bytes(), SIDE, SIDE, colours).expect("memory is written");
        files.push(file);
    }
    files
}

/// WebP: lossless with and without alpha, turned, with a profile; lossy, animated.
pub(crate) fn webp() -> Vec<Vec<u8>> {
    let mut files = vec![
        fixture!("image/tests/fixtures/formats/lossy.webp"),
        fixture!("image/tests/fixtures/formats/lossy-alpha.webp"),
        fixture!("image/tests/fixtures/formats/animated.webp"),
    ];
    let picture = picture();
    for (pixels, colours) in [
        (picture.to_rgb8().into_raw(), ColorType::Rgb8),
        (picture.to_rgba8().into_raw(), ColorType::Rgba8),
        (picture.to_luma8().into_raw(), ColorType::L8),
    ] {
        let mut file = Vec::new();
        let mut encoder = WebPEncoder::new(&mut file);
        encoder.set_exif_metadata(exif(3));
        encoder.set_icc_profile(vec![7; 200]);
        encoder.encode(&pixels, SIDE, SIDE, colours).expect("memory is written");
        files.push(file);
    }
    files
}

/// Shards: pictures with texts, with JSON, under long names (GNU's way, and with extended headers).
pub(crate) fn tar() -> Vec<Vec<u8>> {
    let picture = &png()[3];
    let json = br#"{"caption": ["a dog", "a dog in the snow"], "key": "000000001", "width": 24}"#;
    let mut plain = Shard::new();
    plain.member("000000000.png", picture);
    plain.member("000000000.txt", b"a cat on a mat");
    plain.member("000000001.png", picture);
    plain.member("000000001.json", json);
    let mut long = Shard::new();
    long.member(&format!("{}/000000000.png", "folder/".repeat(30)), picture);
    long.member(&format!("{}/000000000.txt", "folder/".repeat(30)), b"a cat on a mat");
    let mut extended = Shard::new();
    extended.extension("path", b"folder/000000000.png");
    extended.member("short.png", picture);
    extended.extension("mtime", b"1700000000.5");
    extended.member("folder/000000000.txt", b"a cat on a mat");
    [plain, long, extended].map(Shard::file).into()
}

struct Shard(tar::Builder<Vec<u8>>);

impl Shard {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn member(&mut self, name: &str, bytes: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        self.0.append_data(&mut header, name, bytes).expect("memory is written");
    }

    fn extension(&mut self, key: &str, value: &[u8]) {
        self.0.append_pax_extensions([(key, value)]).expect("memory is written");
    }

    fn file(self) -> Vec<u8> {
        self.0.into_inner().expect("memory is written")
    }
}

/// The authors' JSON, each field in each of its forms.
pub(crate) fn json() -> Vec<Vec<u8>> {
    [
        r#"[{"image": "a.jpg", "caption": "a dog in the snow"}, {"image": "b/c.png", "caption": ["one", "two"], "image_id": 7}]"#,
        r#"[{"image": "a.jpg", "caption": "\u00e9t\u00e9 \ud83d\udc15 \"quoted\"", "image_id": "abc", "other": {"deep": [[1.5e3, null, true]]}}]"#,
        "\u{feff}[\n  {\"image\": \"a.jpg\",\n   \"caption\": \"a cat\"}\n]\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<Vec<u8>> {
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// Questions in our layout and in VQA's.
pub(crate) fn questions() -> Vec<Vec<u8>> {
    texts([
        r#"[{"image": "a.jpg", "question": "what is it?", "question_id": 7, "answer": ["a dog", "dog", "a dog"]}, {"image": "b.jpg", "question": "is it?", "question_id": 8, "answer": "yes"}]"#,
        r#"{"questions": [{"image_id": 42, "question": "how many?", "question_id": 420}], "data_type": "x"}"#,
    ])
}

/// VQA's annotations.
pub(crate) fn annotations() -> Vec<Vec<u8>> {
    texts([
        r#"{"annotations": [{"question_id": 1, "question_type": "what", "answer_type": "other", "multiple_choice_answer": "dog", "answers": [{"answer": "dog", "answer_id": 1}, {"answer": "cat"}]}]}"#,
        r#"[{"question_id": 2, "question_type": "is", "answer_type": "yes/no", "answers": [{"answer": "yes"}]}]"#,
    ])
}

/// Statements about two pictures in the authors' layout and in NLVR2's.
pub(crate) fn statements() -> Vec<Vec<u8>> {
    texts([
        r#"[{"images": ["l.png", "r.png"], "sentence": "both show a dog", "label": "True"}, {"images": ["a.png", "b.png"], "sentence": "one does", "label": "False"}]"#,
        "{\"identifier\": \"dev-1-0-0\", \"sentence\": \"two dogs\", \"label\": \"False\"}\n{\"identifier\": \"dev-1-1-0\", \"sentence\": \"a cat\", \"label\": \"True\"}\n",
    ])
}

/// Sentences that a picture entails, or not.
pub(crate) fn entailments() -> Vec<Vec<u8>> {
    texts([
        r#"[{"image": "a.jpg", "sentence": "a dog is asleep", "label": "contradiction"}, {"image": "b.jpg", "sentence": "x", "label": "neutral"}]"#,
        "{\"Flickr30K_ID\": \"12\", \"sentence2\": \"a dog\", \"gold_label\": \"entailment\"}\n",
    ])
}

/// Expressions that point at something.
pub(crate) fn expressions() -> Vec<Vec<u8>> {
    texts([r#"[{"image": "a.jpg", "text": "the dog on the left", "ref_id": 1}, {"image": "b.jpg", "text": "cat"}]"#])
}

/// Phrases and their boxes.
pub(crate) fn boxes() -> Vec<Vec<u8>> {
    texts([
        r#"[{"image": "a.png", "objects": [{"phrase": "a dog", "box": [1, 2, 3.5, 4], "split": "val"}], "proposals": [[0, 0, 1, 1, 0.5], [1, 1, 1, 1]]}, {"image": "c.png", "objects": []}]"#,
    ])
}

/// REFER's files, which belong to each other.
pub(crate) const REFER: &[(&str, &str)] = &[
    (
        "data.json",
        r#"[{"image": "a.jpg", "text": "left dog", "ref_id": 5}, {"image": "b.jpg", "text": "cat", "ref_id": 6}]"#,
    ),
    (
        "refs.json",
        r#"[{"ref_id": 5, "ann_id": 50, "image_id": 1, "split": "testA"}, {"ref_id": 6, "ann_id": 60, "image_id": 2, "split": "testB"}]"#,
    ),
    ("instances.json", r#"{"annotations": [{"id": 50, "bbox": [0, 1, 2, 3.5]}, {"id": 60, "bbox": [1, 1, 1, 1]}]}"#),
    ("detections.json", r#"{"1": [[0, 0, 4, 4, 0.9]], "2": [[5, 5, 4, 4, 0.8], [1, 1, 2, 2]]}"#),
];

/// CSV with quotes, ids and line breaks of both kinds.
pub(crate) fn csv() -> Vec<Vec<u8>> {
    [
        "image,caption\na.jpg,a dog in the snow\nb/c.png,\"two, quoted \"\"words\"\"\"\n",
        "image_id,caption,other,image\r\n7,a cat,,a.jpg\r\nabc,\"over\r\ntwo lines\",x,b.jpg\r\n",
        "\u{feff}image,caption\na.jpg,\u{e9}t\u{e9}\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Safetensors: every type that is read, with metadata; no tensor; an empty one and a scalar.
pub(crate) fn safetensors() -> Vec<Vec<u8>> {
    let types = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I64, Dtype::U8, Dtype::BOOL, Dtype::F64, Dtype::I8];
    let named = |shape: &'static [usize]| {
        types.map(|dtype| {
            let bytes = &[0_u8; 64][..shape.iter().product::<usize>() * dtype.bitsize() / 8];
            (format!("layer.{dtype:?}.weight"), TensorView::new(dtype, shape.to_vec(), bytes))
        })
    };
    let file = |shape| {
        let tensors = named(shape).map(|(name, view)| (name, view.expect("sizes agree")));
        safetensors::serialize(tensors, Some([("format".into(), "pt".into())].into())).expect("tensors are written")
    };
    vec![fixture!("weights/tests/fixtures/every.safetensors"), file(&[2, 3]), file(&[0, 3]), file(&[])]
}

/// PyTorch's older streams of pickles: a dict of tensors, and a module.
pub(crate) fn torch_streams() -> Vec<Vec<u8>> {
    vec![fixture!("weights/tests/fixtures/every.stream.pth"), fixture!("weights/tests/fixtures/module.stream.pkl")]
}

/// PyTorch's zip files: a dict of tensors in two protocols of pickle, and a module.
pub(crate) fn torch_zips() -> Vec<Vec<u8>> {
    vec![
        fixture!("weights/tests/fixtures/every.zip.pth"),
        fixture!("weights/tests/fixtures/every.protocol4.pth"),
        fixture!("weights/tests/fixtures/module.zip.pkl"),
    ]
}

/// The entries of a stored zip archive.
pub(crate) fn entries(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(Cursor::new(archive)).expect("a seed is valid");
    let count = archive.len();
    let read = |index| {
        let mut entry = archive.by_index(index).expect("a seed is valid");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("a seed is valid");
        (entry.name().expect("a seed is valid").into_owned(), bytes)
    };
    (0..count).map(read).collect()
}
