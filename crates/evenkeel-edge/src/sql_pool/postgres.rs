//! Connections to a PostgreSQL server, without TLS: to this host, or where the address says `sslmode=disable`.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, RecycleError, RecycleResult};
use futures_util::TryStreamExt;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::{Asked, Fault, QueryLoad, QueryReport, run};
use crate::advisor::Secret;

/// How much longer than a query's limit its answer is awaited: the server ends it at the limit itself, and says so.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// Asked where no query is configured.
const QUERY_DEFAULT: &str = "SELECT count(*) FROM pg_catalog.pg_class";

/// An address that cannot be used. None of these repeats any part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresPoolError {
    /// Not an address.
    #[error(
        "it is no address of a PostgreSQL database; write postgres://user:password@host:port/database"
    )]
    Malformed,
    /// Names no host.
    #[error("it names no host; for a Unix socket add ?host=/directory")]
    NoHost,
    /// Demands encryption.
    #[error(
        "it demands TLS (sslmode=require), which these queries do not speak; use a Unix socket, loopback or a tunnel"
    )]
    Tls,
    /// Would send a password in the clear over a network without anybody having said so.
    #[error(
        "its host is another one, and these queries do not speak TLS; add sslmode=disable if that network is trusted, or use a tunnel"
    )]
    Unencrypted,
}

/// A PostgreSQL database that is asked through a pool.
#[derive(Clone, Debug)]
pub struct PostgresPool {
    config: Config,
    query: String,
}

impl PostgresPool {
    /// Asks `query` of the database at `address` (`postgres://...`, or `key=value` pairs as libpq takes them); without a
    /// query, how many relations there are. Files such as `.pgpass` are not looked at.
    pub fn new(address: &Secret, query: Option<String>) -> Result<Self, PostgresPoolError> {
        let mut config: Config = address
            .expose()
            .parse()
            .map_err(|_| PostgresPoolError::Malformed)?;
        let hosts = config.get_hosts();
        if hosts.is_empty() && config.get_hostaddrs().is_empty() {
            return Err(PostgresPoolError::NoHost);
        }
        let is_here =
            hosts.iter().all(is_local) && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        match config.get_ssl_mode() {
            SslMode::Disable => {}
            SslMode::Prefer if is_here => {}
            SslMode::Prefer => return Err(PostgresPoolError::Unencrypted),
            _ => return Err(PostgresPoolError::Tls),
        }
        config.ssl_mode(SslMode::Disable);
        if config.get_application_name().is_none() {
            config.application_name("evenkeel");
        }
        Ok(Self {
            config,
            query: query.unwrap_or_else(|| QUERY_DEFAULT.to_owned()),
        })
    }

