//! Templates: what belongs together, what a name survives, and that nothing grows; by cases and by properties.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::limits::{
    LINE_SHOWN_MAX, LINE_TOKENS_MAX, TEMPLATE_HEADS_MAX, TEMPLATE_LEAF_MAX, TOKEN_LEN_MAX,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(second * 1000)
}

fn miner() -> TemplateMiner {
    TemplateMiner::new(TEMPLATES_MAX)
}

fn text(miner: &TemplateMiner, id: TemplateId) -> String {
    miner.template(id).unwrap().text()
}

#[test]
fn a_template_becomes_general_and_keeps_its_name() {
    let mut m = miner();
    let alice = m.observe(
        at(1),
        "2026-01-31T12:00:00Z INFO user alice logged in from 10.0.0.1",
        false,
    );
    assert!(alice.is_new);
    assert_eq!(
        text(&m, alice.id),
        "<time> INFO user alice logged in from <ip>"
    );
    let bob = m.observe(
        at(2),
        "2026-01-31T12:00:07Z INFO user bob logged in from 10.0.0.9:80",
        false,
    );
    assert_eq!((bob.id, bob.is_new), (alice.id, false));
    assert_eq!(
        text(&m, alice.id),
        "<time> INFO user <*> logged in from <ip>"
    );
    let other = m.observe(
        at(3),
        "2026-01-31T12:00:07Z INFO user bob was thrown out by 10.0.0.9",
        false,
    );
    assert_ne!(other.id, alice.id);
    let again = m.observe(
        at(4),
        "2026-01-31T12:00:00Z INFO user alice logged in from 10.0.0.1",
        false,
    );
    assert_eq!(again.id, alice.id, "the line that it was made of");
    let t = m.template(alice.id).unwrap();
    assert_eq!(
        (t.lines(), t.errors(), t.first(), t.last()),
        (3, 0, at(1), at(4))
    );
    assert_eq!(m.lines(), 4);
}

#[test]
fn what_is_different_stays_apart() {
    let mut m = miner();
    let lines = [
        "started",
        "stopped",
        "service started",
        "service stopped",
        "cannot open database",
        "cannot open socket",
        "connected to 10.0.0.1 port 80",
        "refused by 10.0.0.1 port 80",
        "17",
        "",
    ];
    let ids: BTreeSet<TemplateId> = lines
        .iter()
        .map(|l| m.observe(at(0), l, false).id)
        .collect();
    assert_eq!(ids.len(), lines.len());
}

#[test]
fn an_error_is_new_once() {
    let mut m = miner();
    assert_eq!(m.observe(at(1), "disk sda1 is slow", false).new_error, None);
    let first = m.observe(
        at(2),
        "ERROR cannot write /var/x:\u{1b}[31m disk full",
        true,
    );
    let new = first.new_error.unwrap();
    assert_eq!((new.id, new.at, new.lines_before), (first.id, at(2), 1));
    assert_eq!(new.line, "ERROR cannot write /var/x: [31m disk full");
    assert!(
        new.template.starts_with("ERROR cannot write <path>:"),
        "{}",
        new.template
    );
    assert_eq!(
        m.observe(
            at(3),
            "ERROR cannot write /tmp/y:\u{1b}[31m disk full",
            true
        )
        .new_error,
        None
    );
    // A template that was no error so far becomes one.
    let became = m
        .observe(at(4), "disk sdb2 is slow", true)
        .new_error
        .unwrap();
    assert_eq!(became.template, "disk <*> is slow");
    assert_eq!(m.observe(at(5), "disk sdb2 is slow", true).new_error, None);
}

#[test]
fn the_least_recent_leaves_and_an_error_that_comes_back_is_not_new() {
    let mut m = TemplateMiner::new(3);
    let lost = m.observe(at(1), "alpha is broken", true);
    assert!(lost.new_error.is_some());
    m.observe(at(2), "beta", false);
    m.observe(at(3), "gamma", false);
    m.observe(at(4), "beta", false);
    m.observe(at(5), "delta", false);
    assert_eq!(m.template(lost.id), None);
    let texts: Vec<String> = m.templates().iter().map(Template::text).collect();
    assert_eq!(texts, ["delta", "beta", "gamma"]);
    let back = m.observe(at(6), "alpha is broken", true);
    assert_eq!(
        (back.id, back.is_new, back.new_error),
        (lost.id, true, None)
    );
    assert_eq!(m.template(lost.id).unwrap().errors(), 1);
}

