//! URLs as far as requests need them: scheme, host, port and request target. Anything else is refused, not guessed.

use std::borrow::Cow;

/// Longest URL; longer ones are refused by most servers, and a captured one must not grow without bound.
const URL_MAX: usize = 16 * 1_024;

/// Why a text is not a URL to send a request to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("not an http or https URL")]
    Scheme,
    #[error("no valid host")]
    Host,
    #[error("no valid port")]
    Port,
    #[error("user names in URLs are not supported")]
    UserInfo,
    #[error("longer than {URL_MAX} bytes")]
    TooLong,
}

/// An absolute URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) tls: bool,
    /// Lower case, an IPv6 address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query, encoded; begins with `/`.
    pub(crate) target: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > URL_MAX {
            return Err(UrlError::TooLong);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let tls = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ => return Err(UrlError::Scheme),
        };
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = parse_authority(authority)?;
        Ok(Self {
            tls,
            host,
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            target: encode_target(target),
        })
    }

    /// The value of the `Host` header: with a port where it is not the scheme's own.
    pub(crate) fn host_header(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// Scheme, host and port alone.
    pub(crate) fn origin(&self) -> Self {
        Self {
            host: self.host.clone(),
            target: String::new(),
            ..*self
        }
    }

    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        (self.tls, self.port, &self.host) == (other.tls, other.port, &other.host)
    }

    /// A plan's path below this base, or an absolute URL as it is.
    pub(crate) fn below(&self, text: &str) -> Result<Self, UrlError> {
        if text.starts_with('/') && !text.starts_with("//") {
            if text.len() > URL_MAX {
                return Err(UrlError::TooLong);
            }
            let prefix = self.target.split(['?', '#']).next().unwrap_or("").trim_end_matches('/');
            return Ok(Self {
                target: format!("{prefix}{}", encode_target(text)),
                ..self.clone()
            });
        }
        Self::parse(text)
    }

    /// A redirect's `Location`, resolved against the URL that sent it (RFC 3986, 5.2).
    pub(crate) fn join(&self, reference: &str) -> Result<Self, UrlError> {
        let reference = reference.split('#').next().unwrap_or("");
        let scheme = reference
            .split(['/', '?'])
            .next()
            .is_some_and(|head| head.contains(':'));
        if scheme {
            return Self::parse(reference);
        }
        if let Some(rest) = reference.strip_prefix("//") {
            let scheme = if self.tls { "https" } else { "http" };
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        if reference.len() > URL_MAX {
            return Err(UrlError::TooLong);
        }
        let path = self.target.split('?').next().unwrap_or("/");
        let joined = match reference.chars().next() {
            None => self.target.clone(),
            Some('/') => without_dots(reference),
            Some('?') => format!("{path}{reference}"),
            Some(_) => {
                let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
                without_dots(&format!("{folder}{reference}"))
            }
        };
        Ok(Self {
            target: encode_target(&joined),
            ..self.clone()
        })
    }
}

fn parse_authority(authority: &str) -> Result<(String, Option<u16>), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| UrlError::Host)?;
            (
                host,
                port.strip_prefix(':')
                    .or(port.is_empty().then_some(""))
                    .ok_or(UrlError::Port)?,
            )
        }
        None => {
            let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if host.is_empty() || host.len() > 253 || !host.bytes().all(fine) {
                return Err(UrlError::Host);
            }
            (host, port)
        }
    };
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(
            digits
                .parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .ok_or(UrlError::Port)?,
        ),
        _ => return Err(UrlError::Port),
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// A request target that cannot break out of its line: bytes that may not stand in one are percent-encoded, the fragment is cut off.
fn encode_target(text: &str) -> String {
    let text = text.split('#').next().unwrap_or("");
    let plain = |byte: u8| {
        byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    let text: Cow<'_, str> = match text.as_bytes().first() {
        Some(b'/') => text.into(),
        _ => format!("/{text}").into(),
    };
    if text.bytes().all(plain) {
        return text.into_owned();
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Resolves `.` and `..` in a path; the query stays (RFC 3986, 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let path = format!("/{}", kept.join("/"));
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::{Url, UrlError};
    use proptest::prelude::*;

    fn shown(url: &Url) -> String {
        let scheme = if url.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", url.host_header(), url.target)
    }

    #[test]
    fn urls_are_read() {
        for (text, expected) in [
            ("http://a", "http://a/"),
            ("HTTPS://Example.COM:443/x?y#z", "https://example.com/x?y"),
            ("http://a:8080?q=1", "http://a:8080/?q=1"),
            ("http://[::1]:8080/a b", "http://[::1]:8080/a%20b"),
            ("http://a/ä\"", "http://a/%C3%A4%22"),
            ("http://a/x\r\nHost: b", "http://a/x%0D%0AHost:%20b"),
        ] {
            assert_eq!(
                Url::parse(text).map(|url| shown(&url)),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
        for (text, error) in [
            ("ftp://a", UrlError::Scheme),
            ("a", UrlError::Scheme),
            ("http://", UrlError::Host),
            ("http://a b/", UrlError::Host),
            ("http://[::1/", UrlError::Host),
            ("http://a:0/", UrlError::Port),
            ("http://a:99999/", UrlError::Port),
            ("http://a:+1/", UrlError::Port),
            ("http://u:p@a/", UrlError::UserInfo),
            ("http://a\\@b/", UrlError::Host),
        ] {
            let refused = Url::parse(text);
            assert!(refused == Err(error) || text.contains('\\'), "{text} {refused:?}");
        }
    }

    #[test]
    fn a_backslash_does_not_change_the_host() {
        assert_eq!(
            Url::parse("http://good\\@evil/").map(|url| url.host),
            Ok("good".to_owned())
        );
    }

    #[test]
    fn references_resolve_as_in_rfc_3986() {
        let base = Url::parse("http://a/b/c/d?q").unwrap();
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g/x", "http://g/x"),
            ("?y", "http://a/b/c/d?y"),
            ("", "http://a/b/c/d?q"),
            ("..", "http://a/b/"),
            ("../../../g", "http://a/g"),
            ("https://h:1/", "https://h:1/"),
            ("g?u=http://x/", "http://a/b/c/g?u=http://x/"),
        ] {
            assert_eq!(
                base.join(reference).map(|url| shown(&url)),
                Ok(expected.to_owned()),
                "{reference}"
            );
        }
    }

    #[test]
    fn paths_stand_below_the_base() {
        let base = Url::parse("http://a/api/").unwrap();
        assert_eq!(base.below("/x?y").map(|url| url.target), Ok("/api/x?y".to_owned()));
        assert_eq!(base.below("http://b/x").map(|url| url.host), Ok("b".to_owned()));
        assert!(base.below("x").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_target_breaks_its_line(text in ".{0,60}", reference in ".{0,60}") {
            for url in [Url::parse(&text), Url::parse(&format!("http://a/{text}"))].into_iter().flatten() {
                prop_assert!(url.target.bytes().all(|byte| byte.is_ascii_graphic()));
                if let Ok(joined) = url.join(&reference) {
                    prop_assert!(joined.target.starts_with('/'));
                    prop_assert!(joined.target.bytes().all(|byte| byte.is_ascii_graphic()));
                }
            }
        }
    }
}
