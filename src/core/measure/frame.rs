//! What one worker sends: one frame per run second, then one end, each with its sequence in the session (promise 48).

use super::slice::{GeneratorStat, Second, SeriesKey, Stats};
use super::wire::{Reader, WireError, put_bytes, put_u64};
use crate::model::id::{RunId, SessionId};
use uuid::Uuid;

/// Largest frame that is decoded: below tonic's 4 MiB per message, and some 50 times the second of a worker with 20 requests.
pub const FRAME_MAX_BYTES: usize = 4_000_000;
/// Most series in a frame. More are no plan's, and would have the daemon hold as many histograms.
pub const SERIES_MAX: usize = 10_000;
/// Last run second there is: ten days, far beyond the longest run with its pauses. Who judges looks at every second up to the newest.
pub const SECOND_MAX: u32 = 864_000;
/// Most ranges of dropped sequences in an end; a spool merges what touches.
pub const DROPPED_MAX: usize = 10_000;

const VERSION: u8 = 1;

/// One message of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The run.
    pub run: RunId,
    /// The session.
    pub session: SessionId,
    /// The worker's index in the run's set.
    pub worker: u32,
    /// From 1, without gaps but for what the spool dropped; the end has one of its own.
    pub sequence: u64,
    /// How many sequences right before it the spool dropped. Less than that missing: something is still on its way.
    pub skipped: u64,
    /// What it holds.
    pub body: Body,
}

/// What a frame holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// One run second.
    Second(Second),
    /// The session is over.
    End {
        /// The end's own sequence: the session is whole when its watermark has reached it.
        last_sequence: u64,
        /// Ranges of sequences the spool dropped, inclusive, ascending.
        dropped: Vec<(u64, u64)>,
    },
}

impl Frame {
    /// Its bytes. More than [`FRAME_MAX_BYTES`] will be refused at the other end: the sender checks and counts it as dropped.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4_096);
        out.push(VERSION);
        out.extend_from_slice(self.run.0.as_bytes());
        out.extend_from_slice(self.session.0.as_bytes());
        put_u64(&mut out, u64::from(self.worker));
        put_u64(&mut out, self.sequence);
        put_u64(&mut out, self.skipped);
        match &self.body {
            Body::Second(second) => {
                out.push(0);
                write_second(second, &mut out);
            }
            Body::End { last_sequence, dropped } => {
                out.push(1);
                put_u64(&mut out, *last_sequence);
                put_u64(&mut out, dropped.len() as u64);
                for (from, to) in dropped {
                    put_u64(&mut out, *from);
                    put_u64(&mut out, *to);
                }
            }
        }
        out
    }

    /// Reads what [`Frame::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no such thing, of another version, or beyond a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > FRAME_MAX_BYTES {
            return Err(WireError::TooLarge(FRAME_MAX_BYTES));
        }
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            VERSION => {}
            other => return Err(WireError::Version(other)),
        }
        let frame = Self {
            run: RunId(Uuid::from_bytes(reader.array()?)),
            session: SessionId(Uuid::from_bytes(reader.array()?)),
            worker: reader.u32()?,
            sequence: reader.u64()?,
            skipped: reader.u64()?,
            body: match reader.byte()? {
                0 => Body::Second(read_second(&mut reader)?),
                1 => read_end(&mut reader)?,
                _ => return Err(WireError::Malformed("frame kind is unknown")),
            },
        };
        reader.finish()?;
        if frame.skipped >= frame.sequence {
            return Err(WireError::Malformed("more is skipped than there was"));
        }
        Ok(frame)
    }
}

fn write_second(second: &Second, out: &mut Vec<u8>) {
    put_u64(out, u64::from(second.second));
    second.generator.write(out);
    put_u64(out, second.entries.len() as u64);
    for (key, stats) in &second.entries {
        for text in [&key.phase, &key.scenario, &key.name] {
            put_bytes(out, text.as_bytes());
        }
        stats.write(out);
    }
}

fn read_second(reader: &mut Reader<'_>) -> Result<Second, WireError> {
    let mut second = Second {
        second: reader.u32()?,
        generator: GeneratorStat::read(reader)?,
        ..Second::default()
    };
    if second.second > SECOND_MAX {
        return Err(WireError::Malformed("second is out of bounds"));
    }
    let count = reader.u64()?;
    if count > SERIES_MAX as u64 {
        return Err(WireError::Malformed("too many series"));
    }
    for _ in 0..count {
        let key = SeriesKey {
            phase: reader.text()?,
            scenario: reader.text()?,
            name: reader.text()?,
        };
        second.entries.insert(key, Stats::read(reader)?);
    }
    Ok(second)
}

fn read_end(reader: &mut Reader<'_>) -> Result<Body, WireError> {
    let last_sequence = reader.u64()?;
    let count = reader.u64()?;
    if count > DROPPED_MAX as u64 {
        return Err(WireError::Malformed("too many dropped ranges"));
    }
    let mut dropped = Vec::new();
    for _ in 0..count {
        let (from, to) = (reader.u64()?, reader.u64()?);
        if from > to || to > last_sequence {
            return Err(WireError::Malformed("dropped range is out of bounds"));
        }
        dropped.push((from, to));
    }
    Ok(Body::End { last_sequence, dropped })
}

#[cfg(test)]
mod tests {
    use super::{Body, FRAME_MAX_BYTES, Frame, VERSION};
    use crate::measure::WireError;
    use crate::measure::testing::{mangled, second};
    use crate::model::id::{RunId, SessionId};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn body() -> impl Strategy<Value = Body> {
        let ranges = prop::collection::vec((1_u64..1_000, 0_u64..1_000), 0..5);
        let end = (2_000_u64..10_000, ranges).prop_map(|(last_sequence, ranges)| Body::End {
            last_sequence,
            dropped: ranges.into_iter().map(|(from, length)| (from, from + length)).collect(),
        });
        prop_oneof![second().prop_map(Body::Second), end]
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let place = (0..u64::MAX).prop_flat_map(|skipped| (skipped + 1..=u64::MAX, Just(skipped)));
        (any::<u128>(), any::<u128>(), any::<u32>(), place, body()).prop_map(
            |(run, session, worker, (sequence, skipped), body)| Frame {
                run: RunId(Uuid::from_u128(run)),
                session: SessionId(Uuid::from_u128(session)),
                worker,
                sequence,
                skipped,
                body,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn s48_what_is_encoded_decodes(frame in frame()) {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), frame in frame(), mangle in mangled()) {
            let _ = Frame::decode(&bytes);
            let _ = Frame::decode(&mangle.apply(frame.encode()));
        }
    }

    #[test]
    fn limits_are_kept_before_anything_is_read() {
        let large = vec![VERSION; FRAME_MAX_BYTES + 1];
        assert_eq!(Frame::decode(&large), Err(WireError::TooLarge(FRAME_MAX_BYTES)));
        assert_eq!(Frame::decode(&[9; 50]), Err(WireError::Version(9)));
        assert_eq!(Frame::decode(&[]), Err(WireError::Truncated));
        let end = |skipped, dropped| Frame {
            run: RunId(Uuid::nil()),
            session: SessionId(Uuid::nil()),
            worker: 0,
            sequence: 3,
            skipped,
            body: Body::End {
                last_sequence: 3,
                dropped,
            },
        };
        assert!(Frame::decode(&end(2, vec![(1, 2)]).encode()).is_ok());
        assert!(Frame::decode(&end(0, vec![(2, 9)]).encode()).is_err());
        assert!(Frame::decode(&end(3, Vec::new()).encode()).is_err());
    }
}
