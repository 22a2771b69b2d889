//! Notes, keys and checkpoints against `signed_note` and `tlog_tiles`: what one signs the other verifies, and what
//! was changed gets the same verdict from both.

use std::str::FromStr as _;

use evenkeel_ledger::Hash;
use evenkeel_ledger::tlog::{
    Checkpoint, Cosigner, KeyName, NoteError, SignedNote, Signer, VerifierKey,
};
use proptest::prelude::*;
use signed_note::{Note, StandardSigner, StandardVerifier, Verifier, VerifierList};

fn signer(name: &str, seed: u8) -> Signer {
    Signer::from_seed(KeyName::new(name).unwrap(), [seed; 32])
}

fn verifier_list(keys: &[VerifierKey]) -> VerifierList {
    let list = keys.iter().map(|key| {
        let key = StandardVerifier::new(&key.to_string()).unwrap();
        Box::new(key) as Box<dyn Verifier>
    });
    VerifierList::new(list.collect())
}

/// A checkpoint signed by the log, by another key of it, and cosigned by a witness that the verifier may not know.
fn note() -> SignedNote {
    let checkpoint = Checkpoint::new("example.com/log", 20_852_163, Hash::of(b"root"));
    let mut note = checkpoint.sign(&signer("example.com/log", 1)).unwrap();
    note.add(signer("example.com/log", 2).sign(note.text()))
        .unwrap();
    let witness = Cosigner::from_seed(KeyName::new("witness.example/w1").unwrap(), [3; 32]);
    note.add(witness.cosign(note.text(), 1_679_315_147))
        .unwrap();
    note
}

/// How a verifier that does not believe the text sees it: form, trust, content.
#[derive(Debug, PartialEq)]
enum Verdict {
    Malformed,
    BadSignature,
    Unverified,
    Verified(String, usize),
}

fn ours(bytes: &[u8], keys: &[VerifierKey]) -> Verdict {
    let Ok(note) = SignedNote::parse(bytes) else {
        return Verdict::Malformed;
    };
    match note.verify(keys) {
        Ok(verified) => {
            let mut by: Vec<String> = verified
                .signatures()
                .iter()
                .map(|signature| signature.key.to_string())
                .collect();
            by.sort_unstable();
            by.dedup();
            Verdict::Verified(note.text().to_owned(), by.len())
        }
        Err(NoteError::BadSignature { .. }) => Verdict::BadSignature,
        Err(_) => Verdict::Unverified,
    }
}

fn theirs(bytes: &[u8], keys: &[VerifierKey]) -> Verdict {
    let Ok(note) = Note::from_bytes(bytes) else {
        return Verdict::Malformed;
    };
    let text = String::from_utf8(note.text().to_vec()).unwrap();
    match note.verify(&verifier_list(keys)) {
        Ok((verified, _)) => Verdict::Verified(text, verified.len()),
        Err(signed_note::NoteError::InvalidSignature { .. }) => Verdict::BadSignature,
        Err(_) => Verdict::Unverified,
    }
}

#[test]
fn what_one_signs_the_other_verifies() {
    let signer = signer("example.com/log", 1);
    let key = signer.verifier().clone();
    let other = StandardSigner::new(&signer.to_secret_text()).unwrap();
    let text = note().text().to_owned();
    let mut theirs_signed = Note::new(text.as_bytes(), &[]).unwrap();
    theirs_signed.add_sigs(&[&other]).unwrap();
    let ours_signed = SignedNote::new(text.clone(), vec![signer.sign(&text)]).unwrap();
    assert_eq!(theirs_signed.to_bytes(), ours_signed.to_string().as_bytes());
    let bytes = theirs_signed.to_bytes();
    let keys = [key];
    assert_eq!(ours(&bytes, &keys), Verdict::Verified(text.clone(), 1));
    assert_eq!(theirs(&bytes, &keys), Verdict::Verified(text, 1));
}

