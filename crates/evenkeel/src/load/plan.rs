//! From the options to a plan that the engine can run, everything checked before the first connection.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_stress::words::Pace;
use evenkeel_stress::{
    Arrivals, BaseUrl, BodyCheck, HttpVersion, Limits, Load, Plan, Rate, RequestSpec, Rows,
    Transport, Until,
};
use serde_json::Value;

use super::args::{LoadArgs, Spread};
use super::hide::Hidden;
use super::report::{Asked, Pacing, whole_ms};
use super::requests::{self, Common};
use super::values::in_words;

/// How long a run takes when nothing is said.
const DURATION_USUAL: Duration = Duration::from_secs(10);
/// Fewest requests in a row that must time out before a run of a given number of requests gives up.
const TIMEOUTS_IN_A_ROW_MIN: u32 = 30;
/// Largest file of authorities' certificates, in bytes.
const AUTHORITIES_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What is to be run, and how it is told.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) asked: Asked,
    pub(super) hidden: Hidden,
}

/// Makes the plan; an error is a usage error, in words.
pub(super) fn prepare(args: &LoadArgs) -> Result<Prepared, String> {
    let (base, path) = split_url(&args.url)?;
    let data = args.data.as_deref().map(rows).transpose()?.map(Arc::new);
    let (base, requests) = all_requests(args, base, path)?;
    let load = load(args);
    let mut plan = Plan::closed(base, requests, 1, 1);
    plan.data = data;
    plan.load = load;
    plan.transport = transport(args)?;
    plan.warm_up = args.warm_up;
    plan.threads = args.threads;
    plan.seed = args.seed;
    plan.limits = limits(args, &load);
    plan.check().map_err(|e| e.to_string())?;
    let hidden = Hidden::new(&plan.requests, plan.data.clone());
    let asked = asked(args, &plan);
    Ok(Prepared {
        plan,
        asked,
        hidden,
    })
}

/// The origin, and path with query.
fn split_url(url: &str) -> Result<(BaseUrl, String), String> {
    let url = url.trim();
    let begin = url.find("://").map_or(0, |at| at + 3);
    let cut = url[begin..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| begin + at);
    let (origin, rest) = url.split_at(cut);
    let base = BaseUrl::parse(origin).map_err(|e| {
        if url.contains("://") {
            e.to_string()
        } else {
            "the address has no http:// or https:// in front".to_owned()
        }
    })?;
    if rest.contains('#') {
        return Err(
            "the address has a fragment, which is never sent; leave out `#` and what follows"
                .to_owned(),
        );
    }
    let path = if rest.starts_with('/') {
        rest.to_owned()
    } else {
        format!("/{rest}")
    };
    Ok((base, path))
}

fn all_requests(
    args: &LoadArgs,
    base: BaseUrl,
    path: String,
) -> Result<(BaseUrl, Vec<RequestSpec>), String> {
    let contains = args.expect_contains.iter().cloned();
    let json = args.expect_json.iter().cloned();
    let checks = contains
        .map(BodyCheck::Contains)
        .chain(json.map(BodyCheck::Json))
        .collect();
    for (n, header) in args.headers.iter().enumerate() {
        if args.headers[..n]
            .iter()
            .any(|h| h.name.eq_ignore_ascii_case(&header.name))
        {
            return Err(format!("the header {} is given twice", header.name));
        }
    }
    let common = Common {
        headers: args.headers.clone(),
        expect_status: args.expect_status.clone(),
        expect_body: requests::all_of(checks),
        expect_within_ms: args.expect_within.map(|t| t.as_secs_f64() * 1000.0),
    };
    let (base, mut all) = match &args.requests_file {
        Some(file) => {
            if path.contains('?') {
                return Err(
                    "with --requests-file the address has no query: each request has its own"
                        .to_owned(),
                );
            }
            let below = BaseUrl::parse(&format!("{base}{path}")).map_err(|e| e.to_string())?;
            (below, requests::from_file(file)?)
        }
        None => (base, vec![one_request(args, path)?]),
    };
    for request in &mut all {
        common.apply(request);
    }
    Ok((base, all))
}

