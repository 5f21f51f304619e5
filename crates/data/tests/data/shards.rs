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
    assert!(begin.elapsed().as_secs() < 30);
}

/// Pairs called `name(i)`, for each `i` below `count`.
fn pairs(count: usize, name: impl Fn(usize) -> String) -> Vec<(String, Vec<u8>)> {
    (0..count)
        .flat_map(|i| {
            let (image, caption) = (format!("picture {}", name(i)), format!("caption {}", name(i)));
            [(name(i) + ".jpg", image.into_bytes()), (name(i) + ".txt", caption.into_bytes())]
        })
        .collect()
}

fn shard_of(path: &Path, members: &[(String, Vec<u8>)]) -> PathBuf {
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    shard(path, &members)
}

/// How many records there are; each must be whole.
fn whole_pairs(path: &Path) -> u64 {
    let dataset = open(path).unwrap();
    for index in 0..dataset.len() {
        let record = dataset.record(index).unwrap();
        let image = String::from_utf8(record.image).unwrap();
        assert_eq!(image.strip_prefix("picture "), record.captions[0].strip_prefix("caption "), "{}", record.name);
    }
    assert!(dataset.warnings().is_empty(), "{:?}", dataset.warnings());
    dataset.len()
}

#[test]
fn a_name_ends_at_its_last_dot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let names = |i| if i < 8 { format!("{i:04}") } else { format!("v1.{i}") };
    assert_eq!(whole_pairs(&shard_of(&path, &pairs(12, names))), 12);
    assert_eq!(whole_pairs(&shard_of(&path, &pairs(12, |i| format!("dir.d/IMG_2024.05.{i:02}")))), 12);

    // Further members of a record, as webdataset has them, are no records, but are counted.
    let mut members = pairs(3, |i| format!("{i}"));
    members.extend((0..3).map(|i| (format!("{i}.seg.png"), b"mask".to_vec())));
    members.push(("2.cls".into(), b"7".to_vec()));
    let dataset = open(&shard_of(&path, &members)).unwrap();
    assert_eq!(dataset.len(), 3);
    let warnings = dataset.warnings();
    assert!(warnings[0].ends_with("members that are no image or caption: 1 .cls, 3 .seg.*"), "{warnings:?}");
    // Where nothing else is there, they are.
    let error = refused(&shard(&path, &[("0.left.png", PICTURE), ("0.right.png", PICTURE), ("0.txt", b"both")]));
    assert!(error.contains("3 of 3 records are malformed") && error.contains("no caption"), "{error}");
}

#[test]
fn archives_behind_each_other_are_read_all() {
    let folder = tempfile::tempdir().unwrap();
    let archive = |name: &str, letter: &str| {
        let path = shard_of(&folder.path().join(name), &pairs(12, |i| format!("{letter}{i}")));
        std::fs::read(path).unwrap()
    };
    let (a, b) = (archive("a", "a"), archive("b", "b"));
    let both = folder.path().join("both.tar");
    std::fs::write(&both, [a.as_slice(), &b, &[0; 9 << 10], &a].concat()).unwrap();
    assert_eq!(whole_pairs(&both), 36, "also where names come again");

    // Zeros without end, and something else than an archive.
    std::fs::write(&both, &a).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&both).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(open(&both).unwrap().warnings()[0].contains("zeros behind the mark of the end"));
    std::fs::write(&both, [a.as_slice(), b"and a note"].concat()).unwrap();
    let dataset = open(&both).unwrap();
    assert_eq!(dataset.len(), 13);
    assert!(dataset.warnings()[0].contains("a header is cut off after 10 bytes"), "{:?}", dataset.warnings());
}

#[test]
fn a_name_that_comes_twice_is_two_records_or_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let mut members = pairs(12, |i| format!("{i:04}"));
    members.splice(8..8, [("0003.jpg".into(), b"picture 99".to_vec()), ("0003.txt".into(), b"caption 99".to_vec())]);
    assert_eq!(whole_pairs(&shard_of(&path, &members)), 13);

    members.insert(1, ("0000.png".into(), PICTURE.to_vec()));
    members.insert(20, ("0008.txt".into(), b"and another caption".to_vec()));
    let path = shard_of(&path, &members);
    let all = Options { max_bad_share: 1.0, ..Options::default() };
    let dataset = Dataset::open(&[Source::from(path)], &all).unwrap();
    let errors: Vec<String> = (0..dataset.len()).filter_map(|i| Some(dataset.record(i).err()?.to_string())).collect();
    assert_eq!((dataset.len(), errors.len()), (14, 2), "{errors:?}");
    assert!(errors[0].contains("record 1: no image") && errors[0].contains("comes twice under one name"), "{errors:?}");
    assert!(errors[1].contains("no image"), "a caption alone: {errors:?}");
}

