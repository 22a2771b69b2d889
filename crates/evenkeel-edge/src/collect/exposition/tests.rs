//! The parser against pages made from a model, pages that were spoiled, and any bytes at all.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::FamilyKind as K;
use super::*;

fn read(page: &str, format: Format) -> (Vec<Entry<'_>>, Faults, bool) {
    let mut lines = Exposition::new(page.as_bytes(), format);
    let entries: Vec<_> = lines.by_ref().collect();
    (entries, *lines.faults(), lines.is_whole())
}

fn samples(page: &str, format: Format) -> Vec<Sample<'_>> {
    let (entries, faults, _) = read(page, format);
    assert_eq!(faults, Faults::default(), "{page}");
    let samples = entries.into_iter().filter_map(|entry| match entry {
        Entry::Sample(sample) => Some(sample),
        _ => None,
    });
    samples.collect()
}

fn roles(page: &str, format: Format) -> Vec<(String, FamilyKind, Role)> {
    let of = |s: &Sample<'_>| (s.family.to_owned(), s.kind, s.role);
    samples(page, format).iter().map(of).collect()
}

#[test]
fn the_content_type_decides() {
    for (text, format) in [
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::OpenMetrics,
        ),
        ("Application/OpenMetrics-Text", Format::OpenMetrics),
        ("text/plain; version=0.0.4", Format::Prometheus),
        ("", Format::Prometheus),
    ] {
        assert_eq!(Format::of_content_type(text), format, "{text}");
    }
}

#[test]
fn a_page_of_prometheus_says_what_each_line_is() {
    let page = "# HELP a_total Counts \\\\ and\\nmore \\\"\n\
         # TYPE a_total counter\n\
         \t a_total { x = \"1\" , y=\"a \\\"b\\\" }\\n\\\\\" , }   1027   1395066363000 \n\
         a_total 3\r\n\
         \n\
         # a remark\n\
         #TYPE is a remark too\n\
         # TYPE h histogram\n\
         h_bucket{le=\"+Inf\"} 2\nh_sum 1.5e-3\nh_count 2\n\
         # TYPE a_created gauge\na_created 1700000000.5\n\
         # TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum -Inf\ns_count 0\n\
         alone 1\n";
    let found = samples(page, Format::Prometheus);
    assert_eq!(found[0].value.to_string(), "1027");
    assert_eq!(found[0].at_ms, Some(1_395_066_363_000));
    assert_eq!(found[0].labels.get("y").unwrap(), "a \"b\" }\n\\");
    assert_eq!(
        found[0].labels.canonical("a_total", &[]).unwrap(),
        "a_total{x=\"1\",y=\"a \\\"b\\\" }\\n\\\\\"}"
    );
    assert!(found[6].value.is_nan() && found[7].value == f64::NEG_INFINITY);
    let of = |family: &str, kind, role| (family.to_owned(), kind, role);
    assert_eq!(
        roles(page, Format::Prometheus),
        [
            of("a_total", K::Counter, Role::Total),
            of("a_total", K::Counter, Role::Total),
            of("h", K::Histogram, Role::Bucket),
            of("h", K::Histogram, Role::Sum),
            of("h", K::Histogram, Role::Count),
            of("a", K::Counter, Role::Created),
            of("s", K::Summary, Role::Quantile),
            of("s", K::Summary, Role::Sum),
            of("s", K::Summary, Role::Count),
            of("alone", K::Unknown, Role::Value),
        ]
    );
    let help = &read(page, Format::Prometheus).0[0];
    let Entry::Help { text, .. } = help else {
        panic!("{help:?}");
    };
    assert_eq!(text.unescape(), "Counts \\ and\nmore \\\"");
}

