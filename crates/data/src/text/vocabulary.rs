//! Words to pieces and back: BERT's WordPiece, from a file or learned from the captions.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simla_files::write_atomically;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::tokenizer::Tokenizer;

use super::{caption, learn, names_something};

/// Pieces of a caption at most, `[CLS]` and `[SEP]` included, as the authors count them.
pub const MAX_TOKENS: usize = 25;

/// Special pieces in the order in which a learned vocabulary begins.
pub(crate) const SPECIAL_PIECES: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Largest vocabulary file that is read: BERT's multilingual ones have 1 MB, as JSON 3 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The ids of the special pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Special {
    pub pad: i64,
    pub unk: i64,
    pub cls: i64,
    pub sep: i64,
    pub mask: i64,
}

/// Why a vocabulary could not be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum VocabularyError {
    #[error("vocabulary {}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("vocabulary {}: {bytes} bytes, at most {MAX_FILE_BYTES} are read: is it a vocab.txt or a tokenizer.json?", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("vocabulary {}: not UTF-8 text from byte {offset} on; a vocab.txt has one word piece a line", path.display())]
    NotText { path: PathBuf, offset: usize },
    #[error("vocabulary {}, line {line}: the piece {piece:?} was already on line {first}", path.display())]
    Twice { path: PathBuf, line: usize, first: usize, piece: String },
    #[error("vocabulary {}: the special piece {piece} is missing", path.display())]
    NoSpecial { path: PathBuf, piece: &'static str },
    #[error("vocabulary {}: {error}; expected a tokenizer.json with a WordPiece model", path.display())]
    Tokenizer { path: PathBuf, error: String },
    #[error("vocabulary: a size of {size} was asked for, at least {least} are needed ({} special pieces and one for each character)", SPECIAL_PIECES.len())]
    TooSmall { size: usize, least: usize },
    #[error("vocabulary: there is no word in the captions to learn from")]
    NoWords,
}

/// A WordPiece vocabulary.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    tokenizer: Tokenizer,
    pieces: Vec<String>,
    special: Special,
    words: Vec<i64>,
    content: Vec<i64>,
    /// Whether text ends in `[SEP]`.
    closes: bool,
    /// The tokenizer.json that this was read from.
    json: Option<String>,
}

