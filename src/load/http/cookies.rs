//! The cookies of one user in one iteration (RFC 6265, without a public suffix list: a cookie for a whole suffix lives no longer than an iteration).

use super::url::Url;
use std::time::{Duration, Instant};

/// Most cookies of a user; the oldest goes first. Browsers keep at least 50 per host.
const COOKIES_MAX: usize = 50;
/// Longest cookie, name and value; what browsers accept.
const COOKIE_MAX: usize = 4_096;

/// What a user got by `Set-Cookie`.
#[derive(Debug, Default)]
pub(crate) struct Jar(Vec<Cookie>);

#[derive(Debug)]
struct Cookie {
    name: String,
    value: String,
    domain: String,
    /// Only for exactly this host.
    host_only: bool,
    path: String,
    secure: bool,
    expires: Option<Instant>,
}

impl Jar {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps what one `Set-Cookie` line of a response from `url` says.
    pub(crate) fn set(&mut self, line: &str, url: &Url, now: Instant) {
        let mut parts = line.split(';');
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
            return;
        };
        let (name, value) = (name.trim(), value.trim());
        let printable = |text: &str| text.bytes().all(|byte| byte >= b' ' && byte != 0x7f);
        if name.is_empty() || name.len() + value.len() > COOKIE_MAX || !printable(name) || !printable(value) {
            return;
        }
        let mut cookie = Cookie {
            name: name.to_owned(),
            value: value.to_owned(),
            domain: url.host.clone(),
            host_only: true,
            path: default_path(&url.target).to_owned(),
            secure: false,
            expires: None,
        };
        for attribute in parts {
            if !cookie.take(attribute, url, now) {
                return;
            }
        }
        self.0
            .retain(|old| (&old.name, &old.domain, &old.path) != (&cookie.name, &cookie.domain, &cookie.path));
        if cookie.expires.is_none_or(|at| at > now) {
            if self.0.len() == COOKIES_MAX {
                self.0.remove(0);
            }
            self.0.push(cookie);
        }
    }

    /// Appends the value of the `Cookie` header of a request to `url`; false: there is nothing to send.
    pub(crate) fn write(&self, url: &Url, now: Instant, out: &mut Vec<u8>) -> bool {
        let path = url.target.split('?').next().unwrap_or("/");
        let mut fitting: Vec<&Cookie> = self.0.iter().filter(|cookie| cookie.fits(url, path, now)).collect();
        // Longer paths first, else in the order they were set (RFC 6265, 5.4).
        fitting.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        for (index, cookie) in fitting.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b"; ");
            }
            out.extend_from_slice(cookie.name.as_bytes());
            out.push(b'=');
            out.extend_from_slice(cookie.value.as_bytes());
        }
        !fitting.is_empty()
    }
}

impl Cookie {
    /// Takes an attribute; false: the cookie is not for this host.
    fn take(&mut self, attribute: &str, url: &Url, now: Instant) -> bool {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("domain") && !value.is_empty() {
            let domain = value.trim_start_matches('.').to_ascii_lowercase();
            self.host_only = domain == url.host && domain.parse::<std::net::IpAddr>().is_ok();
            self.domain = domain;
            return within(&url.host, &self.domain);
        }
        if name.eq_ignore_ascii_case("path") && value.starts_with('/') {
            value.clone_into(&mut self.path);
        } else if name.eq_ignore_ascii_case("secure") {
            self.secure = true;
        } else if name.eq_ignore_ascii_case("max-age")
            && let Ok(seconds) = value.parse::<i64>()
        {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            // An iteration does not outlast a day.
            self.expires = Some(now + Duration::from_secs(seconds.min(86_400)));
        }
        true
    }

    fn fits(&self, url: &Url, path: &str, now: Instant) -> bool {
        let host = if self.host_only {
            url.host == self.domain
        } else {
            within(&url.host, &self.domain)
        };
        let below = path
            .strip_prefix(self.path.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/'));
        host && below && (url.tls || !self.secure) && self.expires.is_none_or(|at| at > now)
    }
}

/// Whether a host is a domain or lies below it.
fn within(host: &str, domain: &str) -> bool {
    host == domain
        || (host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
            && host.parse::<std::net::IpAddr>().is_err())
}

/// The folder of a request's path (RFC 6265, 5.1.4).
fn default_path(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or("/");
    match path.rfind('/') {
        Some(slash) if slash > 0 => &path[..slash],
        _ => "/",
    }
}

#[cfg(test)]
mod tests {
    use super::Jar;
    use crate::http::url::Url;
    use std::time::{Duration, Instant};

    fn sent(jar: &Jar, url: &str, now: Instant) -> String {
        let mut out = Vec::new();
        jar.write(&Url::parse(url).unwrap(), now, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn cookies_go_where_they_belong() {
        let now = Instant::now();
        let from = Url::parse("http://shop.example.com/a/b?c").unwrap();
        let mut jar = Jar::default();
        for line in [
            "session=1; HttpOnly",
            "wide=2; Domain=example.com; Path=/",
            "safe=3; Path=/; Secure",
            "gone=4; Max-Age=0",
            "foreign=5; Domain=other.com",
            "broken",
            "=empty",
            "bad=\u{1}",
            "session=6",
        ] {
            jar.set(line, &from, now);
        }
        assert_eq!(sent(&jar, "http://shop.example.com/a/x", now), "session=6; wide=2");
        assert_eq!(sent(&jar, "http://shop.example.com/ab", now), "wide=2");
        assert_eq!(sent(&jar, "https://shop.example.com/", now), "wide=2; safe=3");
        assert_eq!(sent(&jar, "http://example.com/a/", now), "wide=2");
        assert_eq!(sent(&jar, "http://evilexample.com/a/", now), "");
    }

    #[test]
    fn cookies_end_and_are_taken_back() {
        let now = Instant::now();
        let url = Url::parse("http://a/").unwrap();
        let mut jar = Jar::default();
        jar.set("short=1; Max-Age=10", &url, now);
        assert_eq!(sent(&jar, "http://a/x", now + Duration::from_secs(9)), "short=1");
        assert_eq!(sent(&jar, "http://a/x", now + Duration::from_secs(10)), "");
        jar.set("short=1; Max-Age=-1", &url, now);
        assert!(jar.is_empty());
        for index in 0..200 {
            jar.set(&format!("c{index}=x"), &url, now);
        }
        assert_eq!(sent(&jar, "http://a/", now).split("; ").count(), 50);
    }
}
