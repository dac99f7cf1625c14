//! Servers that are not fit to hold a store are refused with a code and what to change; never a panic, never a wrong number.

use super::results::{contents, flush, opened, part, series, session};
use super::{Kind, server};
use crate::support::mariadb::MariaDb;
use muster::store::rows::Appended;
use muster::store::{StoreError, open};
use sqlx::{Connection as _, Executor as _, Row as _};
use std::path::PathBuf;

/// A server of the test's own: what is changed here must not be seen by others.
pub async fn own(kind: Kind) -> MariaDb {
    let Kind::MySql = kind else {
        return tokio::task::spawn_blocking(MariaDb::start).await.unwrap();
    };
    let (address, hint) = server(kind).unwrap();
    let mut connection = sqlx::MySqlConnection::connect(&address).await.expect(hint);
    let row = connection.fetch_one("SELECT @@basedir").await.unwrap();
    let programs = PathBuf::from(row.get_unchecked::<String, _>(0));
    tokio::task::spawn_blocking(move || MariaDb::start_mysql8(&programs))
        .await
        .unwrap()
}

async fn refusal(url: &str) -> String {
    match open(url).await {
        Err(StoreError::Refused(text)) => text,
        Err(other) => panic!("not refused but: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

async fn an_unfit_server_is_refused_until_it_is_mended(kind: Kind) {
    let server = own(kind).await;
    let url = server.database("muster_unfit");
    drop(open(&url).await.unwrap());

    server.sql("SET GLOBAL max_allowed_packet = 1048576");
    says(
        &refusal(&url).await,
        &["S02", "1048576", "16777216", "SET GLOBAL max_allowed_packet"],
    );
    // The usual size of MariaDB is enough for any flush: what is larger is split.
    server.sql("SET GLOBAL max_allowed_packet = 16777216");
    let results = open(&url).await.unwrap().results;
    let mine = session();
    let run = opened(&results, &[mine]).await;
    let parts: Vec<_> = (0..40)
        .map(|second| part(second, series("a"), vec![7; 1 << 20]))
        .collect();
    assert_eq!(
        results.append(&flush(run, mine, 0, 1, parts.clone())).await.unwrap(),
        Appended::Stored
    );
    assert_eq!(contents(&results, run).await, parts);
    // A single row that no packet holds is refused, and nothing of its flush is stored.
    let huge = vec![part(50, series("a"), vec![7; 17 << 20])];
    let error = results.append(&flush(run, mine, 1, 2, huge)).await.unwrap_err();
    says(&error.to_string(), &["max_allowed_packet"]);
    assert_eq!(results.sessions(run).await.unwrap()[0].watermark, 1);

    server.sql("SET GLOBAL read_only = 1");
    says(&refusal(&url).await, &["S03", "read-only", "primary"]);
    // A primary that becomes a replica under an open store.
    let error = results.append(&flush(run, mine, 1, 2, Vec::new())).await.unwrap_err();
    says(&error.to_string(), &["read-only"]);
    server.sql("SET GLOBAL read_only = 0");

    // Whatever the server's default, connections are strict and writable.
    server.sql("SET GLOBAL sql_mode = ''; SET GLOBAL TRANSACTION READ ONLY");
    let lax = open(&url).await.unwrap();
    let long = part(0, series(&"n".repeat(2_000)), *b"x");
    let error = lax
        .results
        .append(&flush(run, mine, 1, 2, vec![long]))
        .await
        .unwrap_err();
    says(&error.to_string(), &["longer than its column"]);
    assert_eq!(
        contents(&lax.results, run).await.len(),
        parts.len(),
        "nothing was cut to fit"
    );

    server.sql("SET GLOBAL TRANSACTION READ WRITE");

    server.sql("ALTER TABLE muster_unfit.overlay CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci");
    says(
        &refusal(&url).await,
        &["S05", "overlay.plan", "utf8mb4_general_ci", "COLLATE utf8mb4_bin"],
    );
    server.sql("ALTER TABLE muster_unfit.overlay CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
    server.sql("ALTER TABLE muster_unfit.session ENGINE = MyISAM");
    says(&refusal(&url).await, &["S06", "session", "MyISAM", "ENGINE = InnoDB"]);
    server.sql("ALTER TABLE muster_unfit.session ENGINE = InnoDB");

    // Rights to make tables, but not to take anything out of them.
    server.sql("REVOKE ALL ON `muster\\_%`.* FROM 'muster'@'%'; GRANT SELECT, INSERT, UPDATE, CREATE, CREATE VIEW, ALTER, DROP ON `muster\\_%`.* TO 'muster'@'%'");
    says(&refusal(&url).await, &["DELETE", "GRANT ALL"]);
    server.sql("GRANT ALL ON `muster\\_%`.* TO 'muster'@'%'");
    open(&url).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_an_unfit_mariadb_is_refused_until_it_is_mended() {
    an_unfit_server_is_refused_until_it_is_mended(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_an_unfit_mysql8_is_refused_until_it_is_mended() {
    an_unfit_server_is_refused_until_it_is_mended(Kind::MySql).await;
}
