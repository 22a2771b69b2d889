//! Editing configuration files: what is set is there, and nothing else moved.

use std::path::Path;

use evenkeel_edge::config_edit::{
    self, ConfigError, Edit, EditError, Format, apply, get, remove, set,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const TOML: &str = "# grace\n\n[server]   # where\nhost = '127.0.0.1' # loopback\nport = 8000\n\n[database] # pool\n  pool_size = 2      # too small?\n  timeout_s = 1.5\nurl = \"sqlite://x\"\n\n# trailing of limits\n[limits]\nper_user = { burst = 5, rate = 0.5 } # inline\ntags = [\"a\", # one\n  \"b\"]\nrequests.max = 10\n\n[[shards]]\nname = \"s1\"\nport = 1\n\n[a.b.c]\nx = true\n# the end\n";
const YAML: &str = "# grace\nserver:   # where\n    host: 127.0.0.1 # loopback\n    port: 8000\n\ndatabase: # pool\n    pool_size:   2      # too small?\n    timeout_s: 1.5\n    url: \"sqlite://x\"\n    name: 'it''s'\n\n# before limits\nlimits:\n    flow: {burst: 5, rate: 0.5} # inline\n    tags: [a, # one\n      b]\n    list:\n    - name: one\n      size: 3\n    - two\n    empty:\n    text: |\n      some\n      lines\n# the end\n";
const JSON: &str = "{\n  \"server\": {\"host\": \"127.0.0.1\",  \"port\": 8000},\n  \"database\" : {\n    \"pool_size\":2 ,\n    \"timeout_s\": 1.5\n  },\n  \"list\": [1, {\"a\": \"xé\"}, \"x\\u00e9\"],\n  \"empty\": {}\n}\n";
const ENV: &str = "# grace\nexport WORKERS=4   # per core\n\nNAME='it is'\nURL=\"http://h/#x\" # y\nEMPTY=\nFLAG=true\nRATIO=0.5\nVERSION=1.10\nPLAIN=a#b\n";

fn samples() -> Vec<(Format, &'static str, &'static str, Value)> {
    use Format::{Env, Json, Toml, Yaml};
    vec![
        (Toml, TOML, "database.pool_size", json!(20)),
        (Toml, TOML, "database.timeout_s", json!(2.25)),
        (Toml, TOML, "database.url", json!("a \"b\" # c\\")),
        (Toml, TOML, "server.host", json!("0.0.0.0")),
        (Toml, TOML, "limits.per_user.burst", json!(7)),
        (Toml, TOML, "limits.requests.max", json!(11)),
        (Toml, TOML, "limits.tags.1", json!("c")),
        (Toml, TOML, "shards.0.port", json!(2)),
        (Toml, TOML, "a.b.c.x", json!(false)),
        (Yaml, YAML, "database.pool_size", json!(20)),
        (Yaml, YAML, "database.timeout_s", json!(2.25)),
        (Yaml, YAML, "database.url", json!("a: b # c")),
        (Yaml, YAML, "database.name", json!("it's not")),
        (Yaml, YAML, "server.host", json!("10.0.0.1")),
        (Yaml, YAML, "limits.flow.burst", json!(7)),
        (Yaml, YAML, "limits.tags.1", json!("c")),
        (Yaml, YAML, "limits.list.0.size", json!(4)),
        (Yaml, YAML, "limits.list.1", json!("three")),
        (Json, JSON, "database.pool_size", json!(20)),
        (Json, JSON, "server.host", json!("x\n\"y\"")),
        (Json, JSON, "list.1.a", json!("z")),
        (Env, ENV, "WORKERS", json!(8)),
        (Env, ENV, "NAME", json!("it was")),
        (Env, ENV, "URL", json!("http://other/#z")),
        (Env, ENV, "FLAG", json!(false)),
        (Env, ENV, "RATIO", json!(0.25)),
        (Env, ENV, "VERSION", json!("2.10")),
        (Env, ENV, "PLAIN", json!("c")),
    ]
}

/// The bytes before and after the one place that differs.
fn same_around(old: &str, new: &str) -> (usize, usize) {
    let head = old
        .bytes()
        .zip(new.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let tail = old[head..]
        .bytes()
        .rev()
        .zip(new[head..].bytes().rev())
        .take_while(|(a, b)| a == b)
        .count();
    (head, tail)
}

#[test]
fn one_value_changes_and_back_again() {
    for (format, text, key, value) in samples() {
        let at = |e: EditError| format!("{format:?} {key}: {e}");
        let before = get(format, text, key).map_err(at).unwrap().expect(key);
        let edited = set(format, text, key, &value).map_err(at).unwrap();
        assert_eq!(
            get(format, &edited, key).map_err(at).unwrap(),
            Some(value.clone()),
            "{format:?} {key}"
        );
        assert_eq!(
            edited.lines().count(),
            text.lines().count(),
            "{format:?} {key}: no line comes or goes"
        );
        let (head, tail) = same_around(text, &edited);
        assert!(
            text.len() - head - tail <= before.to_string().len() + 2,
            "{format:?} {key}: more than the value changed:\n{edited}"
        );
        let back = set(format, &edited, key, &before).map_err(at).unwrap();
        // These two are quoted now, which says the same to more readers.
        if key != "PLAIN" && !(key == "server.host" && format == Format::Yaml) {
            assert_eq!(back, text, "{format:?} {key}");
        }
    }
}

#[test]
fn an_absent_key_is_added_in_place_and_removed_again() {
    use Format::{Env, Json, Toml, Yaml};
    let cases: Vec<(Format, &str, &str, Value, &str)> = vec![
        (
            Toml,
            TOML,
            "database.idle",
            json!(3),
            "url = \"sqlite://x\"\nidle = 3\n",
        ),
        (
            Toml,
            TOML,
            "limits.per_user.max",
            json!(9),
            "rate = 0.5, max = 9 }",
        ),
        (
            Toml,
            TOML,
            "limits.requests.min",
            json!(1),
            "requests.max = 10\nrequests.min = 1\n",
        ),
        (
            Toml,
            TOML,
            "new.deep.key",
            json!("v"),
            "# the end\n\n[new.deep]\nkey = \"v\"\n",
        ),
        (Toml, TOML, "top", json!(1), "top = 1\n# grace"),
        (Toml, TOML, "a.y", json!(1), "\n\n[a]\ny = 1\n"),
        (Toml, "", "k", json!(1), "k = 1\n"),
        (
            Yaml,
            YAML,
            "database.idle",
            json!(3),
            "    name: 'it''s'\n    idle: 3\n",
        ),
        (
            Yaml,
            YAML,
            "limits.list.0.colour",
            json!("red"),
            "      size: 3\n      colour: red\n",
        ),
        (
            Yaml,
            YAML,
            "new.deep.key",
            json!("yes"),
            "new:\n    deep:\n        key: \"yes\"\n",
        ),
        (
            Yaml,
            YAML,
            "limits.more",
            json!(1.0),
            "      lines\n    more: 1.0\n",
        ),
        (Yaml, "a: 1", "b", json!(2), "a: 1\nb: 2"),
        (
            Yaml,
            "a: 1\r\nb:\r\n  c: 2\r\n",
            "b.d",
            json!(2),
            "  c: 2\r\n  d: 2\r\n",
        ),
        (Yaml, "# only\n", "b", json!(2), "# only\nb: 2\n"),
        (
            Json,
            JSON,
            "database.idle",
            json!(3),
            "1.5,\n    \"idle\": 3\n  }",
        ),
        (
            Json,
            JSON,
            "server.tls",
            json!(true),
            "\"port\": 8000, \"tls\": true}",
        ),
        (
            Json,
            JSON,
            "empty.a.b",
            json!(null),
            "{\"a\": {\"b\": null}}",
        ),
        (
            Env,
            ENV,
            "NEW_ONE",
            json!("a b"),
            "PLAIN=a#b\nNEW_ONE=\"a b\"\n",
        ),
        (Env, "A=1", "B", json!(2), "A=1\nB=2"),
    ];
    for (format, text, key, value, expected) in cases {
        let edited =
            set(format, text, key, &value).unwrap_or_else(|e| panic!("{format:?} {key}: {e}"));
        assert!(edited.contains(expected), "{format:?} {key}:\n{edited}");
        let (head, tail) = same_around(text, &edited);
        assert_eq!(
            head + tail,
            text.len(),
            "{format:?} {key}: something was taken away"
        );
        let top = config_edit::outermost_missing(format, text, key)
            .unwrap()
            .unwrap();
        let back = remove(format, &edited, &top)
            .unwrap_or_else(|e| panic!("{format:?} remove {top}: {e}"));
        assert_eq!(back, text, "{format:?} {top}");
    }
}

#[test]
fn a_value_keeps_its_kind() {
    use Format::{Env, Json, Toml, Yaml};
    for (format, text, key, value) in [
        (Toml, TOML, "database.pool_size", json!("20")),
        (Toml, TOML, "database.pool_size", json!(2.5)),
        (Toml, TOML, "a.b.c.x", json!(1)),
        (Yaml, YAML, "database.pool_size", json!("20")),
        (Yaml, YAML, "database.url", json!(3)),
        (Json, JSON, "database.pool_size", json!(true)),
        (Env, ENV, "WORKERS", json!("many")),
        (Env, ENV, "NAME", json!(4)),
    ] {
        let e = set(format, text, key, &value).unwrap_err();
        assert!(
            matches!(e, EditError::KindChange { .. }),
            "{format:?} {key}: {e}"
        );
    }
    assert!(
        set(Toml, TOML, "database.pool_size", &json!(4.0))
            .unwrap()
            .contains("pool_size = 4  ")
    );
    assert!(
        set(Toml, TOML, "database.timeout_s", &json!(2))
            .unwrap()
            .contains("timeout_s = 2.0\n")
    );
    assert!(
        set(Yaml, YAML, "database.timeout_s", &json!(2))
            .unwrap()
            .contains("timeout_s: 2.0\n")
    );
    for value in [json!([1]), json!({"a": 1})] {
        assert!(matches!(
            set(Json, JSON, "database.pool_size", &value),
            Err(EditError::NotScalar { .. })
        ));
    }
    assert!(matches!(
        set(Json, JSON, "database", &json!(1)),
        Err(EditError::NotScalar { .. })
    ));
    assert_eq!(get(Env, ENV, "VERSION").unwrap(), Some(json!("1.10")));
}

#[test]
fn what_is_not_supported_is_an_error_and_never_a_damaged_text() {
    use Format::{Env, Json, Toml, Yaml};
    let cases: &[(Format, &str, &str)] = &[
        (Yaml, "a: &x 1\nb: *x\n", "a"),
        (Yaml, "a: &x 1\nb: *x\n", "b"),
        (Yaml, "base: &b {k: 1}\nuse:\n  <<: *b\n", "use.k"),
        (Yaml, "a: 1\n---\na: 2\n", "a"),
        (Yaml, "a: !!int 1\n", "a"),
        (Yaml, "a: {b: 1}\n", "a.c"),
        (Yaml, "a: {}\n", "a.c"),
        (Yaml, "a:\n", "a.c"),
        (Yaml, "a: 1\na: 2\n", "a"),
        (Yaml, "a: |\n  x\n", "a"),
        (Yaml, "a: [\n", "a"),
        (Yaml, "a: 1\n", "a.b"),
        (Json, "{\"a\": 1, \"a\": 2}", "a"),
        (Json, "{\"a\": 1 // c\n}", "a"),
        (Json, "[1", "0"),
        (Json, "{\"a\": 1}", "a.b"),
        (Toml, "a = 1\na = 2\n", "a"),
        (Toml, "a = 1979-05-27\n", "a"),
        (Toml, "a = \"\"\"\nx\n\"\"\"\n", "a"),
        (Toml, "a = 1\n", "a.b"),
        (Env, "A=1\nA=2\n", "A"),
        (Env, "A=\"x\ny\"\n", "A"),
        (Env, "what\n", "A"),
        (Env, "A=1\n", "a b"),
        (Toml, "a = 1\n", ""),
        (Toml, "a = 1\n", "a..b"),
    ];
    for (format, text, key) in cases {
        for value in [json!(7), json!("seven")] {
            if let Ok(edited) = set(*format, text, key, &value) {
                panic!("{format:?} {text:?} {key}: became {edited:?}");
            }
        }
    }
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    assert!(set(Json, &deep, "a", &json!(1)).is_err());
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i32>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "[ -~éß\u{1F600}\t]{0,24}".prop_map(Value::from),
        "(yes|no|null|~|- x|a: b|#c|1\\.0|0x10|'|\"|\\$HOME|\\{|\\*a|&b|%|@|`|true|on|\\? y|: z|0o7|1e3| lead|trail |multi\nline)".prop_map(Value::from),
        (-1_000_000i32..1_000_000).prop_map(|n| Value::from(f64::from(n) / 64.0)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is set is read back, every other key and every comment stays, and setting it back gives the bytes.
    #[test]
    fn set_then_get(sample in prop::sample::select(samples()), value in scalar()) {
        let (format, text, key, _) = sample;
        let before = get(format, text, key).unwrap().unwrap();
        let Ok(edited) = set(format, text, key, &value) else {
            // Of another kind, or not to be written in this format: nothing is to be checked but that it says so.
            let fits = std::mem::discriminant(&before) == std::mem::discriminant(&value)
                && before.is_f64() == value.is_f64();
            prop_assert!(!fits || format == Format::Env, "{format:?} {key} refused {value}");
            return Ok(());
        };
        let read = get(format, &edited, key).unwrap().unwrap();
        let env_text = format == Format::Env && value.as_str().is_some_and(|s| s.parse().ok() == read.as_f64());
        prop_assert!(config_edit::same(&read, &value) || env_text, "{format:?} {key}: set {value}, got {read}");
        for (f, t, other, _) in samples() {
            if f == format && t == text && other != key {
                prop_assert_eq!(get(format, &edited, other).unwrap(), get(format, text, other).unwrap());
            }
        }
        for comment in ["# grace", "# loopback", "# too small?", "# inline", "# one", "# per core", "# y", "# the end"] {
            prop_assert_eq!(text.contains(comment), edited.contains(comment), "{}", comment);
        }
        if let Ok(back) = set(format, &edited, key, &before) {
            prop_assert_eq!(get(format, &back, key).unwrap(), Some(before.clone()));
            if !before.is_string() {
                prop_assert_eq!(back, text);
            }
        }
    }

    #[test]
    fn add_then_remove(sample in prop::sample::select(vec![(Format::Toml, TOML), (Format::Yaml, YAML), (Format::Json, JSON), (Format::Env, ENV)]),
        place in prop::sample::select(vec!["zz", "database.zz", "server.zz", "zz.yy", "zz.yy.xx", "limits.zz", "a.b.zz", "empty.zz"]), value in scalar()) {
        let (format, text) = sample;
        let Ok(edited) = set(format, text, place, &value) else { return Ok(()); };
        prop_assert!(config_edit::same(&get(format, &edited, place).unwrap().unwrap(), &value) || format == Format::Env);
        let top = config_edit::outermost_missing(format, text, place).unwrap().unwrap();
        prop_assert_eq!(remove(format, &edited, &top).unwrap(), text);
    }

    /// No text makes the editors panic.
    #[test]
    fn any_text_is_survived(text in "[-a-c0-9:=\\[\\]{}\"'#&*!|> ,.\n]{0,60}", key in "[a-c.0-2]{1,6}") {
        for format in [Format::Env, Format::Toml, Format::Yaml, Format::Json] {
            let _ = set(format, &text, &key, &json!(1));
            let _ = set(format, &text, &key, &json!("x y"));
            let _ = remove(format, &text, &key);
        }
    }
}

fn edit(key: &str, value: Value) -> Edit {
    Edit {
        key: key.into(),
        value: Some(value),
    }
}

#[test]
fn a_file_is_replaced_whole_with_its_mode_or_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grace.toml");
    std::fs::write(&file, TOML).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    }
    let path = Path::new("grace.toml");
    assert!(apply(dir.path(), path, &[edit("database.pool_size", json!(20))]).unwrap());
    assert!(!apply(dir.path(), path, &[edit("database.pool_size", json!(20))]).unwrap());
    assert_eq!(
        config_edit::read(dir.path(), path, "database.pool_size").unwrap(),
        Some(json!(20))
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }
    // The second edit fails, so the first is not made either.
    let now = std::fs::read_to_string(&file).unwrap();
    let both = [
        edit("database.pool_size", json!(30)),
        edit("server", json!(1)),
    ];
    assert!(apply(dir.path(), path, &both).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), now);
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no temporary file stays"
    );
}

