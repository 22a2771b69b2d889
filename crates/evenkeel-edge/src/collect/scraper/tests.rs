//! The scraper over pages in a row, with every moment handed in, and over real loopback servers.

use std::fmt::Write as _;

use super::*;
use crate::collect::reading::ReadingKind;

const WALL_MS: i64 = 1_800_000_000_000;

struct Pages {
    track: Track,
    rules: Rules,
    now_ms: i64,
}

impl Pages {
    fn new() -> Self {
        Self {
            track: Track::default(),
            rules: Rules {
                series_max: 100,
                ..Rules::default()
            },
            now_ms: 0,
        }
    }

    fn moment(&mut self) -> Moment {
        self.now_ms += 10_000;
        Moment {
            at: Timestamp::from_millis(WALL_MS + self.now_ms),
            steady_ms: self.now_ms,
        }
    }

    /// The page ten seconds later.
    fn page(&mut self, page: &str) -> Found {
        self.page_in(page, Format::Prometheus)
    }

    fn page_in(&mut self, page: &str, format: Format) -> Found {
        let moment = self.moment();
        self.track
            .absorb(page.as_bytes(), format, moment, &self.rules)
    }

    fn fail(&mut self) {
        let moment = self.moment();
        self.track.fail(moment);
    }
}

fn told(found: &Found) -> Vec<(String, f64)> {
    let of = |r: &Reading| (r.series.to_string(), r.value);
    found.readings.iter().map(of).collect()
}

fn value(found: &Found, series: &str) -> Option<f64> {
    let mut all = found.readings.iter().filter(|r| &*r.series == series);
    let value = all.next().map(|r| r.value);
    assert_eq!(all.next(), None, "{series} is told once");
    value
}

fn counter(value: f64) -> String {
    format!("# TYPE c_total counter\nc_total{{b=\"2\",a=\"1\"}} {value}\n")
}

const C: &str = "c_total{a=\"1\",b=\"2\"}";

#[test]
fn counters_become_rates_and_levels_stay_what_they_are() {
    let mut pages = Pages::new();
    let gauge = "# TYPE g gauge\ng 5\n# TYPE s stateset\ns{s=\"up\"} 1\nuntyped 7\nu_total 3\n";
    let first = pages.page(&format!("{}{gauge}", counter(100.0)));
    assert_eq!(value(&first, C), None, "one reading is no rate");
    assert_eq!(
        (value(&first, "g"), value(&first, "s{s=\"up\"}")),
        (Some(5.0), Some(1.0))
    );
    assert_eq!(
        (value(&first, "untyped"), value(&first, "u_total")),
        (Some(7.0), None)
    );
    let second = pages.page("u_total 23\ng -1\nc_total{a=\"1\",b=\"2\"} 150\n");
    assert_eq!(
        told(&second),
        [
            (C.to_owned(), 5.0),
            ("g".to_owned(), -1.0),
            ("u_total".to_owned(), 2.0)
        ]
    );
    let reading = &second.readings[0];
    assert_eq!(reading.kind, ReadingKind::Rate);
    assert_eq!(reading.at.as_millis(), WALL_MS + 20_000);
    assert_eq!(pages.track.series_len(), 5);
}

/// SAFETY 11
#[test]
fn a_counter_that_began_anew_counts_from_zero_and_a_gap_is_divided_by_its_length() {
    let mut pages = Pages::new();
    pages.page(&counter(100.0));
    assert_eq!(value(&pages.page(&counter(30.0)), C), Some(3.0));
    pages.fail();
    assert_eq!(value(&pages.page(&counter(70.0)), C), Some(2.0));
    // Three scrapes without it: what it was no longer counts.
    for _ in 0..MISSED_MAX {
        pages.fail();
    }
    assert_eq!(value(&pages.page(&counter(1e6)), C), None);
    assert_eq!(value(&pages.page(&counter(1e6)), C), Some(0.0));
}