#[test]
fn keys_and_order_of_lines_get_the_same_verdict() {
    let first = signer("example.com/log", 1).verifier().clone();
    let second = signer("example.com/log", 2).verifier().clone();
    let stranger = signer("example.com/log", 9).verifier().clone();
    let text = note().to_string();
    let (head, lines) = text.split_once("\n\n").unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    let spoiled = lines[1].replace("example.com/log ", "example.com/log");
    let orders: [&[&str]; 7] = [
        &lines,
        &[lines[2], lines[1], lines[0]],
        &[lines[0], lines[0], lines[2]],
        &[lines[2]],
        &[lines[1]],
        &[lines[0], &spoiled],
        &[],
    ];
    let key_sets: [&[VerifierKey]; 5] = [
        &[],
        std::slice::from_ref(&first),
        std::slice::from_ref(&stranger),
        &[first.clone(), second.clone()],
        &[stranger.clone(), second],
    ];
    let mut verified = 0;
    for order in orders {
        let block: String = order.iter().map(|line| line.to_string() + "\n").collect();
        let note = format!("{head}\n\n{block}");
        for keys in key_sets {
            let verdict = ours(note.as_bytes(), keys);
            assert_eq!(verdict, theirs(note.as_bytes(), keys), "{note}");
            verified += usize::from(matches!(verdict, Verdict::Verified(..)));
        }
    }
    assert_eq!(verified, 10);
}

proptest! {
    /// Bytes of a signed note changed, cut or added.
    #[test]
    fn changed_notes_get_the_same_verdict(
        at: prop::sample::Index, cut in 0_usize..3,
        with in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..4),
            "[A-Za-z0-9+/= \n\u{2014}.]{0,4}".prop_map(String::into_bytes),
        ],
    ) {
        let bytes = note().to_string().into_bytes();
        let at = at.index(bytes.len() + 1);
        let end = (at + cut).min(bytes.len());
        let changed = [&bytes[..at], &with, &bytes[end..]].concat();
        let keys = [signer("example.com/log", 1).verifier().clone()];
        let verdict = ours(&changed, &keys);
        prop_assert_eq!(&verdict, &theirs(&changed, &keys));
        if let Verdict::Verified(text, _) = verdict {
            prop_assert_eq!(text, note().text().to_owned());
        }
    }

    #[test]
    fn changed_keys_get_the_same_verdict(at: prop::sample::Index, cut in 0_usize..3, with in "[A-Za-z0-9+/= ]{0,3}") {
        let signer = signer("example.com/log", 1);
        let change = |text: &str| {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            format!("{}{with}{}", &text[..at], &text[end..])
        };
        let key = change(&signer.verifier().to_string());
        prop_assert_eq!(VerifierKey::from_str(&key).is_ok(), StandardVerifier::new(&key).is_ok(), "{}", key);
        let secret = change(&signer.to_secret_text());
        prop_assert_eq!(Signer::from_str(&secret).is_ok(), StandardSigner::new(&secret).is_ok(), "{}", secret);
    }

    /// Control characters are left to the note, which refuses them before the other crate reads a checkpoint.
    #[test]
    fn changed_checkpoints_get_the_same_verdict(
        at: prop::sample::Index, cut in 0_usize..3, with in "[A-Za-z0-9+/= \n.-]{0,4}",
    ) {
        let text = format!("{}extension\n", note().text());
        let at = at.index(text.len() + 1);
        let end = (at + cut).min(text.len());
        let changed = format!("{}{with}{}", &text[..at], &text[end..]);
        let ours = Checkpoint::parse(&changed);
        let theirs = tlog_tiles::Checkpoint::from_bytes(changed.as_bytes());
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}", changed);
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours.origin.as_str(), theirs.origin());
            prop_assert_eq!(ours.size, theirs.size());
            prop_assert_eq!(ours.root.as_bytes(), &theirs.hash().0);
            prop_assert_eq!(ours.to_text().into_bytes(), theirs.to_bytes());
        }
    }
}
