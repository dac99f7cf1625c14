//! Workers whose last phase is over: set free once everything they measured is stored, while the others go on.

use super::context::Context;
use crate::store::StoreError;
use crate::store::rows::SessionRow;
use muster_core::model::id::WorkerId;
use std::time::Duration;

/// A database that does not answer by then is asked again later: the judge, which waits for this, must go on.
const ANSWER: Duration = Duration::from_secs(1);

/// Whether everything up to a session's end is stored.
pub(super) fn is_stored(session: &SessionRow) -> bool {
    session.end.is_some_and(|end| session.watermark >= end)
}

/// The workers of a run that have nothing left to do in it.
pub(super) async fn done(context: &Context) -> Result<Vec<WorkerId>, StoreError> {
    let state = context.state();
    let over: Vec<(u32, WorkerId)> = (0..)
        .zip(state.workers.iter().copied())
        .filter(|(_, worker)| state.ended.contains(worker) && !context.is_let_go(*worker))
        .collect();
    if over.is_empty() {
        return Ok(Vec::new());
    }
    let sessions = context.shared.parts.stores.results.sessions(context.run()).await?;
    let is_done = |index: u32| {
        sessions
            .iter()
            .any(|session| session.worker == index && is_stored(session))
    };
    let done = over.into_iter().filter(|(index, _)| is_done(*index));
    Ok(done.map(|(_, worker)| worker).collect())
}

/// Sets those free that are done before the others.
pub(super) async fn let_go(context: &Context) {
    if let Ok(Ok(done)) = tokio::time::timeout(ANSWER, done(context)).await {
        for worker in done {
            context.let_go(worker);
            context.shared.parts.fleet.let_go(context.run(), worker);
        }
    }
}