/// SAFETY 11
#[test]
fn what_says_when_it_began_is_believed() {
    let mut pages = Pages::new();
    let page = |value: u32, created: i64| {
        format!(
            "# TYPE c counter\nc_total {value}\nc_created {created}\n\
             # TYPE h histogram\nh_bucket{{le=\"1\"}} {value}\nh_bucket{{le=\"+Inf\"}} {value}\nh_count {value}\nh_sum 1\n\
             h_created {created}\n# EOF\n"
        )
    };
    let old = WALL_MS / 1000 - 9;
    let open = Format::OpenMetrics;
    let first = pages.page_in(&page(50, old), open);
    assert_eq!(told(&first), []);
    // Restarted, and has counted more since than it had before.
    let second = pages.page_in(&page(80, old + 25), open);
    assert_eq!(value(&second, "c_total"), Some(8.0));
    assert_eq!(value(&second, "h_count"), Some(8.0));
    let quantile = second.readings.iter().find(|r| r.series.starts_with("h{"));
    assert_eq!(quantile.unwrap().kind, ReadingKind::Quantile { n: 80 });
    // A series that is new and has only begun counts from zero; one that has counted elsewhere does not.
    let more = "# TYPE d counter\nd_total{x=\"new\"} 40\nd_created{x=\"new\"} 1800000025\n\
                d_total{x=\"old\"} 40\nd_created{x=\"old\"} 1800000015\n# EOF\n";
    let third = pages.page_in(more, open);
    assert_eq!(told(&third), [("d_total{x=\"new\"}".to_owned(), 4.0)]);
    // Prometheus text says it with a gauge beside the counter: none of it is a level.
    let mut pages = Pages::new();
    let page = |value: u32, created: u32| {
        format!(
            "# TYPE c_total counter\nc_total {value}\n# TYPE c_created gauge\nc_created {created}\n"
        )
    };
    assert_eq!(told(&pages.page(&page(10, 5))), []);
    assert_eq!(
        told(&pages.page(&page(20, 6))),
        [("c_total".to_owned(), 2.0)]
    );
}

fn histogram(labels: &str, counts: [u32; 3]) -> String {
    let [a, b, c] = counts;
    format!(
        "h_bucket{{{labels}le=\"0.1\"}} {a}\nh_bucket{{{labels}le=\"0.5\"}} {b}\n\
         h_bucket{{{labels}le=\"+Inf\"}} {c}\nh_count{{{labels}}} {c}\n"
    )
}

#[test]
fn histograms_become_quantiles_of_what_came_between() {
    let page = |a, b| {
        let (a, b) = (histogram("p=\"a\",", a), histogram("p=\"b\",", b));
        format!("# TYPE h histogram\n{a}{b}")
    };
    let mut pages = Pages::new();
    assert_eq!(told(&pages.page(&page([10, 20, 20], [10, 10, 10]))), []);
    let found = pages.page(&page([50, 90, 100], [40, 40, 40]));
    let near = |series: &str, expected: f64| {
        let found = value(&found, series).unwrap_or_else(|| panic!("{series}"));
        assert!((found - expected).abs() < 1e-9, "{series}: {found}");
    };
    // a: 40 up to 0.1 s, 30 up to 0.5 s, 10 above. b: 30 up to 0.1 s.
    near("h{p=\"a\",quantile=\"0.5\"}", 0.1);
    near("h{p=\"a\",quantile=\"0.99\"}", 0.5);
    near("h{p=\"b\",quantile=\"0.5\"}", 0.05);
    near("h{quantile=\"0.5\"}", 55.0 / 70.0 * 0.1);
    near("h{quantile=\"0.95\"}", 0.5);
    near("h_count{p=\"a\"}", 8.0);
    let n = |series: &str| {
        let reading = found.readings.iter().find(|r| &*r.series == series);
        reading.unwrap().kind
    };
    assert_eq!(
        n("h{p=\"a\",quantile=\"0.5\"}"),
        ReadingKind::Quantile { n: 80 }
    );
    assert_eq!(n("h{quantile=\"0.5\"}"), ReadingKind::Quantile { n: 110 });
    // Begun anew: counted from zero. Nothing observed: no quantile, never one of zero.
    let found = pages.page(&page([1, 1, 1], [40, 40, 40]));
    let quantile = found
        .readings
        .iter()
        .find(|r| r.kind == ReadingKind::Quantile { n: 1 });
    assert!(quantile.is_some(), "{:?}", told(&found));
    assert_eq!(value(&found, "h{p=\"b\",quantile=\"0.5\"}"), None);
}

