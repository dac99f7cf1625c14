//! A unit's output: two files of bounded size, the older one overwritten. A unit that never stops printing fills no disk.

use super::record::Folder;
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// Bytes of one log file; with the rotated one a unit's output takes at most twice as much.
const FILE_MAX: u64 = 8 << 20;
/// Output still in the pipe when the unit is gone is written within this time; a process that left the group may hold the
/// pipe open for ever.
const DRAIN: Duration = Duration::from_secs(1);

/// The writing end of a unit's output and the thread behind it.
pub(super) struct Log {
    writer: PipeWriter,
    done: Receiver<()>,
}

impl Log {
    /// Begins to append to a unit's log.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn start(folder: &Folder) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let mut file = Rotating::open(folder.log(), folder.rotated_log(), FILE_MAX)?;
        let (ended, done) = sync_channel(1);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            copy(reader, &mut file);
            ended.send(()).ok();
        })?;
        Ok(Self { writer, done })
    }

    /// An end for a child to write to.
    pub(super) fn end(&self) -> io::Result<PipeWriter> {
        self.writer.try_clone()
    }

    /// The shim's own words, among the unit's.
    pub(super) fn note(&mut self, text: &str) {
        // A full pipe means a stuck disk; the record says the same.
        writeln!(self.writer, "muster: {text}").ok();
    }

    /// Writes what is still in the pipe, for a bounded time.
    pub(super) fn finish(self) {
        drop(self.writer);
        match self.done.recv_timeout(DRAIN) {
            Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
        }
    }
}

fn copy(mut reader: PipeReader, file: &mut Rotating) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return,
            // A full disk loses output; it must not stop the unit, which would block on a full pipe.
            Ok(count) => drop(file.write(&buffer[..count])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

struct Rotating {
    path: PathBuf,
    old: PathBuf,
    max: u64,
    file: File,
    size: u64,
}

impl Rotating {
    fn open(path: PathBuf, old: PathBuf, max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            old,
            max,
            file,
            size,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(usize::try_from(self.max).unwrap_or(usize::MAX).max(1)) {
            if self.size + part.len() as u64 > self.max {
                fs::rename(&self.path, &self.old)?;
                self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                self.size = 0;
            }
            self.file.write_all(part)?;
            self.size += part.len() as u64;
        }
        Ok(())
    }
}

/// The last bytes of a unit's output.
///
/// # Errors
/// When a file is there and cannot be read.
pub(super) fn tail(folder: &Folder, max_bytes: usize) -> io::Result<Vec<u8>> {
    let newest = tail_of(&folder.log(), max_bytes)?;
    let mut bytes = tail_of(&folder.rotated_log(), max_bytes - newest.len())?;
    bytes.extend(newest);
    Ok(bytes)
}

fn tail_of(path: &Path, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let from = file.metadata()?.len().saturating_sub(max_bytes as u64);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(max_bytes as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Folder, Log, Rotating, tail};
    use std::io::Write as _;

    #[test]
    fn s17_logs_are_bounded_and_the_newest_is_kept() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(place.path());
        let mut file = Rotating::open(folder.log(), folder.rotated_log(), 100).expect("opened");
        for number in 0..100 {
            file.write(format!("line {number:04}\n").as_bytes()).expect("written");
        }
        let sizes = [folder.log(), folder.rotated_log()].map(|path| path.metadata().expect("there").len());
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
        let text = String::from_utf8(tail(&folder, 150).expect("read")).expect("text");
        assert_eq!(text.lines().last(), Some("line 0099"));
        assert!(
            text.contains("line 0088\nline 0089\nline 0090\n"),
            "runs over both files: {text}"
        );
        assert!(tail(&folder, 5).expect("read").len() == 5);
    }

    #[test]
    fn output_of_the_unit_and_notes_of_the_shim_stand_in_order() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(place.path());
        let mut log = Log::start(&folder).expect("started");
        log.end().expect("an end").write_all(b"hello\n").expect("written");
        log.note("exit code 1");
        log.finish();
        let text = tail(&folder, 1000).expect("read");
        assert_eq!(text, b"hello\nmuster: exit code 1\n");
    }
}
