//! Pickles of data: REFER's refs in every protocol that Python has had for them.

use std::io::Write;

use simla_weights::{Archive, Limits, ReadError, read_data};

fn read(bytes: &[u8]) -> Result<Archive, ReadError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    read_data(file.path(), &Limits::of_data())
}

/// `[{'ref_id': 5, 'split': 'testA', 'sentences': [{'sent': u"the dog's", 'raw': 'a \xe9'}], 'area': 2.5, 'is': True}]`.
const PROTOCOL_0: &[u8] =
    b"(lp0\n(dp1\nS'ref_id'\np2\nI5\nsS'split'\np3\nS'testA'\np4\nsS'sentences'\np5\n(lp6\n(dp7\nS'sent'\np8\n\
    Vthe dog's\np9\nsS'raw'\np10\nS'a \\xe9'\np11\nsasS'area'\np12\nF2.5\nsS'is'\np13\nI01\nsa.";
const PROTOCOL_1: &[u8] = b"]q\x00}q\x01(U\x06ref_idq\x02K\x05U\x05splitq\x03U\x05testAq\x04U\tsentencesq\x05]q\x06}q\x07(\
    U\x04sentq\x08X\t\x00\x00\x00the dog'sq\tU\x03rawq\nU\x03a \xe9q\x0buaU\x04areaq\x0cG@\x04\x00\x00\x00\x00\x00\x00U\x02isq\rI01\nua.";
const PROTOCOL_2: &[u8] = b"\x80\x02]q\x00}q\x01(X\x06\x00\x00\x00ref_idq\x02K\x05X\x05\x00\x00\x00splitq\x03X\x05\x00\x00\x00testAq\x04\
    X\t\x00\x00\x00sentencesq\x05]q\x06}q\x07(X\x04\x00\x00\x00sentq\x08X\t\x00\x00\x00the dog'sq\tX\x03\x00\x00\x00rawq\nC\x03a \xe9q\x0bua\
    X\x04\x00\x00\x00areaq\x0cG@\x04\x00\x00\x00\x00\x00\x00X\x02\x00\x00\x00isq\r\x88ua.";

#[test]
fn one_list_in_three_protocols() {
    for bytes in [PROTOCOL_0, PROTOCOL_1, PROTOCOL_2] {
        let archive = read(bytes).unwrap();
        let refs = archive.root().elements();
        let [found] = refs[..] else { panic!("{refs:?}") };
        let get = |name: &str| found.get(name).unwrap();
        assert_eq!((get("ref_id").as_i64(), get("split").as_str()), (Some(5), Some("testA")));
        assert_eq!((get("area").as_f64(), get("is").as_bool()), (Some(2.5), Some(true)));
        let sentence = get("sentences").elements()[0];
        assert_eq!(sentence.get("sent").unwrap().as_str(), Some("the dog's"));
        assert_eq!(sentence.get("raw").unwrap().kind(), "bytes", "no UTF-8");
        assert_eq!(found.get("file_name").map(|node| node.kind()), None);
    }
}

#[test]
fn what_is_no_data_is_refused_and_nothing_is_run() {
    let refused = |bytes: &[u8], words: &str| {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{words} in: {error}");
    };
    refused(b"", "the pickle needs 1 bytes");
    refused(b"[{\"ref_id\": 1}]", "instruction 0x5b");
    refused(b"(lp0\nI5x\n.", "expected an integer");
    refused(b"S'a\n.", "not quoted");
    refused(b"Fx\n.", "expected a float");
    refused(b"g7\n.", "used before it is stored");
    refused(b"p\n.", "expected a number");
    refused(b"(lp0\nI5", "an integer needs");
    refused(b"\x82\x01.", "instruction 0x82");
    // What would call something is a note, as in weights.
    let call = read(b"cos\nsystem\n(S'touch ran'\ntR.").unwrap();
    assert_eq!(call.root().class(), Some(("os", "system")));
    let long = read(b"L123456789012345678901234567890L\n.").unwrap();
    assert_eq!(long.root().kind(), "an integer");
    // A file of weights is refused as weights with these instructions.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(PROTOCOL_0).unwrap();
    let error = simla_weights::read(file.path(), &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("not a checkpoint"), "{error}");
}
