//! Notes, names and keys: examples of others, each wrong spelling, and whatever bytes come.

use std::str::FromStr as _;

use proptest::prelude::*;

use super::super::Cosigner;
use super::*;

/// From the documentation of Go's `sumdb/note`.
const PETER_SECRET: &str =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETER_TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const PETER_LINE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
/// There too, made of a seed of zeros.
const ENOCH_LINE: &str = "\u{2014} EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=";

/// The key of Go's checksum database, and one of its checkpoints.
const GO_SUM: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
const GO_SUM_NOTE: &str = "go.sum database tree\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u{2014} sum.golang.org Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

fn name(text: &str) -> KeyName {
    KeyName::new(text).unwrap()
}

fn peter() -> VerifierKey {
    PETER.parse().unwrap()
}

fn enoch() -> Signer {
    Signer::from_seed(name("EnochRoot"), [0; 32])
}

fn peters_note() -> String {
    format!("{PETER_TEXT}\n{PETER_LINE}\n")
}

#[test]
fn published_keys_and_notes_are_signed_and_verified() {
    let signer = Signer::from_str(PETER_SECRET).unwrap();
    assert_eq!(signer.verifier().to_string(), PETER);
    assert_eq!(*signer.to_secret_text(), PETER_SECRET);
    assert_eq!(signer.sign(PETER_TEXT).to_string(), PETER_LINE);
    assert_eq!(enoch().sign(PETER_TEXT).to_string(), ENOCH_LINE);

    let mut note = SignedNote::parse(peters_note().as_bytes()).unwrap();
    note.add(enoch().sign(PETER_TEXT)).unwrap();
    assert_eq!(note.to_string(), format!("{}{ENOCH_LINE}\n", peters_note()));
    let keys = [enoch().verifier().clone(), peter()];
    let verified = note.verify(&keys).unwrap();
    assert_eq!(verified.signatures().len(), 2);
    assert_eq!(verified.signatures()[0].key, peter());
    assert_eq!(verified.signatures()[0].time, None);
}

#[test]
fn a_checkpoint_of_a_public_log_verifies() {
    let key: VerifierKey = GO_SUM.parse().unwrap();
    assert_eq!(key.to_string(), GO_SUM);
    let note = SignedNote::parse(GO_SUM_NOTE.as_bytes()).unwrap();
    assert!(note.verify(std::slice::from_ref(&key)).unwrap().is_by(&key));
    assert_eq!(note.to_string(), GO_SUM_NOTE);
    let larger = GO_SUM_NOTE.replace("20852163", "20852164");
    let note = SignedNote::parse(larger.as_bytes()).unwrap();
    assert!(matches!(
        note.verify(&[key]),
        Err(NoteError::BadSignature { .. })
    ));
}

/// A checkpoint of a certificate log with cosignatures of four public witnesses, as it was published. The first line
/// is of another type (0x05) and ignored.
#[test]
fn cosignatures_of_public_witnesses_verify() {
    const NOTE: &str = "arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

\u{2014} arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
\u{2014} arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
\u{2014} transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
\u{2014} witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
\u{2014} remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
\u{2014} witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
";
    let keys = [
        "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f",
        "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
        "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
        "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
    ]
    .map(|key| key.parse::<VerifierKey>().unwrap());
    let note = SignedNote::parse(NOTE.as_bytes()).unwrap();
    let verified = note.verify(&keys).unwrap();
    let by: Vec<_> = verified
        .signatures()
        .iter()
        .map(|by| by.key.clone())
        .collect();
    assert_eq!(by, keys);
    let times: Vec<_> = verified.signatures().iter().map(|by| by.time).collect();
    let time = Some(0x6a12_2120);
    assert_eq!(times, [None, time, time, time, time]);

    let smaller = NOTE.replace("1432088532", "1432088531");
    let note = SignedNote::parse(smaller.as_bytes()).unwrap();
    for key in keys {
        assert!(matches!(
            note.verify(&[key]),
            Err(NoteError::BadSignature { .. })
        ));
    }
}

/// The specification's example note is only parsed: its key is not published.
#[test]
fn the_last_empty_line_ends_the_text() {
    let text = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned \u{e8} subito sera.\n";
    let line = "\u{2014} quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=";
    let note = SignedNote::parse(format!("{text}\n{line}\n").as_bytes()).unwrap();
    assert_eq!(note.text(), text);
    assert_eq!(note.signatures()[0].id(), 0x367b_a04b);
    assert_eq!(note.signatures()[0].to_string(), line);
}