#[test]
fn a_page_of_openmetrics_says_what_each_line_is() {
    let page = "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n# HELP a_seconds Says \\\"so\\\"\n\
         a_seconds_total{x=\"1\"} 17 1520879607.789 # {trace_id=\"KOO\",b=\"\"} 0.67 1520879606.5\n\
         a_seconds_created{x=\"1\"} 1520430000.123\n\
         # TYPE g gaugehistogram\ng_bucket{le=\"1.0\"} 4 # {} 0.5\ng_bucket{le=\"+Inf\"} 5\ng_gcount 5\ng_gsum 3.1\n\
         # TYPE i info\ni_info{version=\"2\"} 1\n\
         # TYPE st stateset\nst{st=\"up\"} 1\n\
         # TYPE new exotic\nnew_bucket 1\nnew 2\n\
         # TYPE u unknown\nu 1\n# EOF";
    let found = samples(page, Format::OpenMetrics);
    assert_eq!(found[0].at_ms, Some(1_520_879_607_789));
    let exemplar = found[0].exemplar.unwrap();
    assert_eq!(exemplar.labels.get("trace_id").unwrap(), "KOO");
    assert_eq!(
        (exemplar.value, exemplar.at_ms),
        (0.67, Some(1_520_879_606_500))
    );
    assert!(found[2].exemplar.unwrap().labels.is_empty());
    let found: Vec<_> = roles(page, Format::OpenMetrics)
        .into_iter()
        .map(|(_, kind, role)| (kind, role))
        .collect();
    assert_eq!(
        found,
        [
            (K::Counter, Role::Total),
            (K::Counter, Role::Created),
            (K::GaugeHistogram, Role::Bucket),
            (K::GaugeHistogram, Role::Bucket),
            (K::GaugeHistogram, Role::Count),
            (K::GaugeHistogram, Role::Sum),
            (K::Info, Role::Info),
            (K::StateSet, Role::State),
            (K::Foreign, Role::Value),
            (K::Foreign, Role::Value),
            (K::Unknown, Role::Value),
        ]
    );
    let (entries, _, is_whole) = read(page, Format::OpenMetrics);
    assert!(is_whole);
    let unit = entries.iter().find_map(|e| match e {
        Entry::Unit { unit, .. } => Some(*unit),
        _ => None,
    });
    assert_eq!(unit, Some("seconds"));
}

#[test]
fn names_in_quotes_are_those_of_the_newer_formats() {
    let page = "# TYPE \"http.requests\" counter\n\
         {\"http.requests\",\"k.ö\"=\"1\",b=\"2\"} 5\n{\"http.requests\"} 1\n\
         plain{\"a\"=\"1\"} 2\n";
    let found = samples(page, Format::Prometheus);
    assert_eq!(
        (found[0].name.raw, found[0].kind, found[0].labels.len()),
        ("http.requests", FamilyKind::Counter, 2)
    );
    let name = found[0].name.unescape();
    assert_eq!(
        found[0].labels.canonical(&name, &[]).unwrap(),
        "{\"http.requests\",b=\"2\",\"k.ö\"=\"1\"}"
    );
    assert_eq!(
        found[1].labels.canonical(&name, &[]).unwrap(),
        "{\"http.requests\"}"
    );
    assert_eq!(found[2].text, "plain{\"a\"=\"1\"}");
    assert_eq!(
        found[2].labels.canonical("plain", &[]).unwrap(),
        "plain{a=\"1\"}"
    );
}

#[test]
fn one_series_has_one_canonical_text() {
    let page = "m{b=\"2\",a=\"1\",le=\"5\",c=\"\"} 1\nm{a=\"1\",a=\"2\"} 1\n";
    let found = samples(page, Format::Prometheus);
    let labels = found[0].labels;
    assert_eq!(
        labels.canonical("m", &["le"]).unwrap(),
        "m{a=\"1\",b=\"2\"}"
    );
    assert_eq!(labels.canonical("m", &["le", "a", "b"]).unwrap(), "m");
    let with = labels.canonical_with("m", &["le", "b"], Some(("Q", "0.5")));
    assert_eq!(with.unwrap(), "m{Q=\"0.5\",a=\"1\"}");
    assert_eq!(
        found[1].labels.canonical("m", &[]).unwrap_err(),
        DuplicateLabel("a".to_owned())
    );
}

