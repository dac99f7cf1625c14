//! Kafka and databases that somebody else runs: topics and tables are made by a commit, what is wrong is said, nothing is deleted.

use super::daemon::World;
use crate::support::kafka::{self, Cluster};
use crate::support::mariadb::MariaDb;
use crate::support::muster::{Daemon, Done, muster};
use crate::support::{free_port, wait_for};
use muster::bus::kafka::{Mechanism, topics};
use muster::control::external::{External as _, Outside, Reach};
use muster::runtime::secrets::ConfiguredSecrets;
use muster_core::model::observed::ExternalSight;
use muster_core::model::service::SecretRef;
use muster_core::model::settings::SecretSource;
use muster_core::model::streaming::{DatabaseCluster, DatabaseEngine, ExternalKafka, KafkaCluster};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A repository with one topic and one database, and settings that know the database's address.
struct Lab {
    world: World,
    database: MariaDb,
    url: String,
    topic: String,
}

impl Lab {
    fn new(partitions: u32) -> Self {
        let (database, topic) = (MariaDb::start(), kafka::unique("muster-test"));
        let world = World::of(&[("way.yaml", &way(&kafka::servers(), &topic, partitions))]);
        let url = database.database("muster_results");
        Self {
            world,
            database,
            url,
            topic,
        }
    }

    fn settings(&self) -> String {
        let secret = self.world.dir.path().join("results-db");
        std::fs::write(&secret, &self.url).unwrap();
        format!(
            "{}secrets: [{{name: results-db, file: \"{}\"}}]\n",
            self.world.settings(),
            secret.display()
        )
    }

    fn serve(&self) -> Daemon {
        Daemon::start(self.world.dir.path(), &self.settings())
    }

    fn check(&self) -> Done {
        let addresses = format!(
            "listen: 127.0.0.1:{}\nworkers: {{listen: \"127.0.0.1:{}\"}}\n",
            free_port(),
            free_port()
        );
        let folder = self.world.dir.path();
        std::fs::write(folder.join("muster.yaml"), self.settings() + &addresses).unwrap();
        muster(folder, &["check", "--config", "muster.yaml"])
    }
}

fn way(servers: &str, topic: &str, partitions: u32) -> String {
    format!(
        "apiVersion: muster.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {{name: metrics}}\nspec:\n  \
         external: {{bootstrapServers: [\"{servers}\"]}}\n  \
         topics: [{{name: {topic}, partitions: {partitions}, replicationFactor: 3, config: {{retention.ms: \"86400000\"}}}}]\n---\n\
         apiVersion: muster.dev/v1alpha1\nkind: DatabaseCluster\nmetadata: {{name: results}}\n\
         spec: {{engine: mariadb, external: {{secretRef: {{name: results-db}}}}}}\n"
    )
}

/// Waits until a resource has this health, and returns its Ready condition's message.
fn until(daemon: &Daemon, resource: &str, health: &str) -> String {
    let wanted = if health == "Healthy" { "True" } else { "False" };
    wait_for(&format!("{resource} to be {health}"), || {
        let (_, value) = daemon.get(&format!("/api/v1/resources/default/{resource}"));
        let conditions = value["conditions"].as_array()?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
        let shown = value["health"] == health && ready["status"] == wanted;
        shown.then(|| ready["message"].as_str().unwrap_or_default().to_owned())
    })
}

