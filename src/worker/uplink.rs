//! The one sender: frames leave the spool in order and are deleted once they are stored (promise 48).

use super::spool::Spool;
use crate::bus::{BusError, Producer};
use std::path::Path;
use std::time::Duration;

/// First pause after a failure; doubled up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// Sends what is in the spool, and keeps in this folder what memory cannot hold meanwhile, for as long as it is polled.
pub(super) async fn run(spool: Spool, producer: &mut dyn Producer, folder: &Path) {
    tokio::join!(send(&spool, producer), spool.keep_on_disk(folder));
}

async fn send(spool: &Spool, producer: &mut dyn Producer) {
    let mut pause = RETRY_FIRST;
    loop {
        let batch = spool.batch().await;
        let Some(session) = batch.first().map(|message| message.session) else {
            continue;
        };
        match producer.send(&batch).await {
            Ok(watermark) => {
                pause = RETRY_FIRST;
                spool.stored(session, watermark);
            }
            Err(BusError::Refused { sequence, reason }) => {
                tracing::error!(%session, sequence, %reason, "the owner refuses the session's frames; they are dropped");
                spool.refused(session);
            }
            Err(BusError::Unavailable(reason)) => {
                tracing::debug!(%session, %reason, "frames are not stored yet; sending again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LAST);
            }
        }
    }
}

#[cfg(test)]
#[path = "uplink_tests.rs"]
mod tests;
