//! SAFETY 22: signing keys are made well, kept from others, and never shown. SAFETY 21: a missing key is not quietly
//! replaced by another one.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use evenkeel_edge::ledger_key::{KeySource, LedgerKeyError};
use evenkeel_ledger::tlog::{Cosigner, KeyName, Signer};

fn program(script: &str) -> KeySource {
    KeySource::Command {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: BTreeMap::from([("KEY_TEXT".into(), text())]),
        limit: Duration::from_secs(10),
    }
}

fn text() -> String {
    let signer = Signer::from_seed(KeyName::new("example.com/log").unwrap(), [7; 32]);
    signer.to_secret_text().to_string()
}

fn write(path: &Path, text: &str) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    std::io::Write::write_all(&mut options.open(path).unwrap(), text.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_key_is_made_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.key");
    let source = KeySource::File(path.clone());
    let missing = source.signer().await.unwrap_err();
    assert!(
        matches!(missing, LedgerKeyError::Missing { .. }),
        "{missing}"
    );
    assert!(!path.exists(), "asking makes none");

    let made = source.signer_or_new().await.unwrap();
    assert!(made.is_new);
    let name = made.key.name().strip_prefix("evenkeel/").unwrap();
    assert!(
        name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()),
        "{name}"
    );
    let line = std::fs::read_to_string(&path).unwrap();
    assert!(line.starts_with("PRIVATE+KEY+evenkeel/") && line.ends_with('\n'));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let permissions = std::fs::metadata(&path).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, 0o600);
    }
    let again = source.signer_or_new().await.unwrap();
    assert!(!again.is_new);
    assert_eq!(again.key.verifier(), made.key.verifier());
    assert_eq!(
        source.signer().await.unwrap().verifier(),
        made.key.verifier()
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), line);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    let other = KeySource::File(dir.path().join("other.key"));
    let other = other.signer_or_new().await.unwrap().key;
    assert_ne!(other.verifier().public(), made.key.verifier().public());
    assert_ne!(other.name(), made.key.name());
}

#[tokio::test]
async fn many_that_make_it_at_once_get_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let source = KeySource::File(dir.path().join("w.key"));
    let found = futures_util::future::join_all((0..8).map(|_| source.cosigner_or_new())).await;
    let keys: Vec<Cosigner> = found.into_iter().map(|found| found.unwrap().key).collect();
    assert!(keys[0].name().starts_with("evenkeel-witness/"));
    assert!(keys.iter().all(|key| key.verifier() == keys[0].verifier()));
}

#[cfg(unix)]
#[tokio::test]
async fn a_key_that_others_can_read_is_refused_with_a_remedy() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.key");
    write(&path, &text());
    for mode in [0o640, 0o604, 0o620, 0o602, 0o644] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = KeySource::File(path.clone())
            .signer_or_new()
            .await
            .unwrap_err();
        assert!(
            matches!(error, LedgerKeyError::OpenToOthers { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    for mode in [0o600, 0o400] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        KeySource::File(path.clone()).signer().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_key_is_refused_and_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.key");
    let good = text();
    let secret = good.rsplit('+').next().unwrap();
    let spoiled = good.replace("example.com/log", "example.com/lag");
    for wrong in [
        &spoiled,
        "nothing",
        &format!("{good}\n{good}\n"),
        &"x".repeat(5000),
    ] {
        write(&path, wrong);
        let error = KeySource::File(path.clone())
            .signer_or_new()
            .await
            .unwrap_err();
        assert!(matches!(error, LedgerKeyError::Key { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains(secret));
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            *wrong,
            "it is not replaced"
        );
    }
    write(&path, &format!("{good}\r\n"));
    KeySource::File(path.clone()).signer().await.unwrap();
    // One kind of key does not serve as the other.
    let error = KeySource::File(path).cosigner_or_new().await.unwrap_err();
    assert!(matches!(error, LedgerKeyError::Key { .. }), "{error}");
    let directory = KeySource::File(dir.path().to_owned()).signer_or_new().await;
    assert!(matches!(directory, Err(LedgerKeyError::File { .. })));
}

#[tokio::test]
async fn the_environment_without_a_key_makes_none() {
    let source = KeySource::Env("EVENKEEL_TEST_KEY_THAT_NOBODY_SETS".into());
    let error = source.signer().await.unwrap_err();
    assert!(matches!(error, LedgerKeyError::Missing { .. }), "{error}");
    let error = source.signer_or_new().await.unwrap_err();
    assert!(
        matches!(error, LedgerKeyError::CannotMake { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("EVENKEEL_TEST_KEY_THAT_NOBODY_SETS")
    );
    // A variable that is set to no key: cargo sets this one for tests.
    let error = KeySource::Env("CARGO_PKG_NAME".into())
        .signer()
        .await
        .unwrap_err();
    assert!(matches!(error, LedgerKeyError::Key { .. }), "{error}");
    assert!(!error.to_string().contains("evenkeel-edge"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_program_prints_the_key_and_nothing_of_it_is_shown() {
    let source = program("printf '%s\\n' \"$KEY_TEXT\"");
    assert_eq!(source.signer().await.unwrap().name(), "example.com/log");
    assert!(!format!("{source:?}").contains("PRIVATE"));
    let cases = [
        ("echo \"$KEY_TEXT\" >&2; exit 3", "exit status: 3"),
        ("echo \"$KEY_TEXT\" tail", "not usable"),
        ("yes \"$KEY_TEXT\"", "10000 ms"),
        ("printf '\\377\\n'", "text"),
        ("true", "no signing key"),
    ];
    for (script, says) in cases {
        let mut source = program(script);
        if let (KeySource::Command { limit, .. }, true) = (&mut source, script.starts_with("yes")) {
            *limit = Duration::from_millis(300);
        }
        let says = says.replace("10000", "300");
        let error = source.signer().await.unwrap_err();
        assert!(error.to_string().contains(&says), "{script}: {error}");
        let key = text();
        let secret = key.rsplit('+').next().unwrap();
        assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
    }
    let none = KeySource::Command {
        argv: vec![],
        env: BTreeMap::new(),
        limit: Duration::from_secs(1),
    };
    assert!(matches!(
        none.signer().await,
        Err(LedgerKeyError::Command { .. })
    ));
}
