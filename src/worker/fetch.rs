//! Gets the files a run needs from the owner, by digest, on a connection of its own.

use crate::bus::dial::{Dial, DialError};
use crate::bus::wire::{FETCH_PIECE_BYTES, FetchRequest};
use muster_core::model::id::Digest;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Most bytes of all files of a run; a plan's data is far below.
const FETCH_MAX_BYTES: usize = 512 << 20;
/// For all files together; the owner gives up a little later.
const FETCH_DEADLINE: Duration = Duration::from_secs(50);

/// Why a file is not here.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The owner does not give it.
    #[error("cannot fetch {digest}: {}", .status.message())]
    Owner {
        /// Which.
        digest: String,
        /// What it says.
        status: tonic::Status,
    },
    /// It is not what it says it is.
    #[error("what came for {0} is something else")]
    Digest(String),
    /// They are too large together.
    #[error("the run's files are larger than {FETCH_MAX_BYTES} bytes")]
    TooLarge,
    /// It takes too long.
    #[error("the run's files did not come in {} s", FETCH_DEADLINE.as_secs())]
    Deadline,
}

pub(super) async fn fetch(dial: &Dial, digests: &[String]) -> Result<BTreeMap<String, Arc<[u8]>>, FetchError> {
    if digests.is_empty() {
        return Ok(BTreeMap::new());
    }
    timeout(FETCH_DEADLINE, fetch_all(dial, digests))
        .await
        .unwrap_or(Err(FetchError::Deadline))
}

async fn fetch_all(dial: &Dial, digests: &[String]) -> Result<BTreeMap<String, Arc<[u8]>>, FetchError> {
    let mut client = dial
        .connect()
        .await?
        .max_decoding_message_size(FETCH_PIECE_BYTES + 1_024);
    let mut files = BTreeMap::new();
    let mut total = 0;
    for digest in digests {
        let owner = |status| FetchError::Owner {
            digest: digest.clone(),
            status,
        };
        let request = FetchRequest { digest: digest.clone() };
        let mut pieces = client.fetch(request).await.map_err(owner)?.into_inner();
        let mut content: Vec<u8> = Vec::new();
        while let Some(piece) = pieces.message().await.map_err(owner)? {
            total += piece.content.len();
            if total > FETCH_MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            content.extend_from_slice(&piece.content);
        }
        if Digest::of(&content).as_str() != digest {
            return Err(FetchError::Digest(digest.clone()));
        }
        files.insert(digest.clone(), content.into());
    }
    Ok(files)
}