#[test]
fn names_in_lines_do_not_fill_the_memory() {
    // Too short a line to be alike with one word changed: the leaf becomes crowded. And a first word that is a name:
    // at some point those are kept together.
    let shapes: [(Shape, usize, &str); 2] = [
        (
            |name| format!("unknown user {name}"),
            TEMPLATE_LEAF_MAX + 1,
            "unknown user <*>",
        ),
        (
            |name| format!("{name} has logged in again"),
            TEMPLATE_HEADS_MAX + 1,
            "<*> has logged in again",
        ),
    ];
    for (line, most, general) in shapes {
        let mut m = miner();
        for i in 0..1000 {
            m.observe(at(0), &line(name(i)), false);
        }
        assert!(m.templates().len() <= most, "{}", m.templates().len());
        assert!(m.templates().iter().any(|t| t.text() == general));
        for i in 0..1000 {
            let line = line(name(i));
            assert!(!m.observe(at(1), &line, false).is_new, "{line}");
        }
    }
}

/// A line with a name in it.
type Shape = fn(String) -> String;

/// A word without digits for each number.
fn name(mut i: u32) -> String {
    let mut name = String::from("x");
    while i > 0 {
        name.push(char::from(b'a' + u8::try_from(i % 26).unwrap()));
        i /= 26;
    }
    name
}

#[test]
fn rates_are_told_for_each_window() {
    let mut m = TemplateMiner::new(2);
    let a = m.observe(at(0), "a", false).id;
    assert_eq!(m.close_window(at(10)), None, "nobody said when it began");
    m.observe(at(11), "a", true);
    m.observe(at(12), "a", false);
    let b = m.observe(at(13), "b", false).id;
    let window = m.close_window(at(14)).unwrap();
    assert_eq!(
        (window.from, window.to, window.lines_left),
        (at(10), at(14), 0)
    );
    let rate = |id, lines, errors, per_second| TemplateRate {
        id,
        lines,
        errors,
        per_second,
    };
    assert_eq!(window.rates, [rate(a, 2, 1, 0.5), rate(b, 1, 0, 0.25)]);
    m.observe(at(15), "c", false);
    m.observe(at(15), "d", false);
    let window = m.close_window(at(16)).unwrap();
    assert_eq!((window.rates.len(), window.lines_left), (2, 0));
    m.observe(at(17), "a", false);
    m.observe(at(17), "b", false);
    m.observe(at(17), "c", false);
    assert_eq!(m.close_window(at(18)).unwrap().lines_left, 1, "that of `a`");
    // Not read for a while; a clock that went back.
    m.observe(at(19), "a", false);
    m.skip_window(at(20));
    let window = m.close_window(at(21)).unwrap();
    assert!(window.rates.iter().all(|r| r.lines == 0));
    assert_eq!(m.close_window(at(3)), None);
    assert_eq!(m.close_window(at(3)), None);
    assert!(m.close_window(at(4)).is_some());
}

#[test]
fn a_state_that_contradicts_itself_is_refused() {
    let mut m = miner();
    m.observe(at(1), "one", true);
    m.observe(at(1), "two words", true);
    let good = serde_json::to_value(m.state()).unwrap();
    let read = |value: serde_json::Value| {
        TemplateMiner::restore(serde_json::from_value(value).unwrap(), 9).map(|m| m.lines())
    };
    assert_eq!(read(good.clone()), Ok(2));
    let mut other = good.clone();
    other["version"] = 2.into();
    assert_eq!(read(other), Err(InvalidMinerState::Version { found: 2 }));
    let mut twice = good.clone();
    twice["templates"][1] = twice["templates"][0].clone();
    let mut short = good.clone();
    short["templates"][1]["places"] = serde_json::json!([]);
    let mut more = good.clone();
    more["templates"][0]["errors"] = 9.into();
    for bad in [twice, short, more] {
        let error = read(bad).unwrap_err();
        assert!(
            matches!(error, InvalidMinerState::Damaged { .. }),
            "{error}"
        );
    }
    let mut unknown = good;
    unknown["x"] = 1.into();
    assert!(serde_json::from_value::<MinerState>(unknown).is_err());
}

#[test]
fn fewer_templates_may_be_restored() {
    let mut m = miner();
    for i in 0..40 {
        m.observe(at(i), &name(u32::try_from(i).unwrap()), false);
    }
    let restored = TemplateMiner::restore(m.state(), 5).unwrap();
    let kept: BTreeSet<TemplateId> = restored.templates().iter().map(Template::id).collect();
    let newest: BTreeSet<TemplateId> = m.templates()[35..].iter().map(Template::id).collect();
    assert_eq!(kept, newest);
}