#[test]
fn the_form_of_a_note_is_checked() {
    let good = peters_note();
    let lines = |count: usize| format!("{PETER_TEXT}\n{}", format!("{PETER_LINE}\n").repeat(count));
    assert!(SignedNote::parse(lines(SIGNATURES_MAX).as_bytes()).is_ok());
    let cases: Vec<(Vec<u8>, NoteError)> = vec![
        (
            lines(SIGNATURES_MAX + 1).into_bytes(),
            NoteError::TooManySignatures,
        ),
        (vec![b'\n'; NOTE_BYTES_MAX + 1], NoteError::TooLong),
        (
            good.replace("think", "th\tink").into_bytes(),
            NoteError::NotText,
        ),
        (good.replace('\n', "\r\n").into_bytes(), NoteError::NotText),
        ([good.as_bytes(), b"\xff"].concat(), NoteError::NotText),
        (
            good.trim_end().as_bytes().to_vec(),
            NoteError::Malformed("the last line has no newline"),
        ),
        (
            format!("{PETER_TEXT}{PETER_LINE}\n").into_bytes(),
            NoteError::Malformed("no empty line between text and signatures"),
        ),
        (
            format!("{good}\n").into_bytes(),
            NoteError::Malformed("the last line has no newline"),
        ),
        (
            format!("{good}\n\n").into_bytes(),
            NoteError::Malformed("the last line has no newline"),
        ),
        (
            format!("{good}- PeterNeumann x08go/ZJ\n").into_bytes(),
            NoteError::Line { number: 2 },
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(SignedNote::parse(&bytes), Err(error));
    }
}

#[test]
fn the_form_of_a_line_is_checked() {
    for line in [
        "\u{2014} name x08go/Z=",
        "\u{2014} a+b x08go/ZJ",
        "\u{2014}  x08go/ZJ",
        "\u{2014} x08go/ZJ",
        "\u{2014} name  x08go/ZJ",
        "\u{2014} name x08go/ZJ ",
        "\u{2014} na\u{a0}me x08go/ZJ",
        "\u{2014} name x08gow==",
        "\u{2014} name ",
        "\u{2013} name x08go/ZJ",
        "",
    ] {
        assert_eq!(
            SignatureLine::from_str(line),
            Err(NoteError::Line { number: 1 }),
            "{line:?}"
        );
    }
    assert!(SignatureLine::from_str("\u{2014} name x08go/ZJ").is_ok());
}

#[test]
fn unknown_keys_are_ignored_and_known_ones_must_fit() {
    let note = SignedNote::parse(peters_note().as_bytes()).unwrap();
    assert_eq!(note.verify(&[]), Err(NoteError::Unverified));
    assert_eq!(
        note.verify(&[enoch().verifier().clone()]),
        Err(NoteError::Unverified)
    );
    // The same name with another key is another key.
    let other = Signer::from_seed(name("PeterNeumann"), [1; 32]);
    assert_eq!(
        note.verify(&[other.verifier().clone()]),
        Err(NoteError::Unverified)
    );
    // The same key under another name too.
    let renamed = VerifierKey::new(name("Peter"), Algorithm::Ed25519, peter().public()).unwrap();
    assert_eq!(note.verify(&[renamed]), Err(NoteError::Unverified));

    // A good signature does not make up for a bad one, in either order.
    let wrong = SignatureLine {
        signature: enoch().sign("another text\n").signature,
        ..enoch().sign(PETER_TEXT)
    };
    let right: SignatureLine = PETER_LINE.parse().unwrap();
    let keys = [peter(), enoch().verifier().clone()];
    for lines in [
        vec![right.clone(), wrong.clone()],
        vec![wrong.clone(), right.clone()],
    ] {
        let note = SignedNote::new(PETER_TEXT, lines).unwrap();
        assert_eq!(
            note.verify(&keys),
            Err(NoteError::BadSignature {
                name: "EnochRoot".to_owned(),
                id: enoch().verifier().id()
            })
        );
        assert!(note.verify(&[peter()]).is_ok());
    }
    // Also where the same key has signed well before.
    let twice = vec![enoch().sign(PETER_TEXT), wrong];
    let note = SignedNote::new(PETER_TEXT, twice).unwrap();
    assert!(matches!(
        note.verify(&keys),
        Err(NoteError::BadSignature { .. })
    ));
}

#[test]
fn adding_replaces_the_keys_own_line_and_keeps_the_bounds() {
    let mut note = SignedNote::parse(peters_note().as_bytes()).unwrap();
    note.add(enoch().sign("x\n")).unwrap();
    note.add(enoch().sign(PETER_TEXT)).unwrap();
    assert_eq!(note.signatures().len(), 2);
    assert!(note.verify(&[enoch().verifier().clone()]).is_ok());
    let full = vec![enoch().sign(PETER_TEXT); SIGNATURES_MAX];
    let mut note = SignedNote::new(PETER_TEXT, full).unwrap();
    let before = note.clone();
    let line: SignatureLine = PETER_LINE.parse().unwrap();
    // Enoch's own many lines become one.
    note.add(enoch().sign(PETER_TEXT)).unwrap();
    assert_eq!(note.signatures().len(), 1);
    let mut note = before.clone();
    assert_eq!(note.add(line), Err(NoteError::TooManySignatures));
    assert_eq!(note, before);
}

#[test]
fn only_what_is_asked_for_and_fits_is_added_verified() {
    let mut note = SignedNote::parse(peters_note().as_bytes()).unwrap();
    let before = note.clone();
    let key = enoch().verifier().clone();
    let foreign: SignatureLine = PETER_LINE.parse().unwrap();
    let spoiled = SignatureLine {
        signature: vec![0; 64],
        ..foreign.clone()
    };
    for line in [foreign, spoiled] {
        assert_eq!(note.add_verified(line, &key), Err(NoteError::Unverified));
    }
    assert!(matches!(
        note.add_verified(enoch().sign("another text\n"), &key),
        Err(NoteError::BadSignature { .. })
    ));
    assert_eq!(note, before);
    let added = note.add_verified(enoch().sign(PETER_TEXT), &key).unwrap();
    assert_eq!(added, VerifiedSignature { key, time: None });
    assert_eq!(note.signatures().len(), 2);
}

#[test]
fn a_note_of_the_greatest_length_reads_back() {
    let line = enoch().sign("x\n");
    let room = NOTE_BYTES_MAX - 2 - line.to_string().len() - 1;
    let text = format!("{}\n", "x".repeat(room));
    let note = SignedNote::new(text.clone(), vec![line.clone()]).unwrap();
    assert_eq!(note.to_string().len(), NOTE_BYTES_MAX);
    assert_eq!(note.to_string().parse(), Ok(note));
    assert_eq!(
        SignedNote::new(format!("x{text}"), vec![line]),
        Err(NoteError::TooLong)
    );
}

#[test]
fn a_cosignature_states_its_time() {
    let witness = Cosigner::from_seed(name("witness.example/w1"), [9; 32]);
    assert_eq!(witness.verifier().algorithm(), Algorithm::CosignatureV1);
    let mut note = SignedNote::parse(GO_SUM_NOTE.as_bytes()).unwrap();
    let line = witness.cosign(note.text(), 1_679_315_147);
    assert_eq!(line.signature().len(), 72);
    note.add(line.clone()).unwrap();
    let keys = [GO_SUM.parse().unwrap(), witness.verifier().clone()];
    let verified = note.verify(&keys).unwrap();
    assert_eq!(verified.signatures()[1].time, Some(1_679_315_147));
    // The same message by the definition, checked as a plain Ed25519 signature.
    let message = format!("cosignature/v1\ntime 1679315147\n{}", note.text());
    let plain = VerifierKey::new(
        name("witness.example/w1"),
        Algorithm::Ed25519,
        witness.verifier().public(),
    )
    .unwrap();
    assert_eq!(plain.check(&message, &line.signature()[8..]), Ok(None));
    assert_ne!(plain.id(), witness.verifier().id());

    // Another time, a time out of range, a short signature: all are refused.
    for at in [0, 7] {
        let mut wrong = line.clone();
        wrong.signature[at] ^= 0x80;
        note.add(wrong).unwrap();
        assert!(matches!(
            note.verify(&keys),
            Err(NoteError::BadSignature { .. })
        ));
    }
    for length in [1, 7, 8, 71] {
        let mut wrong = line.clone();
        wrong.signature.truncate(length);
        note.add(wrong).unwrap();
        assert!(note.verify(&keys).is_err());
    }
    note.add(witness.cosign(note.text(), u64::MAX)).unwrap();
    let verified = note.verify(&keys).unwrap();
    assert_eq!(verified.signatures()[1].time, Some(i64::MAX as u64));
}

#[test]
fn secret_texts_read_back_only_as_what_they_are() {
    let witness = Cosigner::from_seed(name("w"), [3; 32]);
    let secret = witness.to_secret_text();
    let again = Cosigner::from_str(&secret).unwrap();
    assert_eq!(again.verifier(), witness.verifier());
    assert!(matches!(
        Signer::from_str(&secret),
        Err(KeyError::Malformed { .. })
    ));
    assert!(matches!(
        Cosigner::from_str(PETER_SECRET),
        Err(KeyError::Malformed { .. })
    ));
    let swapped = PETER_SECRET.replace("c74f20a3", "c74f20a4");
    assert_eq!(
        Signer::from_str(&swapped).unwrap_err(),
        KeyError::WrongId {
            name: name("PeterNeumann"),
            written: 0xc74f_20a4,
            computed: 0xc74f_20a3
        }
    );
    for text in ["", PETER, "PRIVATE+KEY+a+b+c", "PRIVATE+KEY+a+00000000+"] {
        assert!(Signer::from_str(text).is_err(), "{text}");
    }
    // Neither Debug nor an error shows the secret.
    let data = PETER_SECRET.rsplit('+').next().unwrap();
    let signer = Signer::from_str(PETER_SECRET).unwrap();
    assert!(!format!("{signer:?}").contains(data));
    assert!(!format!("{witness:?}").contains(secret.rsplit('+').next().unwrap()));
    let error = Signer::from_str(&swapped).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(data));
}

