//! How workers find and prove themselves to their owner: the `join` file with its address, the `join-token` file with a secret.

use secrecy::{ExposeSecret, SecretString};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use subtle::ConstantTimeEq as _;

/// Random bytes of a token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}")]
pub struct JoinError {
    doing: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// The secret that workers show.
#[derive(Debug, Clone)]
pub struct JoinToken(SecretString);

impl JoinToken {
    /// A token of this text.
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// Whether this is the token, in a time that does not tell how much of it was right.
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.expose_secret().as_bytes().ct_eq(shown).into()
    }

    /// The text, for the one who shows it.
    pub fn text(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Writes the address workers dial to `join` in the state folder.
///
/// # Errors
/// When it cannot be written.
pub fn write_address(state_dir: &Path, address: SocketAddr) -> Result<PathBuf, JoinError> {
    let path = state_dir.join("join");
    put(&path, &format!("{address}\n"))?;
    Ok(path)
}

/// Reads `join-token` of the state folder, or makes one; only its owner may read it. It outlives daemons, as workers do.
///
/// # Errors
/// When it can be neither read nor written.
pub fn token(state_dir: &Path) -> Result<(JoinToken, PathBuf), JoinError> {
    let path = state_dir.join("join-token");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok((JoinToken::new(text.trim().to_owned()), path)),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed("read", &path, source)),
    }
    let mut bytes = [0_u8; TOKEN_BYTES];
    let random = Path::new("/dev/urandom");
    std::fs::File::open(random)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| failed("read", random, source))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    put(&path, &format!("{text}\n"))?;
    Ok((JoinToken::new(text), path))
}

/// Writes beside it and renames, so that a reader sees the old or the new content, never a part.
fn put(path: &Path, text: &str) -> Result<(), JoinError> {
    let beside = path.with_extension("new");
    let write = || {
        let _ = std::fs::remove_file(&beside);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|source| failed("write", path, source))
}

fn failed(doing: &'static str, path: &Path, source: std::io::Error) -> JoinError {
    JoinError {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::{token, write_address};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let (made, path) = token(folder.path()).unwrap();
        let (read, _) = token(folder.path()).unwrap();
        assert_eq!(made.text(), read.text());
        assert_eq!(made.text().len(), 64);
        assert!(made.is(read.text().as_bytes()));
        assert!(!made.is(b"") && !made.is(&read.text().as_bytes()[1..]));
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{made:?}").contains(made.text()));
        let join = write_address(folder.path(), "127.0.0.1:8421".parse().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(join).unwrap(), "127.0.0.1:8421\n");
    }
}
