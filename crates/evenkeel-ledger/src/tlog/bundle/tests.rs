//! Bundles: the form to the letter, and each part spoiled.

use proptest::prelude::*;

use super::super::proof::{LeafNodes, inclusion, leaf_hash, root};
use super::super::{Cosigner, KeyName, Signer};
use super::*;

fn name(text: &str) -> KeyName {
    KeyName::new(text).unwrap()
}

fn log() -> Signer {
    Signer::from_seed(name("example.com/log"), [1; 32])
}

fn witness(number: u8) -> Cosigner {
    let seed = [100 + number; 32];
    Cosigner::from_seed(name(&format!("witness{number}.example")), seed)
}

fn entry(number: u64) -> Vec<u8> {
    format!("entry {number}").into_bytes()
}

/// Entry 5 of 11, cosigned by witnesses 1 and 2.
fn bundle() -> ProofBundle {
    let leaves: Vec<Hash> = (0..11).map(|n| leaf_hash(&entry(n))).collect();
    let nodes = LeafNodes(&leaves);
    let checkpoint = Checkpoint::new("example.com/log", 11, root(&nodes, 11).unwrap());
    let mut checkpoint = checkpoint.sign(&log()).unwrap();
    for number in [1, 2] {
        let line = witness(number).cosign(checkpoint.text(), 1_700_000_000 + u64::from(number));
        checkpoint.add(line).unwrap();
    }
    ProofBundle {
        extra: Some(entry(5)),
        index: 5,
        hashes: inclusion(&nodes, 5, 11).unwrap(),
        checkpoint,
    }
}

fn log_keys() -> Vec<VerifierKey> {
    vec![log().verifier().clone()]
}

fn witness_keys(numbers: &[u8]) -> Vec<VerifierKey> {
    numbers
        .iter()
        .map(|&number| witness(number).verifier().clone())
        .collect()
}

#[test]
fn a_bundle_says_what_is_in_the_log_and_who_saw_it() {
    let read: ProofBundle = bundle().to_string().parse().unwrap();
    assert_eq!(read, bundle());
    let leaf = leaf_hash(read.extra.as_deref().unwrap());
    let shown = read
        .verify(&leaf, &log_keys(), &witness_keys(&[1, 2, 3]), 2)
        .unwrap();
    assert_eq!(shown.checkpoint.origin, "example.com/log");
    assert_eq!(shown.log.len(), 1);
    let times: Vec<_> = shown.witnesses.iter().map(|by| by.time).collect();
    assert_eq!(times, [Some(1_700_000_002), Some(1_700_000_001)]);
    assert!(read.verify(&leaf, &log_keys(), &[], 0).is_ok());
}

#[test]
fn each_part_must_hold() {
    let bundle = bundle();
    let leaf = leaf_hash(&entry(5));
    let all = witness_keys(&[1, 2, 3]);
    assert_eq!(
        bundle.verify(&leaf, &log_keys(), &all, 3),
        Err(BundleError::Quorum {
            found: 2,
            quorum: 3
        })
    );
    assert_eq!(
        bundle.verify(&leaf_hash(&entry(6)), &log_keys(), &all, 2),
        Err(BundleError::Proof(ProofError::Root))
    );
    assert_eq!(
        bundle.verify(&leaf, &[], &all, 2),
        Err(BundleError::NotSignedByLog)
    );
    assert_eq!(
        bundle.verify(&leaf, &[], &[], 0),
        Err(BundleError::Note(NoteError::Unverified))
    );
    assert!(matches!(
        bundle.verify(&leaf, &log_keys(), &log_keys(), 0),
        Err(BundleError::NotAWitness { .. })
    ));
    let moved = ProofBundle {
        index: 4,
        ..bundle.clone()
    };
    assert!(moved.verify(&leaf, &log_keys(), &all, 2).is_err());
    let forged = bundle
        .to_string()
        .replace("example.com/log\n11\n", "example.com/log\n12\n");
    let forged: ProofBundle = forged.parse().unwrap();
    assert!(matches!(
        forged.verify(&leaf, &log_keys(), &all, 2),
        Err(BundleError::Note(NoteError::BadSignature { .. }))
    ));
}