#[tokio::test]
async fn s16_s19_a_commit_makes_the_topic_and_the_tables_and_deletes_nothing() {
    let lab = Lab::new(4);
    let planned = lab.check();
    assert_eq!(planned.code, 0, "{planned:?}");
    assert!(planned.stdout.contains("the daemon will make topic"), "{planned:?}");
    let daemon = lab.serve();
    assert!(until(&daemon, "KafkaCluster/metrics", "Healthy").contains("1 topic as wanted"));
    assert!(until(&daemon, "DatabaseCluster/results", "Healthy").starts_with("MariaDB"));
    let brokers = kafka::brokers(&kafka::servers());
    let shape = topics(&brokers).await.unwrap()[&lab.topic];
    assert_eq!((shape.partitions, shape.copies), (4, 3));
    daemon.ok(&["diff", "--detailed-exitcode"]);
    let listed = daemon.ok(&["get", "kafka,databases"]).stdout;
    assert!(listed.contains("metrics") && listed.contains("results"), "{listed}");
    assert!(
        daemon
            .ok(&["describe", "kafkacluster/metrics"])
            .stdout
            .contains(&lab.topic)
    );

    // More partitions than there are: said, and nothing is touched.
    lab.world.edit("plans/way.yaml", "partitions: 4", "partitions: 6");
    let few = until(&daemon, "KafkaCluster/metrics", "Degraded");
    assert!(few.contains("has 4 partitions, 6 are wanted"), "{few}");
    let told = lab.check();
    assert!(
        told.code == 1 && told.stdout.contains("has 4 partitions, 6 are wanted"),
        "{told:?}"
    );
    lab.world.edit(
        "plans/way.yaml",
        "partitions: 6, replicationFactor: 3",
        "partitions: 4, replicationFactor: 1",
    );
    let copies = wait_for("the copies to be seen", || {
        let text = until(&daemon, "KafkaCluster/metrics", "Degraded");
        text.contains("copies").then_some(text)
    });
    assert!(
        copies.contains("has 3 copies of its partitions, 1 are wanted"),
        "{copies}"
    );

    // Both documents go; a person gives leave, and what is outside stays.
    lab.world.repo.write("plans/way.yaml", "# nothing\n");
    let revision = lab.world.repo.commit("all gone");
    let text = wait_for("the deletion to be planned", || {
        let text = daemon.muster(&["diff"]).stdout;
        text.contains("nothing outside Muster is deleted").then_some(text)
    });
    assert!(text.contains("the database and all results in it stay"), "{text}");
    daemon.ok(&["approve-deletion", &revision]);
    wait_for("both to be gone", || {
        let (status, _) = daemon.get("/api/v1/resources/default/KafkaCluster/metrics");
        (status == 404).then_some(())
    });
    assert!(topics(&brokers).await.unwrap().contains_key(&lab.topic));
    muster::store::open(&lab.url).await.expect("the database is there");
}

#[test]
fn s11_what_is_away_is_degraded_with_its_reason_and_recovers() {
    let lab = Lab::new(1);
    let nowhere = format!("127.0.0.1:{}", free_port());
    lab.world.edit("plans/way.yaml", &kafka::servers(), &nowhere);
    let daemon = lab.serve();
    until(&daemon, "DatabaseCluster/results", "Healthy");
    let away = until(&daemon, "KafkaCluster/metrics", "Degraded");
    assert!(away.contains(&nowhere), "{away}");
    lab.world.edit("plans/way.yaml", &nowhere, &kafka::servers());
    until(&daemon, "KafkaCluster/metrics", "Healthy");
    lab.database.kill();
    let away = until(&daemon, "DatabaseCluster/results", "Degraded");
    assert!(
        away.contains("127.0.0.1") && !away.contains("muster:muster"),
        "s57: {away}"
    );
    lab.database.up();
    until(&daemon, "DatabaseCluster/results", "Healthy");
}

#[test]
fn s16_s57_ingests_start_behind_their_topic_and_leave_no_secret_behind() {
    let lab = Lab::new(2);
    let lasting = format!(
        "{}---\napiVersion: muster.dev/v1alpha1\nkind: Environment\nmetadata: {{name: lab}}\nspec: {{provider: {{type: process}}}}\n",
        way(&kafka::servers(), &lab.topic, 2)
    );
    let ingests = format!(
        "---\napiVersion: muster.dev/v1alpha1\nkind: IngestCluster\nmetadata: {{name: streaming}}\n\
         spec: {{environment: lab, replicas: 2, kafkaCluster: metrics, topic: {}, databaseCluster: results}}\n",
        lab.topic
    );
    lab.world.repo.write("plans/way.yaml", &format!("{lasting}{ingests}"));
    lab.world.repo.commit("ingests");
    // Muster's own processes need no leave of the settings.
    let settings = lab.settings().replace("process: {enabled: true}\n", "");
    let daemon = Daemon::start(lab.world.dir.path(), &settings);
    let ready = until(&daemon, "IngestCluster/streaming", "Healthy");
    assert_eq!(ready, "2 of 2 units are Ready");
    let described = daemon.ok(&["describe", "ingest/streaming"]).stdout;
    assert!(described.contains("default.ingestcluster.streaming.1"), "{described}");
    assert!(daemon.ok(&["tree"]).stdout.contains("IngestCluster streaming  Healthy"));
    let state = lab.world.dir.path().join("state");
    assert_eq!(holding(&state, "muster:muster@"), Vec::<PathBuf>::new());
    // Gone with its document; what it read from stays.
    lab.world.repo.write("plans/way.yaml", &lasting);
    lab.world.repo.commit("no ingests");
    wait_for("the units to be gone", || {
        let (_, units) = daemon.get("/api/v1/units");
        units["items"].as_array()?.is_empty().then_some(())
    });
    until(&daemon, "KafkaCluster/metrics", "Healthy");
}

/// Files below a folder that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(holding(&path, text));
        } else if entry.file_type().unwrap().is_file()
            && std::fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
        {
            found.push(path);
        }
    }
    found
}

