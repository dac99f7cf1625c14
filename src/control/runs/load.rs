//! What each worker of a run is given: its share, its session, the files.

use super::context::Context;
use super::new_uuid;
use super::pinned::BusPin;
use crate::bus::kafka::{AddressError, Brokers, TopicAt};
use crate::control::fleet::{Assignment, SharedLoad};
use crate::store::StoreError;
use crate::store::rows::{RunWorkerRow, SessionRow};
use muster_core::model::id::{SessionId, WorkerId};
use muster_core::model::load::Segment;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a run's workers cannot be given their work now.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssignError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Brokers(#[from] AddressError),
    #[error("the content of file {0} is not in the ledger")]
    Content(String),
}

/// The assignments of the run's exact set. Sessions are opened in the results store before a worker hears of them, and kept in the
/// ledger, so that another daemon assigns the same.
pub(super) async fn assignments(context: &Context, workers: &[WorkerId]) -> Result<Vec<Assignment>, AssignError> {
    let stores = &context.shared.parts.stores;
    let run = context.run();
    stores.results.open_run(run).await?;
    let known = stores.ledger.run_workers(run).await?;
    let shared = Arc::new(shared_load(context).await?);
    let count = u32::try_from(workers.len()).unwrap_or(u32::MAX);
    let mut all = Vec::with_capacity(workers.len());
    for (index, worker) in (0..count).zip(workers) {
        let row = known.iter().find(|row| row.worker == *worker && row.index == index);
        let session = match row {
            Some(row) => row.session,
            None => {
                let session = SessionId(new_uuid(context.now()));
                let row = RunWorkerRow {
                    run,
                    worker: *worker,
                    index,
                    session,
                    detail: json!({"name": name_of(context, *worker)}),
                };
                stores.ledger.put_run_worker(&row).await?;
                session
            }
        };
        let row = SessionRow {
            run,
            session,
            worker: index,
            watermark: 0,
            end: None,
            dropped: Vec::new(),
        };
        stores.results.open_session(&row).await?;
        all.push(Assignment {
            worker: *worker,
            session,
            segment: Segment { index, count },
            load: Arc::clone(&shared),
        });
    }
    Ok(all)
}

async fn shared_load(context: &Context) -> Result<SharedLoad, AssignError> {
    let pinned = &context.pinned;
    let mut files = BTreeMap::new();
    for digest in pinned.load_files() {
        let content = context.shared.parts.stores.ledger.blob(digest.as_str()).await?;
        let content = content.ok_or_else(|| AssignError::Content(digest.to_string()))?;
        files.insert(digest.to_string(), Arc::from(content));
    }
    let topic_of = |pin: &BusPin| {
        let secrets = context.shared.parts.world.secrets();
        let brokers = Brokers::of(&pin.external, &*secrets)?;
        let topic = pin.topic.clone();
        Ok::<_, AssignError>(TopicAt { brokers, topic })
    };
    Ok(SharedLoad {
        bus: pinned.bus.as_ref().map(topic_of).transpose()?,
        plan: pinned.load_plan(context.run(), &context.identity.plan),
        files,
        seed: pinned.seed,
        orphan_timeout: pinned.orphan_timeout,
        pool: pinned.pool.clone(),
        bringer: pinned.bringer(),
    })
}

/// What people call a worker.
pub(super) fn name_of(context: &Context, worker: WorkerId) -> String {
    let views = context.shared.parts.fleet.workers();
    let view = views.into_iter().find(|view| view.id == worker);
    view.map_or_else(|| worker.to_string(), |view| view.name())
}
