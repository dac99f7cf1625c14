//! Hooks: commands (promise 58) and requests (promise 60) around a run.

use super::{Lower, at};
use crate::model::load::Method;
use crate::model::plan::{FailurePolicy, Hook, HookAction, HookWhen};
use crate::spec::code::Code;
use crate::spec::wire::plan::{
    FailurePolicy as WireFailure, Hook as WireHook, HookMethod, HookWhen as WireWhen, HttpHook,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a hook may take where it does not say.
const TIMEOUT: Duration = Duration::from_secs(300);
/// What `${…}` stands for in hooks.
const KNOWN: [&str; 3] = ["RUN_ID", "PLAN", "REVISION"];
/// What it stands for beside those in hooks on workers.
const KNOWN_ON_WORKERS: [&str; 2] = ["WORKER_INDEX", "WORKER_COUNT"];

impl Lower<'_, '_> {
    /// Lowers all hooks; `joined`: the plan's workers are started by hand, on hosts of their own.
    pub(super) fn hooks(&mut self, wire: &[WireHook], joined: bool) -> Vec<Hook> {
        self.unique("/spec/hooks", "hook", wire.iter().map(|hook| hook.name.as_str()));
        let mut hooks = Vec::new();
        for (index, hook) in wire.iter().enumerate() {
            hooks.extend(self.hook(&at("/spec/hooks", index), hook, joined));
        }
        hooks
    }

    fn hook(&mut self, pointer: &str, wire: &WireHook, joined: bool) -> Option<Hook> {
        if !self.exactly_one(
            pointer,
            &[("command", wire.command.is_some()), ("http", wire.http.is_some())],
        ) {
            return None;
        }
        let mut known: BTreeSet<String> = KNOWN.into_iter().map(str::to_owned).collect();
        let on_workers = wire.on_workers.is_some();
        if on_workers {
            known.extend(KNOWN_ON_WORKERS.map(str::to_owned));
            if wire.command.is_none() || !matches!(wire.when, WireWhen::PreRun) {
                let text = "`onWorkers` belongs to a `command` with `when: PreRun`";
                self.error(&at(pointer, "onWorkers"), Code::Conflict, text);
            }
        }
        let action = match (&wire.command, &wire.http) {
            (Some(command), _) => {
                // Workers that come by themselves say themselves whether they run commands; all others are on the daemon's host.
                let elsewhere = on_workers && joined;
                if !(self.policy.process_enabled || elsewhere) {
                    self.process_disabled(&at(pointer, "command"));
                }
                self.command(pointer, wire, command, &known)
            }
            (None, Some(http)) => {
                if !wire.env.is_empty() {
                    self.error(&at(pointer, "env"), Code::Conflict, "`env` belongs to `command`");
                }
                self.http_hook(&at(pointer, "http"), http, &known)
            }
            (None, None) => return None,
        };
        Some(Hook {
            name: wire.name.clone(),
            when: match wire.when {
                WireWhen::PreRun => HookWhen::PreRun,
                WireWhen::Verify => HookWhen::Verify,
                WireWhen::PostRun => HookWhen::PostRun,
            },
            action,
            timeout: self.positive(&at(pointer, "timeout"), wire.timeout.as_ref(), TIMEOUT),
            failure_policy: match wire.failure_policy {
                Some(WireFailure::Ignore) => FailurePolicy::Ignore,
                Some(WireFailure::Fail) | None => FailurePolicy::Fail,
            },
            idempotent: wire.idempotent.unwrap_or(false),
        })
    }

    fn command(&mut self, pointer: &str, wire: &WireHook, command: &[String], known: &BTreeSet<String>) -> HookAction {
        let list = at(pointer, "command");
        for (index, argument) in command.iter().enumerate() {
            self.check_substitutions(&at(&list, index), argument, known);
        }
        let program = command.first().map(String::as_str).unwrap_or_default();
        let program_at = at(&list, 0);
        if program.trim().is_empty() {
            self.error(&program_at, Code::BadFormat, "the program's name is empty");
        }
        let own = program.starts_with("./") || program.starts_with("../");
        let script = own
            .then(|| self.file(&program_at, program))
            .flatten()
            .map(|file| (file.path, file.digest));
        let env = self.env(&at(pointer, "env"), &wire.env, known);
        HookAction::Command {
            command: command.to_vec(),
            env,
            script,
            on_workers: wire.on_workers.is_some(),
        }
    }

    fn http_hook(&mut self, pointer: &str, wire: &HttpHook, known: &BTreeSet<String>) -> HookAction {
        let url_at = at(pointer, "url");
        self.check_substitutions(&url_at, &wire.url, known);
        self.url(&url_at, &wire.url);
        let headers = at(pointer, "headers");
        for (name, value) in &wire.headers {
            self.header_name(&at(&headers, name), name, value);
        }
        if let Some(body) = &wire.body {
            self.check_substitutions(&at(pointer, "body"), body, known);
        }
        let secrets = at(pointer, "secretHeaders");
        self.unique(
            &secrets,
            "header",
            wire.secret_headers.iter().map(|header| header.name.as_str()),
        );
        let mut secret_headers = Vec::new();
        for (index, header) in wire.secret_headers.iter().enumerate() {
            let place = at(&secrets, index);
            self.header_name(&at(&place, "name"), &header.name, "");
            secret_headers.push((
                header.name.clone(),
                self.secret(&at(&place, "secretRef"), &header.secret_ref),
            ));
        }
        HookAction::Http {
            method: match wire.method {
                Some(HookMethod::Get) => Method::Get,
                Some(HookMethod::Put) => Method::Put,
                Some(HookMethod::Patch) => Method::Patch,
                Some(HookMethod::Delete) => Method::Delete,
                Some(HookMethod::Head) => Method::Head,
                Some(HookMethod::Options) => Method::Options,
                Some(HookMethod::Post) | None => Method::Post,
            },
            url: wire.url.clone(),
            headers: wire
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            secret_headers,
            body: wire.body.clone(),
        }
    }
}
