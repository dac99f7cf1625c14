//! Wire messages to the fleet's types and back. What a worker sends is checked here; nothing of it is trusted.

use crate::bus::kafka::TopicAt;
use crate::bus::wire::{self, command, ended, from_owner, progress};
use crate::control::fleet::{EndedWhy, Hello, Order, Progress, StopMode, What, WorkerStatus};
use muster_core::model::id::{RunId, WorkerId};
use muster_core::model::key::Key;
use secrecy::ExposeSecret as _;
use std::net::IpAddr;

/// Longest text of a worker that is kept.
const TEXT_MAX: usize = 1_000;
/// Longest name of a machine, as Linux has it.
const HOST_MAX: usize = 64;

/// What a progress message says.
pub(super) enum News {
    Progress {
        run: RunId,
        number: u32,
        progress: Progress,
    },
    Released {
        run: RunId,
    },
}

/// `pool` finds the pool of a worker that asks for one in these words.
pub(super) fn hello(
    hello: wire::Hello,
    address: Option<IpAddr>,
    pool: impl FnOnce(WorkerId, &str) -> Result<Key, String>,
) -> Result<Hello, String> {
    if hello.protocol != wire::PROTOCOL {
        return Err(format!(
            "this daemon speaks protocol {}, the worker (version {}) {}",
            wire::PROTOCOL,
            text(hello.version),
            hello.protocol
        ));
    }
    let held = match (hello.held_run.as_str(), hello.held_session.as_str()) {
        ("", "") => None,
        (run, session) => Some((
            run.parse().map_err(|_| "the held run is not a UUID")?,
            session.parse().map_err(|_| "the held session is not a UUID")?,
        )),
    };
    let worker = hello.worker.parse().map_err(|_| "the worker's id is not a UUID")?;
    Ok(Hello {
        worker,
        unit: match hello.unit.as_str() {
            "" => None,
            unit => Some(unit.parse().map_err(|_| "the unit's name is none")?),
        },
        host: shown(hello.host, HOST_MAX),
        address,
        pool: pool(worker, &text(hello.pool))?,
        version: text(hello.version),
        threads: hello.threads,
        allows_commands: hello.allows_commands,
        held,
        epoch: hello.epoch,
    })
}

pub(super) fn welcome(epoch: u64, pool: &Key) -> wire::FromOwner {
    let pool = pool.to_string();
    owner(from_owner::What::Welcome(wire::Welcome { epoch, pool }))
}

pub(super) fn refused(reason: String) -> wire::FromOwner {
    owner(from_owner::What::Refused(wire::Refused { reason }))
}

pub(super) fn clock(epoch: u64, owner_us: u64) -> wire::FromOwner {
    owner(from_owner::What::Clock(wire::Clock { epoch, owner_us }))
}

pub(super) fn order(order: Order, epoch: u64) -> wire::FromOwner {
    let what = match order.what {
        What::Prepare(assignment) => command::What::Prepare(wire::Prepare {
            session: assignment.session.to_string(),
            index: assignment.segment.index,
            count: assignment.segment.count,
            plan: serde_json::to_vec(&assignment.load.plan)
                .expect("a load plan has only string keys and serialises")
                .into(),
            files: assignment.load.files.keys().cloned().collect(),
            seed: assignment.load.seed,
            orphan_timeout_ms: u64::try_from(assignment.load.orphan_timeout.as_millis()).unwrap_or(u64::MAX),
            kafka: assignment.load.bus.as_ref().map(TopicAt::to_wire),
        }),
        What::Arm { worker_us } => command::What::Arm(wire::Arm { worker_us }),
        What::Commit => command::What::Commit(wire::Commit {}),
        What::Advance { phase, worker_us } => command::What::Advance(wire::Advance { phase, worker_us }),
        What::Pause => command::What::Pause(wire::Pause {}),
        What::Resume => command::What::Resume(wire::Resume {}),
        What::Stop(mode) => command::What::Stop(wire::Stop {
            abort: mode == StopMode::Abort,
        }),
        What::Hook(hook) => command::What::Hook(wire::Hook {
            name: hook.name,
            command: hook.words,
            env: hook
                .env
                .into_iter()
                .map(|(name, value)| wire::Variable {
                    name,
                    value: value.expose_secret().to_owned(),
                })
                .collect(),
            script: hook.script.unwrap_or_default(),
            timeout_ms: u64::try_from(hook.timeout.as_millis()).unwrap_or(u64::MAX),
        }),
        What::Release => command::What::Release(wire::Release {}),
    };
    owner(from_owner::What::Command(wire::Command {
        run: order.run.to_string(),
        epoch,
        id: order.id,
        what: Some(what),
    }))
}

