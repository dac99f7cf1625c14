//! Slices as bytes, in stores and in frames.

use super::histogram::Histogram;
use super::slice::{ErrorCount, ErrorKind, GeneratorStat, Stats};
use super::wire::{Reader, WireError, put_bytes, put_f64, put_u64};

impl Stats {
    /// Its bytes, for stores and frames.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.write(&mut out);
        out
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for counter in self.counters() {
            put_u64(out, counter);
        }
        let histograms = self.histograms();
        let present = histograms
            .iter()
            .rev()
            .fold(0, |bits, one| bits << 1 | u64::from(one.is_some()));
        put_u64(out, present);
        for histogram in histograms.into_iter().flatten() {
            histogram.encode(out);
        }
        put_u64(out, self.statuses.len() as u64);
        for (status, count) in &self.statuses {
            put_u64(out, u64::from(*status));
            put_u64(out, *count);
        }
        put_u64(out, self.errors.len() as u64);
        for (kind, error) in &self.errors {
            put_u64(out, *kind as u64);
            put_u64(out, error.count);
            put_bytes(out, error.sample.as_bytes());
        }
        put_u64(out, self.checks.len() as u64);
        for (name, (passes, fails)) in &self.checks {
            put_bytes(out, name.as_bytes());
            put_u64(out, *passes);
            put_u64(out, *fails);
        }
    }

    /// Reads what [`Stats::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no such thing, or go beyond its bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let stats = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(stats)
    }

    /// Reads only the counters, which stand first: a fraction of the work of reading all. Nothing else is looked at.
    ///
    /// # Errors
    /// When the bytes do not begin with counters.
    pub fn decode_counters(bytes: &[u8]) -> Result<Self, WireError> {
        Self::read_counters(&mut Reader::new(bytes))
    }

    fn read_counters(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut stats = Self::default();
        for counter in stats.counters_mut() {
            *counter = reader.u64()?;
        }
        Ok(stats)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut stats = Self::read_counters(reader)?;
        let present = reader.u64()?;
        if present >> 9 != 0 {
            return Err(WireError::Malformed("more histograms than there are"));
        }
        for (bit, histogram) in stats.histograms_mut().into_iter().enumerate() {
            if present >> bit & 1 == 1 {
                *histogram = Some(Histogram::read(reader)?);
            }
        }
        // One more than the bound: what found no room has an entry of its own.
        for _ in 0..bounded(reader, Self::STATUSES_MAX + 1)? {
            let status = u16::try_from(reader.u64()?).map_err(|_| WireError::Malformed("status is out of bounds"))?;
            stats.statuses.insert(status, reader.u64()?);
        }
        for _ in 0..bounded(reader, ErrorKind::ALL.len())? {
            let number = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
            let kind = *ErrorKind::ALL
                .get(number)
                .ok_or(WireError::Malformed("error kind is unknown"))?;
            let count = reader.u64()?;
            let sample = reader.text()?;
            if sample.len() > ErrorCount::SAMPLE_MAX {
                return Err(WireError::Malformed("error sample is too long"));
            }
            stats.errors.insert(kind, ErrorCount { count, sample });
        }
        for _ in 0..bounded(reader, Self::CHECKS_MAX + 1)? {
            let name = reader.text()?;
            stats.checks.insert(name, (reader.u64()?, reader.u64()?));
        }
        Ok(stats)
    }
}

impl GeneratorStat {
    /// Its bytes, for stores and frames.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.write(&mut out);
        out
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, self.vus);
        put_u64(out, self.vus_max);
        put_f64(out, self.cpu);
        put_f64(out, self.steal);
        put_u64(out, self.lag_p99_ns);
        put_u64(out, self.memory_bytes);
        for map in [&self.arrivals, &self.own_drops] {
            put_u64(out, map.len() as u64);
            for (phase, count) in map {
                put_bytes(out, phase.as_bytes());
                put_u64(out, *count);
            }
        }
    }

    /// Reads what [`GeneratorStat::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no such thing.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let stat = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(stat)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut stat = Self {
            vus: reader.u64()?,
            vus_max: reader.u64()?,
            cpu: reader.f64()?,
            steal: reader.f64()?,
            lag_p99_ns: reader.u64()?,
            memory_bytes: reader.u64()?,
            ..Self::default()
        };
        for map in [&mut stat.arrivals, &mut stat.own_drops] {
            for _ in 0..bounded(reader, Self::PHASES_MAX)? {
                let phase = reader.text()?;
                map.insert(phase, reader.u64()?);
            }
        }
        Ok(stat)
    }
}

fn bounded(reader: &mut Reader<'_>, most: usize) -> Result<usize, WireError> {
    usize::try_from(reader.u64()?)
        .ok()
        .filter(|count| *count <= most)
        .ok_or(WireError::Malformed("list is too long"))
}
