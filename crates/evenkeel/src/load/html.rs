//! A run as a page: one HTML file that needs no network and no script, light or dark as its reader has it.
//!
//! Whatever comes from outside (addresses, names of requests, messages of the target) is escaped; a policy in the page
//! forbids it to load or run anything all the same.

mod charts;

use std::fmt::Write as _;

use super::compare::{Comparison, Finding};
use super::figures::{bytes, count, number};
use super::plot::{DARK, LIGHT, STYLE, escaped};
use super::report::{End, Percentiles, Report};

const PAGE_STYLE: &str = "\
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\
main{max-width:1040px;margin:0 auto;padding:24px 20px 60px}h1{font-size:24px;margin:0 0 2px;overflow-wrap:anywhere}\
h2{font-size:18px;margin:34px 0 8px;padding-bottom:4px;border-bottom:1px solid var(--line)}p{margin:6px 0}\
.faint{color:var(--faint)}.cards{display:flex;flex-wrap:wrap;gap:10px;margin:18px 0}\
.card{flex:1 1 140px;border:1px solid var(--line);border-radius:8px;padding:8px 14px}\
.card b{display:block;font-size:22px;font-weight:600;white-space:nowrap}.card span{color:var(--faint);font-size:13px}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;min-width:50%}\
th,td{padding:4px 12px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}\
th{font-weight:600;color:var(--faint);font-size:13px}th:first-child,td:first-child,td.w,th.w{text-align:left}td.n{white-space:normal;overflow-wrap:anywhere;min-width:12em}\
.banner{border:2px solid var(--bad);border-radius:8px;padding:10px 16px;margin:14px 0;overflow-wrap:anywhere}.banner b{color:var(--bad)}\
.good{color:var(--c4);font-weight:600}.bad{color:var(--bad);font-weight:600}\
svg{display:block;width:100%;height:auto;margin:10px 0 18px}@media print{main{max-width:none}svg{break-inside:avoid}}";

/// The page of a run, and of how it compares with an older one.
pub fn page(report: &Report, compared: Option<&Comparison>) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>Load on {}</title>\
         <style>:root{{color-scheme:light dark;{LIGHT}}}@media(prefers-color-scheme:dark){{:root{{{DARK}}}}}{PAGE_STYLE}{STYLE}</style>\
         </head>\n<body><main>\n",
        escaped(&report.run.url)
    );
    head(&mut out, report);
    cards(&mut out, report);
    thresholds(&mut out, report);
    if let Some(compared) = compared {
        comparison(&mut out, compared);
    }
    out.push_str("<h2>Latency</h2>\n");
    latencies(&mut out, report);
    charts::latency(&mut out, report);
    out.push_str("<h2>Course of the run</h2>\n");
    charts::course(&mut out, report);
    errors(&mut out, report);
    requests(&mut out, report);
    details(&mut out, report);
    out.push_str("</main></body></html>\n");
    out
}

/// Adds to a page; writing to a String does not fail.
macro_rules! add {
    ($out:expr, $($what:tt)*) => {{ let _ = write!($out, $($what)*); }};
}

fn head(out: &mut String, report: &Report) {
    add!(
        out,
        "<h1>Load on {}</h1>\n<p class=\"faint\">{}, {}. Begun {}, took {} s. Evenkeel {}.</p>\n",
        escaped(&report.run.url),
        escaped(&report.run.words),
        escaped(&report.run.protocol),
        escaped(&report.started_at.to_string()),
        number(report.elapsed_s),
        escaped(&report.evenkeel)
    );
    match report.end() {
        End::Useless(why) => banner(out, "These figures say nothing about the target.", &why),
        End::Missed(why) => banner(out, "Not good:", &why),
        End::Good => {}
    }
    if report.cancelled {
        banner(
            out,
            "Ended early:",
            "it was stopped before its time; this is what was measured so far",
        );
    }
}

fn banner(out: &mut String, what: &str, why: &str) {
    add!(
        out,
        "<div class=\"banner\"><b>{}</b> {}</div>\n",
        escaped(what),
        escaped(why)
    );
}