impl Vocabulary {
    /// Reads a `tokenizer.json` (by its ending) or else a `vocab.txt`: a piece a line, the line's number its id.
    pub fn open(path: &Path) -> Result<Self, VocabularyError> {
        let io = |error| VocabularyError::Io { path: path.into(), error };
        let about = std::fs::metadata(path).map_err(io)?;
        if !about.is_file() {
            return Err(io(std::io::Error::other("not a file")));
        }
        if about.len() > MAX_FILE_BYTES {
            return Err(VocabularyError::TooLarge { path: path.into(), bytes: about.len() });
        }
        let bytes = std::fs::read(path).map_err(io)?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|e| VocabularyError::NotText { path: path.into(), offset: e.valid_up_to() })?;
        if path.extension().is_some_and(|e| e == "json") {
            return Self::of_json(text, path);
        }
        let mut lines = std::collections::HashMap::new();
        for (index, piece) in text.lines().map(str::trim_end).enumerate() {
            if let Some(first) = lines.insert(piece, index + 1) {
                return Err(VocabularyError::Twice { path: path.into(), line: index + 1, first, piece: piece.into() });
            }
        }
        Self::of_lines(text, path)
    }

    /// From the text of a `tokenizer.json`, as [`Vocabulary::to_json`] gives it; `path` is where errors say that it is.
    pub fn of_json(text: &str, path: &Path) -> Result<Self, VocabularyError> {
        let foreign = |e: tokenizers::Error| VocabularyError::Tokenizer { path: path.into(), error: e.to_string() };
        let vocabulary = Self::of(text.parse().map_err(foreign)?, path)?;
        Ok(Vocabulary { json: Some(text.into()), ..vocabulary })
    }

    /// Learns a vocabulary of at most `size` pieces from captions as they are in the data (cleaned here): the special
    /// pieces, `[PAD]` first, the characters, and the pieces that joining the most frequent neighbours gives. The same
    /// captions, in any order, give the same vocabulary.
    pub fn learn(captions: impl Iterator<Item = String>, size: usize) -> Result<Self, VocabularyError> {
        let pieces = learn::pieces(captions, size)?;
        Self::of_lines(&pieces.join("\n"), Path::new("(learned)"))
    }

    /// As it is, for text that ends in `[SEP]`, as BERT's does and without being asked for; or does not.
    pub fn closing(self, closes: bool) -> Self {
        Self { closes, ..self }
    }

    /// Whether text ends in `[SEP]`.
    pub fn closes(&self) -> bool {
        self.closes
    }

    /// Writes a `tokenizer.json` (by the ending) or else a `vocab.txt`, which holds the pieces alone; see
    /// [`write_atomically`].
    pub fn save(&self, path: &Path) -> Result<(), VocabularyError> {
        let io = |error| VocabularyError::Io { path: path.into(), error };
        let text =
            if path.extension().is_some_and(|e| e == "json") { self.to_json() } else { self.pieces.join("\n") + "\n" };
        write_atomically(path, text.as_bytes()).map_err(io)
    }

    /// The pieces of a caption, cleaned first (see [`caption::clean`]): `[CLS]`, at most `max - 2` pieces, `[SEP]`; without
    /// [`closing`](Self::closing), `[CLS]` and at most `max - 1` pieces. A caption that says nothing gives the special ones alone.
    pub fn encode(&self, caption: &str, max: usize) -> Vec<i64> {
        self.cut(&caption::clean(caption), max, self.closes)
    }

    /// The pieces of a text as it is: `[CLS]`, its pieces, `[SEP]` where it is `closed`; at most `max` in all.
    pub fn cut(&self, text: &str, max: usize, closed: bool) -> Vec<i64> {
        let Special { cls, sep, unk, .. } = self.special;
        let mut ids = vec![cls];
        match self.tokenizer.encode_fast(text, false) {
            Ok(encoding) => {
                let most = max.saturating_sub(1 + usize::from(closed));
                ids.extend(encoding.get_ids().iter().take(most).map(|id| i64::from(*id)));
            }
            // Only a model without [UNK] fails, and `of` refuses those.
            Err(_) => ids.push(unk),
        }
        if closed {
            ids.push(sep);
        }
        ids
    }

    /// The piece with this id; the unknown piece for an id outside the vocabulary.
    pub fn word(&self, id: i64) -> &str {
        let piece = usize::try_from(id).ok().and_then(|id| self.pieces.get(id));
        piece.map_or(SPECIAL_PIECES[1], String::as_str)
    }

    /// The id of a piece.
    pub fn id(&self, piece: &str) -> Option<i64> {
        self.tokenizer.token_to_id(piece).map(i64::from)
    }

    /// The text that pieces stand for: continuations joined, `[PAD]`, `[CLS]` and `[SEP]` left out.
    pub fn decode(&self, ids: &[i64]) -> String {
        let Special { pad, cls, sep, .. } = self.special;
        let mut text = String::new();
        for id in ids.iter().filter(|id| ![pad, cls, sep].contains(id)) {
            match self.word(*id).strip_prefix("##") {
                Some(rest) => text.push_str(rest),
                None => {
                    if !text.is_empty() {
                        text.push(' ');
                    }
                    text.push_str(self.word(*id));
                }
            }
        }
        text
    }

    /// The special pieces' ids.
    pub fn special(&self) -> Special {
        self.special
    }

    /// The ids of all pieces that are not special.
    pub fn words(&self) -> &[i64] {
        &self.words
    }

    /// The ids of whole words that may name what a picture shows (see [`names_something`]), no continuations of words.
    pub fn content_words(&self) -> &[i64] {
        &self.content
    }

    /// Number of ids, special ones included: the model's vocabulary size.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Never: the special pieces are always there.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn of_lines(text: &str, path: &Path) -> Result<Self, VocabularyError> {
        let foreign =
            |error: tokenizers::Error| VocabularyError::Tokenizer { path: path.into(), error: error.to_string() };
        let vocab = WordPiece::read_bytes(text.as_bytes()).map_err(foreign)?;
        let model = WordPiece::builder().vocab(vocab).build().map_err(foreign)?;
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_normalizer(Some(normalizer()));
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        Self::of(tokenizer, path)
    }

    fn of(mut tokenizer: Tokenizer, path: &Path) -> Result<Self, VocabularyError> {
        let foreign = |error: String| VocabularyError::Tokenizer { path: path.into(), error };
        if !matches!(tokenizer.get_model(), tokenizers::ModelWrapper::WordPiece(_)) {
            return Err(foreign("its model is of another kind".into()));
        }
        // Special pieces, length and padding are ours: `encode` and the loader say them.
        tokenizer.with_truncation(None).map_err(|e| foreign(e.to_string()))?;
        tokenizer.with_padding(None);
        let id = |piece| {
            tokenizer.token_to_id(piece).map(i64::from).ok_or(VocabularyError::NoSpecial { path: path.into(), piece })
        };
        let [pad, unk, cls, sep, mask] = SPECIAL_PIECES;
        let special = Special { pad: id(pad)?, unk: id(unk)?, cls: id(cls)?, sep: id(sep)?, mask: id(mask)? };
        let vocab = tokenizer.get_vocab(true);
        let mut pieces = vec![String::new(); vocab.len()];
        for (piece, id) in vocab {
            let count = pieces.len();
            match pieces.get_mut(id as usize) {
                Some(slot) => *slot = piece,
                None => {
                    return Err(foreign(format!("the piece {piece:?} has id {id}, but there are {count} pieces")));
                }
            }
        }
        let Special { pad, unk, cls, sep, mask } = special;
        let words: Vec<i64> = (0..pieces.len() as i64).filter(|id| ![pad, unk, cls, sep, mask].contains(id)).collect();
        let content = words.iter().copied().filter(|&id| names_something(&pieces[id as usize])).collect();
        Ok(Vocabulary { tokenizer, pieces, special, words, content, closes: true, json: None })
    }
}