#[test]
fn files_outside_the_directory_are_not_touched() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("x.toml");
    std::fs::write(&secret, "a = 1\n").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let one = [edit("a", json!(2))];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&secret, dir.path().join("link.toml")).unwrap();
        let e = apply(dir.path(), Path::new("link.toml"), &one).unwrap_err();
        assert!(matches!(e, ConfigError::Outside { .. }), "{e}");
        std::os::unix::fs::symlink(outside.path(), dir.path().join("sub")).unwrap();
        let e = apply(dir.path(), Path::new("sub/x.toml"), &one).unwrap_err();
        assert!(matches!(e, ConfigError::Outside { .. }), "{e}");
    }
    let e = apply(dir.path(), &secret, &one).unwrap_err();
    assert!(matches!(e, ConfigError::Outside { .. }), "{e}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "a = 1\n");
    let e = apply(dir.path(), Path::new("none.toml"), &one).unwrap_err();
    assert!(matches!(e, ConfigError::Missing { .. }), "{e}");
    std::fs::write(dir.path().join("big.toml"), "#".repeat(1024 * 1024 + 1)).unwrap();
    let e = apply(dir.path(), Path::new("big.toml"), &one).unwrap_err();
    assert!(matches!(e, ConfigError::TooLarge { .. }), "{e}");
    std::fs::write(dir.path().join("x.ini"), "a=1").unwrap();
    let e = apply(dir.path(), Path::new("x.ini"), &one).unwrap_err();
    assert!(matches!(e, ConfigError::UnknownFormat { .. }), "{e}");
}
