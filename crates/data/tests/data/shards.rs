//! Tar shards: as `img2dataset` writes them, in several tar dialects, broken and hostile.

use std::io::Write;
use std::path::{Path, PathBuf};

use simla_data::{Dataset, OpenError, Options, Source};

const PICTURE: &[u8] = b"the bytes of a picture";

fn open(path: &Path) -> Result<Dataset, OpenError> {
    Dataset::open(&[Source::from(path.to_path_buf())], &Options::default())
}

fn refused(path: &Path) -> String {
    open(path).unwrap_err().to_string()
}

/// Writes a tar file of `members`.
fn shard(path: &Path, members: &[(&str, &[u8])]) -> PathBuf {
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap();
    path.into()
}

/// A tar file of raw headers, each followed by its bytes.
fn raw(path: &Path, members: &[(tar::EntryType, &str, u64, &[u8])]) -> PathBuf {
    let mut file = std::fs::File::create(path).unwrap();
    for (kind, name, size, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(*size);
        header.set_mode(0o644);
        header.set_cksum();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(bytes).unwrap();
        file.write_all(&vec![0; bytes.len().next_multiple_of(512) - bytes.len()]).unwrap();
    }
    file.write_all(&[0; 1024]).unwrap();
    path.into()
}

#[test]
fn members_of_a_record_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = shard(
        &folder.path().join("0.tar"),
        &[
            ("000.jpg", PICTURE),
            ("000.txt", b"one"),
            ("000.json", br#"{"caption": "one", "url": "x", "status": "success"}"#),
            ("001.json", br#"{"caption": ["two", "zwei"], "image_id": 5}"#),
            ("001.PNG", b"second"),
            ("dir.x/002.webp", b"third"),
            ("dir.x/002.txt", "drei \u{e4}".as_bytes()),
            ("003.txt", b"from the text"),
            ("003.cls", b"7"),
            ("003.jpeg", b"fourth"),
            ("003.json", br#"{"caption": null, "width": 9}"#),
        ],
    );
    let dataset = open(&path).unwrap();
    assert_eq!(dataset.len(), 4);
    let records: Vec<_> = (0..4).map(|i| dataset.record(i).unwrap()).collect();
    assert_eq!(records[0].image, PICTURE);
    assert_eq!(
        (records[1].image.as_slice(), &records[1].captions),
        (b"second".as_slice(), &vec!["two".to_string(), "zwei".into()])
    );
    assert_eq!((records[2].image.as_slice(), records[2].captions[0].as_str()), (b"third".as_slice(), "drei \u{e4}"));
    assert_eq!((records[3].image.as_slice(), records[3].captions[0].as_str()), (b"fourth".as_slice(), "from the text"));
    assert_eq!(records[2].name, format!("{}, record 3 (dir.x/002.webp)", path.display()));
    let mut ids: Vec<i64> = records.iter().map(|r| r.image_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn patterns_and_folders_give_shards_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..12 {
        let text = format!("caption {i}");
        shard(
            &folder.path().join(format!("{i:05}.tar")),
            &[("a.jpg", PICTURE), ("a.txt", text.as_bytes()), ("b.txt", b"b"), ("b.jpg", b"b")],
        );
    }
    shard(&folder.path().join(".00012.tar"), &[("a.jpg", PICTURE), ("a.txt", b"unfinished")]);
    let all = open(folder.path()).unwrap();
    assert_eq!(all.len(), 24);
    assert_eq!(
        (all.record(0).unwrap().captions[0].as_str(), all.record(22).unwrap().captions[0].as_str()),
        ("caption 0", "caption 11")
    );
    let some = open(&folder.path().join("{00003..00010}.tar")).unwrap();
    assert_eq!(some.len(), 16);
    assert_eq!(some.record(2).unwrap().captions[0], "caption 4");
    assert!(refused(&folder.path().join("{00003..00019}.tar")).contains("00012.tar: No such file"));
}

#[test]
fn long_names_of_both_dialects() {
    let folder = tempfile::tempdir().unwrap();
    let long = "d".repeat(90) + "/" + &"n".repeat(200);
    let names = [format!("{long}.jpg"), format!("{long}.txt")];
    let gnu = shard(&folder.path().join("gnu.tar"), &[(&names[0], PICTURE), (&names[1], b"long")]);
    assert_eq!(open(&gnu).unwrap().record(0).unwrap().captions, ["long"]);
    // PAX, as Python writes it: an extended header with the time (and, for the second member, the name) before each.
    let pax = |name: &str| {
        let body = format!("path={name}\n");
        let length = body.len() + 4;
        format!("28 mtime=1700000000.1234567\n{length:03} {body}")
    };
    let (first, second) = (pax(&names[0]), pax(&names[1]));
    let x = tar::EntryType::XHeader;
    let regular = tar::EntryType::Regular;
    let path = raw(
        &folder.path().join("pax.tar"),
        &[
            (x, "PaxHeader/a", first.len() as u64, first.as_bytes()),
            (regular, "cut.jpg", PICTURE.len() as u64, PICTURE),
            (x, "PaxHeader/b", second.len() as u64, second.as_bytes()),
            (regular, "cut.txt", 4, b"long"),
        ],
    );
    let dataset = open(&path).unwrap();
    assert_eq!((dataset.len(), dataset.record(0).unwrap().captions), (1, vec!["long".to_string()]));
}

#[test]
fn incomplete_records_are_bad_records() {
    let folder = tempfile::tempdir().unwrap();
    let mut members: Vec<(String, &[u8])> = Vec::new();
    for i in 0..30 {
        members.push((format!("{i:03}.jpg"), PICTURE));
        members.push((format!("{i:03}.txt"), b"text"));
    }
    members.push(("900.txt".into(), b"no image"));
    members.push(("901.jpg".into(), b"no caption"));
    let members: Vec<(&str, &[u8])> = members.iter().map(|(n, b)| (n.as_str(), *b)).collect();
    let dataset = open(&shard(&folder.path().join("a.tar"), &members)).unwrap();
    assert_eq!(dataset.len(), 32);
    assert!(dataset.record(30).unwrap_err().to_string().contains("a.tar, record 31: no image: expected a .jpg"));
    assert!(dataset.record(31).unwrap_err().to_string().contains("record 32 (901.jpg): no caption"));
    let error = refused(&shard(&folder.path().join("b.tar"), &[("x.bin", PICTURE), ("y.txt", b"only text")]));
    assert!(error.contains("1 of 1 records are malformed"), "{error}");
    assert!(refused(&shard(&folder.path().join("c.tar"), &[])).contains("no records in it"));
}

#[test]
fn a_truncation_is_an_error_or_leaves_whole_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = shard(
        &folder.path().join("a.tar"),
        &[("0.jpg", PICTURE), ("0.txt", b"one"), ("1.jpg", b"more"), ("1.txt", b"two")],
    );
    let bytes = std::fs::read(&path).unwrap();
    let cut = folder.path().join("cut.tar");
    let mut refusals = 0;
    for length in (0..bytes.len()).filter(|n| n % 17 == 0 || n % 512 < 2) {
        std::fs::write(&cut, &bytes[..length]).unwrap();
        match open(&cut) {
            Ok(dataset) => (0..dataset.len()).for_each(|i| drop(dataset.record(i))),
            Err(e) => {
                refusals += 1;
                assert!(e.to_string().contains("cut.tar"), "{e}");
            }
        }
    }
    assert!(refusals > 150, "{refusals}");
    std::fs::write(&cut, &bytes[..512 * 4 + 512 + 2]).unwrap();
    let error = refused(&cut);
    assert!(
        error.contains("at byte 2048: a member declares 4 bytes, but the file ends after 2: is it truncated?"),
        "{error}"
    );
}

#[test]
fn of_a_few_broken_shards_the_records_before_the_damage_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = |i: usize| folder.path().join(format!("{i:05}.tar"));
    for i in 0..20 {
        let names = (0..4).flat_map(|i| [format!("{i}.jpg"), format!("{i}.txt")]);
        let names: Vec<String> = names.collect();
        let members: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), PICTURE)).collect();
        shard(&path(i), &members);
    }
    // Cut off in the caption of the second of four: its picture has none.
    let whole = std::fs::read(path(7)).unwrap();
    std::fs::write(path(7), &whole[..7 * 512 + 5]).unwrap();
    let dataset = open(folder.path()).unwrap();
    assert_eq!(dataset.len(), 19 * 4 + 3);
    let bad = (0..dataset.len()).filter(|i| dataset.record(*i).is_err());
    assert_eq!(bad.collect::<Vec<_>>(), [29, 30]);
    let rest = dataset.record(30).unwrap_err().to_string();
    for part in [
        "00007.tar, record 3: what follows cannot be read",
        "at byte 3072: a member declares 22 bytes, but the file ends after 5",
    ] {
        assert!(rest.contains(part), "{rest}");
    }
    let warnings = dataset.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("00007.tar: at byte 3072"), "{warnings:?}");

    // No shard at all among them, then more broken ones than a tenth.
    std::fs::write(path(8), "not a tar file".repeat(100)).unwrap();
    let dataset = open(folder.path()).unwrap();
    assert_eq!((dataset.len(), dataset.warnings().len()), (76, 2));
    assert!(dataset.record(31).is_err() && dataset.record(32).is_ok());
    std::fs::write(path(9), "").unwrap();
    let error = refused(folder.path());
    for part in [
        "3 of 20 shards cannot be read to the end",
        "max_bad_share",
        "00008.tar: at byte 0",
        "00009.tar: at byte 0: the file is empty",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn hostile_shards_are_refused_or_harmless() {
    use tar::EntryType as T;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar");
    let begin = std::time::Instant::now();

    // Huge declared sizes, of a member and of headers that a reader takes into memory.
    let error = refused(&raw(&path, &[(T::Regular, "a.jpg", 0o77777777777, b"x")]));
    assert!(error.contains("declares 8589934591 bytes, but the file ends after"), "{error}");
    for kind in [T::GNULongName, T::XHeader, T::XGlobalHeader] {
        assert!(refused(&raw(&path, &[(kind, "a", 0o77777777777, b"x")])).contains("declares 8589934591 bytes"));
    }
    let big = vec![b'n'; 1 << 20];
    for kind in [T::GNULongName, T::XHeader] {
        let error = refused(&raw(&path, &[(kind, "a", big.len() as u64, &big)]));
        assert!(error.contains("an extended header of 1048576 bytes, at most 65536"), "{error}");
    }
    let size = b"23 size=99999999999999\n";
    let members = [(T::XHeader, "x", size.len() as u64, size.as_slice()), (T::Regular, "a.jpg", 1, b"x")];
    assert!(refused(&raw(&path, &members)).contains("a member of more than 8 GiB"));
    assert!(refused(&raw(&path, &[(T::XHeader, "x", 5, b"99 =\n")])).contains("x.tar: at byte"));

    // Links and devices that name files outside are no images.
    for kind in [T::Symlink, T::Link, T::Char, T::Fifo, T::Directory] {
        let members = [(kind, "a.jpg", 0, b"".as_slice()), (T::Regular, "a.txt", 1, b"x")];
        assert!(refused(&raw(&path, &members)).contains("no image"));
    }
    // Names that point elsewhere are only names.
    let members: [(&str, &[u8]); 2] = [("../../etc/passwd.jpg", PICTURE), ("../../etc/passwd.txt", b"words")];
    let raw_members: Vec<_> = members.iter().map(|(n, b)| (T::Regular, *n, b.len() as u64, *b)).collect();
    assert_eq!(open(&raw(&path, &raw_members)).unwrap().record(0).unwrap().image, PICTURE);

    // No tar at all; a header with a wrong sum.
    std::fs::write(&path, vec![b'x'; 5000]).unwrap();
    assert!(refused(&path).contains("x.tar: at byte 0: "));
    shard(&path, &[("a.jpg", PICTURE), ("a.txt", b"x"), ("b.jpg", PICTURE)]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1024 + 5] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(refused(&path).contains("at byte 1024: archive header checksum mismatch"));

    // A caption file that is too long is a bad record and is not read.
    let long = vec![b'a'; 2 << 20];
    let dataset = open(&shard(&path, &[("a.jpg", PICTURE), ("a.txt", &long)])).unwrap();
    assert!(dataset.record(0).unwrap_err().to_string().contains("its caption file has 2097152 bytes, at most 1048576"));
    for (name, bytes, reason) in [
        ("a.txt", b"\xff".as_slice(), "its .txt file is not UTF-8"),
        ("a.json", b"{\"caption\": ", "its .json file: EOF"),
        ("a.json", b"{\"caption\": 3}", "field `caption`: expected a string or a list of strings, found a number: 3"),
        ("a.json", b"[[[[", "its .json file: "),
    ] {
        let dataset = open(&shard(&path, &[("a.jpg", PICTURE), (name, bytes)])).unwrap();
        let error = dataset.record(0).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(begin.elapsed().as_secs() < 5);
}
