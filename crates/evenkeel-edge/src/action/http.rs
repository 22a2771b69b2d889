//! One HTTP request to the target itself: no other host, no redirect, a bounded answer.

use std::sync::Once;
use std::time::Duration;

use evenkeel_core::playbook::action::HttpRequestArgs;
use reqwest::{Client, Method, Url, redirect};
use serde_json::{Value, json};

use super::run::{Done, failed};
use super::{Executor, OUTPUT_LEN_MAX};

static PROVIDER: Once = Once::new();

impl Executor {
    /// The whole address, when its host and port are among the target's own.
    pub(super) fn allowed_url(&self, url: &str) -> Result<Url, String> {
        let whole = self.target.url(url).ok_or_else(|| {
            format!("`{url}` is a path, and the target has no `base_url`: set it in [target]")
        })?;
        let parsed = Url::parse(&whole).map_err(|e| format!("`{whole}` is no address: {e}"))?;
        let place = |u: &Url| Some((u.host_str()?.to_owned(), u.port_or_known_default()?));
        let ready = self
            .target
            .services
            .iter()
            .filter_map(|s| self.target.url(s.ready.as_ref()?.http.as_ref()?));
        let own: Vec<(String, u16)> = self
            .target
            .base_url
            .iter()
            .cloned()
            .chain(ready)
            .filter_map(|u| place(&Url::parse(&u).ok()?))
            .collect();
        let web = matches!(parsed.scheme(), "http" | "https");
        match place(&parsed) {
            Some(p) if web && own.contains(&p) => Ok(parsed),
            _ => {
                let known: Vec<String> = own.iter().map(|(h, p)| format!("{h}:{p}")).collect();
                Err(format!(
                    "`{whole}` is not on a host of the target ({}); requests go there only",
                    known.join(", ")
                ))
            }
        }
    }

    pub(super) async fn request(&self, a: &HttpRequestArgs, timeout: Duration) -> Done {
        let url = match self.allowed_url(&a.url) {
            Ok(url) => url,
            Err(e) => return failed(&e),
        };
        let Ok(method) = Method::from_bytes(a.method.to_ascii_uppercase().as_bytes()) else {
            return failed(&format!("`{}` is no HTTP method", a.method));
        };
        PROVIDER.call_once(|| {
            // Somebody else may have installed one already, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(timeout)
            .build();
        let client = match client {
            Ok(client) => client,
            Err(e) => return failed(&format!("no HTTP client can be made: {e}")),
        };
        let mut used = Vec::new();
        let mut request = client.request(method.clone(), url.clone());
        for (name, value) in &a.headers {
            match self.with_secrets(value, &mut used) {
                Ok(value) => request = request.header(name, value),
                Err(e) => return failed(&e),
            }
        }
        request = match &a.body {
            None => request,
            Some(body) => match self.body(body, &mut used) {
                Ok(Value::String(text)) => request.body(text),
                Ok(other) => request.json(&other),
                Err(e) => return failed(&e),
            },
        };
        let hide = |text: &str| self.hide(&used, text);
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            Err(e) => return failed(&hide(&format!("{method} {url}: {}", causes(&e)))),
        };
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        let mut whole = true;
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(e) => return failed(&hide(&format!("{method} {url}: {}", causes(&e)))),
            }
            if body.len() > OUTPUT_LEN_MAX {
                whole = false;
                break;
            }
        }
        let text = hide(&String::from_utf8_lossy(&body));
        let text = if whole {
            text
        } else {
            // What is next to the cut may be half a secret.
            super::cut(&text, OUTPUT_LEN_MAX.saturating_sub(4096)).to_owned()
        };
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let findings = json!({"status": status, "body": body, "whole": whole});
        let expected = if a.expect_status.is_empty() {
            (200..300).contains(&status)
        } else {
            a.expect_status.contains(&status)
        };
        let message = hide(&format!("{method} {url} answered {status}"));
        if expected {
            Ok((message, findings))
        } else {
            Err((message, findings))
        }
    }

    fn body(&self, value: &Value, used: &mut Vec<String>) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => Value::String(self.with_secrets(text, used)?),
            Value::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|v| self.body(v, used))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(k, v)| Ok((k.clone(), self.body(v, used)?)))
                    .collect::<Result<_, String>>()?,
            ),
            other => other.clone(),
        })
    }
}

/// An error with its causes: the outermost alone says too little.
fn causes(e: &reqwest::Error) -> String {
    let mut out = e.to_string();
    let mut cause = std::error::Error::source(e);
    let mut left = 5;
    while let Some(c) = cause.filter(|_| left > 0) {
        out = format!("{out}: {c}");
        cause = c.source();
        left -= 1;
    }
    out
}
