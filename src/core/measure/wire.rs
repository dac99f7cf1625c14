//! The bytes measurements travel and are stored in: LEB128 integers, length-prefixed texts, a reader that cannot panic.

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They end too early.
    #[error("encoded measurement ends too early")]
    Truncated,
    /// Something follows the end.
    #[error("encoded measurement has bytes after its end")]
    Trailing,
    /// A number, text or order that the format does not allow.
    #[error("encoded measurement is malformed: {0}")]
    Malformed(&'static str),
    /// Larger than the limit.
    #[error("encoded measurement is larger than {0} bytes")]
    TooLarge(usize),
    /// Written by another version.
    #[error("encoded measurement has format {0}, which this build does not read")]
    Version(u8),
}

pub(super) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Only sums of nanoseconds are so wide; everything else has the faster [`put_u64`], whose bytes are the same.
pub(super) fn put_u128(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_f64(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes values off the front of some bytes. Everything it allocates is at most as large as what it was given.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn byte(&mut self) -> Result<u8, WireError> {
        let (first, rest) = self.rest.split_first().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| WireError::Truncated)
    }

    pub(super) fn u128(&mut self) -> Result<u128, WireError> {
        let mut value: u128 = 0;
        for shift in (0..u128::BITS).step_by(7) {
            let byte = self.byte()?;
            let part = u128::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(WireError::Malformed("integer overflows"));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Malformed("integer overflows"))
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        // Most are small.
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok((*byte).into())
            }
            _ => self.long_u64(),
        }
    }

    fn long_u64(&mut self) -> Result<u64, WireError> {
        let mut value: u64 = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Malformed("integer overflows"))
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.u64()?).map_err(|_| WireError::Malformed("integer overflows"))
    }

    pub(super) fn f64(&mut self) -> Result<f64, WireError> {
        let value = f64::from_bits(u64::from_le_bytes(self.array()?));
        if value.is_finite() {
            Ok(value)
        } else {
            Err(WireError::Malformed("number is not finite"))
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(self.u64()?).map_err(|_| WireError::Truncated)?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<String, WireError> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| WireError::Malformed("text is not UTF-8"))
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.is_at_end() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Reader, WireError, put_f64, put_u64, put_u128};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_read_back(narrow in any::<u64>(), wide in any::<u128>(), shift in 0_u32..64) {
            let mut out = Vec::new();
            put_u64(&mut out, narrow >> shift);
            put_u128(&mut out, wide >> shift);
            put_u128(&mut out, u128::from(narrow));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.u64(), Ok(narrow >> shift));
            prop_assert_eq!(reader.u128(), Ok(wide >> shift));
            prop_assert_eq!(reader.u64(), Ok(narrow));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let overflow = Err(WireError::Malformed("integer overflows"));
        let mut wide = Vec::new();
        put_u128(&mut wide, u128::from(u64::MAX) + 1);
        assert_eq!(Reader::new(&wide).u64(), overflow);
        assert_eq!(Reader::new(&[0xff; 30]).u64(), overflow);
        assert_eq!(Reader::new(&[0xff; 30]).u128().map(|_| 0), overflow);
        assert_eq!(Reader::new(&[0x80]).u64(), Err(WireError::Truncated));
        assert_eq!(Reader::new(&[5, 1, 2]).bytes(), Err(WireError::Truncated));
        assert!(Reader::new(&[2, 0xff, 0xff]).text().is_err());
        let mut out = Vec::new();
        put_f64(&mut out, f64::NAN);
        assert!(Reader::new(&out).f64().is_err());
    }
}
