//! Requests and decisions: the specification's example, its order of checks, and forks.

use proptest::prelude::*;

use super::super::proof::{LeafNodes, consistency, leaf_hash, root};
use super::super::{Cosigner, KeyName, Signer};
use super::*;

const ORIGIN: &str = "example.com/log";

fn log() -> Signer {
    Signer::from_seed(KeyName::new(ORIGIN).unwrap(), [1; 32])
}

fn keys() -> Vec<VerifierKey> {
    vec![log().verifier().clone()]
}

fn leaves() -> Vec<Hash> {
    (0_u8..20).map(|n| leaf_hash(&[n])).collect()
}

fn known(size: u64) -> Known {
    let root = root(&LeafNodes(&leaves()), size).unwrap();
    Known { size, root }
}

fn signed(size: u64, root: Hash) -> SignedNote {
    Checkpoint::new(ORIGIN, size, root).sign(&log()).unwrap()
}

fn request(old: u64, new: u64) -> AddCheckpoint {
    AddCheckpoint {
        old_size: old,
        proof: consistency(&LeafNodes(&leaves()), old, new).unwrap(),
        checkpoint: signed(new, known(new).root),
    }
}

fn status(known: Option<&Known>, request: &AddCheckpoint) -> u16 {
    decide(known, Some(&keys()), request).status()
}

/// The specification's example, to the letter.
#[test]
fn the_specifications_request_reads_and_writes() {
    let text = "old 20852014\n\
        PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
        \n\
        example.com/behind-the-sofa\n\
        20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
        \n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
    let request = AddCheckpoint::parse(text.as_bytes()).unwrap();
    assert_eq!(request.old_size, 20_852_014);
    assert_eq!(request.proof.len(), 4);
    assert_eq!(request.origin(), "example.com/behind-the-sofa");
    assert_eq!(request.to_string(), text);
    let decision = decide(None, None, &request);
    let origin = "example.com/behind-the-sofa".to_owned();
    assert_eq!(decision, Decision::UnknownOrigin { origin });
}

#[test]
fn a_growing_log_is_cosigned() {
    let mut last: Option<Known> = None;
    for (old, new) in [(0, 0), (0, 3), (3, 3), (3, 8), (8, 19), (19, 20)] {
        let request = request(old, new);
        let sent = AddCheckpoint::parse(request.to_string().as_bytes()).unwrap();
        assert_eq!(sent, request);
        let Decision::Cosign { checkpoint } = decide(last.as_ref(), Some(&keys()), &sent) else {
            panic!("{old} to {new}");
        };
        assert_eq!(checkpoint.size, new);
        let (size, root) = (checkpoint.size, checkpoint.root);
        last = Some(Known { size, root });
    }
}

/// What is wrong in more than one way is answered by what the specification checks first.
#[test]
fn checks_come_in_the_specifications_order() {
    let five = known(5);
    let stranger = Signer::from_seed(KeyName::new(ORIGIN).unwrap(), [2; 32]);
    let wrong_in_all_ways = || {
        let checkpoint = Checkpoint::new(ORIGIN, 3, Hash::ZERO);
        AddCheckpoint {
            old_size: 4,
            proof: vec![Hash::ZERO],
            checkpoint: checkpoint.sign(&stranger).unwrap(),
        }
    };
    let mut request = wrong_in_all_ways();
    assert_eq!(decide(Some(&five), None, &request).status(), 404);
    assert_eq!(decide(Some(&five), Some(&[]), &request).status(), 403);
    assert_eq!(status(Some(&five), &request), 403);
    request.checkpoint = signed(3, Hash::ZERO);
    assert_eq!(
        decide(Some(&five), Some(&keys()), &request),
        Decision::Malformed(RequestError::Shrunk { old: 4, new: 3 })
    );
    request.old_size = 3;
    assert_eq!(
        decide(Some(&five), Some(&keys()), &request),
        Decision::Conflict { size: 5 }
    );
    request.old_size = 5;
    request.checkpoint = signed(5, Hash::ZERO);
    let decision = decide(Some(&five), Some(&keys()), &request);
    assert_eq!(
        decision,
        Decision::InconsistentRoot {
            size: 5,
            known: five.root,
            signed: Hash::ZERO
        }
    );
    assert!(decision.is_evidence() && decision.status() == 409);
    request.checkpoint = signed(5, five.root);
    let decision = decide(Some(&five), Some(&keys()), &request);
    assert_eq!(
        decision,
        Decision::BadProof(ProofError::Length { hashes: 1 })
    );
    assert!(decision.is_evidence() && decision.status() == 422);
    request.proof.clear();
    assert_eq!(status(Some(&five), &request), 200);
}

