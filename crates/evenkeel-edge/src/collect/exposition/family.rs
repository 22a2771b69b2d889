//! Families: which samples belong together, and what each is among them.

use std::collections::HashMap;

use super::{FaultReason, Sample};

/// Most `# TYPE` lines that are remembered of one page.
pub(super) const FAMILIES_MAX: usize = 20_000;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// Counts up; falls back to zero only when it begins anew.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Cumulative buckets that count up.
    Histogram,
    /// Cumulative buckets of what is there now.
    GaugeHistogram,
    /// Quantiles that the target computed itself, with sum and count.
    Summary,
    /// Labels that say something, such as a version; the value is always 1.
    Info,
    /// States, each 1 or 0.
    StateSet,
    /// No type was given, or `untyped`, or `unknown`.
    Unknown,
    /// A type that is not understood: leave its samples alone.
    Foreign,
}

impl FamilyKind {
    pub(super) fn of_word(word: &str) -> Self {
        match word {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "gaugehistogram" => Self::GaugeHistogram,
            "summary" => Self::Summary,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            "unknown" | "untyped" => Self::Unknown,
            _ => Self::Foreign,
        }
    }
}

/// What a sample is in its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The value itself: of a gauge, or of an unknown type.
    Value,
    /// What a counter counted.
    Total,
    /// When a counter, histogram or summary began to count, in seconds since 1970.
    Created,
    /// A cumulative bucket, by its label `le`.
    Bucket,
    /// The sum of what was observed.
    Sum,
    /// How often something was observed.
    Count,
    /// A quantile, by its label `quantile`.
    Quantile,
    /// Labels that say something.
    Info,
    /// Whether a state is on.
    State,
}

#[derive(Clone, Copy, Debug)]
struct Family<'a> {
    /// Name that the samples' names begin with.
    name: &'a str,
    kind: FamilyKind,
}

/// The families of a page, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Families<'a> {
    /// The one that was declared last: most samples stand right below their type.
    current: Option<Family<'a>>,
    /// The name that was looked for last, and what was found.
    last: Option<(&'a str, Placed<'a>)>,
    known: HashMap<&'a str, FamilyKind>,
}

type Placed<'a> = (&'a str, FamilyKind, Role);

const SUFFIXES: [&str; 8] = [
    "_total", "_created", "_bucket", "_sum", "_count", "_gsum", "_gcount", "_info",
];

impl<'a> Families<'a> {
    pub(super) fn declare(&mut self, name: &'a str, kind: FamilyKind) -> Result<(), FaultReason> {
        self.last = None;
        // The first type stands.
        let before = self.known.get(name).copied();
        self.current = Some(Family {
            name,
            kind: before.unwrap_or(kind),
        });
        // Prometheus text has no word for when a counter began: libraries declare a gauge beside it.
        if kind == FamilyKind::Gauge
            && let Some(base) = name.strip_suffix("_created")
            && let Some(of) = self.counting(base)
        {
            self.current = Some(Family {
                name: base,
                kind: of,
            });
            return Ok(());
        }
        match before {
            Some(before) if before != kind => Err(FaultReason::SecondType),
            Some(_) => Ok(()),
            None if self.known.len() == FAMILIES_MAX => Err(FaultReason::TooManyFamilies),
            None => {
                self.known.insert(name, kind);
                Ok(())
            }
        }
    }

    fn counting(&self, base: &str) -> Option<FamilyKind> {
        let of = |name: &str| self.known.get(name).copied();
        of(base)
            .or_else(|| of(&format!("{base}_total")))
            .filter(|kind| role_of(*kind, "_created").is_some())
    }

    /// Tells family, kind and role of a sample.
    pub(super) fn place(&mut self, sample: &mut Sample<'a>) {
        let name = sample.name.raw;
        let placed = match (self.current.and_then(|f| f.place(name)), self.last) {
            (Some(placed), _) => placed,
            (None, Some((last, placed))) if last == name => placed,
            (None, _) => {
                let placed = self.look_for(name);
                self.last = Some((name, placed));
                placed
            }
        };
        (sample.family, sample.kind, sample.role) = placed;
    }

    fn look_for(&self, name: &'a str) -> Placed<'a> {
        let of = |family: &'a str| {
            let kind = *self.known.get(family)?;
            Family { name: family, kind }.place(name)
        };
        of(name)
            .or_else(|| {
                SUFFIXES
                    .iter()
                    .find_map(|s| name.strip_suffix(s).and_then(of))
            })
            .unwrap_or((name, FamilyKind::Unknown, Role::Value))
    }
}

impl<'a> Family<'a> {
    fn place(self, name: &str) -> Option<Placed<'a>> {
        let suffix = name.strip_prefix(self.name)?;
        Some((self.name, self.kind, role_of(self.kind, suffix)?))
    }
}

fn role_of(kind: FamilyKind, suffix: &str) -> Option<Role> {
    use FamilyKind as K;
    Some(match (kind, suffix) {
        (K::Counter, "" | "_total") => Role::Total,
        (K::Counter | K::Histogram | K::Summary, "_created") => Role::Created,
        (K::Histogram | K::GaugeHistogram, "_bucket") => Role::Bucket,
        (K::Histogram | K::Summary, "_sum") | (K::GaugeHistogram, "_gsum") => Role::Sum,
        (K::Histogram | K::Summary, "_count") | (K::GaugeHistogram, "_gcount") => Role::Count,
        (K::Summary, "") => Role::Quantile,
        (K::Info, "" | "_info") => Role::Info,
        (K::StateSet, "") => Role::State,
        (K::Gauge | K::Unknown, "") => Role::Value,
        (K::Foreign, suffix) if suffix.is_empty() || SUFFIXES.contains(&suffix) => Role::Value,
        _ => return None,
    })
}
