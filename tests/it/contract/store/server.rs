//! What opening must do, and what happens when the server is not as it should be.

use super::ledger::at;
use super::{Kind, Place, contract, on_server, server, with_database};
use muster::store::{Ledger, StoreError, open};
use muster_core::model::run::{Event, Severity};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

contract!(
    s52_opening_again_and_at_the_same_time_changes_nothing,
    s52_a_database_of_a_newer_version_is_refused,
    s52_tables_that_are_not_musters_are_refused,
    a_row_that_cannot_be_read_is_named,
);

fn event(message: &str) -> Event {
    Event {
        at: at(0),
        project: None,
        about: "run/1".to_owned(),
        severity: Severity::Normal,
        reason: "Tested".to_owned(),
        message: message.to_owned(),
    }
}

/// Runs a statement beside the store; nothing for a database in memory, which nobody else can reach.
async fn beside(place: &Place, sql: &str) -> bool {
    let sql = AssertSqlSafe(sql.to_owned());
    if let Some(path) = place.url.strip_prefix("sqlite://") {
        let mut connection = sqlx::SqliteConnection::connect(path).await.unwrap();
        connection.execute(sql).await.unwrap();
    } else if place.url.starts_with("mysql://") {
        let mut connection = sqlx::MySqlConnection::connect(&place.url).await.unwrap();
        connection.execute(sql).await.unwrap();
    } else {
        return false;
    }
    true
}

