//! Topics that are taken to two databases: each ingest would read all frames and refuse those of the other's runs.

use crate::model::environment::KafkaTopic;
use crate::model::key::Key;
use crate::model::resource::{Resource, Spec};
use crate::model::streaming::IngestCluster;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An IngestCluster that takes a topic elsewhere than another one does.
pub(super) struct Taken<'a> {
    pub by: &'a Key,
    pub ingest: &'a IngestCluster,
    /// Who takes it already, and where to: one of the topic's own project before others.
    pub first: &'a Key,
    pub to: &'a Key,
}

/// All of them but the first of each topic.
pub(super) fn taken_twice(resources: &BTreeMap<Key, Arc<Resource>>) -> Vec<Taken<'_>> {
    let mut topics: BTreeMap<(&Key, &str), Vec<(&Key, &IngestCluster)>> = BTreeMap::new();
    for (key, resource) in resources {
        if let Spec::IngestCluster(ingest) = &resource.spec {
            let KafkaTopic { cluster, topic } = &ingest.from;
            topics.entry((cluster, topic)).or_default().push((key, ingest));
        }
    }
    let mut taken = Vec::new();
    for ((cluster, _), ingests) in topics {
        let is_foreign = |(key, _): &&(&Key, &IngestCluster)| key.project != cluster.project;
        let Some((first, one)) = ingests.iter().min_by_key(|ingest| is_foreign(ingest)) else {
            continue;
        };
        let others = ingests.iter().filter(|(_, ingest)| ingest.database != one.database);
        taken.extend(others.map(|(by, ingest)| Taken {
            by,
            ingest,
            first,
            to: &one.database,
        }));
    }
    taken
}

#[cfg(test)]
mod tests {
    use crate::spec::{Cache, Files, SourceFile, load, settings};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const SETTINGS: &str = r#"
source: {directory: /srv/plans}
secrets: [{name: db, env: DB}]
projects:
  - name: platform
    paths: [platform.yaml]
    kinds: [Environment, KafkaCluster, DatabaseCluster, IngestCluster]
    shares: [KafkaCluster/metrics, Environment/lab]
    secrets: [db]
  - {name: early, paths: [early.yaml], kinds: [DatabaseCluster, IngestCluster], secrets: [db]}
"#;
    const PLATFORM: &str = r#"
apiVersion: muster.dev/v1alpha1
kind: Environment
metadata: {name: lab}
spec: {provider: {type: simulated}}
---
apiVersion: muster.dev/v1alpha1
kind: KafkaCluster
metadata: {name: metrics}
spec:
  external: {bootstrapServers: ["k:9092"]}
  topics: [{name: frames, partitions: 1, replicationFactor: 1}, {name: more, partitions: 1, replicationFactor: 1}]
"#;

    /// An IngestCluster and its database.
    fn way(name: &str, from: &str, topic: &str) -> String {
        format!(
            "\n---\napiVersion: muster.dev/v1alpha1\nkind: DatabaseCluster\nmetadata: {{name: {name}}}\n\
             spec: {{engine: mysql, external: {{secretRef: {{name: db}}}}}}\n---\n\
             apiVersion: muster.dev/v1alpha1\nkind: IngestCluster\nmetadata: {{name: {name}}}\n\
             spec: {{environment: {from}lab, kafkaCluster: {from}metrics, topic: {topic}, databaseCluster: {name}}}\n"
        )
    }

    fn found(platform: &str, early: &str) -> Vec<String> {
        let source = |text: &str| SourceFile {
            blob: text.len().to_string(),
            bytes: Arc::from(text.as_bytes()),
        };
        let files = BTreeMap::from([
            ("platform.yaml".to_owned(), source(platform)),
            ("early.yaml".to_owned(), source(early)),
        ]);
        let files = Files {
            files,
            ..Files::default()
        };
        let policy = settings::parse(SETTINGS, "settings.yaml").expect("settings").policy();
        let loaded = load(&files, &policy, &mut Cache::default());
        loaded.all_diagnostics().map(ToString::to_string).collect()
    }

    #[test]
    fn a_topic_goes_to_one_database_and_a_commit_of_one_project_breaks_no_other_one() {
        let own = format!("{PLATFORM}{}", way("results", "", "frames"));
        // That of the topic's own project comes first, whatever the names.
        let foreign = found(&own, &way("other", "platform/", "frames"));
        assert_eq!(foreign.len(), 1, "{foreign:?}");
        assert!(
            foreign[0].starts_with("early.yaml:") && foreign[0].contains("warning[M0421]"),
            "{foreign:?}"
        );
        let twice = format!("{own}{}", way("another", "", "frames"));
        let twice = found(&twice, "");
        assert_eq!(twice.len(), 1, "{twice:?}");
        assert!(
            twice[0].contains("error[M0421]: platform/IngestCluster/another takes topic `frames`"),
            "{twice:?}"
        );
        let apart = format!("{own}{}", way("another", "", "more"));
        assert_eq!(found(&apart, ""), Vec::<String>::new());
    }
}
