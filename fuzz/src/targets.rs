//! The readers of strangers' bytes, each with its seeds, its words and its bounds. All that this crate knows of the others is here.

use std::fs::File;
use std::io::{Cursor, Write};
use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use simla_data::{
    Annotations, AnswerList, Dataset, Entailments, Expressions, Format, Objects, Options, Questions, ReferFiles,
    Source, Statements, read_boxes,
};
use simla_image::{ImageError, Limits, Recipe, Scratch};
use simla_weights::{Node, ReadError};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::{repair, seeds};

/// What an input may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Processor time.
    pub time: Duration,
    /// Memory in bytes, beyond what was taken before.
    pub memory: usize,
}

/// Gives bytes to a reader, with a folder for its files: whether it took them, or why not.
pub(crate) type Reader = Box<dyn Fn(&[u8], &Path) -> Result<(), String>>;

/// A reader, and what it is given.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Small valid files.
    pub seeds: Vec<Vec<u8>>,
    /// What the format's files are made of.
    pub words: Vec<&'static [u8]>,
    /// Puts checksums and lengths right after a change.
    pub repair: fn(&mut [u8]),
    /// What an input may take.
    pub bounds: Bounds,
    pub(crate) read: Reader,
}

impl Target {
    /// Gives `bytes` to the reader, which may write in `folder`.
    ///
    /// # Errors
    /// The reader's refusal.
    pub fn read(&self, bytes: &[u8], folder: &Path) -> Result<(), String> {
        (self.read)(bytes, folder)
    }
}

/// Memory for one input of data or weights, whose limits are constants of their crates.
const FILE: Bounds = Bounds { time: Duration::from_secs(1), memory: 256 << 20 };
/// The most pixels of a picture: far fewer than by default, so that memory that is taken for anything else shows.
const PIXELS: u64 = 1 << 20;
/// Memory for a picture: that of its pixels as the reader promises it, and 40 MiB for metadata and tables.
const PICTURE: Bounds = Bounds { time: Duration::from_secs(1), memory: 12 * PIXELS as usize + (40 << 20) };

/// Every reader of strangers' bytes.
pub fn all() -> Vec<Target> {
    let target = |name, seeds, words: &[&'static [u8]], repair, bounds, read: Reader| Target {
        name,
        seeds,
        words: words.to_vec(),
        repair,
        bounds,
        read,
    };
    let data = |ending: &'static str| -> Reader { Box::new(move |bytes, folder| dataset(bytes, ending, folder)) };
    let [zips_2, zips_4, module] = seeds::torch_zips().try_into().expect("three zip files");
    let pickle = |name, archive: &[u8]| {
        let entries = seeds::entries(archive);
        let pickle = entries.iter().find(|(name, _)| name.ends_with("/data.pkl")).expect("a pickle").1.clone();
        let read: Reader = Box::new(move |bytes, folder| weights(&zip_with(bytes, &entries), folder));
        target(name, vec![pickle], PICKLE, repair::nothing, FILE, read)
    };
    let refer = |name, file: &'static str| {
        let seed = seeds::REFER.iter().find(|(name, _)| *name == file).expect("a file of REFER's").1;
        let read: Reader = Box::new(move |bytes, folder| refer(bytes, file, folder));
        target(name, vec![seed.into()], BOXES, repair::nothing, FILE, read)
    };
    vec![
        target("jpeg", seeds::jpeg(), JPEG, repair::nothing, PICTURE, Box::new(|bytes, _| picture(bytes))),
        target("png", seeds::png(), PNG, repair::png, PICTURE, Box::new(|bytes, _| picture(bytes))),
        target("webp", seeds::webp(), WEBP, repair::nothing, PICTURE, Box::new(|bytes, _| picture(bytes))),
        target("tar", seeds::tar(), TAR, repair::tar, FILE, data("tar")),
        target("json", seeds::json(), JSON, repair::nothing, FILE, data("json")),
        target("csv", seeds::csv(), CSV, repair::nothing, FILE, data("csv")),
        target("questions", seeds::questions(), ASKED, repair::nothing, FILE, Box::new(records::<Questions>)),
        target("annotations", seeds::annotations(), ASKED, repair::nothing, FILE, Box::new(records::<Annotations>)),
        target("statements", seeds::statements(), ASKED, repair::nothing, FILE, Box::new(records::<Statements>)),
        target("entailments", seeds::entailments(), ASKED, repair::nothing, FILE, Box::new(records::<Entailments>)),
        target("expressions", seeds::expressions(), ASKED, repair::nothing, FILE, Box::new(records::<Expressions>)),
        target("boxes", seeds::boxes(), BOXES, repair::nothing, FILE, Box::new(records::<Objects>)),
        target(
            "answers",
            vec![br#"["yes", "no", "2", "a dog"]"#.to_vec()],
            JSON,
            repair::nothing,
            FILE,
            Box::new(answers),
        ),
        refer("refer-refs", "refs.json"),
        refer("refer-boxes", "instances.json"),
        refer("refer-found", "detections.json"),
        target("safetensors", seeds::safetensors(), SAFETENSORS, repair::safetensors, FILE, Box::new(weights)),
        pickle("pickle", &zips_2),
        pickle("pickle-4", &zips_4),
        pickle("pickle-module", &module),
        target("torch-zip", vec![zips_2, zips_4, module], ZIP, repair::nothing, FILE, Box::new(weights)),
        target("torch-stream", seeds::torch_streams(), PICKLE, repair::nothing, FILE, Box::new(weights)),
        target(
            "data-pickle",
            DATA_PICKLES.map(<[u8]>::to_vec).into(),
            PICKLE,
            repair::nothing,
            FILE,
            Box::new(data_pickle),
        ),
    ]
}