#[test]
fn a_wrong_line_spoils_itself_only_and_the_reason_is_told() {
    use FaultReason as R;
    let long = format!("{}{{x=\"{}\"}} 1", "m", "y".repeat(LINE_LEN_MAX));
    let many: Vec<String> = (0..=LABELS_MAX).map(|i| format!("l{i}=\"\"")).collect();
    let many = format!("m{{{}}} 1", many.join(","));
    for (line, reason) in [
        ("1m 2", R::Name),
        ("m-n 2", R::Name),
        ("{a=\"1\"} 2", R::Name),
        ("{\"\"} 2", R::Name),
        ("m{a=\"1} 2", R::Labels),
        ("m{a=1} 2", R::Labels),
        ("m{a=\"1\" b=\"2\"} 2", R::Labels),
        ("m{a:b=\"1\"} 2", R::Labels),
        ("m{\"x\"} 2", R::Labels),
        ("m{a=\"1\\", R::Labels),
        (many.as_str(), R::TooManyLabels),
        (long.as_str(), R::LineTooLong),
        ("m", R::Value),
        ("m ", R::Value),
        ("m x", R::Value),
        ("m{} 0x", R::Value),
        ("m 1 x", R::Time),
        ("m 1 1.5", R::Time),
        ("m 1 2 3", R::Trailing),
        ("m 1 # {} 1", R::Trailing),
        ("# TYPE m", R::Comment),
        ("# TYPE m gauge gauge", R::Comment),
        ("# HELP", R::Comment),
        ("# TYPE good gauge", R::SecondType),
    ] {
        let page = format!("# TYPE good counter\n{line}\ngood 1\n");
        let (entries, faults, is_whole) = read(&page, Format::Prometheus);
        let fault = Fault { line: 2, reason };
        assert_eq!((faults.count, faults.first), (1, Some(fault)), "{line}");
        assert!(is_whole);
        let Some(Entry::Sample(good)) = entries.last() else {
            panic!("{line}: {entries:?}");
        };
        assert_eq!((good.value, good.kind), (1.0, FamilyKind::Counter));
    }
    for (line, reason) in [
        ("m 1 # x", R::Exemplar),
        ("m 1 # {a=\"1\"}", R::Exemplar),
        ("m 1 # {} 1 1 1", R::Exemplar),
        ("m 1 NaN", R::Time),
    ] {
        let page = format!("{line}\ngood 1\n# EOF\n");
        let (entries, faults, _) = read(&page, Format::OpenMetrics);
        assert_eq!(faults.first, Some(Fault { line: 1, reason }), "{line}");
        assert_eq!(entries.len(), 1, "{line}");
    }
    let mut page = Exposition::new(b"m{a=\"\xff\"} 1\nm 2\n", Format::Prometheus);
    assert_eq!(page.by_ref().count(), 1);
    let text = page.faults().first.unwrap().to_string();
    assert_eq!(text, "line 1: it is not UTF-8");
}

/// SAFETY 11
#[test]
fn a_page_that_was_cut_off_is_told_from_a_whole_one() {
    let (entries, faults, is_whole) = read("m 1\nm{a=\"1\"} 12", Format::Prometheus);
    assert_eq!(entries.len(), 1, "half a number is none");
    assert_eq!(faults.first.unwrap().reason, FaultReason::Unfinished);
    assert!(!is_whole);
    let (_, faults, is_whole) = read("m 1\n", Format::OpenMetrics);
    assert_eq!((faults.count, is_whole), (0, false));
    let (entries, faults, is_whole) = read("m 1\n# EOF\nm 2\nm 3\n", Format::OpenMetrics);
    assert_eq!((entries.len(), is_whole), (1, true));
    assert_eq!(faults.first.unwrap().reason, FaultReason::AfterEof);
    assert!(read("", Format::Prometheus).2);
    let long = "m 1\n".repeat(PAGE_SAMPLES_MAX + 1);
    let (entries, faults, is_whole) = read(&long, Format::Prometheus);
    assert_eq!((entries.len(), is_whole), (PAGE_SAMPLES_MAX, false));
    assert_eq!(faults.first.unwrap().reason, FaultReason::TooManySamples);
    let long = "# no\n".repeat(PAGE_LEN_MAX / 5 + 1);
    let (_, faults, is_whole) = read(&long, Format::Prometheus);
    assert_eq!(faults.first.unwrap().reason, FaultReason::PageTooLong);
    assert!(!is_whole);
}

/// One series of the model: name, labels in order, value, time in milliseconds.
type Point = (
    String,
    std::collections::BTreeMap<String, String>,
    f64,
    Option<i64>,
);

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z_:][a-zA-Z0-9_:]{0,8}",
        1 => "[a-zé.\\\\\"\n ]{1,6}",
    ]
}

fn point() -> impl Strategy<Value = Point> {
    let label = prop_oneof![4 => "[a-zA-Z_][a-zA-Z0-9_]{0,5}", 1 => "[aé.\\\\\"\n:]{1,4}"];
    let labels = prop::collection::btree_map(label, "([a-z0-9]|[\\\\\"\n},=#é ]){1,8}", 0..5);
    let value = prop_oneof![
        any::<f64>(),
        (0..1_000_000_u32).prop_map(f64::from),
        prop::sample::select(vec![f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.0]),
    ];
    (name(), labels, value, prop::option::of(0..10_i64.pow(13)))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    text::escape_into(text, &mut quoted);
    quoted + "\""
}

