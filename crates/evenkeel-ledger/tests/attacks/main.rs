//! SAFETY 21: attacks on honest, signed logs with one honest witness. The verifier is given the witness's last checkpoint
//! and its key, and has to notice each, and to name the first bad entry; and it must not cry wolf over honest logs.
//!
//! The test command runs some seeds of each class. Many more, minutes: `cargo test -p evenkeel-ledger --release --test
//! attacks -- --ignored`. A failure names class and seed; the same command with the class's name runs it again.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod contents;
mod ends;
mod entries;
mod honest;
mod keys;
mod rng;
mod tables;

use std::path::Path;
use std::sync::OnceLock;

use evenkeel_ledger::{DamageKind, LedgerError, Report, verify_with};

use contents::Contents;
use honest::{Shape, World, scratch};
use rng::Rng;

/// Seeds of each class in the test command, and in the long run.
const SEEDS: u64 = 25;
const SEEDS_LONG: u64 = 1000;
/// Honest logs that are attacked.
const WORLDS: usize = 12;
const WORLDS_LONG: usize = 60;
/// Honest logs that are only verified.
const HONEST: u64 = 200;
const HONEST_LONG: u64 = 10_000;

/// The page that says what is noticed by what.
const BOOK: &str = include_str!("../../../../docs/src/ledger-attacks.md");

/// What the verifier has to name as the first bad entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// This one.
    At(i64),
    /// The first that differs cannot be known exactly, for the log is consistent in itself: a range that begins after
    /// what is vouched for, and has this one in it.
    Within(i64),
    /// None: it is not about entries.
    Nowhere,
}

/// What an attack made of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) first: First,
    /// Whether the file alone looks sound, and only the checkpoint from elsewhere tells. Otherwise the file alone tells.
    pub(crate) sound_alone: bool,
}

impl Made {
    pub(crate) fn told(first: First) -> Self {
        Self {
            first,
            sound_alone: false,
        }
    }

    pub(crate) fn only_elsewhere(first: First) -> Self {
        Self {
            first,
            sound_alone: true,
        }
    }
}

/// A way to attack a log: its name in the book, which logs it needs, and what it does to a copy of the file.
pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) fits: fn(&World) -> bool,
    pub(crate) attack: fn(&mut Rng, &World, &Path) -> Made,
}

/// Tells class and seed of a test that fails.
struct Told<'a>(&'a str, u64);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FAILED: class `{}`, seed {}", self.0, self.1);
        }
    }
}

fn worlds(long: bool) -> &'static [World] {
    static FEW: OnceLock<Vec<World>> = OnceLock::new();
    static MANY: OnceLock<Vec<World>> = OnceLock::new();
    let (place, count) = if long {
        (&MANY, WORLDS_LONG)
    } else {
        (&FEW, WORLDS)
    };
    place.get_or_init(|| {
        let build = |place: usize| {
            let mut rng = Rng::new("worlds", place as u64);
            let shape = Shape::for_attacks(place, &mut rng);
            World::build(&mut rng, shape)
        };
        (0..count).map(build).collect()
    })
}

fn run(class: &Class, long: bool) {
    let dir = scratch();
    let fitting: Vec<&World> = worlds(long)
        .iter()
        .filter(|world| (class.fits)(world))
        .collect();
    assert!(!fitting.is_empty(), "{}: no log to attack", class.name);
    for seed in 0..if long { SEEDS_LONG } else { SEEDS } {
        let _told = Told(class.name, seed);
        let mut rng = Rng::new(class.name, seed);
        let world = *rng.pick(&fitting);
        let path = dir.path().join(format!("{seed}.db"));
        std::fs::copy(&world.path, &path).unwrap();
        let made = (class.attack)(&mut rng, world, &path);
        let now = Contents::read(&path);
        assert_ne!(now, world.contents, "nothing was attacked");
        match verify_with(&path, &world.without_anchor(), |_, _| {}) {
            Ok(alone) => assert_eq!(
                alone.is_sound(),
                made.sound_alone,
                "the file alone: {:#?}",
                alone.damage
            ),
            Err(LedgerError::NewerVersion { .. }) => assert!(!made.sound_alone),
            Err(error) => panic!("{error}"),
        }
        match verify_with(&path, &world.options(), |_, _| {}) {
            Ok(report) => judge(world, &now, made.first, &report),
            // A format version that this program does not know is refused, not verified.
            Err(LedgerError::NewerVersion { .. }) if made.first == First::Nowhere => {}
            Err(error) => panic!("{error}"),
        }
        std::fs::remove_file(&path).unwrap();
    }
}