#[test]
fn a_fork_is_never_cosigned() {
    let five = known(5);
    // Another history of the same log, properly signed and with a proof that is right in itself.
    let mut other = leaves();
    other[2] = leaf_hash(b"rewritten");
    let nodes = LeafNodes(&other);
    let fork = AddCheckpoint {
        old_size: 5,
        proof: consistency(&nodes, 5, 9).unwrap(),
        checkpoint: signed(9, root(&nodes, 9).unwrap()),
    };
    assert_eq!(
        decide(Some(&five), Some(&keys()), &fork),
        Decision::BadProof(ProofError::OldRoot)
    );
    // Cut: an older checkpoint, however it is put.
    for old in 0..=5 {
        let mut cut = request(old.min(4), 4);
        cut.old_size = old;
        let status = status(Some(&five), &cut);
        assert_eq!(status, if old > 4 { 400 } else { 409 }, "old {old}");
    }
    // The same size anew from nothing.
    assert_eq!(status(Some(&five), &request(0, 9)), 409);
}

#[test]
fn the_first_checkpoint_is_trusted_but_not_an_impossible_one() {
    assert_eq!(status(None, &request(0, 7)), 200);
    assert_eq!(status(None, &request(0, 0)), 200);
    assert_eq!(status(Some(&known(0)), &request(0, 7)), 200);
    let mut with_proof = request(0, 7);
    with_proof.proof.push(Hash::ZERO);
    assert_eq!(status(None, &with_proof), 422);
    assert_eq!(
        decide(None, Some(&keys()), &request(3, 7)),
        Decision::Conflict { size: 0 }
    );
    let mut empty = request(0, 0);
    empty.checkpoint = signed(0, Hash::ZERO);
    assert!(matches!(
        decide(None, Some(&keys()), &empty),
        Decision::InconsistentRoot { size: 0, .. }
    ));
}

#[test]
fn a_note_that_is_no_checkpoint_is_malformed() {
    let text = format!("{ORIGIN}\n07\n");
    let line = log().sign(&text);
    let request = AddCheckpoint {
        old_size: 0,
        proof: Vec::new(),
        checkpoint: SignedNote::new(text, vec![line]).unwrap(),
    };
    assert_eq!(status(None, &request), 400);
    assert!(matches!(
        AddCheckpoint::parse(request.to_string().as_bytes()),
        Err(RequestError::Checkpoint(_))
    ));
}

