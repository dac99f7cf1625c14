//! Chunked transfer coding, decoded in place, byte by byte over any split (RFC 9112, 7.1).

use super::broken::Broken;
use muster_core::measure::slice::ErrorKind;
use std::ops::Range;

/// Longest chunk extension and longest trailer section: what nobody sends, and what a server must not feed us without end.
const EXTRA_MAX: u32 = 16 * 1_024;

/// Where in the coding the next byte stands.
#[derive(Debug, Clone, Copy)]
enum At {
    Size { digits: u8 },
    Extension,
    SizeEnd,
    Data,
    DataEnd,
    DataEndLf,
    TrailerStart,
    TrailerLine,
    TrailerEndLf,
}

/// A body being decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunked {
    at: At,
    left: u64,
    extra: u32,
}

/// What one call found: the first run of data, and how far to go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) data: Range<usize>,
    pub(crate) used: usize,
    pub(crate) done: bool,
}

impl Chunked {
    pub(crate) fn new() -> Self {
        Self {
            at: At::Size { digits: 0 },
            left: 0,
            extra: 0,
        }
    }

    /// Reads up to the end of the next run of data, the end of the body, or of `bytes`.
    ///
    /// # Errors
    /// `BadChunk` where it is not the coding.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Step, Broken> {
        let mut used = 0;
        while let Some(byte) = bytes.get(used) {
            if let At::Data = self.at {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - used);
                self.left -= length as u64;
                if self.left == 0 {
                    self.at = At::DataEnd;
                }
                let data = used..used + length;
                return Ok(Step {
                    used: data.end,
                    data,
                    done: false,
                });
            }
            used += 1;
            if self.step(*byte)? {
                return Ok(Step {
                    data: 0..0,
                    used,
                    done: true,
                });
            }
        }
        Ok(Step {
            data: 0..0,
            used,
            done: false,
        })
    }

    /// Takes one byte outside of data; true: it was the body's last.
    fn step(&mut self, byte: u8) -> Result<bool, Broken> {
        self.at = match (self.at, byte) {
            (At::Size { digits }, _) if byte.is_ascii_hexdigit() => {
                // 15 digits: sizes beyond an exabyte are no sizes, and the sum cannot overflow.
                if digits == 15 {
                    return Err(bad("a chunk size of more than 15 digits"));
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                self.left = self.left * 16 + digit;
                At::Size { digits: digits + 1 }
            }
            (At::Size { digits: 0 }, _) => return Err(bad("no chunk size")),
            (At::Size { .. }, b'\r') | (At::Extension, b'\r') => At::SizeEnd,
            (At::Size { .. }, b';' | b' ' | b'\t') => At::Extension,
            (At::Extension, b'\n') => return Err(bad("a bare line feed in a chunk extension")),
            (At::Extension, _) => self.extra(At::Extension)?,
            (At::SizeEnd, b'\n') if self.left == 0 => At::TrailerStart,
            (At::SizeEnd, b'\n') => At::Data,
            (At::DataEnd, b'\r') => At::DataEndLf,
            (At::DataEndLf, b'\n') => At::Size { digits: 0 },
            (At::TrailerStart, b'\r') => At::TrailerEndLf,
            (At::TrailerEndLf, b'\n') => return Ok(true),
            (At::TrailerLine, b'\n') => At::TrailerStart,
            (At::TrailerStart | At::TrailerLine, _) => self.extra(At::TrailerLine)?,
            (At::Size { .. } | At::SizeEnd, _) => return Err(bad("a chunk size that is no number")),
            (At::DataEnd | At::DataEndLf, _) => return Err(bad("a chunk longer than its size")),
            (At::TrailerEndLf, _) => return Err(bad("a broken end of the body")),
            (At::Data, _) => At::Data,
        };
        Ok(false)
    }

    fn extra(&mut self, at: At) -> Result<At, Broken> {
        self.extra += 1;
        if self.extra > EXTRA_MAX {
            return Err(bad("endless chunk extensions or trailers"));
        }
        Ok(at)
    }
}

fn bad(what: &'static str) -> Broken {
    Broken::new(ErrorKind::BadChunk, what)
}

#[cfg(test)]
mod tests {
    use super::Chunked;
    use proptest::prelude::*;

    /// The decoded body and how many bytes followed it, fed in pieces of `piece`.
    fn decode(bytes: &[u8], piece: usize) -> Result<Option<(Vec<u8>, usize)>, String> {
        let (mut chunked, mut body, mut seen) = (Chunked::new(), Vec::new(), 0);
        for part in bytes.chunks(piece) {
            let mut rest = part;
            while !rest.is_empty() {
                let step = chunked.feed(rest).map_err(|broken| broken.text.to_string())?;
                body.extend_from_slice(&rest[step.data]);
                rest = &rest[step.used..];
                seen += step.used;
                if step.done {
                    return Ok(Some((body, bytes.len() - seen)));
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn bodies_are_decoded_over_any_split() {
        let wire = b"4;name=value\r\nWiki\r\n5 \r\npedia\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nHTTP";
        for piece in 1..=wire.len() {
            let decoded = decode(wire, piece).unwrap().unwrap();
            assert_eq!(decoded, (b"Wikipedia0123456789".to_vec(), 4), "{piece}");
        }
    }

    #[test]
    fn wrong_codings_are_refused() {
        for wire in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"0x4\r\n",
            b"4\nWiki",
            b"4\r\nWikipedia\r\n",
            b"4\r\nWiki\r\r",
            b"ffffffffffffffff\r\n",
            b"4;a\nWiki\r\n",
            b"0\r\n\rx",
        ] {
            assert!(decode(wire, 100).is_err(), "{}", String::from_utf8_lossy(wire));
        }
        let endless = [b"1;".to_vec(), vec![b'a'; 100_000]].concat();
        assert!(decode(&endless, 1_000).is_err());
        let endless = [b"0\r\n".to_vec(), b"a: b\r\n".repeat(10_000)].concat();
        assert!(decode(&endless, 1_000).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1_usize..20) {
            let _ = decode(&bytes, piece);
        }

        #[test]
        fn what_was_coded_is_decoded(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..6), piece in 1_usize..30) {
            let mut wire = Vec::new();
            for part in &parts {
                wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&wire, piece), Ok(Some((parts.concat(), 0))));
        }
    }
}
