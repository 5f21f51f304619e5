//! Whatever happens to a file, no record of it is lost without a word: what is used and what is counted as bad are together what
//! is there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use simla_data::{Dataset, OpenError, Options, Source};

/// Records of an undamaged file.
const RECORDS: usize = 20;
/// Longest that any of these small files may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that happens to a file, at a place from its beginning (0) to its end (1).
#[derive(Clone, Debug)]
enum Damage {
    Flip(f64, u8),
    Cut(f64),
    Insert(f64, Vec<u8>),
    /// Shorter than two blocks of a tar file, which hold a member.
    Remove(f64, usize),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let structure = proptest::sample::select(b"\"\"\"{}[],:;\\\n\r\t \0x".to_vec());
    let byte = prop_oneof![3 => structure, 1 => any::<u8>()];
    let place = 0.0..1.0;
    let one = prop_oneof![
        4 => (place.clone(), 1u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        4 => (place.clone(), vec(byte, 1..6)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (place.clone(), 1usize..1000).prop_map(|(at, count)| Damage::Remove(at, count)),
        2 => (place.clone(), 1usize..3).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => place.prop_map(Damage::Cut),
    ];
    vec(one, 0..5)
}

/// The damaged bytes, and how many at the beginning are as they were.
fn damaged(whole: &[u8], damage: &[Damage]) -> (Vec<u8>, usize) {
    let mut bytes = whole.to_vec();
    for one in damage {
        let place = |at: &f64| (at * bytes.len() as f64) as usize;
        match one {
            Damage::Flip(at, bits) => {
                let at = place(at);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= bits);
            }
            Damage::Cut(at) => bytes.truncate(place(at)),
            Damage::Insert(at, more) => {
                let at = place(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Damage::Remove(at, count) => {
                let at = place(at);
                let end = bytes.len().min(at + count);
                bytes.drain(at..end);
            }
        }
    }
    let same = whole.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
    (bytes, same)
}

/// What a file gives: images' bytes or paths with captions, the number of bad records, and warnings.
struct Given {
    used: Vec<(Vec<u8>, String)>,
    bad: usize,
    warned: bool,
}

fn given(path: &Path, bytes: &[u8], image_bytes: bool) -> Result<Given, OpenError> {
    std::fs::write(path, bytes).unwrap();
    let begin = Instant::now();
    let options = Options { max_bad_share: 1.0, ..Options::default() };
    let opened = Dataset::open(&[Source::from(path.to_path_buf())], &options);
    let given = opened.map(|dataset| {
        let mut given = Given { used: vec![], bad: 0, warned: !dataset.warnings().is_empty() };
        for index in 0..dataset.len() {
            let record = dataset.entry(index).and_then(|entry| {
                let mut bytes = entry.image.to_string().into_bytes();
                if image_bytes {
                    entry.read_image(&mut bytes)?;
                }
                Ok((bytes, entry.captions.concat()))
            });
            match record {
                Ok(record) => given.used.push(record),
                Err(error) => {
                    assert!(!error.to_string().contains(|c: char| c.is_control()), "{error:?}");
                    given.bad += 1;
                }
            }
        }
        given
    });
    assert!(begin.elapsed() < PATIENCE);
    given
}

fn pair(index: usize) -> (String, String) {
    (format!("picture number {index}"), format!("caption number {index}"))
}

/// An archive of pairs, with where each of them ends.
fn archive(first: usize) -> (Vec<u8>, Vec<usize>) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut ends = Vec::new();
    for index in first..first + RECORDS {
        let (image, caption) = pair(index);
        for (ending, bytes) in [("jpg", image), ("txt", caption)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("{index:03}.{ending}"), bytes.as_bytes()).unwrap();
        }
        ends.push(tar.get_ref().len());
    }
    (tar.into_inner().unwrap(), ends)
}

/// The lines of a text that are the same in a damaged one, where one of `breaks` ends a line.
fn intact(whole: &[String], damaged: &[u8], breaks: &[u8]) -> BTreeSet<usize> {
    let lines: BTreeSet<&[u8]> = damaged.split(|b| breaks.contains(b)).collect();
    (0..whole.len()).filter(|index| lines.contains(whole[*index].as_bytes())).collect()
}

/// The numbers of the pairs among what is used.
fn numbers(used: &[(Vec<u8>, String)]) -> BTreeSet<usize> {
    (0..RECORDS)
        .filter(|index| {
            let (image, caption) = (format!("/{index}.jpg"), format!("caption, number {index}"));
            used.iter().any(|(path, text)| path.ends_with(image.as_bytes()) && *text == caption)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn shards_lose_nothing_without_a_word(archives in 1usize..4, damage in damage()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let (mut whole, mut ends) = (Vec::new(), Vec::new());
        for nth in 0..archives {
            // The same names in each archive of the file as in the first but for the last.
            let (bytes, places) = archive(if nth == 2 { RECORDS } else { 0 });
            ends.extend(places.iter().map(|end| whole.len() + end));
            whole.extend(bytes);
        }
        let records = archives * RECORDS;
        let (bytes, same) = damaged(&whole, &damage);
        match given(&path, &bytes, true) {
            Err(error) => prop_assert!(error.to_string().contains("a.tar")),
            Ok(Given { used, bad, warned }) => {
                let before = ends.iter().filter(|end| **end <= same).count();
                prop_assert!(used.len() >= before, "{} used, {before} before the damage", used.len());
                prop_assert!(used.len() + bad >= records || warned, "{} used, {bad} bad of {records}", used.len());
                prop_assert!(bytes != whole || (used.len() == records && bad == 0 && !warned));
                for (image, caption) in used {
                    let whole = |index: &usize| pair(*index).0.as_bytes() == image || pair(*index).1 == caption;
                    prop_assert!((0..2 * RECORDS).filter(whole).count() <= 1, "{image:?} with {caption}");
                }
            }
        }
    }

    #[test]
    fn a_fault_in_a_table_costs_its_own_rows(delimiter in prop_oneof![Just(','), Just(';'), Just('\t')], damage in damage()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if delimiter == '\t' { "a.tsv" } else { "a.csv" });
        let row = |index| format!("images/{index}.jpg{delimiter}\"caption, number {index}\"");
        let rows: Vec<String> = (0..RECORDS).map(row).collect();
        let header = format!("image{delimiter}caption");
        let (bytes, _) = damaged(format!("{header}\n{}\n", rows.join("\n")).as_bytes(), &damage);
        let intact = intact(&rows, &bytes, b"\r\n");
        match given(&path, &bytes, false) {
            Err(error) => {
                prop_assert!(!bytes.starts_with(format!("{header}\n").as_bytes()) || intact.is_empty(), "{error}");
                prop_assert!(error.to_string().contains("a.csv") || error.to_string().contains("a.tsv"));
            }
            Ok(Given { used, .. }) => {
                prop_assert!(numbers(&used).is_superset(&intact), "{intact:?} are there, {:?} are used", numbers(&used));
            }
        }
    }

    #[test]
    fn json_loses_nothing_without_a_word(lines in any::<bool>(), damage in damage()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let record = |index| format!(r#"{{"image": "images/{index}.jpg", "caption": "caption, number {index}"}}"#);
        let records: Vec<String> = (0..RECORDS).map(record).collect();
        let whole = if lines { records.join("\n") } else { format!("[{}]", records.join(",")) };
        let (bytes, _) = damaged(whole.as_bytes(), &damage);
        // As a name: behind a colon the word is a value, which damage can make of a path.
        let named = |at: &usize| bytes[*at..].starts_with(br#""image""#) && !bytes[..*at].trim_ascii_end().ends_with(b":");
        let present = (0..bytes.len()).filter(named).count();
        let first = bytes.iter().find(|b| !b.is_ascii_whitespace());
        let intact = if first == Some(&b'{') { intact(&records, &bytes, b"\n") } else { BTreeSet::new() };
        match given(&path, &bytes, false) {
            Err(error) => {
                prop_assert!(error.to_string().contains("a.json"));
                prop_assert!(!lines || intact.is_empty(), "{error}");
            }
            Ok(Given { used, bad, .. }) => {
                prop_assert!(used.len() + bad >= present, "{} used, {bad} bad of {present}", used.len());
                prop_assert!(!lines || numbers(&used).is_superset(&intact), "{intact:?} are there, {:?} are used", numbers(&used));
            }
        }
    }
}