fn judge(world: &World, now: &Contents, first: First, report: &Report) {
    assert!(!report.is_sound(), "not noticed; expected {first:?}");
    let named = report
        .first_bad_sequence()
        .map(|bad| i64::try_from(bad).unwrap());
    let damage = &report.damage;
    match first {
        First::At(bad) => assert_eq!(named, Some(bad), "{damage:#?}"),
        First::Nowhere => assert_eq!(named, None, "{damage:#?}"),
        First::Within(bad) => {
            let vouched = if bad <= world.anchored {
                world.vouched_below(now, bad)
            } else {
                now.checkpoint_below(bad)
            };
            assert_eq!(named, Some(vouched + 1), "bad is {bad}: {damage:#?}");
            let around = damage.iter().any(|damage| {
                let DamageKind::RootDiffers {
                    tree_size, first, ..
                } = &damage.kind
                else {
                    return false;
                };
                (i64::try_from(*first).unwrap()..=i64::try_from(*tree_size).unwrap()).contains(&bad)
            });
            assert!(around, "no range has {bad} in it: {damage:#?}");
        }
    }
}

/// One test for each class, and one of the long run.
macro_rules! classes {
    ($($name:ident: $class:expr,)*) => {
        $(#[test]
        fn $name() {
            run(&$class, false);
        })*

        /// The page says of each what it is noticed by, and whether that takes a checkpoint from elsewhere.
        #[test]
        fn each_stands_in_the_book() {
            for name in [$($class.name,)*] {
                let mut rows = BOOK.lines().filter_map(|line| line.strip_prefix("| "));
                let found = rows.any(|row| row.trim_start_matches('`').starts_with(name));
                assert!(found, "docs/src/ledger-attacks.md has no row for `{name}`");
            }
        }

        mod long {
            use super::*;
            $(#[test]
            #[ignore = "the long run: minutes"]
            fn $name() {
                run(&$class, true);
            })*
        }
    };
}

classes! {
    edit: entries::EDIT,
    edit_and_rehash: entries::EDIT_AND_REHASH,
    payload: entries::PAYLOAD_ONLY,
    delete: entries::DELETE,
    insert: entries::INSERT,
    reorder: entries::REORDER,
    cut_tail: ends::CUT_TAIL,
    cut_tail_whole: ends::CUT_TAIL_WHOLE,
    rewrite: ends::REWRITE,
    old_copy: ends::OLD_COPY,
    split_view: ends::SPLIT_VIEW,
    replace: tables::REPLACE,
    schema: tables::SCHEMA,
    nodes: tables::NODES,
    dropped: tables::DROPPED,
    substituted_key: keys::SUBSTITUTED,
    algorithm: keys::ALGORITHM,
    checkpoint: keys::CHECKPOINT,
    cosignature: keys::COSIGNATURE,
}

fn honest(count: u64) {
    let mut anchored = 0;
    for seed in 0..count {
        let _told = Told("honest", seed);
        let mut rng = Rng::new("honest", seed);
        let shape = Shape::random(&mut rng);
        let world = World::build(&mut rng, shape);
        let mut options = world.options();
        options.log_key = Some(world.keys[0].verifier().clone());
        let report = verify_with(&world.path, &options, |_, _| {}).unwrap();
        assert!(
            report.is_sound(),
            "a false alarm: {shape:?} {:#?}",
            report.damage
        );
        let size = i64::try_from(report.entries).unwrap();
        let left = (world.anchored < size).then_some((world.anchored + 1, size));
        let left =
            left.map(|(from, to)| (u64::try_from(from).unwrap(), u64::try_from(to).unwrap()));
        assert_eq!(report.not_anchored, left);
        assert!(
            report
                .anchored
                .iter()
                .any(|anchor| anchor.by == honest::WITNESS)
        );
        anchored += report.anchored.len();
    }
    assert!(anchored > 0);
}

#[test]
fn honest_logs_are_sound() {
    honest(HONEST);
}

#[test]
#[ignore = "the long run: minutes"]
fn many_honest_logs_are_sound() {
    honest(HONEST_LONG);
}
