//! HTTP hooks: one request to an allowed host, at the address that was checked; 2xx is success, a redirect is not followed.

use super::{HookRun, OUTPUT_MAX, Outcome, substitute};
use muster_core::base::chain::chain;
use muster_core::model::load::Method;
use muster_core::model::service::SecretRef;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use std::net::SocketAddr;
use std::time::Duration;

/// A look-up that takes longer has failed; resolvers give up after two tries of 5 s.
const LOOKUP: Duration = Duration::from_secs(10);

/// What is sent.
pub(super) struct Request<'a> {
    pub method: Method,
    pub url: &'a str,
    pub headers: &'a [(String, String)],
    pub secret_headers: &'a [(String, SecretRef)],
    pub body: Option<&'a str>,
}

/// Sends it within the hook's timeout.
pub(super) async fn send(run: &HookRun, request: Request<'_>) -> Outcome {
    let limit = run.hook.timeout;
    match tokio::time::timeout(limit, try_send(run, request)).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(reason)) => Outcome::failed(reason),
        Err(_) => Outcome::failed(format!(
            "took longer than {}",
            muster_core::base::units::format_duration(limit)
        )),
    }
}

async fn try_send(run: &HookRun, request: Request<'_>) -> Result<Outcome, String> {
    let url = substitute(request.url, &run.variables);
    let url = reqwest::Url::parse(&url).map_err(|error| format!("not a URL: {error}"))?;
    let host = url
        .host_str()
        .ok_or("the URL has no host")?
        .trim_matches(['[', ']'])
        .to_owned();
    let port = url.port_or_known_default().ok_or("the URL has no port")?;
    let addresses = allowed_addresses(run, &host, port).await?;
    // Redirects and proxies would lead past the check.
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .resolve_to_addrs(&host, &addresses)
        .build()
        .map_err(|error| chain(&error))?;
    let method = reqwest::Method::from_bytes(request.method.as_str().as_bytes()).map_err(|error| chain(&error))?;
    let (headers, secrets) = headers(run, &request)?;
    let mut sent = client.request(method, url).headers(headers);
    if let Some(body) = request.body {
        sent = sent.body(substitute(body, &run.variables));
    }
    let mut response = sent.send().await.map_err(|error| chain(&error.without_url()))?;
    let status = response.status();
    let mut output: Vec<u8> = Vec::new();
    while output.len() < OUTPUT_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => output.extend_from_slice(&chunk[..chunk.len().min(OUTPUT_MAX - output.len())]),
            Ok(None) | Err(_) => break,
        }
    }
    let verdict = Outcome {
        result: if status.is_success() {
            Ok(())
        } else {
            Err(format!("answered {status}"))
        },
        output: String::from_utf8_lossy(&output).trim().to_owned(),
    };
    Ok(verdict.without(&secrets))
}

/// The name is checked, then each address it resolves to (promise 60).
async fn allowed_addresses(run: &HookRun, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let denied = || format!("{host}:{port} is not an allowed target");
    if !run.targets.name_allowed(host, port) {
        return Err(denied());
    }
    let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host, port))).await;
    let found = found.map_err(|_| format!("the look-up of {host} took longer than 10s"))?;
    let found = found.map_err(|error| format!("{host}: {error}"))?;
    let allowed: Vec<SocketAddr> = found
        .filter(|address| run.targets.address_allowed(address.ip(), port, host))
        .collect();
    if allowed.is_empty() { Err(denied()) } else { Ok(allowed) }
}

fn headers(run: &HookRun, request: &Request<'_>) -> Result<(HeaderMap, Vec<SecretString>), String> {
    let mut secrets = Vec::new();
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str, is_secret: bool| -> Result<(), String> {
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header's name"))?;
        let mut value =
            HeaderValue::from_str(value).map_err(|_| format!("the value of header {name} cannot be sent"))?;
        value.set_sensitive(is_secret);
        headers.append(key, value);
        Ok(())
    };
    for (name, value) in request.headers {
        add(name, &substitute(value, &run.variables), false)?;
    }
    for (name, secret) in request.secret_headers {
        let value = run.secrets.get(secret).map_err(|error| chain(&error))?;
        add(name, value.expose_secret(), true)?;
        secrets.push(value);
    }
    Ok((headers, secrets))
}