#[test]
fn the_form_of_a_request_is_checked() {
    let good = request(3, 8).to_string();
    let hash = good.lines().nth(1).unwrap().to_owned();
    let lines = good.split("\n\n").next().unwrap().lines().count() - 1;
    let with_lines = |count: usize| {
        let more = format!("{hash}\n").repeat(count - lines);
        good.replacen(&hash, &format!("{more}{hash}"), 1)
    };
    assert!(AddCheckpoint::parse(with_lines(PROOF_LINES_MAX).as_bytes()).is_ok());
    let cases = [
        String::new(),
        with_lines(PROOF_LINES_MAX + 1),
        good.replacen("old 3", "old 03", 1),
        good.replacen("old 3", "old", 1),
        good.replacen("old 3", "old  3", 1),
        good.replacen("old 3", "Old 3", 1),
        good.replacen("old 3", "old 18446744073709551616", 1),
        good.replacen("old 3\n", "", 1),
        good.replacen("old 3\n", "\nold 3\n", 1),
        good.replacen("old 3\n", "old 3\r\n", 1),
        good.replacen(&hash, &hash[1..], 1),
    ];
    for text in cases {
        assert!(
            matches!(
                AddCheckpoint::parse(text.as_bytes()),
                Err(RequestError::Malformed(_))
            ),
            "{text}"
        );
    }
    assert_eq!(
        AddCheckpoint::parse(&vec![b'x'; REQUEST_BYTES_MAX + 1]),
        Err(RequestError::TooLong)
    );
}

#[test]
fn answers_read_back() {
    for size in [0, 7, u64::MAX] {
        assert_eq!(parse_size_body(size_body(size).as_bytes()), Some(size));
    }
    for wrong in [
        &b""[..],
        b"7",
        b"07\n",
        b"7\n\n",
        b"-7\n",
        b"184467440737095516150\n",
    ] {
        assert_eq!(parse_size_body(wrong), None);
    }
    let note = signed(7, known(7).root);
    let witness = Cosigner::from_seed(KeyName::new("w.example").unwrap(), [5; 32]);
    let lines = vec![
        witness.cosign(note.text(), 1),
        witness.cosign(note.text(), 2),
    ];
    let body = cosignatures_body(&lines);
    assert_eq!(parse_cosignatures_body(body.as_bytes()), Ok(lines.clone()));
    let mut note = note;
    for line in lines {
        note.add_verified(line, witness.verifier()).unwrap();
    }
    let verified = note.verify(&[witness.verifier().clone()]).unwrap();
    assert_eq!(verified.signatures()[0].time, Some(2));
    for wrong in [&b""[..], b"\n", b"x\n", &body.as_bytes()[..body.len() - 1]] {
        assert!(parse_cosignatures_body(wrong).is_err());
    }
    assert!(parse_cosignatures_body(body.repeat(17).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text: String) {
        let _ = AddCheckpoint::parse(&bytes);
        let _ = AddCheckpoint::parse(format!("old 1\n{text}").as_bytes());
        let _ = parse_cosignatures_body(&bytes);
        let _ = parse_size_body(&bytes);
    }

    /// However a request is changed: what is cosigned is the checkpoint that the log signed, from the known size.
    #[test]
    fn a_changed_request_is_refused_or_says_the_same(
        at: prop::sample::Index, cut in 0_usize..4, with in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let sent = request(5, 12);
        let text = sent.to_string().into_bytes();
        let at = at.index(text.len());
        let end = (at + cut).min(text.len());
        let changed = [&text[..at], &with, &text[end..]].concat();
        if let Ok(read) = AddCheckpoint::parse(&changed) {
            prop_assert_eq!(read.to_string().into_bytes(), changed);
            if status(Some(&known(5)), &read) == 200 {
                prop_assert_eq!(read, sent);
            }
        }
    }

    /// Sizes that no log has: signed, so that they reach the proof.
    #[test]
    fn no_size_panics(old: u64, new: u64, hashes in 0_usize..64, pick in 0_u8..4) {
        let (old, new) = match pick {
            0 => (old, new),
            1 => (old, u64::MAX),
            2 => (u64::MAX, u64::MAX),
            _ => (old >> 1, (old >> 1) + 1),
        };
        let request = AddCheckpoint {
            old_size: old,
            proof: vec![Hash::ZERO; hashes],
            checkpoint: signed(new, Hash::of(b"x")),
        };
        let known = Known { size: old, root: Hash::ZERO };
        prop_assert_ne!(status(Some(&known), &request), 200);
    }
}
