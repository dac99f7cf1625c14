//! Workers that come by themselves: over TLS, with a token of the settings, by hand; and callers that are no workers at all.

use crate::support::muster::{Daemon, command};
use crate::support::wait_for;
use futures_util::StreamExt as _;
use muster::api::worker::{Entrance, TlsIdentity, serve};
use muster::bus::dial::{Address, Client, Dial};
use muster::bus::memory;
use muster::bus::wire::{self, from_owner, from_worker};
use muster::control::fleet::door::{Bringer, Door, Pass};
use muster::control::fleet::join;
use muster::control::fleet::{Assignment, Fleet, Hello, SharedLoad};
use muster::runtime::clock::Clock;
use muster::runtime::secrets::ConfiguredSecrets;
use muster_core::base::chain::chain;
use muster_core::model::id::{RunId, SessionId, WorkerId};
use muster_core::model::load::{Engine, LoadPlan, Segment, SyntheticEngine};
use muster_core::model::policy::TargetRules;
use muster_core::model::service::SecretRef;
use muster_core::model::settings::{JoinRule, SecretSource};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(30);
const FAR: &str = "default/Environment/far";
const RUN: RunId = RunId(Uuid::from_u128(42));

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/load/tests/fixtures")
        .join(name)
}

/// An endpoint for the daemon's own token.
struct Owner {
    folder: TempDir,
    address: String,
    fleet: Fleet,
    stop: CancellationToken,
}

impl Owner {
    async fn start(with_tls: bool) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = TempDir::new().unwrap();
        let (token, _) = join::token(folder.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let pem = |name: &str| std::fs::read_to_string(certificate(name)).unwrap();
        let tls = with_tls.then(|| TlsIdentity {
            cert: pem("server.pem"),
            key: pem("server.key").into(),
        });
        let plans = watch::channel(None).1;
        let far = folder.path().join("far");
        std::fs::write(&far, "a-token-of-enough-letters").unwrap();
        let place = SecretSource::File(far.display().to_string());
        let secrets = ConfiguredSecrets::new(BTreeMap::from([("far".to_owned(), place)]));
        let rule = JoinRule {
            environment: FAR.parse().unwrap(),
            max_workers: 9,
            secret: SecretRef {
                name: "far".to_owned(),
                key: None,
            },
        };
        let door = Door::new(Some(token), vec![rule], Arc::new(secrets), plans);
        let entrance = Entrance { listener, tls, door };
        let (fleet, stop) = (Fleet::new(7, Clock::system()), CancellationToken::new());
        let (queue, _deliveries) = memory::queue(4);
        tokio::spawn(serve(entrance, fleet.clone(), queue, stop.clone()));
        Self {
            folder,
            address,
            fleet,
            stop,
        }
    }

    fn dial(&self, ca_file: Option<PathBuf>) -> Dial {
        Dial {
            address: Address::Fixed(self.address.clone()),
            token_file: self.folder.path().join("join-token"),
            ca_file,
        }
    }

