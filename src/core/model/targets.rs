//! The law of targets: which host names and which addresses a request may leave for (promise 60).

use super::policy::TargetRules;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Address blocks that only an entry inside the same block may open: loopback, link-local, unspecified, multicast, broadcast
/// and the metadata services of clouds that stand outside link-local (Alibaba, Oracle, Azure; AWS over IPv6).
const SPECIAL: [Block; 15] = [
    Block::v4([0, 0, 0, 0], 8),
    Block::v4([127, 0, 0, 0], 8),
    Block::v4([169, 254, 0, 0], 16),
    Block::v4([100, 100, 100, 200], 32),
    Block::v4([192, 0, 0, 192], 32),
    Block::v4([168, 63, 129, 16], 32),
    Block::v4([224, 0, 0, 0], 4),
    Block::v4([255, 255, 255, 255], 32),
    Block::v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
    Block::v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    Block::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    Block::v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    Block::v6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254], 128),
    Block::v6([0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254], 128),
    Block::v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
];

/// One entry of an allow list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetEntry {
    /// `checkout.example.com`.
    Host(String),
    /// `*.example.com`, kept as `.example.com`: any name below it, not the name itself.
    Suffix(String),
    /// An address or a CIDR block.
    Block(Block),
}

/// A range of addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    address: IpAddr,
    prefix: u8,
}

impl Block {
    const fn v4(octets: [u8; 4], prefix: u8) -> Self {
        let [a, b, c, d] = octets;
        Self {
            address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            prefix,
        }
    }

    const fn v6(segments: [u16; 8], prefix: u8) -> Self {
        let [a, b, c, d, e, f, g, h] = segments;
        Self {
            address: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)),
            prefix,
        }
    }

    /// Reads `10.20.0.0/16` or a plain address.
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(prefix.parse::<u8>().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        let address = embedded(address.parse().ok()?);
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(whole);
        (prefix <= whole).then_some(Self { address, prefix })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same_prefix(
                u128::from(own.to_bits()) << 96,
                u128::from(other.to_bits()) << 96,
                self.prefix,
            ),
            (IpAddr::V6(own), IpAddr::V6(other)) => same_prefix(own.to_bits(), other.to_bits(), self.prefix),
            _ => false,
        }
    }

    /// Whether every address of this block lies in `outer`.
    fn within(&self, outer: &Self) -> bool {
        self.prefix >= outer.prefix && outer.contains(self.address)
    }
}

fn same_prefix(left: u128, right: u128, prefix: u8) -> bool {
    prefix == 0 || (left ^ right) >> (128 - u32::from(prefix)) == 0
}

/// The IPv4 address that an IPv6 address stands for (mapped, compatible, NAT64, 6to4), or the address itself: what a packet reaches counts.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let last = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => last(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => last(high, low),
        [0x2002, high, low, ..] => last(high, low),
        _ => address,
    }
}

impl TargetEntry {
    /// Reads an entry of an allow list; `None` where it is neither a name, `*.suffix`, an address nor a CIDR block.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(block) = Block::parse(text) {
            return Some(Self::Block(block));
        }
        let name = normal(text);
        let (suffix, name) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest.to_owned()),
            None => (false, name),
        };
        // A last label of digits only would be read as an address by resolvers (`127.1`).
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let last_is_word = name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().any(|byte| byte.is_ascii_alphabetic()));
        (name.len() <= 253 && name.split('.').all(label) && last_is_word).then(|| {
            if suffix {
                Self::Suffix(format!(".{name}"))
            } else {
                Self::Host(name)
            }
        })
    }

    fn names(&self, host: &str) -> bool {
        match self {
            Self::Host(name) => name == host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Block(_) => false,
        }
    }

    /// Whether the entry opens an address by itself. A special one is opened only by a block that lies within the same special
    /// range, so that `0.0.0.0/0` means "anywhere" and still not the metadata service.
    fn opens(&self, address: IpAddr) -> bool {
        let Self::Block(block) = self else { return false };
        block.contains(address)
            && SPECIAL
                .iter()
                .filter(|special| special.contains(address))
                .all(|special| block.within(special))
    }
}