/// The model as a page; `blank` stands wherever blanks may.
fn write(points: &[Point], format: Format, blank: &str, exemplar: bool) -> String {
    let mut page = String::new();
    for (name, labels, value, at_ms) in points {
        let mut inside: Vec<String> = Vec::new();
        if text::is_plain_name(name, false) {
            page.push_str(name);
        } else {
            inside.push(quoted(name));
        }
        for (name, value) in labels {
            let is_plain = text::is_plain_name(name, true);
            let name = if is_plain { name.clone() } else { quoted(name) };
            inside.push(format!("{name}{blank}={blank}{}", quoted(value)));
        }
        if !inside.is_empty() {
            let inside = inside.join(&format!("{blank},{blank}"));
            write!(page, "{{{blank}{inside}{blank}}}").unwrap();
        }
        let value = match value {
            v if v.is_nan() => "NaN".to_owned(),
            v if v.is_infinite() => if *v > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
            v => format!("{v:?}"),
        };
        write!(page, " {blank}{value}").unwrap();
        match (at_ms, format) {
            (Some(at), Format::Prometheus) => write!(page, " {at}").unwrap(),
            (Some(at), Format::OpenMetrics) => {
                write!(page, " {}.{:03}", at / 1000, at % 1000).unwrap();
            }
            (None, _) => {}
        }
        if exemplar && format == Format::OpenMetrics {
            page.push_str(" # {id=\"a } # \\\"\"} 1");
        }
        page.push('\n');
    }
    if format == Format::OpenMetrics {
        page.push_str("# EOF\n");
    }
    page
}

fn format() -> impl Strategy<Value = Format> {
    prop::sample::select(vec![Format::Prometheus, Format::OpenMetrics])
}

proptest! {
    #[test]
    fn a_page_made_from_a_model_reads_as_that_model(
        points in prop::collection::vec(point(), 0..12),
        format in format(),
        blank in "[ \t]{0,2}",
        exemplar in any::<bool>(),
    ) {
        let page = write(&points, format, &blank, exemplar);
        let (entries, faults, is_whole) = read(&page, format);
        prop_assert_eq!(faults, Faults::default(), "{}", page);
        prop_assert!(is_whole);
        prop_assert_eq!(entries.len(), points.len());
        for (entry, (name, labels, value, at_ms)) in entries.iter().zip(&points) {
            let Entry::Sample(sample) = entry else {
                return Err(TestCaseError::fail("a sample is a sample"));
            };
            prop_assert_eq!(&sample.name.unescape(), name);
            let read: Vec<_> = sample.labels.iter()
                .map(|l| (l.name.unescape().into_owned(), l.value.unescape().into_owned()))
                .collect();
            let meant: Vec<_> = labels.clone().into_iter().collect();
            prop_assert_eq!(read, meant);
            prop_assert!(sample.value.to_bits() == value.to_bits()
                || (sample.value.is_nan() && value.is_nan()));
            prop_assert_eq!(sample.at_ms, *at_ms);
            prop_assert_eq!(sample.exemplar.is_some(), exemplar && format == Format::OpenMetrics);
            // What is canonical reads as itself.
            let canonical = sample.labels.canonical(name, &[]).unwrap();
            let again = format!("{canonical} 1\n");
            let again = samples(&again, Format::Prometheus);
            prop_assert_eq!(again[0].labels.canonical(&again[0].name.unescape(), &[]).unwrap(), canonical);
        }
    }

    /// A line put among good ones takes none of them along; bytes changed in a page never panic.
    #[test]
    fn spoiled_pages_lose_only_what_is_spoiled(
        points in prop::collection::vec(point(), 1..10),
        format in format(),
        noise in "[^\n#]{0,30}",
        at in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let page = write(&points, format, "", true);
        let mut lines: Vec<&str> = page.lines().collect();
        lines.insert(at.index(points.len()), &noise);
        let spoiled = lines.join("\n") + "\n";
        let (entries, faults, _) = read(&spoiled, format);
        let more = entries.len() - points.len();
        prop_assert!(more <= 1 && more as u64 + faults.count <= 1);
        let mut bytes = page.into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let lines = memchr::memchr_iter(b'\n', &bytes).count() as u64 + 1;
        let mut read = Exposition::new(&bytes, format);
        let found = read.by_ref().count() as u64;
        prop_assert!(found + read.faults().count <= lines);
    }

    #[test]
    fn any_bytes_are_a_page(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        text in "([a-z]|[ \t\n{}=\",#\\\\0-9.+]|# TYPE |# EOF|NaN|\\\\\"){0,80}",
        format in format(),
    ) {
        for page in [bytes.as_slice(), text.as_bytes()] {
            let mut read = Exposition::new(page, format);
            for entry in read.by_ref() {
                if let Entry::Sample(sample) = entry {
                    prop_assert_eq!(sample.labels.iter().count(), sample.labels.len());
                    let _ = sample.labels.canonical(&sample.name.unescape(), &["le"]);
                }
            }
        }
    }
}