fn card(out: &mut String, value: &str, what: &str) {
    add!(
        out,
        "<div class=\"card\"><b>{}</b><span>{}</span></div>",
        escaped(value),
        escaped(what)
    );
}

fn cards(out: &mut String, report: &Report) {
    out.push_str("<div class=\"cards\">");
    card(
        out,
        &format!("{} /s", number(report.throughput_rps)),
        "answered requests",
    );
    let latency = &report.latency_ms;
    for (value, what) in [
        (latency.p50, "median latency"),
        (latency.p95, "p95"),
        (latency.p99, "p99"),
        (latency.max, "longest"),
    ] {
        card(out, &format!("{} ms", number(value)), what);
    }
    let failed = format!("{} %", number(report.error_share * 100.0));
    card(
        out,
        &failed,
        &format!(
            "errors: {} of {}",
            count(report.failed),
            count(report.requests)
        ),
    );
    out.push_str("</div>\n");
}

fn mark(passed: bool) -> &'static str {
    if passed {
        "<span class=\"good\">✓ kept</span>"
    } else {
        "<span class=\"bad\">✗ missed</span>"
    }
}

fn thresholds(out: &mut String, report: &Report) {
    if report.thresholds.is_empty() {
        return;
    }
    out.push_str("<h2>Thresholds</h2>\n<div class=\"wide\"><table><tr><th>threshold</th><th>measured</th><th class=\"w\">verdict</th></tr>");
    for threshold in &report.thresholds {
        let measured = threshold.measured.map_or_else(
            || "nothing".to_owned(),
            |value| format!("{} {}", number(value), threshold.unit),
        );
        add!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"w\">{}</td></tr>",
            escaped(&threshold.text),
            escaped(&measured),
            mark(threshold.passed)
        );
    }
    out.push_str("</table></div>\n");
}

fn comparison(out: &mut String, compared: &Comparison) {
    add!(
        out,
        "<h2>Against the older run: {}</h2>\n",
        compared.finding
    );
    for warning in &compared.warnings {
        banner(out, "Careful:", warning);
    }
    out.push_str(
        "<div class=\"wide\"><table><tr><th></th><th>old</th><th>new</th><th>change</th><th>in %</th><th>p</th><th class=\"w\">finding</th></tr>",
    );
    for change in &compared.changes {
        let class = match change.finding {
            Finding::Better => "good",
            Finding::Worse => "bad",
            Finding::Same | Finding::Unclear => "",
        };
        add!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"w\"><span class=\"{class}\">{}</span></td></tr>",
            change.figure.name(),
            escaped(&change.old_text()),
            escaped(&change.new_text()),
            escaped(&change.change_text()),
            escaped(&change.percent_text()),
            escaped(&change.p_text()),
            change.finding
        );
    }
    out.push_str("</table></div>\n");
    for remark in compared.remarks() {
        add!(out, "<p>{}.</p>\n", escaped(&remark));
    }
    add!(
        out,
        "<p class=\"faint\">{}</p>\n",
        escaped(&compared.legend())
    );
}

fn row(out: &mut String, name: &str, p: &Percentiles) {
    add!(out, "<tr><td class=\"w\">{}</td>", escaped(name));
    for value in [
        p.p50, p.p75, p.p90, p.p95, p.p99, p.p99_9, p.p99_99, p.max, p.mean,
    ] {
        add!(out, "<td>{}</td>", number(value));
    }
    out.push_str("</tr>");
}

const PERCENTILE_HEADS: &str = "<th>p50</th><th>p75</th><th>p90</th><th>p95</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th><th>mean</th></tr>";

fn latencies(out: &mut String, report: &Report) {
    add!(
        out,
        "<div class=\"wide\"><table><tr><th>milliseconds</th>{PERCENTILE_HEADS}"
    );
    if report.is_open() {
        row(out, "from the intended start", &report.latency_ms);
        row(out, "from the actual send", &report.service_ms);
        out.push_str("</table></div>\n<p class=\"faint\">The first is what a user feels: a request that had to wait because the target was slow is \
                      charged with its wait. The second is what the target took once it had the request.</p>\n");
    } else {
        row(out, "latency", &report.latency_ms);
        out.push_str("</table></div>\n");
    }
}