/// REFER's refs in the oldest protocol and in the second.
const DATA_PICKLES: [&[u8]; 2] = [
    b"(lp0\n(dp1\nS'ref_id'\np2\nI5\nsS'split'\np3\nS'testA'\np4\nsVsentences\np5\n(lp6\n(dp7\nS'sent'\np8\nVthe dog\np9\nsasF2.5\nL5L\nsa.",
    b"\x80\x02]q\x00}q\x01(X\x06\x00\x00\x00ref_idq\x02K\x05U\x05splitq\x03U\x05testAq\x04h\x02]q\x05}q\x06X\x04\x00\x00\x00sentq\x07h\x03saua.",
];

/// Reads a pickle of data and walks it.
fn data_pickle(bytes: &[u8], folder: &Path) -> Result<(), String> {
    let path = folder.join("input.p");
    std::fs::write(&path, bytes).map_err(|error| error.to_string())?;
    let archive =
        simla_weights::read_data(&path, &simla_weights::Limits::of_data()).map_err(|error| error.to_string())?;
    walk(archive.root(), 8, &mut 10_000);
    Ok(())
}

/// Both ways of a picture: whole, and as a training view.
fn picture(bytes: &[u8]) -> Result<(), String> {
    const SIDE: usize = 16;
    let said = |error: ImageError| error.to_string();
    let limits = Limits { max_pixels: PIXELS, ..Limits::default() };
    let whole = simla_image::decode(bytes, &limits).map_err(said)?;
    assert_eq!(whole.as_raw().len(), whole.width() as usize * whole.height() as usize * 3);
    let recipe = Recipe { side: SIDE as u32, limits, ..Recipe::default() };
    let (mut view, mut half) = (vec![0; SIDE * SIDE * 3], vec![0; SIDE * SIDE * 3 / 4]);
    let mut rng = ChaCha8Rng::seed_from_u64(bytes.len() as u64);
    recipe.draw(bytes, &mut rng, &mut Scratch::default(), &mut view, &mut half).map_err(said)
}

/// Opens a source and reads its first records, with their pictures where they are in it.
fn dataset(bytes: &[u8], ending: &str, folder: &Path) -> Result<(), String> {
    let path = folder.join(format!("input.{ending}"));
    std::fs::write(&path, bytes).map_err(|error| error.to_string())?;
    let options = Options { index_folder: Some(folder.into()), ..Options::default() };
    for each_caption in [false, true] {
        let options = Options { each_caption, ..options.clone() };
        let dataset = Dataset::open(&[Source::from(path.clone())], &options).map_err(|error| error.to_string())?;
        drop(dataset.warnings());
        for index in 0..dataset.len().min(64) {
            if let Err(error) = dataset.record(index) {
                drop(error.to_string());
            }
        }
    }
    Ok(())
}

/// Opens a file of such records, and reads each with its texts.
fn records<F: Format>(bytes: &[u8], folder: &Path) -> Result<(), String> {
    let path = folder.join("records.json");
    std::fs::write(&path, bytes).map_err(|error| error.to_string())?;
    let options = Options { index_folder: Some(folder.into()), ..Options::default() };
    let dataset = Dataset::<F>::of(&[Source::from(path)], &options, &mut |_, _, _| ()).map_err(|e| e.to_string())?;
    for index in 0..dataset.len().min(64) {
        match dataset.entry(index) {
            Ok(entry) => {
                assert!(!F::name(&entry).is_empty());
                assert_eq!(F::pictures(&entry).len(), F::PICTURES);
                drop(F::texts(entry));
            }
            Err(error) => drop(error.to_string()),
        }
    }
    Ok(())
}

