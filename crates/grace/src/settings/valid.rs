//! Which values are valid. The ranges are bounds: whatever the file says, Grace stays inside them.

use std::net::IpAddr;

use super::Settings;
use crate::error::GraceError;
use crate::http::HttpUrl;

impl Settings {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`GraceError::SettingsValue`] for the first value outside its range, with the key's name.
    pub fn validate(&self) -> Result<(), GraceError> {
        let s = self;
        if s.server.host.parse::<IpAddr>().is_err() {
            return Err(GraceError::SettingsValue {
                key: "server.host",
                value: format!("{:?}", s.server.host),
                expected: "an IP address such as \"127.0.0.1\"",
            });
        }
        check(
            "server.workers",
            s.server.workers,
            1,
            1024,
            "1 to 1024 requests",
        )?;
        check(
            "server.queue",
            s.server.queue,
            0,
            65_536,
            "0 to 65536 requests",
        )?;
        let ms = "1 to 60000 milliseconds";
        check(
            "server.queue_timeout_ms",
            s.server.queue_timeout_ms,
            1,
            60_000,
            ms,
        )?;
        check(
            "database.pool_size",
            s.database.pool_size,
            1,
            256,
            "1 to 256 connections",
        )?;
        check(
            "database.pool_timeout_ms",
            s.database.pool_timeout_ms,
            1,
            60_000,
            ms,
        )?;
        let busy = "0 to 60000 milliseconds";
        check(
            "database.busy_timeout_ms",
            s.database.busy_timeout_ms,
            0,
            60_000,
            busy,
        )?;
        let rate = s.limits.requests_per_second;
        if !(rate > 0.0 && rate <= 1_000_000.0) {
            return Err(GraceError::SettingsValue {
                key: "limits.requests_per_second",
                value: rate.to_string(),
                expected: "above 0 and at most 1000000 requests per second",
            });
        }
        check(
            "limits.burst",
            s.limits.burst,
            1,
            1_000_000,
            "1 to 1000000 requests",
        )?;
        let context = s.sessions.context_bytes;
        check(
            "sessions.context_bytes",
            context,
            1024,
            64 << 20,
            "1024 to 67108864 bytes",
        )?;
        let upstream = s.chat.upstream_timeout_ms;
        check(
            "chat.upstream_timeout_ms",
            upstream,
            1,
            600_000,
            "1 to 600000 milliseconds",
        )?;
        check(
            "chat.max_concurrent",
            s.chat.max_concurrent,
            1,
            1024,
            "1 to 1024 chats",
        )?;
        let entries = s.governance.cache_entries;
        check(
            "governance.cache_entries",
            entries,
            0,
            65_536,
            "0 to 65536 decisions",
        )?;
        let ttl = s.governance.cache_ttl_ms;
        check(
            "governance.cache_ttl_ms",
            ttl,
            100,
            3_600_000,
            "100 to 3600000 milliseconds",
        )?;
        let rows = s.governance.history_rows;
        check(
            "governance.history_rows",
            rows,
            100,
            200_000,
            "100 to 200000 rows",
        )?;
        let interval = s.metrics.interval_ms;
        check(
            "metrics.interval_ms",
            interval,
            50,
            3_600_000,
            "50 to 3600000 milliseconds",
        )?;
        check(
            "metrics.keep_rows",
            s.metrics.keep_rows,
            10,
            100_000,
            "10 to 100000 rows",
        )?;
        let bytes = s.log.max_bytes;
        check(
            "log.max_bytes",
            bytes,
            65_536,
            1 << 30,
            "65536 to 1073741824 bytes",
        )?;
        check_url("chat.upstream_url", &s.chat.upstream_url)?;
        check_url("metrics.api_url", &s.metrics.api_url)?;
        check_url("audit.url", &s.audit.url)?;
        // The token goes over it as plain text.
        if HttpUrl::parse(&s.audit.url).is_some_and(|url| !url.is_loopback()) {
            return Err(GraceError::SettingsValue {
                key: "audit.url",
                value: format!("{:?}", s.audit.url),
                expected: "an address on this host, such as \"http://127.0.0.1:8710/audit\"",
            });
        }
        Ok(())
    }
}

fn check<T: PartialOrd + ToString + Copy>(
    key: &'static str,
    value: T,
    min: T,
    max: T,
    expected: &'static str,
) -> Result<(), GraceError> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(GraceError::SettingsValue {
        key,
        value: value.to_string(),
        expected,
    })
}

fn check_url(key: &'static str, value: &str) -> Result<(), GraceError> {
    if value.is_empty() || HttpUrl::parse(value).is_some() {
        return Ok(());
    }
    Err(GraceError::SettingsValue {
        key,
        value: format!("{value:?}"),
        expected: "empty or a plain address such as \"http://127.0.0.1:9000/path\"",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_outside_its_range_names_the_key() {
        for (text, key) in [
            ("[database]\npool_size = 0", "database.pool_size"),
            ("[server]\nworkers = 0", "server.workers"),
            ("[server]\nhost = \"nowhere\"", "server.host"),
            (
                "[limits]\nrequests_per_second = nan",
                "limits.requests_per_second",
            ),
            ("[limits]\nburst = 0", "limits.burst"),
            ("[sessions]\ncontext_bytes = 1", "sessions.context_bytes"),
            ("[chat]\nupstream_url = \"https://x\"", "chat.upstream_url"),
            ("[audit]\nurl = \"127.0.0.1:80\"", "audit.url"),
            ("[audit]\nurl = \"http://10.0.0.1:80\"", "audit.url"),
        ] {
            let settings: Settings = toml::from_str(text).unwrap();
            let message = settings.validate().unwrap_err().to_string();
            assert!(message.contains(key), "{text}: {message}");
        }
        Settings::default().validate().unwrap();
    }
}
