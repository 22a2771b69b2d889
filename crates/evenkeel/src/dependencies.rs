//! What the target depends on outside itself: watched, and never acted on. While a dependency is down, its users are left
//! alone (SAFETY 12), and a person is called about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_detect::Sample;
use evenkeel_edge::collect::probe::Prober;
use futures_util::future::join_all;

use crate::config::DependencySection;
use crate::watch::{down, up};

/// Checks in a row that a dependency does not answer before it counts as down.
const MISSES_MAX: u32 = 2;

/// The dependencies, as the watchdog looks at them.
pub(crate) struct Dependencies {
    all: Vec<DependencySection>,
    misses: BTreeMap<String, u32>,
    down: Arc<Mutex<BTreeSet<String>>>,
}

impl Dependencies {
    /// Looks at these; `down` is kept up to date.
    pub(crate) fn new(all: Vec<DependencySection>, down: Arc<Mutex<BTreeSet<String>>>) -> Self {
        Self {
            all,
            misses: BTreeMap::new(),
            down,
        }
    }

    /// One look at each.
    pub(crate) async fn check(&mut self, prober: &Prober, deadline: Duration) -> Vec<Sample> {
        let answers = join_all(self.all.iter().map(|d| answers(d, prober, deadline))).await;
        let mut samples = Vec::new();
        for (dependency, answer) in self.all.iter().zip(answers) {
            let name = &dependency.name;
            let misses = self.misses.entry(name.clone()).or_default();
            let mut known = self.down.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok(()) => {
                    *misses = 0;
                    known.remove(name);
                    samples.push(up(name));
                }
                Err(why) => {
                    *misses = misses.saturating_add(1);
                    if *misses >= MISSES_MAX {
                        known.insert(name.clone());
                        samples.push(down(name, &why));
                    }
                }
            }
        }
        samples
    }
}

/// Whether a dependency answers now.
pub(crate) async fn answers(
    dependency: &DependencySection,
    prober: &Prober,
    deadline: Duration,
) -> Result<(), String> {
    if let Some(url) = &dependency.http {
        let probe = prober.probe(url, deadline).await;
        return if probe.ok {
            Ok(())
        } else {
            Err(probe
                .detail
                .unwrap_or_else(|| format!("{url} gives no good answer")))
        };
    }
    let Some(address) = &dependency.tcp else {
        return Ok(());
    };
    let connect = tokio::net::TcpStream::connect(address.as_str());
    match tokio::time::timeout(deadline, connect).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(format!("{address} takes no connection: {e}")),
        Err(_) => Err(format!(
            "{address} takes no connection within {} ms",
            deadline.as_millis()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(name: &str, address: &std::net::SocketAddr) -> DependencySection {
        DependencySection {
            name: name.to_owned(),
            http: None,
            tcp: Some(address.to_string()),
        }
    }

    /// SAFETY 12
    #[tokio::test]
    async fn one_missed_answer_is_no_outage_and_two_are() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let down = Arc::new(Mutex::new(BTreeSet::new()));
        let mut d = Dependencies::new(vec![tcp("db", &address)], Arc::clone(&down));
        let (prober, deadline) = (Prober::new(), Duration::from_secs(5));
        assert_eq!(d.check(&prober, deadline).await.len(), 1);
        drop(listener);
        assert!(d.check(&prober, deadline).await.is_empty());
        assert!(down.lock().unwrap().is_empty());
        assert_eq!(d.check(&prober, deadline).await.len(), 1);
        assert!(down.lock().unwrap().contains("db"));
    }
}