fn one_request(args: &LoadArgs, path: String) -> Result<RequestSpec, String> {
    let mut request = RequestSpec::get(path);
    if let Some(method) = &args.method {
        // Read as in a file of requests.
        let text = Value::String(format!("{} /", method.to_ascii_uppercase()));
        let read: RequestSpec = serde_json::from_value(text).map_err(|e| e.to_string())?;
        request.method = read.method;
    }
    request.body = match (&args.body, &args.body_file) {
        (Some(body), _) => Some(Value::String(body.clone())),
        (None, Some(file)) => Some(Value::String(requests::text_of(file)?)),
        (None, None) => None,
    };
    Ok(request)
}

fn rows(file: &std::path::Path) -> Result<Rows, String> {
    let cannot = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let length = std::fs::metadata(file).map_err(|e| cannot(&e))?.len();
    if length > evenkeel_stress::data::DATA_BYTES_MAX as u64 {
        return Err(cannot(&"it is larger than 64 MiB"));
    }
    let text = std::fs::read_to_string(file).map_err(|e| cannot(&e))?;
    Rows::from_csv(&text).map_err(|e| cannot(&e))
}

fn load(args: &LoadArgs) -> Load {
    let connections = args.connections;
    let duration = args.duration.unwrap_or(DURATION_USUAL);
    match (&args.rate, args.requests) {
        (Some(pace), _) => Load::Open {
            rate: if pace.is_ramp() {
                Rate::ramp(pace.from, pace.to, pace.over.unwrap_or(duration))
            } else {
                Rate::constant(pace.to)
            },
            arrivals: match args.arrivals {
                Spread::Constant => Arrivals::Constant,
                Spread::Poisson => Arrivals::Poisson,
            },
            duration,
            connections,
        },
        (None, requests) => Load::Closed {
            connections,
            until: requests.map_or(Until::Elapsed(duration), Until::Requests),
            think: args.think.unwrap_or_default(),
        },
    }
}

fn transport(args: &LoadArgs) -> Result<Transport, String> {
    let authorities = args
        .cacert
        .as_deref()
        .map(|file| {
            let cannot = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
            let length = std::fs::metadata(file).map_err(|e| cannot(&e))?.len();
            if length > AUTHORITIES_BYTES_MAX {
                return Err(cannot(&"it is too large for a file of certificates"));
            }
            std::fs::read(file).map(Arc::from).map_err(|e| cannot(&e))
        })
        .transpose()?;
    Ok(Transport {
        version: if args.http2 {
            HttpVersion::Http2
        } else {
            HttpVersion::Http1
        },
        keep_alive: !args.no_keep_alive,
        streams: args.streams,
        authorities,
        addresses: None,
    })
}

fn limits(args: &LoadArgs, load: &Load) -> Limits {
    let at_once = args.connections.saturating_mul(args.streams);
    // A run of a given number of requests has no end of its own when the target hangs.
    let endless = matches!(
        load,
        Load::Closed {
            until: Until::Requests(_),
            ..
        }
    );
    Limits {
        connect: args.connect_timeout,
        request: args.timeout,
        give_up_after_timeouts: (endless && args.stop_at_errors.0.is_some())
            .then(|| at_once.saturating_mul(3).max(TIMEOUTS_IN_A_ROW_MIN)),
        stop_at_error_share: args.stop_at_errors.0,
        ..Limits::default()
    }
}

fn asked(args: &LoadArgs, plan: &Plan) -> Asked {
    let url = match plan.requests.as_slice() {
        [one] if args.requests_file.is_none() => format!("{}{}", plan.base, one.path),
        _ => plan.base.to_string(),
    };
    let connections = match args.connections {
        1 => "1 connection".to_owned(),
        n => format!("{n} connections"),
    };
    let (load, words) = match &args.rate {
        Some(pace) => open(args, *pace, &connections),
        None => closed(args, &connections),
    };
    Asked {
        url,
        words,
        load,
        connections: args.connections,
        threads: plan.threads,
        protocol: match plan.transport.version {
            HttpVersion::Http1 => "HTTP/1.1".to_owned(),
            HttpVersion::Http2 => "HTTP/2".to_owned(),
        },
        keep_alive: plan.transport.keep_alive,
        streams: plan.transport.streams,
        warm_up_ms: whole_ms(plan.warm_up),
        connect_timeout_ms: whole_ms(plan.limits.connect),
        request_timeout_ms: whole_ms(plan.limits.request),
        seed: plan.seed,
    }
}