    async fn client(&self) -> Client {
        let client = self.dial(None).connect().await.unwrap();
        client.max_encoding_message_size(64 << 20)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn hello() -> wire::Hello {
    wire::Hello {
        protocol: wire::PROTOCOL,
        worker: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        pool: "default/WorkerPool/local".to_owned(),
        ..wire::Hello::default()
    }
}

/// Says these things on one control connection and returns what the owner answers until it closes; the error, if it ends with one.
async fn say(client: &mut Client, what: Vec<from_worker::What>) -> (Vec<from_owner::What>, Option<tonic::Status>) {
    let (sender, receiver) = mpsc::channel(16);
    for what in what {
        sender.send(wire::FromWorker { what: Some(what) }).await.unwrap();
    }
    let work = async {
        let mut answers = Vec::new();
        let mut inbox = match client.control(ReceiverStream::new(receiver)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return (answers, Some(status)),
        };
        loop {
            match inbox.message().await {
                Ok(Some(message)) => answers.extend(message.what),
                Ok(None) => return (answers, None),
                Err(status) => return (answers, Some(status)),
            }
        }
    };
    let result = timeout(SOON, work).await.expect("the owner closes the connection");
    drop(sender);
    result
}

fn is_welcome(what: &from_owner::What) -> bool {
    matches!(what, from_owner::What::Welcome(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_with_those_who_know_the_authority_and_with_nobody_else() {
    let owner = Owner::start(true).await;
    let mut client = owner.dial(Some(certificate("ca.pem"))).connect().await.unwrap();
    let bad = from_worker::What::Goodbye(wire::Goodbye::default());
    let (_, error) = say(&mut client, vec![bad]).await;
    assert_eq!(
        error.unwrap().code(),
        tonic::Code::InvalidArgument,
        "it hears what is said over TLS"
    );
    // Another authority, here the server's own certificate, which is none.
    let error = owner.dial(Some(certificate("server.pem"))).connect().await.unwrap_err();
    assert!(chain(&error).contains("certificate"), "{}", chain(&error));
    // A file without a certificate knows nobody.
    let none = owner.folder.path().join("none.pem");
    std::fs::write(&none, "no certificate").unwrap();
    assert!(owner.dial(Some(none)).connect().await.is_err());
    assert!(owner.dial(Some("/nowhere.pem".into())).connect().await.is_err());
    // In the clear nothing is answered.
    let mut plain = match owner.dial(None).connect().await {
        Ok(client) => client,
        Err(_) => return,
    };
    let (answers, error) = say(&mut plain, vec![from_worker::What::Hello(hello())]).await;
    assert!(answers.is_empty() && error.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_talk_nonsense_are_told_or_cut_off_and_hurt_nobody() {
    let owner = Owner::start(false).await;
    let mut client = owner.client().await;
    let mut old = hello();
    old.protocol = 99;
    old.version = "9.9".to_owned();
    let (answers, _) = say(&mut client, vec![from_worker::What::Hello(old)]).await;
    let [from_owner::What::Refused(refused)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert!(
        refused.reason.contains("speaks protocol 1") && refused.reason.contains("9.9"),
        "{}",
        refused.reason
    );
    // No Hello first; twice Hello; milestones with a hole, of no run, without a meaning.
    let (_, error) = say(&mut client, vec![from_worker::What::Status(wire::Status::default())]).await;
    assert_eq!(error.unwrap().code(), tonic::Code::InvalidArgument);
    let progress = |run: &str, number, what| {
        let run = run.to_owned();
        from_worker::What::Progress(wire::Progress { run, number, what })
    };
    let prepared = || Some(wire::progress::What::Prepared(wire::Prepared {}));
    let held = wire::Hello {
        held_run: hello().worker,
        held_session: hello().worker,
        ..hello()
    };
    for second in [
        from_worker::What::Hello(hello()),
        progress(&hello().worker, 7, prepared()),
        progress("none", 1, prepared()),
        progress(&hello().worker, 1, None),
    ] {
        let (answers, _) = say(
            &mut client,
            vec![from_worker::What::Hello(held.clone()), second.clone()],
        )
        .await;
        assert!(answers.first().is_some_and(is_welcome), "{second:?}: {answers:?}");
    }
    // More than a message may hold.
    let mut huge = hello();
    huge.version = "x".repeat(wire::CONTROL_MAX_BYTES + 1);
    let (answers, error) = say(&mut client, vec![from_worker::What::Hello(huge)]).await;
    assert!(answers.is_empty() && error.is_some());
    // Frames with labels that are none, and larger than any.
    for (run, payload) in [(vec![1, 2, 3], 1), (vec![0; 16], 32 << 20)] {
        let envelope = wire::Envelope {
            run: run.into(),
            session: vec![0; 16].into(),
            sequence: 1,
            payload: vec![0; payload].into(),
        };
        let sent = client.data(futures_util::stream::iter([envelope])).await;
        let error = match sent {
            Ok(response) => timeout(SOON, response.into_inner().message()).await.unwrap().err(),
            Err(status) => Some(status),
        };
        assert!(error.is_some(), "{payload} bytes");
    }
    // A file that no run needs.
    let digest = "sha256:0".to_owned();
    let error = client.fetch(wire::FetchRequest { digest }).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);
    assert!(owner.fleet.workers().iter().all(|worker| !worker.connected));
}

/// A run of one worker of the daemon's own, with a file.
fn own_run(worker: WorkerId, session: SessionId, digest: &str) -> Assignment {
    let load = SharedLoad {
        plan: LoadPlan {
            run: RUN,
            plan: "default/own".to_owned(),
            phases: Vec::new(),
            engine: Engine::Synthetic(SyntheticEngine {
                p50: Duration::ZERO,
                p99: Duration::ZERO,
                error_rate: 0.0,
            }),
            base_urls: Vec::new(),
            data: Vec::new(),
            targets: TargetRules::default(),
            requests_per_second: None,
        },
        files: BTreeMap::from([(digest.to_owned(), Arc::from(&b"secret"[..]))]),
        bus: None,
        seed: 0,
        orphan_timeout: SOON,
        pool: "default/WorkerPool/local".parse().unwrap(),
        bringer: Bringer::Own,
    };
    Assignment {
        worker,
        session,
        segment: Segment { index: 0, count: 1 },
        load: Arc::new(load),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_and_files_are_for_those_whose_workers_they_are_of() {
    let owner = Owner::start(false).await;
    let own = owner.client().await;
    let stranger = Dial {
        token_file: owner.folder.path().join("far"),
        ..owner.dial(None)
    };
    let stranger = stranger.connect().await.unwrap();
    let (worker, session) = (WorkerId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(2)));
    let hello = Hello {
        worker,
        unit: None,
        host: String::new(),
        address: None,
        pool: "default/WorkerPool/local".parse().unwrap(),
        version: String::new(),
        threads: 1,
        allows_commands: false,
        held: None,
        epoch: 0,
    };
    let _connection = owner.fleet.connect(hello, &Pass::OWN).unwrap();
    let digest = "sha256:1".to_owned();
    owner
        .fleet
        .prepare(RUN, vec![own_run(worker, session, &digest)])
        .unwrap();
    owner.fleet.adoption_done();
    for (mut client, is_own) in [(own, true), (stranger, false)] {
        let request = wire::FetchRequest { digest: digest.clone() };
        assert_eq!(client.fetch(request).await.is_ok(), is_own);
        let envelope = wire::Envelope {
            run: RUN.0.as_bytes().to_vec().into(),
            session: session.0.as_bytes().to_vec().into(),
            sequence: 1,
            payload: vec![1].into(),
        };
        let envelopes = futures_util::stream::iter([envelope]).chain(futures_util::stream::pending());
        let mut receipts = client.data(envelopes).await.unwrap().into_inner();
        let receipt = timeout(SOON, receipts.message()).await.unwrap();
        if is_own {
            // Ingest is not there in this test: the frame came as far as it.
            assert_eq!(receipt.unwrap_err().code(), tonic::Code::Unavailable);
        } else {
            let refused = receipt.unwrap().unwrap().refused;
            assert_eq!(refused, "these frames are of another one's worker");
        }
    }
}

/// One who says Hello and then nothing: over a network that swallows everything, no other sign comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s41_a_worker_that_is_silent_is_cut_off_before_the_shortest_orphan_timeout() {
    let owner = Owner::start(false).await;
    let mut client = owner.client().await;
    let begun = std::time::Instant::now();
    let (answers, _) = say(&mut client, vec![from_worker::What::Hello(hello())]).await;
    assert!(answers.first().is_some_and(is_welcome));
    assert!(begun.elapsed() >= Duration::from_secs(3), "it is not cut off at once");
    assert!(owner.fleet.workers().iter().all(|worker| !worker.connected));
}

/// A worker by hand, as a real process; what it says is in a file.
struct ByHand {
    child: Child,
    log: PathBuf,
}

impl ByHand {
    fn start(dir: &Path, name: &str, port: u16, args: &[&str]) -> Self {
        let log = dir.join(format!("{name}.log"));
        let join = format!("127.0.0.1:{port}");
        let mut all = vec!["worker", "--join", &join];
        all.extend(args);
        let child = command(dir, &all)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn says(&self, what: &str) {
        wait_for(what, || self.text().contains(what).then_some(()));
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PLANS: &str = "\
apiVersion: muster.dev/v1alpha1
kind: Environment
metadata: {name: far}
spec: {provider: {type: joined}}
---
apiVersion: muster.dev/v1alpha1
kind: WorkerPool
metadata: {name: left}
spec: {environment: far, capacity: {vus: 10, rate: 10}, workers: {max: 2}, orphanTimeout: 5s}
---
apiVersion: muster.dev/v1alpha1
kind: WorkerPool
metadata: {name: right}
spec: {environment: far}
---
apiVersion: muster.dev/v1alpha1
kind: TestPlan
metadata: {name: pair}
spec:
  target: {baseURL: \"http://127.0.0.1:9\"}
  pool: left
  engine: {type: synthetic, latency: {p50: 1ms, p99: 2ms}}
  validity: {maxBadShare: 100%}
  phases: [{name: steady, executor: constant-arrival-rate, rate: 20, duration: 10s, preAllocatedVUs: 10}]
";

#[test]
fn workers_by_hand_fill_a_joined_pool_and_outlive_their_daemon() {
    let dir = TempDir::new().unwrap();
    let plans = dir.path().join("plans");
    std::fs::create_dir(&plans).unwrap();
    std::fs::write(plans.join("plan.yaml"), PLANS).unwrap();
    std::fs::write(dir.path().join("token"), "a-token-of-enough-letters\n").unwrap();
    std::fs::write(dir.path().join("wrong"), "another-token-of-letters\n").unwrap();
    let settings = "source: {directory: plans}\nstore: {url: \"sqlite://muster.db\"}\ntargets: {allow: [\"127.0.0.1\"]}\n\
         secrets: [{name: far, file: token}]\njoin: [{environment: far, maxWorkers: 2, secretRef: {name: far}}]";
    let mut daemon = Daemon::start(dir.path(), settings);
    let port = std::fs::read_to_string(dir.path().join("state/join")).unwrap();
    let port: u16 = port.trim().rsplit(':').next().unwrap().parse().unwrap();
    let by_hand = |name: &str, args: &[&str]| ByHand::start(dir.path(), name, port, args);

    // Who may not come in is told why, and counted.
    let wrong = by_hand("wrong", &["--token-file", "wrong", "--pool", "left"]);
    wrong.says("cannot join: the join token is missing or wrong; asking again every 5s");
    let unsure = by_hand("unsure", &["--token-file", "token"]);
    unsure.says("environment default/Environment/far has several pools; choose one: default/left, default/right");
    drop((wrong, unsure));

    let one = by_hand("one", &["--token-file", "token", "--pool", "left"]);
    one.says("pool default/left; waiting for a run");
    let blocked = daemon.muster(&["start", "pair", "--wait"]);
    assert_eq!(blocked.code, 95, "{blocked:#?}");
    let why = "not enough workers in default/WorkerPool/left: the plan needs 2; 1 of 1 connected are free";
    assert!(blocked.stderr.contains(why), "{blocked:#?}");
    let two = by_hand("two", &["--token-file", "token", "--pool", "default/left"]);
    two.says("waiting for a run");
    let third = by_hand("third", &["--token-file", "token", "--pool", "left"]);
    third.says("2 workers of this token are in environment default/Environment/far; it may bring at most 2");
    drop(third);
    let metrics = text_of(&daemon, "/metrics");
    for reason in ["token", "hello"] {
        let series = format!("muster_worker_rejected_total{{reason=\"{reason}\"}}");
        assert!(metrics.contains(&series), "{series} in {metrics}");
    }
    let pools = daemon.ok(&["get", "pools"]).stdout;
    assert!(pools.contains("2 connected, 2 free"), "{pools}");

    // A daemon that is killed and comes back finds them.
    let api = daemon.port();
    daemon.kill();
    for worker in [&one, &two] {
        worker.says("lost the daemon");
    }
    let daemon = Daemon::again(dir.path(), api);
    let idle = || {
        let workers = daemon.get("/api/v1/workers").1;
        let items = workers["items"].as_array()?;
        (items.len() == 2 && items.iter().all(|worker| worker["state"] == "Idle")).then_some(())
    };
    wait_for("both workers again", idle);

    let started = daemon.ok(&["start", "pair", "-o", "json"]).json();
    let run = started["id"].as_str().unwrap();
    let busy = daemon.muster(&["start", "pair", "--wait"]);
    assert!(
        busy.stderr.contains("the plan needs 2; 0 of 2 connected are free"),
        "{busy:#?}"
    );
    let loaded =
        |worker: &serde_json::Value| worker["state"] == "Running" && worker["iterationsPerS"].as_f64() > Some(0.0);
    let items = wait_for("numbers of both", || {
        let workers = daemon.get(&format!("/api/v1/workers?run={run}")).1;
        let items = workers["items"].as_array()?.clone();
        (items.len() == 2 && items.iter().all(loaded)).then_some(items)
    });
    for (index, item) in items.iter().enumerate() {
        assert_eq!(item["index"], index, "the lowest id is first: {items:#?}");
        for number in [
            "clockOffsetMs",
            "clockErrorMs",
            "startSkewMs",
            "lagMs",
            "cpu",
            "memoryBytes",
        ] {
            assert!(item[number].is_number(), "{number} in {item:#}");
        }
    }
    let live = daemon.get(&format!("/api/v1/runs/{run}/live")).1;
    assert_eq!(live["each"]["sum"]["workers"], 2, "{live:#}");
    let id = items[0]["id"].as_str().unwrap();
    let text = daemon.ok(&["describe", &format!("worker/{id}")]).stdout;
    assert!(text.contains("default/left") && text.contains("Start skew"), "{text}");
    let table = daemon.ok(&["get", "workers", "-o", "wide"]).stdout;
    assert!(table.contains("Running") && table.contains(" ms"), "{table}");

    daemon.ok(&["watch", &format!("run/{run}")]);
    let report = daemon.ok(&["report", &format!("run/{run}"), "-o", "json"]).json();
    assert_eq!(report["passed"], true, "{report:#}");
    assert_eq!(report["metrics"]["iterations"]["count"], 200);
    for worker in report["workers"].as_array().unwrap() {
        assert_eq!(worker["share"], 0.5, "{worker:#}");
    }
    one.says("the run is over; waiting for the next");
    assert!(one.text().contains("begins; this is worker"), "{}", one.text());

    // In a run, a daemon that stays away is the end of the load and of the worker.
    wait_for("both workers once more", idle);
    let started = daemon.ok(&["start", "pair", "-o", "json"]).json();
    let run = started["id"].as_str().unwrap();
    wait_for("load", || {
        (daemon.get(&format!("/api/v1/runs/{run}/live")).1["live"]["stage"] == "Running").then_some(())
    });
    let (mut one, mut two, mut daemon) = (one, two, daemon);
    daemon.kill();
    for worker in [&mut one, &mut two] {
        let status = wait_for("the worker to end", || worker.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(4), "{}", worker.text());
        assert!(
            worker.text().contains("ending the load and this worker"),
            "{}",
            worker.text()
        );
    }
}

/// A path's answer as it is.
fn text_of(daemon: &Daemon, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let address = daemon.server.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