pub(super) fn status(status: &wire::Status) -> WorkerStatus {
    WorkerStatus {
        cpu: share(status.cpu),
        steal: share(status.steal),
        memory_bytes: status.memory_bytes,
        frames_made: status.frames_made,
        frames_acked: status.frames_acked,
        frames_spooled: status.frames_spooled,
        bytes_spooled: status.bytes_spooled,
        frames_dropped: status.frames_dropped,
    }
}

pub(super) fn progress(message: wire::Progress) -> Option<News> {
    let run = message.run.parse().ok()?;
    let progress = match message.what? {
        progress::What::Prepared(_) => Progress::Prepared,
        progress::What::Refused(refused) => Progress::Refused(text(refused.reason)),
        progress::What::Armed(_) => Progress::Armed,
        progress::What::Started(started) => Progress::Started {
            late_us: started.late_us,
        },
        progress::What::PhaseStarted(mark) => Progress::PhaseStarted(mark.phase),
        progress::What::PhaseEnded(mark) => Progress::PhaseEnded(mark.phase),
        progress::What::Waiting(mark) => Progress::Waiting(mark.phase),
        progress::What::Ended(ended) => Progress::Ended {
            why: match ended.why() {
                ended::Why::Unknown => return None,
                ended::Why::Finished => EndedWhy::Finished,
                ended::Why::Stopped => EndedWhy::Stopped,
                ended::Why::Orphaned => EndedWhy::Orphaned,
                ended::Why::Failed => EndedWhy::Failed(text(ended.reason)),
            },
            last_sequence: ended.last_sequence,
            dropped_frames: ended.dropped_frames,
        },
        progress::What::HookEnded(ended) => Progress::HookEnded {
            name: text(ended.name),
            result: if ended.succeeded {
                Ok(())
            } else {
                Err(text(ended.message))
            },
        },
        progress::What::Released(_) => return Some(News::Released { run }),
    };
    Some(News::Progress {
        run,
        number: message.number,
        progress,
    })
}

fn owner(what: from_owner::What) -> wire::FromOwner {
    wire::FromOwner { what: Some(what) }
}

fn share(value: f64) -> f64 {
    if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 }
}

fn text(text: String) -> String {
    shown(text, TEXT_MAX)
}

/// A text that tables, logs and terminals may show.
fn shown(mut text: String, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::{News, TEXT_MAX, progress, share, text};
    use crate::bus::wire::{self, progress::What};

    fn fine() -> wire::Hello {
        wire::Hello {
            protocol: wire::PROTOCOL,
            worker: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
            pool: "default/WorkerPool/local".to_owned(),
            ..wire::Hello::default()
        }
    }

    fn hello(hello: wire::Hello) -> Result<crate::control::fleet::Hello, String> {
        super::hello(hello, None, |_, pool| {
            pool.parse().map_err(|_| "the pool is none".to_owned())
        })
    }

    #[test]
    fn a_hello_that_says_nonsense_is_refused_with_the_reason() {
        assert!(hello(fine()).is_ok_and(|hello| hello.held.is_none() && hello.unit.is_none()));
        type Spoil = fn(&mut wire::Hello);
        let cases: [(Spoil, &str); 6] = [
            (|hello| hello.protocol += 1, "protocol"),
            (|hello| hello.worker.push('x'), "worker's id"),
            (|hello| hello.pool.clear(), "pool"),
            (|hello| hello.unit = "../etc".to_owned(), "unit"),
            (|hello| hello.held_run = "1".to_owned(), "held run"),
            (|hello| hello.held_run = fine().worker, "held session"),
        ];
        for (spoil, word) in cases {
            let mut bad = fine();
            spoil(&mut bad);
            let reason = hello(bad).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn numbers_and_texts_of_a_worker_are_bounded() {
        assert_eq!(
            [f64::NAN, f64::INFINITY, -1.0, 2.0, 0.5].map(share),
            [0.0, 0.0, 0.0, 1.0, 0.5]
        );
        let long = text("ü".repeat(TEXT_MAX));
        assert!(long.len() <= TEXT_MAX && long.chars().all(|char| char == 'ü'));
        assert_eq!(
            text("a\u{1b}[2J\nb".to_owned()),
            "a [2J b",
            "nothing moves a terminal's cursor"
        );
    }

    #[test]
    fn a_milestone_without_a_meaning_is_none() {
        let message = |run: &str, what| wire::Progress {
            run: run.to_owned(),
            number: 1,
            what,
        };
        let run = fine().worker;
        let prepared = Some(What::Prepared(wire::Prepared {}));
        assert!(matches!(
            progress(message(&run, prepared.clone())),
            Some(News::Progress { .. })
        ));
        assert!(progress(message("", prepared)).is_none());
        assert!(progress(message(&run, None)).is_none());
        let ended = wire::Ended {
            why: 99,
            ..wire::Ended::default()
        };
        assert!(progress(message(&run, Some(What::Ended(ended)))).is_none());
    }
}
