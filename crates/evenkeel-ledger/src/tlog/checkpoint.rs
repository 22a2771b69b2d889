//! Checkpoints (C2SP `tlog-checkpoint`): what a log signs about itself. The note's text is
//!
//! ```text
//! example.com/log                                the origin: which log
//! 20852163                                       how many entries
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=   the root of their Merkle tree
//! ```
//!
//! and perhaps extension lines, which have no meaning here.

use std::str::FromStr;

use super::text;
use super::{NoteError, SignedNote, Signer};
use crate::Hash;

/// What a log states of itself at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: one line, not empty. By custom an address without its scheme.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// RFC 6962's root over them; of the empty log SHA-256 of nothing.
    pub root: Hash,
    /// Further lines, none empty. Not recommended, and no monitor can check them.
    pub extensions: Vec<String>,
}

/// Why a text is not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The text does not end with a newline.
    #[error("the checkpoint does not end with a newline")]
    Unfinished,
    /// A line is missing.
    #[error("the checkpoint has no {0}")]
    Missing(&'static str),
    /// The size is not a decimal of 64 bits without leading zeros.
    #[error("the checkpoint's size is not a whole number without leading zeros")]
    Size,
    /// The root is not a hash.
    #[error("the checkpoint's root is not the base64 of 32 bytes")]
    Root,
    /// The origin or an extension cannot stand on a line of its own.
    #[error("the checkpoint's {0} is empty, or holds a newline or another control character")]
    Line(&'static str),
    /// The text cannot be a signed note's.
    #[error("the checkpoint cannot be signed: {0}")]
    Note(#[from] NoteError),
}

impl Checkpoint {
    /// A checkpoint without extensions.
    pub fn new(origin: impl Into<String>, size: u64, root: Hash) -> Self {
        Self {
            origin: origin.into(),
            size,
            root,
            extensions: Vec::new(),
        }
    }

    /// Reads a note's text. Whatever is accepted, [`to_text`](Self::to_text) writes again byte for byte.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let body = text.strip_suffix('\n').ok_or(CheckpointError::Unfinished)?;
        let mut lines = body.split('\n');
        let origin = lines.next().ok_or(CheckpointError::Missing("origin"))?;
        let size = lines.next().ok_or(CheckpointError::Missing("size"))?;
        let root = lines.next().ok_or(CheckpointError::Missing("root"))?;
        let checkpoint = Self {
            origin: origin.to_owned(),
            size: text::decimal(size).ok_or(CheckpointError::Size)?,
            root: text::decode_hash(root).ok_or(CheckpointError::Root)?,
            extensions: lines.map(str::to_owned).collect(),
        };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// The note's text, with its final newline. Of a checkpoint whose lines hold newlines or nothing it is not one;
    /// [`sign`](Self::sign) refuses those.
    pub fn to_text(&self) -> String {
        let (origin, size) = (&self.origin, self.size);
        let mut text = format!("{origin}\n{size}\n{}\n", text::encode_hash(&self.root));
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Signs it with the log's key. The key's name should be the origin. A log must never sign two checkpoints of
    /// which one is not the other's beginning: the caller sees to that.
    pub fn sign(&self, signer: &Signer) -> Result<SignedNote, CheckpointError> {
        self.check()?;
        let text = self.to_text();
        let line = signer.sign(&text);
        Ok(SignedNote::new(text, vec![line])?)
    }

    fn check(&self) -> Result<(), CheckpointError> {
        if !is_line(&self.origin) {
            return Err(CheckpointError::Line("origin"));
        }
        if !self.extensions.iter().all(|line| is_line(line)) {
            return Err(CheckpointError::Line("extension"));
        }
        Ok(())
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        Self::parse(text)
    }
}

fn is_line(line: &str) -> bool {
    !line.is_empty() && !line.contains('\n') && text::is_printable(line)
}

#[cfg(test)]
mod tests {
    use super::super::KeyName;
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn the_specifications_example_reads_and_writes() {
        let checkpoint = Checkpoint::parse(TEXT).unwrap();
        assert_eq!(checkpoint.origin, "example.com/behind-the-sofa");
        assert_eq!(checkpoint.size, 20_852_163);
        assert!(checkpoint.extensions.is_empty());
        assert_eq!(checkpoint.to_text(), TEXT);
        let extended = format!("{TEXT}one\ntwo words\n");
        let checkpoint = Checkpoint::parse(&extended).unwrap();
        assert_eq!(checkpoint.extensions, ["one", "two words"]);
        assert_eq!(checkpoint.to_text(), extended);
    }

    #[test]
    fn another_spelling_is_refused() {
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        let cases = [
            (String::new(), CheckpointError::Unfinished),
            (TEXT.trim_end().to_owned(), CheckpointError::Unfinished),
            ("\n".to_owned(), CheckpointError::Missing("size")),
            ("o\n1\n".to_owned(), CheckpointError::Missing("root")),
            (format!("\n1\n{root}\n"), CheckpointError::Line("origin")),
            (format!("o\r\n1\n{root}\n"), CheckpointError::Line("origin")),
            (format!("o\n01\n{root}\n"), CheckpointError::Size),
            (format!("o\n+1\n{root}\n"), CheckpointError::Size),
            (format!("o\n\n{root}\n"), CheckpointError::Size),
            (
                format!("o\n18446744073709551616\n{root}\n"),
                CheckpointError::Size,
            ),
            (format!("o\n1\n{root} \n"), CheckpointError::Root),
            (
                format!("o\n1\n{}\n", root.replace("2I=", "2J=")),
                CheckpointError::Root,
            ),
            (
                format!("o\n1\n{root}\n\n"),
                CheckpointError::Line("extension"),
            ),
            (
                format!("o\n1\n{root}\nx\n\ny\n"),
                CheckpointError::Line("extension"),
            ),
        ];
        for (text, error) in cases {
            assert_eq!(Checkpoint::parse(&text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn lines_cannot_be_smuggled_in_by_signing() {
        let signer = Signer::from_seed(KeyName::new("o").unwrap(), [7; 32]);
        for origin in ["", "o\n5", "o\r"] {
            let checkpoint = Checkpoint::new(origin, 1, Hash::ZERO);
            assert_eq!(
                checkpoint.sign(&signer),
                Err(CheckpointError::Line("origin"))
            );
        }
        let mut checkpoint = Checkpoint::new("o", 1, Hash::ZERO);
        checkpoint.extensions.push("\n— o AAAA".to_owned());
        assert_eq!(
            checkpoint.sign(&signer),
            Err(CheckpointError::Line("extension"))
        );
        checkpoint.extensions[0] = "x".repeat(70_000);
        assert_eq!(
            checkpoint.sign(&signer),
            Err(CheckpointError::Note(NoteError::TooLong))
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            origin in "[^\\x00-\\x1f]{1,40}",
            size: u64,
            root: [u8; 32],
            extensions in proptest::collection::vec("[^\\x00-\\x1f]{1,20}", 0..3),
        ) {
            let root = Hash::from_bytes(root);
            let checkpoint = Checkpoint { origin, size, root, extensions };
            prop_assert_eq!(Checkpoint::parse(&checkpoint.to_text()), Ok(checkpoint));
        }

        #[test]
        fn what_is_read_is_written(at in 0_usize..TEXT.len(), with in "[0-9A-Za-z+=\\n \\r]{0,3}", cut in 0_usize..3) {
            let end = (at + cut).min(TEXT.len());
            let text = format!("{}{with}{}", &TEXT[..at], &TEXT[end..]);
            if let Ok(checkpoint) = Checkpoint::parse(&text) {
                prop_assert_eq!(checkpoint.to_text(), text);
            }
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = Checkpoint::parse(&text);
        }
    }
}