fn closed(args: &LoadArgs, connections: &str) -> (Pacing, String) {
    let duration = args.duration.unwrap_or(DURATION_USUAL);
    let until = match args.requests {
        Some(1) => "1 request".to_owned(),
        Some(n) => format!("{n} requests"),
        None => in_words(duration),
    };
    let think = args.think.unwrap_or_default();
    let pause = match (in_words(think.min), in_words(think.max)) {
        _ if think.max.is_zero() => String::new(),
        (min, max) if min == max => format!(", pausing {min}"),
        (min, max) => format!(", pausing {min} to {max}"),
    };
    let pacing = Pacing::Closed {
        requests: args.requests,
        duration_ms: args.requests.is_none().then(|| whole_ms(duration)),
        think_ms: [whole_ms(think.min), whole_ms(think.max)],
    };
    let words = format!("{connections}, each asking again when answered, for {until}{pause}");
    (pacing, words)
}

fn open(args: &LoadArgs, pace: Pace, connections: &str) -> (Pacing, String) {
    let duration = args.duration.unwrap_or(DURATION_USUAL);
    let ramp = if pace.is_ramp() {
        pace.over.unwrap_or(duration)
    } else {
        Duration::ZERO
    };
    let rate = if pace.is_ramp() {
        format!(
            "{} to {} requests/s over {}",
            pace.from,
            pace.to,
            in_words(ramp)
        )
    } else {
        format!("{} requests/s", pace.to)
    };
    let (arrivals, spread) = match args.arrivals {
        Spread::Constant => ("constant", ""),
        Spread::Poisson => ("poisson", ", at random times"),
    };
    let pacing = Pacing::Open {
        rate_from: pace.from,
        rate_to: pace.to,
        ramp_ms: whole_ms(ramp),
        duration_ms: whole_ms(duration),
        arrivals: arrivals.to_owned(),
    };
    let words = format!(
        "{rate}{spread}, for {} over at most {connections}",
        in_words(duration)
    );
    (pacing, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use evenkeel_stress::Think;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: LoadArgs,
    }

    fn plan(line: &[&str]) -> Result<Prepared, String> {
        let words = std::iter::once("load").chain(line.iter().copied());
        let line = Line::try_parse_from(words).map_err(|e| e.to_string())?;
        prepare(&line.args)
    }

    #[test]
    fn an_address_is_an_origin_and_a_path() {
        for (url, base, path) in [
            ("http://h:81/a/b?c=d", "http://h:81", "/a/b?c=d"),
            ("http://h", "http://h", "/"),
            ("https://h?q=1", "https://h", "/?q=1"),
            ("http://[::1]:8080/", "http://[::1]:8080", "/"),
        ] {
            let prepared = plan(&[url]).unwrap();
            assert_eq!(prepared.plan.base.to_string(), base, "{url}");
            assert_eq!(prepared.plan.requests[0].path, path, "{url}");
        }
        for (bad, word) in [
            ("http://user:hunter22@h/", "credentials"),
            ("http://user:hunter22@h?x", "credentials"),
            ("h:80/x", "http://"),
            ("ftp://h", "scheme"),
            ("http://h/#a", "fragment"),
            ("http://h/a b", "space"),
            ("http://h:99999/", "port"),
        ] {
            let error = plan(&[bad]).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
            assert!(!error.contains("hunter22"), "{error}");
        }
    }

    #[test]
    fn options_become_a_plan() {
        let closed = plan(&["http://h"]).unwrap();
        assert_eq!(
            closed.plan.load,
            Load::Closed {
                connections: 50,
                until: Until::Elapsed(DURATION_USUAL),
                think: Think::default()
            }
        );
        assert_eq!(closed.plan.limits.stop_at_error_share, Some(0.5));
        assert_eq!(closed.plan.limits.give_up_after_timeouts, None);
        assert!(
            closed.asked.words.starts_with("50 connections"),
            "{closed:?}"
        );

        let counted = plan(&["http://h", "-n", "7", "-c", "20", "--think", "1ms..2ms"]).unwrap();
        assert_eq!(counted.plan.limits.give_up_after_timeouts, Some(60));
        assert!(
            counted
                .asked
                .words
                .contains("7 requests, pausing 1 ms to 2 ms")
        );

        let line = [
            "http://h",
            "--rate",
            "10..20 over 5s",
            "-d",
            "1m",
            "--arrivals",
            "poisson",
            "-c",
            "3",
            "--stop-at-errors",
            "off",
            "--http2",
            "--streams",
            "4",
            "-t",
            "2",
            "--seed",
            "9",
        ];
        let open = plan(&line).unwrap();
        assert_eq!(
            open.plan.load,
            Load::Open {
                rate: Rate::ramp(10.0, 20.0, Duration::from_secs(5)),
                arrivals: Arrivals::Poisson,
                duration: Duration::from_mins(1),
                connections: 3
            }
        );
        assert_eq!(open.plan.limits.stop_at_error_share, None);
        assert_eq!((open.plan.threads, open.plan.seed), (2, 9));
        assert_eq!(open.plan.transport.streams, 4);
        assert_eq!(
            open.asked.words,
            "10 to 20 requests/s over 5 s, at random times, for 1 min over at most 3 connections"
        );
        let whole = plan(&["http://h", "--rate", "0..20", "-d", "30s"]).unwrap();
        assert!(matches!(
            whole.asked.load,
            Pacing::Open {
                ramp_ms: 30_000,
                ..
            }
        ));
    }

    #[test]
    fn the_request_is_what_the_options_say() {
        let line = [
            "http://h/x",
            "-m",
            "put",
            "-H",
            "X-A: b: c",
            "--body",
            "{\"a\": 1}",
            "--expect-status",
            "201",
            "--expect-contains",
            "yes",
            "--expect-json",
            "/a=1",
            "--expect-within",
            "250ms",
        ];
        let one = plan(&line).unwrap().plan.requests.remove(0);
        assert_eq!(one.effective_method().as_str(), "PUT");
        assert_eq!(one.headers.0["X-A"], "b: c");
        assert_eq!(one.body, Some(Value::String("{\"a\": 1}".to_owned())));
        assert!(one.expect_status.unwrap().contains(201));
        assert!(matches!(one.expect_body, Some(BodyCheck::All(all)) if all.len() == 2));
        assert_eq!(one.expect_within_ms, Some(250.0));
        let post = plan(&["http://h/x", "--body", "a"]).unwrap();
        assert_eq!(post.plan.requests[0].effective_method().as_str(), "POST");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            &["http://h", "-n", "5", "-d", "5s"][..],
            &["http://h", "-n", "5", "--rate", "5"],
            &["http://h", "--rate", "5", "--think", "5ms"],
            &["http://h", "--arrivals", "poisson"],
            &["http://h", "--streams", "2"],
            &["http://h", "--body", "a", "--body-file", "b"],
            &["http://h", "-n", "0"],
            &["http://h", "-c", "0"],
            &["http://h", "-t", "0"],
            &["http://h", "-d", "0s"],
            &["http://h", "--rate", "0"],
            &["http://h", "-m", "FETCH"],
            &["http://h", "-H", "A: 1", "-H", "a: 2"],
            &["http://h?x", "--requests-file", "nowhere"],
            &["http://h", "--requests-file", "nowhere"],
            &["http://h", "--data", "nowhere"],
            &["http://h", "--body-file", "nowhere"],
            &["http://h", "--cacert", "nowhere"],
            &["http://h", "--threshold", "p95"],
            &[],
        ] {
            assert!(plan(line).is_err(), "{line:?}");
        }
    }
}