/// Reads a list of answers.
fn answers(bytes: &[u8], folder: &Path) -> Result<(), String> {
    let path = folder.join("answers.json");
    std::fs::write(&path, bytes).map_err(|error| error.to_string())?;
    AnswerList::open(&path).map(drop).map_err(|error| error.to_string())
}

/// Reads REFER's files, one of which is changed.
fn refer(bytes: &[u8], changed: &str, folder: &Path) -> Result<(), String> {
    for (name, text) in seeds::REFER {
        let bytes = if *name == changed { bytes } else { text.as_bytes() };
        std::fs::write(folder.join(name), bytes).map_err(|error| error.to_string())?;
    }
    let files = ReferFiles {
        refs: folder.join("refs.json"),
        instances: folder.join("instances.json"),
        detections: Some(folder.join("detections.json")),
    };
    read_boxes(&folder.join("data.json"), None, Some(&files), &[]).map(drop).map_err(|error| error.to_string())
}

/// Reads a checkpoint, walks it, names its tensors and loads them.
fn weights(bytes: &[u8], folder: &Path) -> Result<(), String> {
    let path = folder.join("input.pth");
    File::create(&path).and_then(|mut file| file.write_all(bytes)).map_err(|error| error.to_string())?;
    let said = |error: ReadError| error.to_string();
    let archive = simla_weights::read(&path, &simla_weights::Limits::default()).map_err(said)?;
    walk(archive.root(), 8, &mut 10_000);
    for tensor in archive.tensors().map_err(said)?.values() {
        let tensor = tensor.load().map_err(said)?;
        let elements: usize = tensor.shape.iter().product();
        assert_eq!(tensor.bytes.len() as u64, elements as u64 * tensor.dtype.size());
        assert_eq!(tensor.to_f32().len(), elements);
    }
    Ok(())
}

fn walk(node: Node, depth: usize, nodes: &mut usize) {
    if depth == 0 || *nodes == 0 {
        return;
    }
    *nodes -= 1;
    let _ = (node.kind(), node.class(), node.as_str(), node.as_bool(), node.as_f64());
    for (key, value) in node.entries() {
        walk(key, depth - 1, nodes);
        walk(value, depth - 1, nodes);
    }
    node.elements().into_iter().for_each(|element| walk(element, depth - 1, nodes));
}

/// A torch file with this pickle in place of its own, its checksums right.
fn zip_with(pickle: &[u8], entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        let bytes = if name.ends_with("/data.pkl") { pickle } else { bytes };
        writer.start_file(name, options).and_then(|()| Ok(writer.write_all(bytes)?)).expect("memory is written");
    }
    writer.finish().expect("memory is written").into_inner()
}