#[test]
fn members_may_come_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut members = pairs(12, |i| format!("{i:04}"));
    members.sort_by_key(|(name, _)| name.ends_with(".txt"));
    assert_eq!(whole_pairs(&shard_of(&folder.path().join("a.tar"), &members)), 12);
}

/// A tar member with its header, as written by others: a kind, what it links to, the size that it declares, and its bytes.
fn member(kind: u8, name: &str, link: &str, size: usize, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size as u64);
    header.set_cksum();
    let mut all = header.as_bytes().to_vec();
    all.extend_from_slice(bytes);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

#[test]
fn sizes_and_links_of_any_dialect_lead_to_the_next_member() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let write = |members: &[Vec<u8>]| std::fs::write(&path, [members.concat(), vec![0; 1024]].concat()).unwrap();
    let file = |name: &str, bytes: &[u8]| member(b'0', name, "", bytes.len(), bytes);

    // A small member's size in an extended header, beside a size of 0 in its own.
    let size = b"11 size=11\n";
    write(&[
        member(b'x', "PaxHeaders/a", "", size.len(), size),
        member(b'0', "0.jpg", "", 0, b"picture one"),
        file("0.txt", b"caption one"),
        file("1.jpg", b"picture 1"),
        file("1.txt", b"caption 1"),
    ]);
    assert_eq!(whole_pairs(&path), 2);

    // Hard links: with no size, with the size of what they link to, and with its bytes.
    write(&[
        file("0.jpg", b"picture same"),
        file("0.txt", b"caption same"),
        member(b'1', "1.jpg", "0.jpg", 0, b""),
        member(b'1', "1.txt", "0.txt", 12, b""),
        member(b'1', "2.jpg", "0.jpg", 12, b"picture same"),
        member(b'1', "2.txt", "0.txt", 12, b"caption same"),
        member(b'5', "folder.jpg", "", 77, b""),
        file("3.jpg", b"picture 3"),
        file("3.txt", b"caption 3"),
    ]);
    assert_eq!(whole_pairs(&path), 4);

    // What cannot be read is named, and what follows is.
    let mut with_holes = member(b'S', "2.jpg", "", 0, b"");
    {
        let header = tar::Header::from_byte_slice(&with_holes[..512]);
        let mut header = header.clone();
        header.as_gnu_mut().unwrap().set_is_extended(true);
        header.set_cksum();
        with_holes = [header.as_bytes().as_slice(), &[0; 512]].concat();
    }
    let holes = b"22 GNU.sparse.major=1\n27 GNU.sparse.name=3.jpg__\n";
    write(&[
        member(b'2', "0.jpg", "elsewhere.jpg", 0, b""),
        file("0.txt", b"a"),
        member(b'1', "1.jpg", "../../elsewhere.jpg", 0, b""),
        file("1.txt", b"b"),
        with_holes,
        file("2.txt", b"c"),
        member(b'x', "PaxHeaders/b", "", holes.len(), holes),
        member(b'0', "GNUSparseFile.0/3.jpg", "", 3, b"map"),
        member(b'3', "4.jpg", "", 0, b""),
        file("4.txt", b"d"),
        file("5.jpg", b"picture 5"),
        file("5.txt", b"caption 5"),
    ]);
    let dataset =
        Dataset::open(&[Source::from(path.clone())], &Options { max_bad_share: 1.0, ..Options::default() }).unwrap();
    let errors: Vec<String> = (0..dataset.len()).filter_map(|i| Some(dataset.record(i).err()?.to_string())).collect();
    assert_eq!((errors.len(), dataset.len()), (4, 5), "{errors:?}");
    for (error, words) in errors.iter().zip(["is a link", "is a link", "with holes", "a device"]) {
        assert!(error.contains("no image") && error.contains(words), "{error}");
    }
    assert!(dataset.warnings()[0].contains(" 1 .jpg__"), "{:?}", dataset.warnings());
}

