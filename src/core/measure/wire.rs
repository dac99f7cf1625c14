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

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    put_u128(out, u128::from(value));
}

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

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        u64::try_from(self.u128()?).map_err(|_| WireError::Malformed("integer overflows"))
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