const JPEG: &[&[u8]] = &[
    b"\xff\xd8\xff",
    b"\xff\xd9",
    b"\xff\xc0\0\x11\x08",
    b"\xff\xc1",
    b"\xff\xc2",
    b"\xff\xc3",
    b"\xff\xc4\0\x1f",
    b"\xff\xc9",
    b"\xff\xda\0\x0c\x03",
    b"\xff\xdb\0\x43",
    b"\xff\xdb\0\x83\x10",
    b"\xff\xdd\0\x04\0\x01",
    b"\xff\xd0",
    b"\xff\xd7",
    b"\xff\xdc",
    b"\xff\xe0\0\x10JFIF\0",
    b"\xff\xe1Exif\0\0MM\0*",
    b"\xff\xe2ICC_PROFILE\0\x01\xff",
    b"\xff\xee\0\x0eAdobe",
    b"\xff\0",
    b"\x01\x44\0",
    b"\x01\x22\0",
];
const PNG: &[&[u8]] = &[
    b"\x89PNG\r\n\x1a\n",
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"\0\0\0\0IEND\xae\x42\x60\x82",
    b"tRNS",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"iCCP",
    b"zTXt",
    b"iTXt",
    b"eXIf",
    b"gAMA",
    b"cHRM",
    b"sRGB",
    b"sBIT",
    b"pHYs",
    b"bKGD",
    b"x\x9c",
    b"\x10\x06\0\0\x01",
    b"\x01\x03\0\0\x01",
];
const WEBP: &[&[u8]] = &[
    b"RIFF",
    b"WEBP",
    b"VP8 ",
    b"VP8L",
    b"VP8X",
    b"ALPH",
    b"ANIM",
    b"ANMF",
    b"EXIF",
    b"ICCP",
    b"XMP ",
    b"\x9d\x01\x2a",
    b"\x2f",
    b"\xff\x3f\xff\x3f",
    b"\x10\0\0\0",
];
const TAR: &[&[u8]] = &[
    b"ustar  \0",
    b"ustar\x0000",
    b"././@LongLink",
    b"PaxHeaders",
    b"00000000000\0",
    b"77777777777\0",
    b"\x80\0\0\0\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"0",
    b"1",
    b"2",
    b"5",
    b"L",
    b"K",
    b"x",
    b"g",
    b"S",
    b"30 path=folder/000000000.jpg\n",
    b"25 size=9999999999999999\n",
    b"11 size=-1\n",
    b"999999999 path=a\n",
    b".jpg",
    b".json",
    b".txt",
    b"../",
    b"/",
    &[0; 512],
];
const JSON: &[&[u8]] = &[
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b"\\",
    b",",
    b":",
    b"null",
    b"true",
    b"1e999",
    b"-0",
    b"\\u0000",
    b"\\ud83d",
    b"\\udc15",
    b"\"image\"",
    b"\"caption\"",
    b"\"image_id\"",
    b"[[",
    b"{\"a\":",
    b"\"\"",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xed\xa0\xbd",
    b"//",
    b"\0",
    b"/etc/hostname",
    b"../",
];
/// Of records that ask or claim something about pictures.
const ASKED: &[&[u8]] = &[
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b"\\",
    b",",
    b":",
    b"null",
    b"true",
    b"1e999",
    b"\\ud83d",
    b"\"image\"",
    b"\"images\"",
    b"\"question\"",
    b"\"question_id\"",
    b"\"answer\"",
    b"\"answers\"",
    b"\"sentence\"",
    b"\"label\"",
    b"\"True\"",
    b"\"contradiction\"",
    b"\"ref_id\"",
    b"\"text\"",
    b"\"questions\"",
    b"\"annotations\"",
    b"[[",
    b"{\"a\":",
    b"../",
];
/// Of boxes.
const BOXES: &[&[u8]] = &[
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"0.0",
    b"\"box\"",
    b"\"bbox\"",
    b"\"phrase\"",
    b"\"objects\"",
    b"\"proposals\"",
    b"\"annotations\"",
    b"\"ann_id\"",
    b"\"image_id\"",
    b"\"split\"",
    b"[[",
    b"{\"a\":",
];
const CSV: &[&[u8]] = &[
    b"\"",
    b"\"\"",
    b",",
    b"\n",
    b"\r",
    b"\r\n",
    b"\t",
    b";",
    b"image",
    b"caption",
    b"image_id",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\0",
    b"image,caption\n",
    b",,,,",
    b"\"\n",
    b"/etc/hostname",
];
const SAFETENSORS: &[&[u8]] = &[
    b"{",
    b"}",
    b"{\"",
    b"\":{\"dtype\":\"F32\",\"shape\":[",
    b"\"data_offsets\":[",
    b"\"shape\":",
    b"\"dtype\":",
    b"__metadata__",
    b"F32",
    b"I64",
    b"F8_E4M3",
    b"F4",
    b"BOOL",
    b"[0,0]",
    b"[",
    b"]",
    b",",
    b"-1",
    b"18446744073709551615",
    b"null",
    b"\\u0000",
];
const PICKLE: &[&[u8]] = &[
    b"\x80\x02",
    b"\x80\x04\x95",
    b".",
    b"(",
    b")",
    b"t",
    b"l",
    b"d",
    b"]",
    b"}",
    b"a",
    b"e",
    b"s",
    b"u",
    b"0",
    b"1",
    b"2",
    b"N",
    b"\x88",
    b"\x89",
    b"K\xff",
    b"M\xff\xff",
    b"J\xff\xff\xff\x7f",
    b"\x8a\x08",
    b"\x8b\xff\xff\xff\x7f",
    b"G\x7f\xf8",
    b"X\xff\xff\xff\x7f",
    b"\x8c\xff",
    b"\x8d",
    b"C\xff",
    b"B\xff\xff\xff\x7f",
    b"q\0",
    b"r\xff\xff\xff\xff",
    b"h\0",
    b"j\xff\xff\xff\xff",
    b"\x94",
    b"R",
    b"b",
    b"Q",
    b"\x81",
    b"\x92",
    b"\x93",
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x8f",
    b"\x90",
    b"\x91",
    b"\x96",
    b"ctorch\nFloatStorage\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ccollections\nOrderedDict\n",
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"X\x07\0\0\0storage",
    b"](h\0h\0e",
    b"}h\0h\0s",
];
const ZIP: &[&[u8]] = &[
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"PK\x06\x07",
    b"PK\x07\x08",
    b"\x01\0\x10\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff",
    b"\x08\0",
    b"\0\x08",
    b"\x01\0",
    b"/data.pkl",
    b"/data/0",
    b"/byteorder",
    b"../",
    b"big",
    b"little",
];