/// A quorum is of witnesses, not of signatures, names or keys, and the log is none of its own.
#[test]
fn nobody_counts_twice() {
    let leaf = leaf_hash(&entry(5));
    let count = |keys: &[Cosigner], quorum: usize| {
        let mut bundle = bundle();
        let text = bundle.checkpoint.text().to_owned();
        let log_line = log().sign(&text);
        let lines = keys
            .iter()
            .zip(1..)
            .map(|(key, time)| key.cosign(&text, time));
        let lines = [log_line].into_iter().chain(lines).collect();
        bundle.checkpoint = SignedNote::new(text, lines).unwrap();
        let keys: Vec<_> = keys.iter().map(|key| key.verifier().clone()).collect();
        bundle
            .verify(&leaf, &log_keys(), &keys, quorum)
            .map(|shown| shown.witnesses.len())
    };
    let quorum = |found, quorum| Err(BundleError::Quorum { found, quorum });
    let key = |who: &str, seed: u8| Cosigner::from_seed(name(who), [seed; 32]);
    assert_eq!(count(&[key("a", 7), key("b", 8)], 2), Ok(2));
    assert_eq!(count(&[key("a", 7), key("a", 7)], 2), quorum(1, 2));
    assert_eq!(count(&[key("a", 7), key("b", 7)], 2), quorum(1, 2));
    assert_eq!(count(&[key("a", 7), key("a", 8)], 2), quorum(1, 2));
    assert_eq!(count(&[key("a", 1)], 1), quorum(0, 1));
}

#[test]
fn the_form_is_checked() {
    let good = bundle().to_string();
    let hash = good.lines().nth(3).unwrap().to_owned();
    let malformed =
        |text: &str| matches!(text.parse::<ProofBundle>(), Err(BundleError::Malformed(_)));
    for (from, to) in [
        ("proof@v1", "proof@v2"),
        ("proof@v1\n", "proof@v1\r\n"),
        ("extra ", "extra  "),
        ("extra ", "more "),
        ("extra ", "extra"),
        ("index 5", "index 05"),
        ("index 5", "index -5"),
        ("index 5", "index 5 "),
        ("index 5", "index  5"),
        ("index 5\n", ""),
        ("index 5\n", "index 5\nindex 5\n"),
        ("index 5\n", "index 5\nx\n"),
    ] {
        assert!(
            good.contains(from) && malformed(&good.replacen(from, to, 1)),
            "{from} as {to}"
        );
    }
    assert!(malformed(""));
    assert!(malformed(good.split("\n\n").next().unwrap()));
    let many = format!("{hash}\n").repeat(INCLUSION_HASHES_MAX + 1 - 4);
    assert!(malformed(&good.replacen(
        &hash,
        &format!("{many}{hash}"),
        1
    )));
    let most = format!("{hash}\n").repeat(INCLUSION_HASHES_MAX - 4);
    assert!(
        good.replacen(&hash, &format!("{most}{hash}"), 1)
            .parse::<ProofBundle>()
            .is_ok()
    );

    let mut large = bundle();
    large.extra = Some(vec![0; EXTRA_BYTES_MAX]);
    assert_eq!(large.to_string().parse(), Ok(large.clone()));
    large.extra = Some(vec![0; EXTRA_BYTES_MAX + 1]);
    assert!(malformed(&large.to_string()));
    large.extra = Some(vec![0; BUNDLE_BYTES_MAX]);
    assert_eq!(
        large.to_string().parse::<ProofBundle>(),
        Err(BundleError::TooLong)
    );
    large.extra = Some(Vec::new());
    assert_eq!(large.to_string().parse(), Ok(large.clone()));
    large.extra = None;
    assert_eq!(large.to_string().parse(), Ok(large));
    let note = good.replacen("example.com/log\n11\n", "example.com/log\n011\n", 1);
    assert!(matches!(
        note.parse::<ProofBundle>(),
        Err(BundleError::Checkpoint(_))
    ));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text: String) {
        let _ = ProofBundle::parse(&bytes);
        let _ = format!("{FIRST_LINE}\n{text}").parse::<ProofBundle>();
    }

    /// Any change of a bundle is refused, or it is of the extra data or of a signature that nobody asked for.
    #[test]
    fn a_changed_bundle_is_refused_or_says_the_same(
        at: prop::sample::Index, cut in 0_usize..4, with in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let bundle = bundle();
        let text = bundle.to_string().into_bytes();
        let at = at.index(text.len());
        let end = (at + cut).min(text.len());
        let changed = [&text[..at], &with, &text[end..]].concat();
        if let Ok(read) = ProofBundle::parse(&changed) {
            prop_assert_eq!(read.to_string().into_bytes(), changed);
            let leaf = leaf_hash(&entry(5));
            if read.verify(&leaf, &log_keys(), &witness_keys(&[1, 2]), 2).is_ok() {
                prop_assert_eq!(read.checkpoint, bundle.checkpoint);
                prop_assert_eq!((read.index, read.hashes), (bundle.index, bundle.hashes));
            }
        }
    }
}
