//! URLs: what host a request goes to, and whether it may (promise 60).

use super::Lower;
use crate::spec::code::Code;
use crate::spec::tree::shown;
use core::net::{IpAddr, Ipv6Addr};

/// The parts of an absolute URL that decide where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    pub host: &'a str,
    pub port: u16,
}

/// Splits `http://host[:port][/…]`.
pub(super) fn authority(url: &str) -> Result<Authority<'_>, &'static str> {
    let (rest, port) = if let Some(rest) = url.strip_prefix("http://") {
        (rest, 80)
    } else if let Some(rest) = url.strip_prefix("https://") {
        (rest, 443)
    } else {
        return Err("it must begin with http:// or https://");
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    if authority.contains('@') {
        return Err("a user or password cannot stand in it");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']').ok_or("the address has no closing bracket")?;
            host.parse::<Ipv6Addr>()
                .map_err(|_| "what stands in brackets is not an IPv6 address")?;
            (host, number(rest.strip_prefix(':'), rest.is_empty(), port)?)
        }
        None => match authority.split_once(':') {
            Some((host, text)) => (host, number(Some(text), false, port)?),
            None => (authority, port),
        },
    };
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || !host.bytes().all(fine) {
        return Err("its host is not a name or an address");
    }
    Ok(Authority { host, port })
}

fn number(text: Option<&str>, absent: bool, default: u16) -> Result<u16, &'static str> {
    match text {
        None if absent => Ok(default),
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or("its port is not a number from 1 to 65535"),
        _ => Err("its port is not a number from 1 to 65535"),
    }
}

impl Lower<'_, '_> {
    /// Checks an absolute URL and whether its host is allowed; reports what is wrong.
    pub(super) fn url(&mut self, pointer: &str, url: &str) {
        if url.chars().any(|char| char.is_whitespace() || char.is_control()) {
            self.error(
                pointer,
                Code::BadUrl,
                format!("`{}` is not a URL: it holds blanks", shown(url)),
            );
            return;
        }
        match authority(url) {
            Err(cause) => {
                // A URL with a user may hold a password.
                let what = if url.contains('@') {
                    "the text".to_owned()
                } else {
                    format!("`{}`", shown(url))
                };
                self.error(pointer, Code::BadUrl, format!("{what} is not a URL: {cause}"));
            }
            Ok(Authority { host, port }) => self.host(pointer, host, port),
        }
    }

    fn host(&mut self, pointer: &str, host: &str, port: u16) {
        if !self.policy.targets_known || self.project().targets.name_allowed(host, port) {
            return;
        }
        let hint = match host.parse::<IpAddr>() {
            Ok(_) => format!(
                "`targets.allow` of the settings (and the project's `targets`) must hold `{host}` as an address"
            ),
            Err(_) => format!("`targets.allow` of the settings (and the project's `targets`) must hold `{host}`"),
        };
        let text = format!(
            "requests to `{}` are not allowed in project {}",
            shown(host),
            self.key.project
        );
        self.error_hint(pointer, Code::TargetNotAllowed, text, hint);
    }
}

#[cfg(test)]
mod tests {
    use super::{Authority, authority};

    #[test]
    fn s60_the_host_is_what_a_client_would_connect_to() {
        for (url, host, port) in [
            ("http://a.test", "a.test", 80),
            ("https://a.test/x?y", "a.test", 443),
            ("http://127.0.0.1:8080?x", "127.0.0.1", 8080),
            ("https://[::1]:8443/", "::1", 8443),
            ("http://[::1]", "::1", 80),
        ] {
            assert_eq!(authority(url), Ok(Authority { host, port }), "{url}");
        }
        for url in [
            "",
            "a.test",
            "ftp://a.test",
            "http://",
            "http://user:pw@a.test/",
            "http://good.test@evil.test/",
            "http://a.test:0",
            "http://a.test:99999",
            "http://a.test:",
            "http://[::1",
            "http://[x]/",
            "http://[::1]x",
            "http://a\\b/",
            "http://{{host}}/",
            "http://${HOST}/",
        ] {
            assert!(authority(url).is_err(), "{url}");
        }
    }
}