    /// Makes the queries. Needs a tokio runtime with time and network enabled.
    pub async fn run(self, load: QueryLoad) -> QueryReport {
        let opener = Opener {
            statement_timeout_ms: load.query_timeout.as_millis().max(1),
            pool: self,
        };
        run(opener, load).await
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

/// Opens connections for the pool.
struct Opener {
    pool: PostgresPool,
    statement_timeout_ms: u128,
}

/// An open connection and its prepared query.
struct Seat {
    client: Client,
    statement: Statement,
}

impl Manager for Opener {
    type Type = Seat;
    type Error = Fault;

    async fn create(&self) -> Result<Seat, Fault> {
        let connected = self.pool.config.connect(NoTls).await;
        let (client, connection) = connected.map_err(|e| told(&e))?;
        // It ends when the client is dropped; what ends it earlier shows in the next query.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let settings = format!(
            "SET default_transaction_read_only = on; SET statement_timeout = {}",
            self.statement_timeout_ms
        );
        client
            .batch_execute(&settings)
            .await
            .map_err(|e| told(&e))?;
        let prepared = client.prepare(&self.pool.query).await;
        let statement = prepared.map_err(|e| told(&e))?;
        if !statement.params().is_empty() {
            return Err(Fault {
                kind: "query",
                message: "the query has parameters; write the values into it".to_owned(),
            });
        }
        Ok(Seat { client, statement })
    }

    async fn recycle(&self, seat: &mut Seat, _: &Metrics) -> RecycleResult<Fault> {
        if seat.client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        Ok(())
    }
}

impl Asked for Opener {
    async fn ask(seat: Object<Self>, limit: Duration) -> Result<(), Fault> {
        let answer = async {
            let rows = seat
                .client
                .query_raw(&seat.statement, std::iter::empty::<i32>())
                .await?;
            tokio::pin!(rows);
            // Each row is let go at once.
            while rows.try_next().await?.is_some() {}
            Ok(())
        };
        if let Ok(answer) = tokio::time::timeout(limit + ANSWER_GRACE, answer).await {
            return answer.map_err(|e| told(&e));
        }
        // Its answer may come yet, so nobody else can use this connection.
        drop(Object::take(seat));
        Err(Fault {
            kind: "timeout",
            message: "the query was not answered in time".to_owned(),
        })
    }
}

fn told(e: &tokio_postgres::Error) -> Fault {
    if let Some(db) = e.as_db_error() {
        let code = db.code();
        let kind = if *code == SqlState::TOO_MANY_CONNECTIONS {
            "too_many_connections"
        } else if *code == SqlState::QUERY_CANCELED {
            "timeout"
        } else if *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::T_R_DEADLOCK_DETECTED
        {
            "locked"
        } else {
            match code.code().get(..2) {
                Some("28") => "auth",
                Some("57" | "08") => "closed",
                _ => "query",
            }
        };
        return Fault {
            kind,
            message: format!("{} (SQLSTATE {})", db.message(), code.code()),
        };
    }
    let cause = std::error::Error::source(e);
    let io = cause.and_then(|c| c.downcast_ref::<std::io::Error>());
    let kind = match io.map(std::io::Error::kind) {
        // A Unix socket that is not there refuses as a closed port does.
        Some(ErrorKind::ConnectionRefused | ErrorKind::NotFound) => "refused",
        Some(ErrorKind::TimedOut) => "connect_timeout",
        Some(_) => "closed",
        None if e.is_closed() => "closed",
        None => "connect",
    };
    Fault {
        kind,
        message: cause.map_or_else(|| e.to_string(), |cause| format!("{e}: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str) -> PostgresPoolError {
        PostgresPool::new(&Secret::new(address), None).unwrap_err()
    }

    #[test]
    fn addresses_that_would_send_secrets_in_the_clear_are_refused() {
        use PostgresPoolError::{Malformed, NoHost, Tls, Unencrypted};
        assert_eq!(refused("postgres://u:hunter22@db.example/d"), Unencrypted);
        assert_eq!(
            refused("postgres://u:hunter22@127.0.0.1/d?sslmode=require"),
            Tls
        );
        assert_eq!(
            refused("host=localhost hostaddr=192.0.2.1 user=u"),
            Unencrypted
        );
        assert_eq!(refused("host=localhost,192.0.2.1 user=u"), Unencrypted);
        assert_eq!(refused("postgres:///d?user=u"), NoHost);
        assert_eq!(refused("postgres://u@h:hunter22:1/x"), Malformed);
        assert_eq!(refused("hunter22"), Malformed);
        for good in [
            "postgres://u:hunter22@127.0.0.1:5432/d",
            "postgres://u@[::1]/d",
            "postgres:///d?host=/run/postgresql&user=u",
            "postgres://u:hunter22@db.example/d?sslmode=disable",
            "host=localhost user=u password=hunter22",
        ] {
            let pool = PostgresPool::new(&Secret::new(good), None);
            let shown = format!("{:?}", pool.unwrap());
            assert!(!shown.contains("hunter22"), "{shown}");
        }
    }
}
