//! A network of a test's own, and a host beside it that two cables lead to. Needs root and iproute2.

use nix::sched::{CloneFlags, unshare};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The test's own addresses at the cables' ends.
pub const CONTROL: &str = "10.78.0.1";
pub const BUS: &str = "10.78.1.1";

/// The network namespace that is the other host; removed when dropped.
pub struct Host {
    name: String,
}

impl Host {
    /// Moves this thread, and whatever it starts from now on, into a network of its own with a host beside it.
    pub fn beside_this_thread() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make networks");
        let host = Self {
            name: format!("chaos{}", std::process::id()),
        };
        let name = &host.name;
        ip("link set lo up");
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        for (cable, here, there) in [("ctl", CONTROL, "10.78.0.2"), ("bus", BUS, "10.78.1.2")] {
            ip(&format!("link add {cable} type veth peer name {cable} netns {name}"));
            ip(&format!("address add {here}/24 dev {cable}"));
            ip(&format!("link set {cable} up"));
            ip(&format!("-n {name} address add {there}/24 dev {cable}"));
            ip(&format!("-n {name} link set {cable} up"));
        }
        host
    }

    /// Takes the host's end of the cable to Kafka down, or up again.
    pub fn cable_to_kafka(&self, state: &str) {
        ip(&format!("-n {} link set bus {state}", self.name));
    }

    /// Starts `muster ARGS` there, in this folder.
    pub fn muster(&self, folder: &Path, args: &[&str], log: std::fs::File) -> Child {
        let program = env!("CARGO_BIN_EXE_muster");
        Command::new("ip")
            .args(["netns", "exec", &self.name, program])
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

#[track_caller]
fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {text}");
}
