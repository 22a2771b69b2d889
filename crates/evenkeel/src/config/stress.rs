//! `[[stress.tests]]` with files, and `[target.postgres]`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use evenkeel_edge::target::confine;
use evenkeel_stress::Rows;
use evenkeel_stress::data::DATA_BYTES_MAX;
use serde::Deserialize;

use super::Config;
use super::load::Mistake;

/// Largest file of authorities, in bytes.
const CA_LEN_MAX: u64 = 1024 * 1024;

/// `[target.postgres]`: a PostgreSQL database that the pool test asks directly.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSection {
    /// Environment variable with its address, `postgres://user:password@host:port/database`. It is a secret: services do
    /// not get it, and it is shown nowhere.
    pub url_env: String,
    /// A read-only query for the direct pool test; how many relations there are when absent.
    #[serde(default)]
    pub query: Option<String>,
}

impl Config {
    /// Reads the files that tests name: rows of data, and authorities. Their paths start at the configuration's
    /// directory, which those of data may not lead out of.
    pub(super) fn resolve_tests(&mut self) -> Result<(), Mistake> {
        let at = |test: &str, key: &str| {
            ["stress", "tests", test, key]
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for test in &mut self.stress.tests {
            let name = test.name.clone();
            if let Some(path) = &test.data {
                let wrong = |message: String| (at(&name, "data"), message);
                let whole = confine(&self.base, path).ok_or_else(|| {
                    wrong(format!(
                        "`{}` leads out of the configuration's directory {}",
                        path.display(),
                        self.base.display()
                    ))
                })?;
                let text = read(&whole, DATA_BYTES_MAX as u64).map_err(wrong)?;
                let rows = Rows::from_csv(&text)
                    .map_err(|e| wrong(format!("{}: {e}", whole.display())))?;
                (test.data, test.rows) = (Some(whole), Some(Arc::new(rows)));
            }
            if let Some(path) = &test.ca {
                // Authorities are public, and often stand in the system's own directories.
                let whole = self.base.join(path);
                let pem = read(&whole, CA_LEN_MAX).map_err(|m| (at(&name, "ca"), m))?;
                test.authorities = Some(Arc::from(pem.into_bytes()));
                test.ca = Some(whole);
            }
        }
        // Whether each column is there shows only now.
        let with_data = |t: &evenkeel_stress::TestSpec| t.rows.is_some();
        for test in self.tests().iter().filter(|t| with_data(t)) {
            test.validate()
                .map_err(|e| (at(&test.name, "data"), e.to_string()))?;
        }
        Ok(())
    }
}

fn read(path: &Path, len_max: u64) -> Result<String, String> {
    let unreadable = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let meta = fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    if meta.len() > len_max {
        return Err(format!(
            "{} has {} bytes, at most {len_max} are read",
            path.display(),
            meta.len()
        ));
    }
    fs::read_to_string(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigError, Environment, load_text};

    const HEAD: &str = "[target]\nbase_url = 'http://127.0.0.1:1'\n";

    fn test(more: &str) -> String {
        format!(
            "{HEAD}[[stress.tests]]\nname = 'Orders'\nkind = 'mix'\nendpoints = ['/orders/${{id}}']\n{more}\n"
        )
    }

    fn load(base: &Path, text: &str) -> Result<Config, ConfigError> {
        load_text(text, "x", base, &Environment::default())
    }

    #[test]
    fn rows_and_authorities_are_read_beside_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("orders.csv"),
            "id,secret\n1,hunter22\n2,b\n",
        )
        .unwrap();
        fs::write(dir.path().join("ca.pem"), "PEM").unwrap();
        let config = load(dir.path(), &test("data = 'orders.csv'\nca = 'ca.pem'")).unwrap();
        let tests = config.tests();
        let orders = tests.last().unwrap();
        assert_eq!(orders.rows.as_ref().unwrap().columns(), ["id", "secret"]);
        assert_eq!(orders.authorities.as_deref(), Some(&b"PEM"[..]));
        assert!(!format!("{config:?}").contains("hunter22"));
    }

    #[test]
    fn each_mistake_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("other.csv"), "name\nhunter22\n").unwrap();
        fs::write(dir.path().join("empty.csv"), "id\n").unwrap();
        for (line, words) in [
            ("data = '../orders.csv'", "leads out of"),
            ("data = '/etc/passwd'", "leads out of"),
            ("data = 'none.csv'", "cannot be read"),
            ("data = '.'", "is no file"),
            ("data = 'empty.csv'", "no row"),
            ("data = 'other.csv'", "is no column of the data"),
            ("ca = 'none.pem'", "cannot be read"),
        ] {
            let e = load(dir.path(), &test(line)).unwrap_err().to_string();
            assert!(e.starts_with("x:7:1: ") && e.contains(words), "{line}: {e}");
            assert!(!e.contains("hunter22"), "{e}");
        }
    }

    #[test]
    fn an_address_of_postgres_is_a_secret_of_the_environment() {
        let text = format!("{HEAD}[target.postgres]\nurl_env = 'SHOP_DB'\n");
        let config = load(Path::new("/srv"), &text).unwrap();
        assert!(config.secret_names().contains(&"SHOP_DB".to_owned()));
        assert!(config.tests()[1].missing.is_none(), "its database is known");
        let of = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            crate::access::postgres(&config, &Environment::from_pairs(pairs)).unwrap()
        };
        assert!(of(&[]).unwrap_err().contains("SHOP_DB"));
        let e = of(&[("SHOP_DB", "postgres://u:hunter22@192.0.2.7/d")]).unwrap_err();
        assert!(
            e.contains("sslmode=disable") && !e.contains("hunter22"),
            "{e}"
        );
        assert!(of(&[("SHOP_DB", "postgres://u:hunter22@127.0.0.1/d")]).is_ok());
    }
}