/// Words and parameters, few enough that lines are alike often.
fn any_line() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        4 => "[abc]{1,2}",
        1 => "[a-z]{3}",
        1 => "[0-9]{1,5}",
        1 => Just("ERROR".to_owned()),
        1 => Just("<num>".to_owned()),
        1 => "[a-z]=[0-9a-z]{1,2}",
    ];
    prop::collection::vec(token, 0..7).prop_map(|tokens| tokens.join(" "))
}

fn check(miner: &TemplateMiner) -> Result<(), TestCaseError> {
    let ids: BTreeSet<TemplateId> = miner.templates().iter().map(Template::id).collect();
    prop_assert_eq!(ids.len(), miner.templates().len(), "a name twice");
    prop_assert!(miner.left.len() <= TEMPLATES_LEFT_MAX);
    for template in miner.templates() {
        prop_assert_eq!(template.defect(), None);
        let text = template.text();
        prop_assert!(
            text.len() <= LINE_TOKENS_MAX * (TOKEN_LEN_MAX + 1),
            "{}",
            text
        );
        prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_taken_and_memory_is_bounded(
        lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..60),
        max in 1..20_usize,
    ) {
        let mut m = TemplateMiner::new(max);
        for (i, bytes) in lines.iter().enumerate() {
            let line = String::from_utf8_lossy(bytes);
            let seen = m.observe(at(i64::try_from(i).unwrap()), &line, i % 2 == 0);
            prop_assert!(m.template(seen.id).is_some());
            if let Some(new) = seen.new_error {
                prop_assert!(new.line.chars().count() <= LINE_SHOWN_MAX + 1);
                prop_assert!(!new.line.chars().any(char::is_control));
            }
        }
        prop_assert!(m.templates().len() <= max);
        check(&m)?;
    }

    #[test]
    fn log_like_text_is_taken(
        lines in prop::collection::vec("[-0-9a-fxTZ:.,/\"'\\\\ eé=\\[\\]+~]{0,60}", 0..40),
    ) {
        let mut m = miner();
        for line in &lines {
            m.observe(at(0), line, true);
        }
        check(&m)?;
    }

    /// And a restart between changes nothing.
    #[test]
    fn the_same_lines_in_the_same_order_have_the_same_names(
        lines in prop::collection::vec(any_line(), 1..120),
        max in 1..30_usize,
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(lines.len());
        let (mut one, mut two) = (TemplateMiner::new(max), TemplateMiner::new(max));
        for (i, line) in lines.iter().enumerate() {
            if i == cut {
                let saved = serde_json::to_string(&two.state()).unwrap();
                two = TemplateMiner::restore(serde_json::from_str(&saved).unwrap(), max).unwrap();
                prop_assert_eq!(two.tree.marks(), one.tree.marks());
            }
            let is_error = line.contains("ERROR");
            prop_assert_eq!(one.observe(at(1), line, is_error), two.observe(at(1), line, is_error), "{}", line);
        }
        check(&one)?;
    }

    /// The line that a template was made of never makes a second one.
    #[test]
    fn no_template_is_made_twice(lines in prop::collection::vec(any_line(), 1..200)) {
        let mut m = miner();
        for line in &lines {
            m.observe(at(0), line, false);
        }
        for line in &lines {
            prop_assert!(!m.observe(at(0), line, false).is_new, "{}", line);
        }
        check(&m)?;
    }

    #[test]
    fn lines_that_differ_in_numbers_are_one_template(
        shape in "[a-z]{1,6}( [a-z]{0,4}[=(:_-]?N[),%]?| [a-z]{1,4}){0,8}",
        numbers in prop::collection::vec(prop::collection::vec(0..u64::MAX, 10), 2..6),
    ) {
        let mut names = BTreeSet::new();
        let mut m = miner();
        for row in &numbers {
            let mut row = row.iter();
            let line: String = shape
                .chars()
                .map(|c| if c == 'N' { row.next().unwrap().to_string() } else { c.to_string() })
                .collect();
            names.insert(m.observe(at(0), &line, false).id);
            names.insert(miner().observe(at(0), &line, false).id);
        }
        prop_assert_eq!(names.len(), 1, "{}", shape);
        prop_assert_eq!(m.templates().len(), 1);
    }
}