#[test]
fn one_set_of_labels_is_told_once_and_no_type_is_needed() {
    let mut pages = Pages::new();
    pages.page(&histogram("", [0, 0, 0]));
    let found = pages.page(&histogram("", [10, 20, 20]));
    assert_eq!(value(&found, "h{quantile=\"0.5\"}"), Some(0.1));
    assert_eq!(value(&found, "h_count"), Some(2.0));
    assert_eq!(found.readings.len(), 4);
    // A bound that one scrape lacks makes it coarser, not wrong; without the last one nothing is told.
    let found = pages.page("h_bucket{le=\"0.1\"} 20\nh_bucket{le=\"+Inf\"} 40\n");
    assert_eq!(value(&found, "h{quantile=\"0.5\"}"), Some(0.1));
    let found = pages.page("h_bucket{le=\"0.1\"} 30\nh_bucket{le=\"0.5\"} 50\n");
    assert_eq!(told(&found), []);
}

#[test]
fn what_is_there_now_and_summaries_are_told_as_they_are() {
    let mut pages = Pages::new();
    let page = "# TYPE q gaugehistogram\nq_bucket{le=\"1\"} 8\nq_bucket{le=\"+Inf\"} 10\nq_gcount 10\nq_gsum -3\n\
                # TYPE s summary\ns{quantile=\"0.5\"} 0.25\ns{quantile=\"0.9\"} NaN\ns_count 7\n# EOF\n";
    let found = pages.page_in(page, Format::OpenMetrics);
    assert_eq!(value(&found, "q{quantile=\"0.5\"}"), Some(0.625));
    assert_eq!(
        (value(&found, "q_gcount"), value(&found, "q_gsum")),
        (Some(10.0), Some(-3.0))
    );
    assert_eq!(value(&found, "s{quantile=\"0.5\"}"), Some(0.25));
    assert_eq!(
        value(&found, "s{quantile=\"0.9\"}"),
        None,
        "no number, no reading"
    );
    assert_eq!(value(&found, "s_count"), None);
    assert_eq!(found.odd, 0);
}

/// SAFETY 11
#[test]
fn times_that_the_page_gives_are_kept_and_old_ones_say_nothing() {
    let mut pages = Pages::new();
    let page = |value: i64, at: i64| {
        format!("# TYPE c_total counter\nc_total {value} {at}\n# TYPE g gauge\ng {value} {at}\n")
    };
    let found = pages.page(&page(10, WALL_MS + 8_000));
    assert_eq!(found.readings[0].at.as_millis(), WALL_MS + 8_000);
    let found = pages.page(&page(40, WALL_MS + 14_000));
    assert_eq!(value(&found, "c_total"), Some(5.0), "by its own times");
    assert_eq!(
        told(&pages.page(&page(40, WALL_MS + 14_000))),
        [],
        "stood still"
    );
    let found = pages.page(&page(99, WALL_MS - STAMP_AGE_MAX_MS));
    assert_eq!((told(&found), found.odd), (Vec::new(), 2));
}

/// SAFETY 11
#[test]
fn what_makes_no_sense_is_no_reading() {
    let mut pages = Pages::new();
    let page = "# TYPE c_total counter\nc_total -1\nc_total{a=\"1\",a=\"1\"} 1\n# TYPE g gauge\ng NaN\ng{i=\"1\"} +Inf\n\
                # TYPE h histogram\nh_bucket 1\nh_bucket{le=\"x\"} 1\n# TYPE x exotic\nx 1\ng{i=\"2\"} 1\ng{i=\"2\"} 2\nwrong\n";
    let found = pages.page(page);
    assert_eq!(told(&found), [("g{i=\"2\"}".to_owned(), 1.0)]);
    assert_eq!((found.odd, found.twice, found.faults.count), (4, 1, 1));
    assert_eq!(pages.track.series_len(), 4);
}

/// SAFETY 11
#[test]
fn a_series_that_is_gone_becomes_stale_once_and_is_forgotten_after_an_hour() {
    let mut pages = Pages::new();
    let both = format!("{}x 1\n{}", counter(1.0), histogram("", [1, 2, 3]));
    pages.page(&both);
    assert_eq!(pages.track.series_len(), 6);
    // A page that was cut off says nothing about what it lacks.
    assert_eq!(pages.page("x 1\nc_tot").gone.len(), 0);
    let gone: Vec<Vec<Arc<str>>> = (0..5).map(|_| pages.page("x 1\n").gone).collect();
    let lens: Vec<usize> = gone.iter().map(Vec::len).collect();
    assert_eq!(lens, [0, 0, 2, 0, 0]);
    assert!(gone[2].iter().any(|s| &**s == C));
    pages.now_ms += i64::from(FORGET_AFTER_S) * 1000;
    pages.page("x 1\n");
    assert_eq!(pages.track.series_len(), 1);
    // Back again: as if it had never been there.
    assert_eq!(told(&pages.page(&both)).len(), 1);
    let found = pages.page(&format!(
        "{}x 1\n{}",
        counter(21.0),
        histogram("", [11, 12, 13])
    ));
    assert_eq!(value(&found, C), Some(2.0));
    assert_eq!(value(&found, "h{quantile=\"0.5\"}"), Some(0.05));
}

