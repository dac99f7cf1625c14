//! Looks and makings, on paused time.

use super::{Externals, Outside};
use crate::control::fakes::{Outsider, away, fine, key, locked, published, resource};
use crate::runtime::clock::Clock;
use jiff::Timestamp;
use muster_core::model::observed::ExternalSight;
use muster_core::model::resource::Spec;
use muster_core::model::service::SecretRef;
use muster_core::model::streaming::{DatabaseCluster, DatabaseEngine};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

const DATABASE: &str = "p/DatabaseCluster/results";

fn database(secret: &str) -> Spec {
    Spec::DatabaseCluster(DatabaseCluster {
        engine: DatabaseEngine::Mysql,
        url: SecretRef {
            name: secret.to_owned(),
            key: None,
        },
    })
}

struct Watch {
    port: Arc<Outsider>,
    changed: Arc<Notify>,
    externals: Externals,
}

impl Watch {
    fn new() -> Self {
        let (port, changed) = (Outsider::new(&Arc::default()), Arc::new(Notify::new()));
        let clock = Clock::following(Timestamp::UNIX_EPOCH);
        let externals = Externals::new(port.clone(), clock, changed.clone());
        Self {
            port,
            changed,
            externals,
        }
    }

    fn refresh(&self, secret: &str) {
        let published = published(1, vec![resource(DATABASE, database(secret))]);
        self.externals.refresh(&published.desired);
    }

    /// Refreshes as the loop does until something looks different.
    async fn news(&self, secret: &str) {
        let wait = async {
            loop {
                self.refresh(secret);
                let soon = tokio::time::sleep(Duration::from_millis(500));
                tokio::select! {
                    () = self.changed.notified() => return,
                    () = soon => {}
                }
            }
        };
        timeout(Duration::from_secs(600), wait).await.expect("news");
    }

    fn sight(&self) -> Option<ExternalSight> {
        self.externals.sights().remove(&key(DATABASE))
    }
}

#[tokio::test(start_paused = true)]
async fn s14_what_does_not_answer_holds_nobody_up_and_is_said_to_be_away() {
    let watch = Watch::new();
    let begun = Instant::now();
    watch.refresh("a");
    assert_eq!((watch.sight(), begun.elapsed()), (None, Duration::ZERO));
    watch.news("a").await;
    assert_eq!(watch.sight(), Some(away("no answer within 60 s")));
    assert_eq!(*locked(&watch.port.log), ["look"], "one look at a time");
}

#[tokio::test(start_paused = true)]
async fn s12_what_fails_is_looked_at_again_soon_and_what_is_fine_seldom() {
    let watch = Watch::new();
    watch.port.say(away("down"));
    watch.news("a").await;
    let begun = Instant::now();
    watch.port.say(fine());
    watch.news("a").await;
    assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(
        watch.externals.take_recovered().into_iter().collect::<Vec<_>>(),
        [key(DATABASE)]
    );
    assert!(watch.externals.take_recovered().is_empty(), "told once");
    let begun = Instant::now();
    watch.port.say(away("down"));
    watch.news("a").await;
    assert!(begun.elapsed() >= Duration::from_secs(29), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn s11_a_look_that_panics_is_no_answer() {
    let watch = Watch::new();
    watch.port.say(away("panics"));
    watch.news("a").await;
    assert_eq!(watch.sight(), Some(away("looking at it panicked")));
    watch.port.say(fine());
    watch.news("a").await;
    assert_eq!(watch.sight(), Some(fine()));
}

#[tokio::test(start_paused = true)]
async fn a_document_that_says_another_place_is_looked_at_anew() {
    let watch = Watch::new();
    watch.port.say(fine());
    watch.news("a").await;
    watch.refresh("b");
    assert_eq!(watch.sight(), None, "nothing is known of the other place");
    watch.news("b").await;
    watch.externals.refresh(&Default::default());
    assert_eq!(watch.sight(), None, "git names none");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_began_before_something_was_made_does_not_count() {
    let watch = Watch::new();
    watch.refresh("a");
    // The look hangs; meanwhile the loop makes what is missing.
    tokio::task::yield_now().await;
    watch.port.say(fine());
    let outside = Outside::of(&database("a")).expect("outside");
    watch.externals.make(&key(DATABASE), outside).await.expect("made");
    assert_eq!(watch.sight(), Some(fine()));
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(watch.sight(), Some(fine()));
}
