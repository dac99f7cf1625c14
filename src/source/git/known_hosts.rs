//! Reads the lines of a known_hosts file: plain host names with keys. Hashed names, patterns and markers never match.

/// Whether `key` (the server's raw public key) is listed for `host`, written `name` or `name:port`.
pub(super) fn contains(lines: &str, host: &str, key: &[u8]) -> bool {
    let listed_as = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => format!("[{name}]:{port}"),
        _ => host.to_owned(),
    };
    lines.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        let (Some(hosts), Some(_type), Some(encoded)) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        hosts.split(',').any(|name| name.eq_ignore_ascii_case(&listed_as)) && decode(encoded).as_deref() == Some(key)
    })
}

/// Standard base64 with or without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{contains, decode};

    #[test]
    fn base64_decodes() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("+/8", b"\xfb\xff"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(decode("Zm9v!"), None);
    }

    #[test]
    fn a_key_is_known_only_for_its_host() {
        let lines = "# comment\ngit.example.com,10.0.0.1 ssh-ed25519 Zm9v me\n[lab]:2222 ssh-ed25519 YmFy\n";
        assert!(contains(lines, "git.example.com", b"foo"));
        assert!(contains(lines, "10.0.0.1", b"foo"));
        assert!(contains(lines, "lab:2222", b"bar"));
        for (host, key) in [("git.example.com", b"bar"), ("lab", b"bar"), ("other", b"foo")] {
            assert!(!contains(lines, host, key), "{host}");
        }
    }
}