#[test]
fn only_what_is_wanted_is_kept_and_no_more_than_may_be() {
    let mut pages = Pages::new();
    pages.rules.include = Some(Regex::new("^a").unwrap());
    pages.rules.exclude = Some(Regex::new("z$").unwrap());
    pages.rules.series_max = 2;
    let page = "b 1\na 1\naz 1\na{x=\"1\"} 1\na{x=\"2\"} 1\na{x=\"3\"} 1\n";
    for _ in 0..2 {
        let found = pages.page(page);
        assert_eq!((told(&found).len(), found.dropped), (2, 2));
    }
    assert_eq!(pages.track.series_len(), 2);
}

/// Labels in another order each time are the same series, and cost no memory without end.
#[test]
fn the_order_of_labels_does_not_matter() {
    let mut pages = Pages::new();
    let labels: Vec<String> = (0..6).map(|i| format!("l{i}=\"v\"")).collect();
    for shift in 0..40 {
        let mut labels = labels.clone();
        labels.rotate_left(shift % 6);
        labels.swap(0, shift / 6 % 6);
        let found = pages.page(&format!("g{{{}}} {shift}\n", labels.join(",")));
        assert_eq!(found.readings.len(), 1);
    }
    assert_eq!(pages.track.series_len(), 1);
}

#[test]
fn new_information_is_told_as_a_deploy_would_show() {
    let mut pages = Pages::new();
    let page =
        |version: &str| format!("# TYPE build_info gauge\nbuild_info{{version=\"{version}\"}} 1\n");
    let found = pages.page(&page("1"));
    assert!(found.told.is_empty() && found.readings.is_empty());
    assert!(pages.page(&page("1")).told.is_empty());
    let found = pages.page(&page("2"));
    assert_eq!(&*found.told[0], "build_info{version=\"2\"}");
}

mod pages_that_change {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes, in whatever order: no panic, every reading finite, rates never below zero, memory bounded.
        ///
        /// SAFETY 11
        #[test]
        fn any_pages_in_a_row_give_sane_readings(
            pages in prop::collection::vec(prop::collection::vec(
                ("(c_total|c_created|h_bucket|h_sum|g|s)", "(a|b|)", "(0.1|5|-1|\\+Inf|NaN|x)",
                 "(0|17|5e300|-3|NaN|1e999|7.5)", "( 1800000012000| 5|)"), 0..14), 1..8),
            fails in prop::collection::vec(any::<bool>(), 8),
            open in any::<bool>(),
        ) {
            let mut seen = Pages::new();
            seen.rules.series_max = 12;
            for (page, fails) in pages.iter().zip(fails) {
                if fails {
                    seen.fail();
                }
                let mut text = "# TYPE c_total counter\n# TYPE h histogram\n# TYPE g gauge\n# TYPE s summary\n".to_owned();
                for (name, label, le, value, at) in page {
                    writeln!(text, "{name}{{l=\"{label}\",le=\"{le}\"}} {value}{at}").unwrap();
                }
                let format = if open { Format::OpenMetrics } else { Format::Prometheus };
                let found = seen.page_in(&text, format);
                prop_assert!(seen.track.series_len() <= 12);
                for reading in &found.readings {
                    prop_assert!(reading.value.is_finite());
                    prop_assert!(reading.kind != ReadingKind::Rate || reading.value >= 0.0);
                }
            }
        }

        /// A page with nothing new on it gives no rate but zero, whatever its labels hold.
        #[test]
        fn what_stands_still_has_a_rate_of_zero(labels in prop::collection::vec("[a-z\\\\\"{},=\n]{0,6}", 1..6)) {
            let mut text = "# TYPE c_total counter\n".to_owned();
            for (i, label) in labels.iter().enumerate() {
                let label = label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                writeln!(text, "c_total{{i=\"{i}\",l=\"{label}\"}} {i}").unwrap();
            }
            let mut seen = Pages::new();
            seen.page(&text);
            let found = seen.page(&text);
            prop_assert_eq!(found.readings.len(), labels.len());
            prop_assert!(found.readings.iter().all(|r| r.value == 0.0));
        }
    }
}