/// A host as it is compared: lower case, without the root's dot and an IPv6 address' brackets.
fn normal(host: &str) -> String {
    let host = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn is_special(address: IpAddr) -> bool {
    SPECIAL.iter().any(|block| block.contains(address))
}

impl TargetRules {
    /// Whether a request may be made to this host at all: what a URL names, a name or an address literal, before it is resolved.
    ///
    /// What Muster itself started (`own`) is always allowed. Everything else must be on the settings' list and, where there is
    /// one, on the project's.
    pub fn name_allowed(&self, host: &str, port: u16) -> bool {
        let host = normal(host);
        if self.is_own(&host, port) {
            return true;
        }
        match host.parse::<IpAddr>() {
            Ok(address) => self.opened(embedded(address)),
            Err(_) => self.every_list(|entry| entry.names(&host)),
        }
    }

    /// Whether a connection for `host` may be opened to this address: what the name was resolved to, checked anew for each
    /// connection, redirect and captured URL.
    ///
    /// Loopback, link-local, metadata, unspecified, multicast and broadcast addresses, also where they hide in IPv6, need an
    /// entry that names them as an address; any other address is fine for a name that is allowed.
    pub fn address_allowed(&self, address: IpAddr, port: u16, host: &str) -> bool {
        let host = normal(host);
        let address = embedded(address);
        if self.is_own(&address.to_string(), port) || self.is_own(&host, port) {
            return true;
        }
        if is_special(address) || host.parse::<IpAddr>().is_ok() {
            return self.name_allowed(&host, port) && self.opened(address);
        }
        self.name_allowed(&host, port)
    }

    fn is_own(&self, host: &str, port: u16) -> bool {
        self.own.contains(&format!("{host}:{port}")) || self.own.contains(&format!("[{host}]:{port}"))
    }

    fn opened(&self, address: IpAddr) -> bool {
        self.every_list(|entry| entry.opens(address))
    }

    fn every_list(&self, allows: impl Fn(&TargetEntry) -> bool) -> bool {
        let listed = |list: &[String]| {
            list.iter()
                .filter_map(|text| TargetEntry::parse(text))
                .any(|entry| allows(&entry))
        };
        listed(&self.allow) && self.project.as_deref().is_none_or(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::{TargetEntry, TargetRules};
    use core::net::IpAddr;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn rules(allow: &[&str], project: Option<&[&str]>) -> TargetRules {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        TargetRules {
            allow: owned(allow),
            project: project.map(owned),
            own: BTreeSet::from(["127.0.0.1:4100".to_owned()]),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn s60_names_are_checked_against_both_lists() {
        let rules = rules(
            &["*.example.com", "api.test", "10.20.0.0/16"],
            Some(&["checkout.example.com", "10.20.1.0/24"]),
        );
        for (host, allowed) in [
            ("checkout.example.com", true),
            ("CHECKOUT.example.com.", true),
            ("other.example.com", false),
            ("example.com", false),
            ("api.test", false),
            ("checkout.example.com.evil.org", false),
            ("10.20.1.9", true),
            ("10.20.2.9", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(rules.name_allowed(host, 443), allowed, "{host}");
        }
        assert!(rules.name_allowed("127.0.0.1", 4100), "its own");
        assert!(!rules.name_allowed("127.0.0.1", 4101));
    }

    #[test]
    fn s60_special_addresses_must_be_named_as_addresses() {
        let by_name = rules(&["*.example.com", "localhost", "0.0.0.0/0", "::/0"], None);
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "100.100.100.200",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
        ] {
            assert!(!by_name.address_allowed(ip(address), 80, "x.example.com"), "{address}");
            assert!(!by_name.address_allowed(ip(address), 80, "localhost"), "{address}");
            assert!(!by_name.name_allowed(address, 80), "{address}");
        }
        assert!(by_name.address_allowed(ip("93.184.216.34"), 80, "x.example.com"));
        assert!(by_name.name_allowed("93.184.216.34", 80));
        let named = rules(&["localhost", "127.0.0.0/8", "::1", "169.254.169.254"], None);
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"] {
            assert!(named.address_allowed(ip(address), 80, "localhost"), "{address}");
            assert!(named.name_allowed(address, 80), "{address}");
        }
        assert!(!named.address_allowed(ip("169.254.169.253"), 80, "localhost"));
        assert!(
            !named.address_allowed(ip("127.0.0.1"), 80, "other.test"),
            "the name is not allowed"
        );
    }

    #[test]
    fn s60_addresses_inside_ipv6_count_as_what_they_reach() {
        for (text, reached) in [
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::10.1.2.3", "10.1.2.3"),
            ("64:ff9b::a01:203", "10.1.2.3"),
            ("2002:a01:203::5", "10.1.2.3"),
            ("::1", "::1"),
            ("::", "::"),
            ("::5", "::5"),
            ("2001:db8::a01:203", "2001:db8::a01:203"),
        ] {
            assert_eq!(super::embedded(ip(text)), ip(reached), "{text}");
        }
    }

    #[test]
    fn s60_a_name_opens_ordinary_addresses_and_an_address_only_itself() {
        let some = rules(&["*.example.com", "10.20.0.0/16"], None);
        for (address, host, allowed) in [
            ("93.184.216.34", "x.example.com", true),
            ("10.0.0.1", "x.example.com", true),
            ("127.0.0.1", "x.example.com", false),
            ("93.184.216.34", ".example.com", false),
            ("10.20.1.9", "10.20.1.9", true),
            ("93.184.216.34", "10.20.1.9", false),
        ] {
            assert_eq!(
                some.address_allowed(ip(address), 80, host),
                allowed,
                "{address} for {host}"
            );
        }
    }

    #[test]
    fn s60_what_muster_started_is_allowed_at_its_port_only() {
        let none = rules(&[], None);
        assert!(none.address_allowed(ip("127.0.0.1"), 4100, "127.0.0.1"));
        assert!(none.address_allowed(ip("::ffff:127.0.0.1"), 4100, "127.0.0.1"));
        assert!(!none.address_allowed(ip("127.0.0.1"), 80, "127.0.0.1"));
        assert!(!none.address_allowed(ip("10.0.0.1"), 80, "10.0.0.1"));
    }

    #[test]
    fn s60_entries_are_names_suffixes_addresses_or_blocks() {
        for text in [
            "a",
            "a.b",
            "*.a.b",
            "10.0.0.0/8",
            "::1",
            "[::1]",
            "fd00::/8",
            "my_host.local",
        ] {
            let fine = TargetEntry::parse(text).is_some();
            assert_eq!(fine, text != "[::1]", "{text}");
        }
        for text in [
            "",
            "*",
            "*.",
            "a/b",
            "http://a",
            "a:80",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "127.1",
            "a..b",
            "*a.b",
            "1.2.3.4.5",
        ] {
            assert_eq!(TargetEntry::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn s60_a_project_never_reaches_further_than_the_settings(
            host in "[a-c]{1,2}(\\.[a-c]{1,2}){0,2}|127\\.0\\.0\\.[0-9]|10\\.0\\.[0-9]\\.[0-9]",
            project in proptest::collection::vec("\\*\\.[a-c]|[a-c]\\.[a-c]|0\\.0\\.0\\.0/0|127\\.0\\.0\\.0/8", 0..4),
        ) {
            let all = rules(&["*.a", "b.c", "10.0.0.0/16"], None);
            let less = TargetRules { project: Some(project), ..all.clone() };
            prop_assert!(!less.name_allowed(&host, 80) || all.name_allowed(&host, 80));
        }
    }
}