#[test]
fn compressed_shards_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.tar", "a.tar.gz", "a.tgz", "a.TAR"] {
        let path = folder.path().join(name);
        std::fs::write(&path, b"\x1f\x8b\x08\x00 and so on").unwrap();
        let error = refused(&path);
        assert!(error.contains("compressed with gzip") && error.contains("`gzip -dc FILE > UNPACKED`"), "{error}");
        std::fs::remove_file(path).unwrap();
    }
    // Among others it is a broken shard; a folder of nothing else says what is there.
    for i in 0..20 {
        shard_of(&folder.path().join(format!("{i:02}.tar")), &pairs(2, |i| format!("{i}")));
    }
    std::fs::write(folder.path().join("05.tar"), b"\x28\xb5\x2f\xfd").unwrap();
    let dataset = open(folder.path()).unwrap();
    assert_eq!(dataset.len(), 39);
    assert!(dataset.warnings()[0].contains("05.tar: at byte 0: compressed with zstd"), "{:?}", dataset.warnings());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.tar.gz"), b"\x1f\x8b").unwrap();
    let error = refused(folder.path());
    assert!(error.contains("no records in it, but 1 .gz; expected") && error.contains("not compressed"), "{error}");
}

#[test]
fn shards_in_folders_below_are_found() {
    let folder = tempfile::tempdir().unwrap();
    for inner in ["b", "a"] {
        std::fs::create_dir(folder.path().join(inner)).unwrap();
        shard_of(&folder.path().join(inner).join("0.tar"), &pairs(2, |i| format!("{inner}{i}")));
    }
    assert_eq!(whole_pairs(folder.path()), 4);
    assert_eq!(open(folder.path()).unwrap().entry(0).unwrap().captions, ["caption a0"]);
    // A folder of photographs stays one, and a folder of shards that has some itself.
    std::fs::write(folder.path().join("x.jpg"), PICTURE).unwrap();
    std::fs::write(folder.path().join("x.txt"), "a photograph").unwrap();
    let dataset = open(folder.path()).unwrap();
    assert_eq!(dataset.len(), 1);
    assert!(dataset.warnings()[0].ends_with("files that are no image or caption: 2 .tar"), "{:?}", dataset.warnings());
    shard_of(&folder.path().join("0.tar"), &pairs(2, |i| format!("{i}")));
    let dataset = open(folder.path()).unwrap();
    assert_eq!(dataset.len(), 6);
    assert!(dataset.warnings()[0].ends_with("1 .jpg, 1 .txt"), "{:?}", dataset.warnings());
}

#[test]
fn a_shard_alone_that_is_cut_off_is_used_up_to_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = shard_of(&folder.path().join("a.tar"), &pairs(40, |i| format!("{i:02}")));
    let bytes = std::fs::read(&path).unwrap();
    // In a member, and right behind one, where only the mark of the end is missing.
    for (length, records, bad, words) in [
        (30 * 2048 + 1536 + 3, 32, 2, "the file ends after 3"),
        (30 * 2048 + 512 + 3, 31, 1, "the file ends after 3"),
        (30 * 2048 + 3, 31, 1, "a header is cut off after 3 bytes"),
        (30 * 2048 + 1024, 31, 1, "ends without the mark of an end"),
        (30 * 2048, 30, 0, "ends without the mark of an end"),
    ] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let dataset = open(&path).unwrap();
        let found = (0..dataset.len()).filter(|i| dataset.record(*i).is_err()).count();
        assert_eq!((dataset.len(), found), (records, bad), "{length}");
        assert!(dataset.warnings().len() == 1 && dataset.warnings()[0].contains(words), "{:?}", dataset.warnings());
    }
}

#[test]
fn a_json_that_python_wrote_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = shard(
        &folder.path().join("a.tar"),
        &[
            ("0.jpg", PICTURE),
            ("0.json", br#"{"caption": "from the json", "punsafe": NaN}"#),
            ("0.txt", b"from the text"),
            ("1.jpg", PICTURE),
            ("1.json", br#"{"caption": NaN, "similarity": -Infinity}"#),
            ("1.txt", b"from the text"),
        ],
    );
    let dataset = open(&path).unwrap();
    assert_eq!(dataset.record(0).unwrap().captions, ["from the json"]);
    assert_eq!(dataset.record(1).unwrap().captions, ["from the text"]);
}
