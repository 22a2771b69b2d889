//! What load is refused unless somebody insists: on other people's hosts, and more than a slip of the finger should make.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use evenkeel_stress::{BaseUrl, Load, Plan, Until};

use super::LoadError;
use crate::config::{self, Environment};

/// Most requests under way at once without `--yes-really`: connections times streams.
const AT_ONCE_CEILING: u64 = 10_000;
/// Most requests a second that are planned without `--yes-really`.
const RATE_CEILING: f64 = 50_000.0;
/// Most requests of a closed loop without `--yes-really`.
const REQUESTS_CEILING: u64 = 100_000_000;
/// Longest run without `--yes-really`, in seconds: a day.
const SECONDS_CEILING: u64 = 86_400;

/// Refuses what is more than usual.
pub(super) fn ceilings(plan: &Plan) -> Result<(), String> {
    let over = |what: &str, most: String| {
        Err(format!(
            "{what} is over the usual ceiling of {most}; if you mean it, add --yes-really"
        ))
    };
    let at_once = u64::from(plan.load.connections()) * u64::from(plan.transport.streams);
    if at_once > AT_ONCE_CEILING {
        return over(
            &format!("{at_once} requests at once"),
            AT_ONCE_CEILING.to_string(),
        );
    }
    let most = Duration::from_secs(SECONDS_CEILING);
    match plan.load {
        Load::Open { rate, .. } if rate.peak() > RATE_CEILING => over(
            &format!("a rate of {}/s", rate.peak()),
            format!("{RATE_CEILING}/s"),
        ),
        Load::Closed {
            until: Until::Requests(n),
            ..
        } if n > REQUESTS_CEILING => over(&format!("{n} requests"), REQUESTS_CEILING.to_string()),
        Load::Open { duration, .. }
        | Load::Closed {
            until: Until::Elapsed(duration),
            ..
        } if duration + plan.warm_up > most => over("such a long run", "24 hours".to_owned()),
        _ => Ok(()),
    }
}

/// Refuses a target whose addresses are neither on this host nor those of the configured target.
pub(super) fn target(
    base: &BaseUrl,
    addresses: &[SocketAddr],
    config: &Path,
) -> Result<(), LoadError> {
    let mut all = addresses.iter().map(SocketAddr::ip);
    let Some(foreign) = all.find(|ip| !is_loopback(*ip)) else {
        return Ok(());
    };
    let shown = if base.host().parse::<IpAddr>().is_ok() {
        base.host().to_owned()
    } else {
        format!("{} ({foreign})", base.host())
    };
    let configured = match target_of(config) {
        Target::Is(url) if same_place(&url, base) => return Ok(()),
        Target::Is(_) => format!("the target that {} names", config.display()),
        Target::None => "a configured target (there is no configuration here)".to_owned(),
        Target::Unreadable(why) => format!("a configured target ({why})"),
    };
    Err(LoadError::Usage(format!(
        "{shown} is neither this host nor {configured}; load can hurt whoever it hits: if it is yours to hurt, add --yes-really"
    )))
}

/// `127.0.0.0/8` and `::1`, also in the form that IPv6 gives to IPv4.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

enum Target {
    Is(BaseUrl),
    None,
    Unreadable(String),
}

fn target_of(file: &Path) -> Target {
    if !file.exists() {
        return Target::None;
    }
    let dir = file.parent().map(Path::to_path_buf).unwrap_or_default();
    match config::load(file, &Environment::read(&dir)) {
        Err(e) => Target::Unreadable(e.to_string()),
        Ok(config) => match config.target.base_url.as_deref().map(BaseUrl::parse) {
            Some(Ok(url)) => Target::Is(url),
            Some(Err(e)) => Target::Unreadable(e.to_string()),
            None => Target::Unreadable(format!("{} has no base_url", file.display())),
        },
    }
}

fn same_place(a: &BaseUrl, b: &BaseUrl) -> bool {
    a.host().eq_ignore_ascii_case(b.host()) && a.port() == b.port()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_stress::{HttpVersion, Rate, RequestSpec};

    fn base(url: &str) -> BaseUrl {
        BaseUrl::parse(url).unwrap()
    }

    /// Whether load on it is refused; its host is an address.
    fn address(base: &BaseUrl, config: &Path) -> Result<(), LoadError> {
        let ip = base.host().parse().unwrap();
        target(base, &[SocketAddr::new(ip, base.port())], config)
    }

    #[test]
    fn a_name_is_as_far_away_as_its_farthest_address() {
        let nowhere = Path::new("/nonexistent/evenkeel.toml");
        let name = base("http://here.example:8080");
        let here = "127.0.0.1:8080".parse().unwrap();
        let elsewhere = "192.0.2.1:8080".parse().unwrap();
        assert!(target(&name, &[here], nowhere).is_ok());
        let refused = target(&name, &[here, elsewhere], nowhere)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("here.example (192.0.2.1)"), "{refused}");
    }

    #[test]
    fn only_this_host_and_the_configured_target_are_hit() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("evenkeel.toml");
        for own in [
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://[::ffff:127.0.0.1]:1",
        ] {
            assert!(address(&base(own), &config).is_ok(), "{own}");
        }
        for foreign in [
            "http://192.0.2.1:80",
            "http://[2001:db8::1]",
            "http://0.0.0.0:80",
            "http://128.0.0.1",
        ] {
            let refused = address(&base(foreign), &config).unwrap_err().to_string();
            assert!(refused.contains("--yes-really"), "{refused}");
        }
        std::fs::write(&config, "[target]\nbase_url = \"http://192.0.2.1:8080\"\n").unwrap();
        assert!(address(&base("http://192.0.2.1:8080/x"), &config).is_ok());
        for other in ["http://192.0.2.1:8081", "http://192.0.2.2:8080"] {
            assert!(address(&base(other), &config).is_err(), "{other}");
        }
        std::fs::write(&config, "[target\n").unwrap();
        assert!(address(&base("http://192.0.2.1:8080"), &config).is_err());
    }

    #[test]
    fn more_than_usual_needs_a_word() {
        let get = || vec![RequestSpec::get("/")];
        let here = || base("http://127.0.0.1:1");
        let second = Duration::from_secs(1);
        let open = |rate| Plan::open(here(), get(), rate, second, 50);
        assert_eq!(ceilings(&open(Rate::constant(50_000.0))), Ok(()));
        assert_eq!(
            ceilings(&Plan::closed(here(), get(), 1_000, 10_000)),
            Ok(())
        );
        let mut streams = Plan::closed(here(), get(), 1_000, 101);
        streams.transport.version = HttpVersion::Http2;
        streams.transport.streams = 100;
        let mut long = open(Rate::constant(1.0));
        long.warm_up = Duration::from_hours(24);
        for (plan, word) in [
            (open(Rate::constant(50_001.0)), "rate"),
            (open(Rate::ramp(60_000.0, 1.0, second)), "rate"),
            (Plan::closed(here(), get(), 1_000, 10_001), "at once"),
            (Plan::closed(here(), get(), 100_000_001, 1), "requests"),
            (streams, "at once"),
            (long, "run"),
        ] {
            let refused = ceilings(&plan).unwrap_err();
            assert!(
                refused.contains(word) && refused.contains("--yes-really"),
                "{refused}"
            );
        }
    }
}
