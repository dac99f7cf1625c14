//! Workers in tables and descriptions: one worker's numbers as texts, and the few lines that `watch` shows of all.

use super::output;
use super::text::{age, short_id, word};
use muster_core::base::humane::{count, milliseconds};
use serde_json::Value;

/// One cell of a table of workers; a dash where there is no number.
pub fn cell(worker: &Value, column: &str) -> String {
    let number = |name: &str| worker[name].as_f64();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    match column {
        "id" => short_id(&worker["id"]),
        "pool" => word(&worker["pool"]).replace("/WorkerPool/", "/"),
        "run" => short_id(&worker["run"]),
        "worker" => match worker["index"].as_u64() {
            Some(index) => format!("{index} {}", word(&worker["name"])),
            None => word(&worker["name"]),
        },
        "users" => or_dash(worker["vus"].as_u64().map(count)),
        "rate" => or_dash(number("iterationsPerS").map(|rate| format!("{rate:.0}/s"))),
        "cpu" | "steal" => or_dash(number(column).map(|share| format!("{:.0}%", share * 100.0))),
        "lag" => or_dash(number("lagMs").map(milliseconds)),
        "memory" => or_dash(worker["memoryBytes"].as_u64().map(|bytes| format!("{}Mi", bytes >> 20))),
        "clock" => or_dash(
            number("clockOffsetMs")
                .zip(number("clockErrorMs"))
                .map(|(offset, error)| format!("{offset:+.1}±{error:.1} ms")),
        ),
        "skew" => or_dash(number("startSkewMs").map(|skew| format!("{skew:+.1} ms"))),
        _ => word(&worker[column]),
    }
}

/// Everything of one worker, a line each.
pub fn describe(worker: &Value) -> Vec<(&'static str, String)> {
    let cell = |column| cell(worker, column);
    let commands = if worker["allowsCommands"] == true {
        "allowed"
    } else {
        "not allowed"
    };
    let since = age(&worker["joinedAt"], None);
    vec![
        ("Worker", word(&worker["id"])),
        ("Name", cell("name")),
        ("Pool", cell("pool")),
        ("State", word(&worker["state"])),
        ("Reason", word(&worker["reason"])),
        ("Lost at", word(&worker["lostAt"])),
        ("Run", word(&worker["run"])),
        ("Index", word(&worker["index"])),
        ("Host", word(&worker["host"])),
        ("Address", word(&worker["address"])),
        ("Version", word(&worker["version"])),
        ("Threads", word(&worker["threads"])),
        ("Commands", commands.to_owned()),
        ("Here for", since),
        ("Clock", cell("clock")),
        ("Start skew", cell("skew")),
        ("Users", cell("users")),
        ("Rate", cell("rate")),
        ("Lag p99", cell("lag")),
        ("Bad seconds", word(&worker["badSeconds"])),
        ("CPU", cell("cpu")),
        ("Steal", cell("steal")),
        ("Memory", cell("memory")),
        ("Frames sent", word(&worker["sent"])),
        ("  stored", word(&worker["acked"])),
        ("  spooled", word(&worker["spooled"])),
        ("  dropped", word(&worker["dropped"])),
    ]
}

/// The worst workers of a run as a small table with a line for all; nothing for a run of one worker.
pub fn worst(each: &Value) -> String {
    let Some(rows) = each["worst"].as_array() else {
        return String::new();
    };
    let columns = ["worker", "state", "users", "rate", "cpu", "lag", "spooled", "dropped"];
    let mut table: Vec<Vec<String>> = rows
        .iter()
        .map(|worker| columns.iter().map(|column| cell(worker, column)).collect())
        .collect();
    let sum = &each["sum"];
    let whole = |name: &str| {
        sum[name]
            .as_f64()
            .map_or_else(|| "-".to_owned(), |number| count(number as u64))
    };
    let all = sum["workers"].as_u64().unwrap_or_default();
    let shown = if all > rows.len() as u64 {
        format!("all {all}, the worst shown")
    } else {
        format!("all {all}")
    };
    table.push(vec![
        shown,
        String::new(),
        whole("vus"),
        format!("{}/s", whole("iterationsPerS")),
        String::new(),
        String::new(),
        whole("spooled"),
        whole("dropped"),
    ]);
    output::table(&columns, table)
}

#[cfg(test)]
mod tests {
    use super::{cell, worst};
    use serde_json::{Value, json};

    fn worker() -> Value {
        json!({"id": "0198c0de-0000-7000-8000-00000000abcd", "index": 3, "name": "host-b", "pool": "default/WorkerPool/far",
            "state": "Running", "vus": 1200, "iterationsPerS": 99.7, "cpu": 0.423, "lagMs": 1.25, "memoryBytes": 64 << 20,
            "clockOffsetMs": -12.34, "clockErrorMs": 0.25, "startSkewMs": 0.41, "spooled": 2, "dropped": 0})
    }

    #[test]
    fn a_workers_numbers_are_short_and_absent_ones_a_dash() {
        for (column, text) in [
            ("id", "00000000abcd"),
            ("worker", "3 host-b"),
            ("pool", "default/far"),
            ("rate", "100/s"),
            ("cpu", "42%"),
            ("memory", "64Mi"),
            ("clock", "-12.3±0.2 ms"),
            ("skew", "+0.4 ms"),
            ("spooled", "2"),
        ] {
            assert_eq!(cell(&worker(), column), text);
            assert_eq!(cell(&json!({}), column), "-");
        }
    }

    #[test]
    fn the_worst_are_followed_by_the_sum_of_all() {
        let each = json!({"worst": [worker(), {"index": 7, "state": "Lost"}],
            "sum": {"workers": 12, "vus": 14400.0, "iterationsPerS": 1196.4, "spooled": 2.0, "dropped": 0.0}});
        let text = worst(&each);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].trim().starts_with("3 host-b") && lines[2].contains("Lost"),
            "{text}"
        );
        assert!(
            lines[3].contains("all 12, the worst shown") && lines[3].contains("1,196/s"),
            "{text}"
        );
        assert_eq!(worst(&Value::Null), "");
    }
}