#[test]
fn names_are_checked() {
    for wrong in [
        "",
        " ",
        "a b",
        "a+b",
        "a\u{a0}b",
        "a\u{2003}b",
        "a\nb",
        "a\0b",
    ] {
        assert_eq!(KeyName::new(wrong), Err(KeyError::Name), "{wrong:?}");
    }
    assert!(KeyName::new("example.com/\u{e9}t\u{e9}").is_ok());
}

#[test]
fn verifier_keys_are_checked() {
    for wrong in [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        "PeterNeumann+c74f20a+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10T",
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TX",
        "peterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ] {
        assert!(VerifierKey::from_str(wrong).is_err(), "{wrong}");
    }
    let long = format!("{}{PETER}", "x".repeat(KEY_TEXT_BYTES_MAX));
    assert!(VerifierKey::from_str(&long).is_err());
    assert_eq!(
        serde_json::to_string(&peter()).unwrap(),
        format!("\"{PETER}\"")
    );
    // A key for which anybody can sign: the point of order one.
    let mut identity = [0; 32];
    identity[0] = 1;
    assert!(matches!(
        VerifierKey::new(name("x"), Algorithm::Ed25519, &identity),
        Err(KeyError::PublicKey { .. })
    ));
}

#[test]
fn a_key_of_an_algorithm_to_come_is_named_in_the_error() {
    // The id is that of name, type 0x06 and these bytes, computed with Python's hashlib.
    let error = VerifierKey::from_str("witness.example/pq+ce4742fd+BgECAw==").unwrap_err();
    assert_eq!(
        error,
        KeyError::UnknownAlgorithm {
            name: name("witness.example/pq"),
            byte: 6
        }
    );
    assert!(error.to_string().contains("0x06"), "{error}");
    assert_eq!(Algorithm::from_byte(6), Algorithm::Unknown(6));
    for byte in 0..=u8::MAX {
        assert_eq!(Algorithm::from_byte(byte).byte(), byte);
    }
    assert!(matches!(
        VerifierKey::new(name("x"), Algorithm::Unknown(6), peter().public()),
        Err(KeyError::UnknownAlgorithm { byte: 6, .. })
    ));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text: String) {
        let _ = SignedNote::parse(&bytes);
        let _ = SignatureLine::from_str(&text);
        let _ = VerifierKey::from_str(&text);
        let _ = Signer::from_str(&format!("PRIVATE+KEY+{text}"));
    }

    /// Whatever is changed in a note: it is refused, or it is still written as it was read; and it verifies only
    /// with the text that was signed.
    #[test]
    fn a_changed_note_is_refused_or_the_same_text(
        at in 0_usize..400, cut in 0_usize..4, with in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let note = peters_note().into_bytes();
        let at = at.min(note.len());
        let end = (at + cut).min(note.len());
        let changed = [&note[..at], &with, &note[end..]].concat();
        if let Ok(read) = SignedNote::parse(&changed) {
            prop_assert_eq!(read.to_string().into_bytes(), changed);
            if read.verify(&[peter()]).is_ok() {
                prop_assert_eq!(read.text(), PETER_TEXT);
            }
        }
    }

    #[test]
    fn signed_notes_verify(seed: [u8; 32], body in "[^\\x00-\\x09\\x0b-\\x1f]{0,80}") {
        let text = format!("{body}\n");
        let signer = Signer::from_seed(name("log.example"), seed);
        let note = SignedNote::new(text.clone(), vec![signer.sign(&text)]).unwrap();
        let read: SignedNote = note.to_string().parse().unwrap();
        prop_assert!(read.verify(&[signer.verifier().clone()]).unwrap().is_by(signer.verifier()));
        prop_assert_eq!(read, note);
        let again = Signer::from_str(&signer.to_secret_text()).unwrap();
        prop_assert_eq!(again.verifier(), signer.verifier());
        prop_assert_eq!(&signer.verifier().to_string().parse::<VerifierKey>().unwrap(), signer.verifier());
    }
}