fn secrets(folder: &Path, values: &[(&str, &str)]) -> Arc<ConfiguredSecrets> {
    std::fs::create_dir_all(folder).unwrap();
    for (key, value) in values {
        std::fs::write(folder.join(key), value).unwrap();
    }
    let place = SecretSource::File(folder.display().to_string());
    Arc::new(ConfiguredSecrets::new([("outside".to_owned(), place)].into()))
}

fn reference(key: Option<&str>) -> SecretRef {
    SecretRef {
        name: "outside".to_owned(),
        key: key.map(str::to_owned),
    }
}

#[tokio::test]
async fn a_database_that_will_not_do_is_unfit_with_what_to_mend() {
    let (server, folder) = (MariaDb::start(), tempfile::tempdir().unwrap());
    let url = server.database("muster_results");
    let look = async |url: &str, engine| {
        let reach = Reach::new(secrets(folder.path(), &[("url", url)]));
        let outside = Outside::Database(DatabaseCluster {
            engine,
            url: reference(Some("url")),
        });
        (reach.look(&outside).await, reach.make(&outside).await)
    };
    let wrong = look(&url, DatabaseEngine::Mysql).await;
    assert!(
        matches!(&wrong, (ExternalSight::Unfit { summary }, Ok(ExternalSight::Unfit { .. })) if summary.contains("engine: mysql")),
        "{wrong:?}"
    );
    let (before, made) = look(&url, DatabaseEngine::Mariadb).await;
    assert!(matches!(before, ExternalSight::Missing { .. }), "{before:?}");
    assert!(matches!(made, Ok(ExternalSight::Fine { .. })), "{made:?}");
    // Who may only read.
    let reader = url.replace("muster:muster@", "muster_reader:reader@");
    let (sight, _) = look(&reader, DatabaseEngine::Mariadb).await;
    assert!(
        matches!(&sight, ExternalSight::Unfit { summary } if summary.contains("GRANT ALL")),
        "{sight:?}"
    );
    // Somebody converted a table.
    server.sql("ALTER TABLE muster_results.meta CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci");
    let (sight, _) = look(&url, DatabaseEngine::Mariadb).await;
    let told = "table meta has collation utf8mb4_general_ci";
    assert!(
        matches!(&sight, ExternalSight::Unfit { summary } if summary.contains(told)),
        "{sight:?}"
    );
    server.sql("ALTER TABLE muster_results.meta CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
    // A replica, or a primary that was demoted.
    server.sql("SET GLOBAL read_only = 1");
    let (sight, _) = look(&url, DatabaseEngine::Mariadb).await;
    assert!(
        matches!(&sight, ExternalSight::Unfit { summary } if summary.contains("writable primary")),
        "{sight:?}"
    );
    server.sql("SET GLOBAL read_only = 0, GLOBAL max_allowed_packet = 1048576");
    let (sight, made) = look(&url, DatabaseEngine::Mariadb).await;
    assert!(
        matches!(&sight, ExternalSight::Unfit { summary } if summary.contains("max_allowed_packet")),
        "{sight:?}"
    );
    assert_eq!(made, Ok(sight), "what will not do is left alone");
    let (sight, _) = look("sqlite:///tmp/x.db", DatabaseEngine::Mariadb).await;
    assert!(matches!(sight, ExternalSight::Unfit { .. }), "{sight:?}");
    let (sight, _) = look("mysql://muster:canary@127.0.0.1:1/x", DatabaseEngine::Mariadb).await;
    let away = matches!(&sight, ExternalSight::Unreachable { summary } if !summary.contains("canary"));
    assert!(away, "{sight:?}");
}

#[tokio::test]
async fn s57_brokers_that_refuse_a_password_say_so_and_nobody_shows_it() {
    let (cluster, folder) = (Cluster::start(), tempfile::tempdir().unwrap());
    let good = cluster.secure(Mechanism::ScramSha512, "muster");
    let look = async |password: &str| {
        let values = [
            ("username", "muster"),
            ("password", password),
            ("ca", good.ca.as_deref().unwrap()),
        ];
        let outside = Outside::Kafka(KafkaCluster {
            external: ExternalKafka {
                bootstrap_servers: good.bootstrap_servers.clone(),
                secret: Some(reference(None)),
            },
            topics: Vec::new(),
        });
        Reach::new(secrets(folder.path(), &values)).look(&outside).await
    };
    assert!(matches!(look("muster").await, ExternalSight::Fine { .. }));
    let refused = look("canary").await;
    let told = matches!(&refused, ExternalSight::Unreachable { summary } if summary.contains("uthentication") && !summary.contains("canary"));
    assert!(told, "{refused:?}");
}