fn errors(out: &mut String, report: &Report) {
    if report.errors.is_empty() && report.statuses.len() <= 1 {
        return;
    }
    out.push_str("<h2>Errors and statuses</h2>\n<div class=\"wide\"><table><tr><th>what</th><th>requests</th><th>share</th></tr>");
    let share = |n: u64| n as f64 / report.requests.max(1) as f64 * 100.0;
    for (kind, n) in &report.errors {
        add!(
            out,
            "<tr><td class=\"bad\">{}</td><td>{}</td><td>{} %</td></tr>",
            escaped(kind),
            count(*n),
            number(share(*n))
        );
    }
    for (status, n) in &report.statuses {
        add!(
            out,
            "<tr><td>answers with {status}</td><td>{}</td><td>{} %</td></tr>",
            count(*n),
            number(share(*n))
        );
    }
    out.push_str("</table></div>\n");
    for sample in &report.error_samples {
        add!(out, "<p class=\"faint\">{}</p>\n", escaped(sample));
    }
    for (code, n) in &report.error_codes {
        add!(
            out,
            "<p class=\"faint\">{} × {}</p>\n",
            count(*n),
            escaped(code)
        );
    }
}

fn requests(out: &mut String, report: &Report) {
    if report.per_request.len() < 2 {
        return;
    }
    add!(
        out,
        "<h2>By request</h2>\n<div class=\"wide\"><table><tr><th class=\"w\">latency in ms</th><th>requests</th><th>errors</th>{}",
        PERCENTILE_HEADS
    );
    for one in &report.per_request {
        let p = &one.latency_ms;
        add!(
            out,
            "<tr><td class=\"w n\">{}</td><td>{}</td><td>{}</td>",
            escaped(&one.name),
            count(one.requests),
            count(one.errors.values().sum())
        );
        for value in [
            p.p50, p.p75, p.p90, p.p95, p.p99, p.p99_9, p.p99_99, p.max, p.mean,
        ] {
            add!(out, "<td>{}</td>", number(value));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>\n");
}

fn details(out: &mut String, report: &Report) {
    out.push_str("<h2>Details</h2>\n<div class=\"wide\"><table>");
    let run = &report.run;
    let mut rows = vec![
        ("requests that came to an end", count(report.requests)),
        ("answered", count(report.answered)),
    ];
    if let Some(planned) = report.planned {
        rows.push(("planned", count(planned)));
        rows.push(("never left", count(report.unsent)));
    }
    if report.aborted > 0 {
        rows.push(("under way when it ended", count(report.aborted)));
    }
    if let Some(late) = &report.send_lateness_ms {
        let text = format!(
            "{} ms, {} ms, {} ms",
            number(late.p50),
            number(late.p99),
            number(late.max)
        );
        rows.push(("sent later than possible: p50, p99, most", text));
    }
    rows.push((
        "connections, opened",
        format!(
            "{}, {}",
            count(run.connections.into()),
            count(report.connections_opened)
        ),
    ));
    rows.push((
        "received, sent",
        format!(
            "{}, {}",
            bytes(report.bytes_received),
            bytes(report.bytes_sent)
        ),
    ));
    if let (Some(cpu), Some(busy)) = (report.cpu_seconds, report.busiest_thread) {
        let text = format!("{} s, {:.0} % of a processor", number(cpu), busy * 100.0);
        rows.push(("processor time, busiest thread", text));
    }
    rows.push(("threads, seed", format!("{}, {}", run.threads, run.seed)));
    rows.push((
        "warm-up, not counted",
        format!("{} ms", count(run.warm_up_ms)),
    ));
    rows.push((
        "limits: connect, request",
        format!(
            "{} ms, {} ms",
            count(run.connect_timeout_ms),
            count(run.request_timeout_ms)
        ),
    ));
    for (name, value) in rows {
        add!(
            out,
            "<tr><td>{}</td><td>{}</td></tr>",
            escaped(name),
            escaped(&value)
        );
    }
    out.push_str("</table></div>\n");
}

#[cfg(test)]
mod tests;
