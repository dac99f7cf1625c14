//! What resources expand into.

use super::{PoolDemand, environments, expand, local_environment, local_pool};
use crate::diff::world::{desired, environment, key, pool, service};
use crate::model::desired::Desired;
use crate::model::environment::{Environment, EnvironmentLimits, ProviderSpec};
use crate::model::observed::AppliedResource;
use crate::model::resource::Spec;
use crate::model::unit::UnitName;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

const LAB: &str = "p/Environment/lab";

fn digest_of(desired: &Desired) -> String {
    let topology = expand(desired, &PoolDemand::default());
    topology.units[&UnitName::of(&key("p/Service/shop"), 0)]
        .digest
        .to_string()
}

fn shop(spec: Spec) -> Desired {
    desired(1, vec![(LAB, environment()), ("p/Service/shop", spec)])
}

#[test]
fn a_service_becomes_its_replicas() {
    let topology = expand(&shop(service(LAB, "v1", 3, &[])), &PoolDemand::default());
    let names: Vec<&str> = topology.units.keys().map(UnitName::as_str).collect();
    assert_eq!(names, ["p.service.shop.0", "p.service.shop.1", "p.service.shop.2"]);
}

#[test]
fn a_units_digest_covers_what_it_does_and_not_how_many_there_are() {
    let base = digest_of(&shop(service(LAB, "v1", 3, &[])));
    assert_eq!(base, digest_of(&shop(service(LAB, "v1", 1, &[]))));
    assert_ne!(base, digest_of(&shop(service(LAB, "v2", 3, &[]))));
    let mut patient = service(LAB, "v1", 3, &[]);
    if let Spec::Service(service) = &mut patient {
        service.update.max_unavailable = 2;
    }
    assert_eq!(base, digest_of(&shop(patient)));
}

#[test]
fn pools_hold_what_runs_need_between_their_bounds() {
    let wanted = desired(1, vec![(LAB, environment()), ("p/WorkerPool/w", pool(LAB, 1, 4))]);
    for (need, expected) in [(0, 1), (1, 1), (3, 3), (9, 4)] {
        let demand = PoolDemand {
            workers: BTreeMap::from([(key("p/WorkerPool/w"), need)]),
        };
        let topology = expand(&wanted, &demand);
        assert_eq!(topology.of(&key("p/WorkerPool/w")).count(), expected, "{need}");
        assert_eq!(topology.busy.contains(&key("p/WorkerPool/w")), need > 0);
    }
}

#[test]
fn the_implicit_pool_is_there_for_runs_that_name_none() {
    let demand = PoolDemand {
        workers: BTreeMap::from([(local_pool(), 1)]),
    };
    let topology = expand(&Desired::default(), &demand);
    let units: Vec<_> = topology.units.values().collect();
    assert_eq!(units.len(), 1);
    assert_eq!(units[0].environment, local_environment());
    assert_eq!(expand(&Desired::default(), &PoolDemand::default()).units.len(), 0);
}

#[test]
fn units_stand_where_the_applied_environment_put_them() {
    let rendered = |kind: &str| json!({"spec": {"provider": {"type": kind, "workDir": "/srv/units"}}});
    let row = |kind| AppliedResource {
        digest: crate::model::id::Digest::of(b""),
        revision: crate::diff::world::revision(1),
        rendered: rendered(kind),
        deletion_approved: false,
        prune_disabled: false,
    };
    let mut toy = row("simulated");
    toy.rendered["spec"]["provider"]["readyAfter"] = json!("2s");
    toy.rendered["spec"]["provider"]["failEvery"] = json!(3);
    let applied = BTreeMap::from([
        (key(LAB), row("process")),
        (key("p/Environment/old"), row("process")),
        (key("p/Environment/odd"), row("nonsense")),
        (key("p/Environment/far"), row("joined")),
        (key("p/Environment/toy"), toy),
    ]);
    let all = environments(&desired(1, vec![(LAB, environment())]), &applied);
    let place = ProviderSpec::Process {
        work_dir: Some("/srv/units".to_owned()),
    };
    assert_eq!(all[&key(LAB)].provider, place);
    assert_eq!(all[&key("p/Environment/old")].provider, place);
    assert_eq!(all[&key("p/Environment/far")].provider, ProviderSpec::Joined);
    let simulated = ProviderSpec::Simulated {
        ready_after: Duration::from_secs(2),
        fail_every: 3,
    };
    assert_eq!(all[&key("p/Environment/toy")].provider, simulated);
    assert_eq!(all.len(), 5, "and the implicit one");
}

#[test]
fn workers_of_a_joined_environment_are_nobodys_units() {
    let spec = Spec::Environment(Environment {
        provider: ProviderSpec::Joined,
        limits: EnvironmentLimits::default(),
        price: None,
    });
    let desired = desired(
        1,
        vec![
            ("p/Environment/far", spec),
            ("p/WorkerPool/w", pool("p/Environment/far", 2, 5)),
        ],
    );
    let demand = PoolDemand {
        workers: [(key("p/WorkerPool/w"), 3)].into(),
    };
    assert_eq!(expand(&desired, &demand).units.len(), 0);
}
