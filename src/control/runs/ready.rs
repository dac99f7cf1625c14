//! Whether what a run needs is there and in sync, and which way its numbers go.

use super::pinned::BusPin;
use super::start::Blocked;
use super::world::World;
use crate::store::rows::ResultsPin;
use muster_core::model::desired::Desired;
use muster_core::model::environment::WorkerPool;
use muster_core::model::key::Key;
use muster_core::model::plan::TestPlan;
use muster_core::model::resource::Spec;

/// A resource that is not Ready, or not as the newest commit wants it, holds the run back.
pub(super) async fn check_ready(world: &dyn World, key: &Key) -> Result<(), Blocked> {
    world.check_ready(key).await.map_err(|reason| Blocked::NotReady {
        key: key.clone(),
        reason,
    })
}

/// What must be there for numbers to arrive: the cluster that carries them and the database they go to.
pub(super) async fn check_way(world: &dyn World, plan: &TestPlan, pool: &WorkerPool) -> Result<(), Blocked> {
    for key in pool.bus.iter().map(|bus| &bus.cluster).chain(&plan.results) {
        check_ready(world, key).await?;
    }
    Ok(())
}

/// What carries the results of the pool's workers.
pub(super) fn find_bus(desired: &Desired, pool: &WorkerPool) -> Result<Option<BusPin>, Blocked> {
    let Some(bus) = &pool.bus else { return Ok(None) };
    match desired.get(&bus.cluster).map(|resource| &resource.spec) {
        Some(Spec::KafkaCluster(cluster)) => Ok(Some(BusPin {
            cluster: bus.cluster.clone(),
            external: cluster.external.clone(),
            topic: bus.topic.clone(),
        })),
        _ => Err(Blocked::NotReady {
            key: bus.cluster.clone(),
            reason: "it does not exist".to_owned(),
        }),
    }
}

/// The database that the plan's results go to.
pub(super) fn find_results(desired: &Desired, plan: &TestPlan) -> Result<Option<ResultsPin>, Blocked> {
    let Some(key) = &plan.results else {
        return Ok(None);
    };
    match desired.get(key).map(|resource| &resource.spec) {
        Some(Spec::DatabaseCluster(cluster)) => Ok(Some(ResultsPin {
            cluster: key.clone(),
            url: cluster.url.clone(),
        })),
        _ => Err(Blocked::NotReady {
            key: key.clone(),
            reason: "it does not exist".to_owned(),
        }),
    }
}