impl Vocabulary {
    /// As a `tokenizer.json`: the one that this was read from, or this vocabulary with BERT's normaliser. (Composed here,
    /// since the library's own serialisation of every kind of tokenizer takes minutes to compile.)
    pub fn to_json(&self) -> String {
        if let Some(json) = &self.json {
            return json.clone();
        }
        let vocab: std::collections::BTreeMap<&String, usize> = self.pieces.iter().zip(0..).collect();
        let json = serde_json::json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": true,
                "strip_accents": null,
                "lowercase": true,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": null,
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": vocab,
            },
        });
        format!("{json:#}\n")
    }
}

/// bert-base-uncased's: control characters out, spaces around Chinese characters, lower case, accents off.
pub(crate) fn normalizer() -> BertNormalizer {
    BertNormalizer::new(true, true, None, true)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The special pieces and `w0`, `w1`, ...
    pub(crate) fn numbered(words: usize) -> Vocabulary {
        let numbers = (0..words).map(|i| format!("w{i}"));
        let lines: Vec<String> = SPECIAL_PIECES.iter().map(|p| p.to_string()).chain(numbers).collect();
        Vocabulary::of_lines(&lines.join("\n"), Path::new("numbered")).unwrap()
    }

    #[test]
    fn saves_and_opens_both_forms() {
        let folder = tempfile::tempdir().unwrap();
        let vocabulary = numbered(30);
        for name in ["vocab.txt", "tokenizer.json"] {
            let path = folder.path().join(name);
            vocabulary.save(&path).unwrap();
            let again = Vocabulary::open(&path).unwrap();
            assert_eq!(again.pieces, vocabulary.pieces);
            assert_eq!(again.special(), Special { pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 });
            assert_eq!(again.encode("w3 W29, zebra [MASK] w1.", 25), vocabulary.encode("w3 w29 zebra [MASK] w1", 25));
            assert_eq!(again.len(), 35);
            assert_eq!(again.words(), (5..35).collect::<Vec<_>>());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file stays");
    }

    #[test]
    fn at_most_max_pieces_with_both_ends() {
        let vocabulary = numbered(30);
        let long: Vec<String> = (0..30).map(|i| format!("w{i}")).collect();
        let ids = vocabulary.encode(&long.join(" "), MAX_TOKENS);
        assert_eq!(ids.len(), 25);
        assert_eq!((ids[0], ids[1], ids[23], ids[24]), (2, 5, 5 + 22, 3));
        assert_eq!(vocabulary.encode("!", MAX_TOKENS), [2, 3]);

        let open = vocabulary.closing(false);
        let ids = open.encode(&long.join(" "), MAX_TOKENS);
        assert_eq!((ids.len(), ids[0], ids[24]), (25, 2, 5 + 23));
        assert_eq!(open.encode("w1", MAX_TOKENS), [2, 6]);
        assert_eq!(open.encode("!", MAX_TOKENS), [2]);
    }

    #[test]
    fn decodes_to_text() {
        let text = SPECIAL_PIECES.join("\n") + "\nplay\n##ing\ndogs";
        let vocabulary = Vocabulary::of_lines(&text, Path::new("test")).unwrap();
        let ids = vocabulary.encode("Dogs playing!", 25);
        assert_eq!(ids, [2, 7, 5, 6, 3]);
        assert_eq!(vocabulary.decode(&ids), "dogs playing");
        assert_eq!((vocabulary.word(6), vocabulary.word(-1), vocabulary.word(99)), ("##ing", "[UNK]", "[UNK]"));
        assert_eq!((vocabulary.id("dogs"), vocabulary.id("cats")), (Some(7), None));
    }

    #[test]
    fn content_words_are_whole_and_name_something() {
        let text = SPECIAL_PIECES.join("\n") + "\ndog\n##ing\nthe\n,\n2\nwhile\nhund";
        let vocabulary = Vocabulary::of_lines(&text, Path::new("test")).unwrap();
        let words: Vec<&str> = vocabulary.content_words().iter().map(|&id| vocabulary.word(id)).collect();
        assert_eq!(words, ["dog", "2", "hund"]);
    }

    #[test]
    fn refuses_what_is_no_vocabulary() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            Vocabulary::open(&path).unwrap_err().to_string()
        };
        let five = SPECIAL_PIECES.join("\n");
        assert!(write("a.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\ndog\n").contains("[MASK] is missing"));
        assert!(
            write("b.txt", (five.clone() + "\ndog\ncat\ndog").as_bytes())
                .contains("line 8: the piece \"dog\" was already on line 6")
        );
        assert!(write("c.txt", b"[PAD]\n\xff\xfe").contains("not UTF-8 text from byte 6"));
        assert!(write("d.json", b"{}").contains("d.json"));
        assert!(write("e.json", br#"{"model": {"type": "BPE", "vocab": {}, "merges": []}}"#).contains("another kind"));
        let gap = r###"{"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "dog": 4000000000}}}"###;
        assert!(write("f.json", gap.as_bytes()).contains("has id 4000000000, but there are 6 pieces"));
        assert!(Vocabulary::open(folder.path()).unwrap_err().to_string().contains("not a file"));
        assert!(Vocabulary::open(&folder.path().join("none")).is_err());
    }
}