fn assert_refused<T>(outcome: Result<T, StoreError>, word: &str) {
    match outcome {
        Err(StoreError::Refused(text)) => assert!(text.contains(word), "`{word}` is not in: {text}"),
        Err(other) => panic!("not refused but: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

async fn s52_opening_again_and_at_the_same_time_changes_nothing(place: Place) {
    place.stores.ledger.meta_or_insert("a", "1").await.unwrap();
    if place.url == "sqlite::memory:" {
        // Each is a database of its own.
        let other = open(&place.url).await.unwrap();
        assert_eq!(other.ledger.meta("a").await.unwrap(), None);
        return;
    }
    let mut opening = JoinSet::new();
    for _ in 0..4 {
        let url = place.url.clone();
        opening.spawn(async move { open(&url).await.unwrap() });
    }
    for stores in opening.join_all().await {
        assert_eq!(stores.ledger.meta_or_insert("a", "2").await.unwrap(), "1");
    }
    if let Some(path) = place.url.strip_prefix("sqlite://") {
        use std::os::unix::fs::PermissionsExt as _;
        let rights = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(rights(path.as_ref()), 0o600);
        assert_eq!(rights(std::path::Path::new(path).parent().unwrap()), 0o700);
    }
}

async fn s52_a_database_of_a_newer_version_is_refused(place: Place) {
    if beside(&place, "INSERT INTO schema_version (version) VALUES (9999)").await {
        assert_refused(open(&place.url).await, "newer muster (schema 9999");
    }
}

async fn s52_tables_that_are_not_musters_are_refused(place: Place) {
    if beside(&place, "DROP TABLE meta").await && beside(&place, "CREATE TABLE meta (x INTEGER)").await {
        assert_refused(place.stores.ledger.meta("a").await, "not Muster's");
    }
}

async fn a_row_that_cannot_be_read_is_named(place: Place) {
    let sql = "INSERT INTO applied (resource, document) VALUES ('a/Service/x', '{\"digest\": 1}')";
    if beside(&place, sql).await {
        let error = place.stores.ledger.applied().await.unwrap_err();
        let expected = matches!(&error, StoreError::Corrupt { table: "applied", row, .. } if row == "a/Service/x");
        assert!(expected, "{error}");
    }
}

#[tokio::test]
async fn s52_a_missing_database_or_right_is_refused_with_what_to_do() {
    for kind in [Kind::MariaDb, Kind::MySql] {
        let (address, hint) = server(kind).unwrap();
        let database = format!("muster_{}", uuid::Uuid::now_v7().simple());
        assert_refused(open(&with_database(&address, &database)).await, "CREATE DATABASE");
        on_server(
            &address,
            hint,
            &[format!("CREATE DATABASE {database} CHARACTER SET utf8mb4")],
        )
        .await;
        let url = with_database(&address, &database);
        let reader = open(&url.replace("muster:muster@", "muster_reader:reader@")).await;
        let wrong = open(&url.replace("muster:muster@", "muster:hunter2@")).await;
        on_server(&address, hint, &[format!("DROP DATABASE {database}")]).await;
        assert_refused(reader, "GRANT");
        assert!(!wrong.as_ref().err().unwrap().to_string().contains("hunter2"));
        assert_refused(wrong, "Access denied");
    }
}

#[tokio::test]
async fn passwords_that_need_what_is_not_there_are_refused_with_the_ways_out() {
    let (address, hint) = server(Kind::MySql).unwrap();
    let database = format!("muster_{}", uuid::Uuid::now_v7().simple());
    on_server(
        &address,
        hint,
        &[format!("CREATE DATABASE {database} CHARACTER SET utf8mb4")],
    )
    .await;
    let url = with_database(&address, &database).replace("muster:muster@", "muster_own_way:secret@");
    let plain = open(&url).await;
    let with_tls = open(&url.replace("ssl-mode=DISABLED", "ssl-mode=REQUIRED")).await;
    on_server(&address, hint, &[format!("DROP DATABASE {database}")]).await;
    assert_refused(plain, "mysql_native_password");
    // This old server's TLS is none that is safe today.
    assert_refused(with_tls, "ssl-mode=DISABLED");
}

#[tokio::test]
async fn a_server_is_reached_by_its_socket() {
    for kind in [Kind::MariaDb, Kind::MySql] {
        super::check(kind, |place| async move {
            let mut connection = sqlx::MySqlConnection::connect(&place.url).await.unwrap();
            let row = connection.fetch_one("SELECT @@socket").await.unwrap();
            let socket: String = row.get_unchecked(0);
            let (base, options) = place.url.split_once('?').unwrap_or((&place.url, ""));
            // A port where nothing listens: only the socket can be what works.
            let (user, rest) = base.split_once('@').unwrap();
            let database = rest.split_once('/').unwrap().1;
            let url = format!("{user}@localhost:1/{database}?socket={socket}&{options}");
            let stores = open(url.trim_end_matches('&')).await.unwrap();
            assert_eq!(stores.ledger.meta_or_insert("a", "1").await.unwrap(), "1");
        })
        .await;
    }
}

/// Stands between the store and a server, and can cut.
struct Between {
    port: u16,
    listening: Option<JoinSet<()>>,
    target: String,
}

impl Between {
    async fn new(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut between = Self {
            port,
            listening: None,
            target: target.to_owned(),
        };
        between.serve(listener);
        between
    }

    fn serve(&mut self, listener: TcpListener) {
        let target = self.target.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.clone();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        self.listening = Some(tasks);
    }

    /// Cuts every connection and refuses new ones.
    async fn cut(&mut self) {
        if let Some(mut tasks) = self.listening.take() {
            tasks.shutdown().await;
        }
    }

    async fn mend(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.serve(listener);
    }
}

async fn until_written(ledger: &Arc<dyn Ledger>, message: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while let Err(error) = ledger.append_event(&event(message)).await {
        assert!(error.is_transient(), "{error}");
        assert!(tokio::time::Instant::now() < deadline, "still: {error}");
    }
}

#[tokio::test]
async fn a_server_that_goes_away_is_unavailable_and_works_again_when_it_is_back() {
    for kind in [Kind::MariaDb, Kind::MySql] {
        super::check(kind, |place| async move {
            let (user, rest) = place.url.split_once('@').unwrap();
            let (target, database) = rest.split_once('/').unwrap();
            let mut between = Between::new(target).await;
            let ledger = open(&format!("{user}@127.0.0.1:{}/{database}", between.port))
                .await
                .unwrap()
                .ledger;
            ledger.append_event(&event("before")).await.unwrap();
            between.cut().await;
            let error = ledger.append_event(&event("while")).await.unwrap_err();
            assert!(error.is_transient(), "{error}");
            between.mend().await;
            until_written(&ledger, "after").await;
            let events = ledger.events(&Default::default()).await.unwrap();
            let messages: Vec<_> = events.iter().map(|row| row.event.message.as_str()).collect();
            assert_eq!(messages, ["before", "after"]);
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_unavailable_within_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mysql://muster@{}/muster", listener.local_addr().unwrap());
    let outcome = tokio::time::timeout(Duration::from_secs(20), open(&url))
        .await
        .expect("the store's own deadline");
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))));
}
