//! What is a schedule, against the published behaviour of Vixie cron and of Kubernetes (robfig/cron v3).

use crate::model::cron::{Cron, CronError, Field, ItemProblem};
use jiff::civil::{DateTime, date};

/// Dates of 2026 that match, at the first match of each day: `M-D H:M`.
fn days(cron: &str, from: DateTime, count: usize) -> Vec<String> {
    let cron = Cron::parse(cron).unwrap_or_else(|error| panic!("{cron}: {error}"));
    let mut from = from;
    let mut found = Vec::new();
    while found.len() < count {
        let next = cron.next_civil(from).expect("it fires again");
        found.push(next.strftime("%m-%d %H:%M").to_string());
        from = next.checked_add(jiff::Span::new().minutes(1)).expect("in range");
    }
    found
}

fn new_year() -> DateTime {
    date(2026, 1, 1).at(0, 0, 0, 0)
}

/// Expressions that Vixie cron and Kubernetes read alike. 1 January 2026 is a Thursday.
#[test]
fn s30_what_both_read_alike() {
    for (cron, expected) in [
        ("30 2 * * *", ["01-01 02:30", "01-02 02:30", "01-03 02:30"]),
        ("0 0 1 * *", ["01-01 00:00", "02-01 00:00", "03-01 00:00"]),
        ("*/15 * * * *", ["01-01 00:00", "01-01 00:15", "01-01 00:30"]),
        ("0 */6 * * *", ["01-01 00:00", "01-01 06:00", "01-01 12:00"]),
        ("5-59/20 8 * * *", ["01-01 08:05", "01-01 08:25", "01-01 08:45"]),
        ("0 9-17/4 * * 1-5", ["01-01 09:00", "01-01 13:00", "01-01 17:00"]),
        ("0 0 * * 0", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("0 0 * * sun", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("0 0 * * MON-Fri", ["01-01 00:00", "01-02 00:00", "01-05 00:00"]),
        ("0 0 * * TUE,THU", ["01-01 00:00", "01-06 00:00", "01-08 00:00"]),
        ("0 0 1 JAN,jul *", ["01-01 00:00", "07-01 00:00", "01-01 00:00"]),
        ("0 0 1 feb-APR *", ["02-01 00:00", "03-01 00:00", "04-01 00:00"]),
        ("0 0 13 * 5", ["01-02 00:00", "01-09 00:00", "01-13 00:00"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
        ("0 0 31 * *", ["01-31 00:00", "03-31 00:00", "05-31 00:00"]),
        ("00 007 1 01 *", ["01-01 07:00", "01-01 07:00", "01-01 07:00"]),
        ("  0\t4  *   * *  ", ["01-01 04:00", "01-02 04:00", "01-03 04:00"]),
        ("@yearly", ["01-01 00:00", "01-01 00:00", "01-01 00:00"]),
        ("@annually", ["01-01 00:00", "01-01 00:00", "01-01 00:00"]),
        ("@monthly", ["01-01 00:00", "02-01 00:00", "03-01 00:00"]),
        ("@weekly", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("@daily", ["01-01 00:00", "01-02 00:00", "01-03 00:00"]),
        ("@midnight", ["01-01 00:00", "01-02 00:00", "01-03 00:00"]),
        ("@hourly", ["01-01 00:00", "01-01 01:00", "01-01 02:00"]),
    ] {
        assert_eq!(days(cron, new_year(), 3), expected, "{cron}");
    }
}

/// Where they differ, Vixie cron is followed.
#[test]
fn s30_where_they_differ_it_is_vixies() {
    // Kubernetes refuses 7.
    assert_eq!(days("0 0 * * 7", new_year(), 2), ["01-04 00:00", "01-11 00:00"]);
    assert_eq!(
        days("0 0 * * 5-7", new_year(), 3),
        ["01-02 00:00", "01-03 00:00", "01-04 00:00"]
    );
    // A day field that begins with a star does not widen the other one: odd days that are Mondays. Kubernetes: odd days, and Mondays.
    assert_eq!(
        days("0 0 */2 * 1", new_year(), 3),
        ["01-05 00:00", "01-19 00:00", "02-09 00:00"]
    );
    assert_eq!(
        days("0 0 1-7 * */3", new_year(), 3),
        ["01-03 00:00", "01-04 00:00", "01-07 00:00"]
    );
    assert_eq!(
        days("0 0 */10 * */2", new_year(), 3),
        ["01-01 00:00", "01-11 00:00", "01-31 00:00"]
    );
    // A list that only holds such a step later is an ordinary list.
    assert_eq!(
        days("0 0 2,*/20 * 6", new_year(), 3),
        ["01-01 00:00", "01-02 00:00", "01-03 00:00"]
    );
}

/// `L`, `W` and `#`, which neither has.
#[test]
fn s30_last_days_nearest_weekdays_and_nth_days() {
    for (cron, expected) in [
        ("0 0 L * *", ["01-31 00:00", "02-28 00:00", "03-31 00:00"]),
        ("0 0 lw * *", ["01-30 00:00", "02-27 00:00", "03-31 00:00"]),
        ("0 0 15W * *", ["01-15 00:00", "02-16 00:00", "03-16 00:00"]),
        // Never into another month.
        ("0 0 1W * *", ["01-01 00:00", "02-02 00:00", "03-02 00:00"]),
        ("0 0 31W * *", ["01-30 00:00", "03-31 00:00", "05-29 00:00"]),
        ("0 0 1,15W,L * *", ["01-01 00:00", "01-15 00:00", "01-31 00:00"]),
        ("30 2 * * 6#1", ["01-03 02:30", "02-07 02:30", "03-07 02:30"]),
        ("30 2 * * sat#5", ["01-31 02:30", "05-30 02:30", "08-29 02:30"]),
        ("0 0 * * 5L", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 0 * * FRIL", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 0 * * 7L", ["01-25 00:00", "02-22 00:00", "03-29 00:00"]),
        ("0 0 * * 7#2", ["01-11 00:00", "02-08 00:00", "03-08 00:00"]),
        ("0 0 * * 1#1,3#3", ["01-05 00:00", "01-21 00:00", "02-02 00:00"]),
        ("0 0 * * FRI-SUN", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
    ] {
        assert_eq!(days(cron, new_year(), 3), expected, "{cron}");
    }
}

#[test]
fn s31_what_is_no_schedule_is_told_with_a_way_to_mend_it() {
    for (cron, message, hint) in [
        (
            "",
            "a schedule has five fields, this one has 0",
            "minute, hour, day of month, month, day of week; for example `30 2 * * 6#1`",
        ),
        (
            "* * * *",
            "a schedule has five fields, this one has 4",
            "minute, hour, day of month, month, day of week; for example `30 2 * * 6#1`",
        ),
        (
            "0 30 2 * * *",
            "a schedule has five fields, this one has 6",
            "there are no fields for seconds and years: minute, hour, day of month, month, day of week",
        ),
        (
            "0 30 2 * * * 2026",
            "a schedule has five fields, this one has 7",
            "there are no fields for seconds and years: minute, hour, day of month, month, day of week",
        ),
        (
            "TZ=Asia/Shanghai 0 0 * * *",
            "a schedule does not hold its time zone",
            "write it as `timeZone`",
        ),
        (
            "CRON_TZ=UTC 0 0 * * *",
            "a schedule does not hold its time zone",
            "write it as `timeZone`",
        ),
        (
            "@every 1h",
            "`@every 1h` is not a schedule",
            "write a step, for example `*/30 * * * *` or `0 */6 * * *`",
        ),
        (
            "@reboot",
            "`@reboot` is not a schedule",
            "write five fields, for example `30 2 * * 6#1`",
        ),
        ("@Daily", "`@Daily` is not a schedule", "write `@daily`"),
        (
            "60 * * * *",
            "`60` in field minute: must be 0 to 59",
            "write 0 to 59, for example `0`, `0,30`, `*/15`",
        ),
        (
            "0 24 * * *",
            "`24` in field hour: must be 0 to 23",
            "write 0 to 23, for example `2`, `9-17`, `*/6`",
        ),
        (
            "0 0 0 * *",
            "`0` in field day of month: must be 1 to 31",
            "write 1 to 31, `L` for the last day, `15W` for the weekday nearest to the 15th, or `LW`",
        ),
        (
            "0 0 32W * *",
            "`32W` in field day of month: must be 1 to 31",
            "write 1 to 31, `L` for the last day, `15W` for the weekday nearest to the 15th, or `LW`",
        ),
        (
            "0 0 L-3 * *",
            "`L-3` in field day of month: not a value of this field",
            "write 1 to 31, `L` for the last day, `15W` for the weekday nearest to the 15th, or `LW`",
        ),
        (
            "0 0 1 13 *",
            "`13` in field month: must be 1 to 12",
            "write 1 to 12 or JAN to DEC",
        ),
        (
            "0 0 1 SEPT *",
            "`SEPT` in field month: not a value of this field",
            "write 1 to 12 or JAN to DEC",
        ),
        (
            "0 0 * * 8",
            "`8` in field day of week: must be 0 to 7",
            "write 0 to 7 (0 and 7 are Sunday) or SUN to SAT, `6#1` for the first Saturday, `5L` for the last Friday",
        ),
        (
            "0 0 * * JAN",
            "`JAN` in field day of week: not a value of this field",
            "write 0 to 7 (0 and 7 are Sunday) or SUN to SAT, `6#1` for the first Saturday, `5L` for the last Friday",
        ),
        (
            "1,,2 * * * *",
            "`` in field minute: an entry of a list is empty",
            "take the comma away, or write the value",
        ),
        (
            "1, * * * *",
            "`` in field minute: an entry of a list is empty",
            "take the comma away, or write the value",
        ),
        (
            "*,5 * * * *",
            "`*` in field minute: a `*` stands alone",
            "write `*` alone, or the values without it",
        ),
        ("0 0 ? * 1", "`?` in field day of month: `?` is not cron's", "write `*`"),
        (
            "0 22-2 * * *",
            "`22-2` in field hour: the range runs backwards",
            "write `22-23,0-2`",
        ),
        (
            "0 0 * * 5-1",
            "`5-1` in field day of week: the range runs backwards",
            "write `5-6,0-1`",
        ),
        (
            "0 22-2/2 * * *",
            "`22-2/2` in field hour: the range runs backwards",
            "write `22-23,0-2`",
        ),
        (
            "5/10 * * * *",
            "`5/10` in field minute: a step needs a range or a `*`",
            "write `5-59/10`, or `5` alone",
        ),
        (
            "*/0 * * * *",
            "`*/0` in field minute: a step is at least 1",
            "write `*`, or a step of 1 or more",
        ),
        (
            "*/60 * * * *",
            "`*/60` in field minute: the step is longer than the range",
            "only the first value is ever met: write `0`",
        ),
        (
            "0 9-11/3 * * *",
            "`9-11/3` in field hour: the step is longer than the range",
            "only the first value is ever met: write `9`",
        ),
        (
            "0 0 */31 * *",
            "`*/31` in field day of month: the step is longer than the range",
            "only the first value is ever met: write `1`",
        ),
        (
            "0 0 * * */7",
            "`*/7` in field day of week: the step is longer than the range",
            "only the first value is ever met: write `0`",
        ),
        (
            "*/a * * * *",
            "`*/a` in field minute: not a value of this field",
            "write 0 to 59, for example `0`, `0,30`, `*/15`",
        ),
        (
            "-5 * * * *",
            "`-5` in field minute: not a value of this field",
            "write 0 to 59, for example `0`, `0,30`, `*/15`",
        ),
        (
            "+5 * * * *",
            "`+5` in field minute: not a value of this field",
            "write 0 to 59, for example `0`, `0,30`, `*/15`",
        ),
        (
            "5- * * * *",
            "`5-` in field minute: not a value of this field",
            "write 0 to 59, for example `0`, `0,30`, `*/15`",
        ),
        (
            "0 0 * * L",
            "`L` in field day of week: `L` needs a day of the week",
            "write for example `5L`: the last Friday of the month",
        ),
        (
            "0 0 L,LW * *",
            "`L,LW` in field day of month: `L` and `LW` do not go together",
            "write one of them",
        ),
        (
            "0 0 * * 6#6",
            "`6#6` in field day of week: the number after `#` is 1 to 5",
            "write for example `6#1`: the first Saturday of the month",
        ),
        (
            "0 0 * * 6#L",
            "`6#L` in field day of week: the number after `#` is 1 to 5",
            "write for example `6#1`: the first Saturday of the month",
        ),
        (
            "0 0 31 2 *",
            "the schedule never fires: no year has such a day",
            "look at day of month and month; `L` is the last day of every month",
        ),
        (
            "0 0 31 4,6,9,11 *",
            "the schedule never fires: no year has such a day",
            "look at day of month and month; `L` is the last day of every month",
        ),
        (
            "0 0 30W 2 *",
            "the schedule never fires: no year has such a day",
            "look at day of month and month; `L` is the last day of every month",
        ),
        (
            "０ 0 * * *",
            "`０` in field minute: not a value of this field",
            "write 0 to 59, for example `0`, `0,30`, `*/15`",
        ),
        (
            "0 0 1 ſep *",
            "`ſep` in field month: not a value of this field",
            "write 1 to 12 or JAN to DEC",
        ),
    ] {
        let error = Cron::parse(cron).expect_err(cron);
        assert_eq!(
            (error.to_string().as_str(), error.hint().as_str()),
            (message, hint),
            "{cron}"
        );
    }
    assert_eq!(Cron::parse(&"0,".repeat(400)), Err(CronError::TooLong));
    assert!(!CronError::TooLong.hint().is_empty());
    assert!(!CronError::Refused(String::new()).hint().is_empty());
    let out = CronError::Item {
        field: Field::Hour,
        item: "99999999999999999999".to_owned(),
        problem: ItemProblem::OutOfRange(0, 23),
    };
    assert_eq!(Cron::parse("0 99999999999999999999 * * *"), Err(out));
}

#[test]
fn the_longest_list_fits() {
    let list: Vec<String> = (0..60).map(|minute| minute.to_string()).collect();
    assert!(Cron::parse(&format!("{} * * * *", list.join(","))).is_ok());
}

#[test]
fn a_schedule_is_its_text() {
    let cron = Cron::parse(" 30 2 * * SAT#1 ").expect("parses");
    assert_eq!(cron.as_str(), "30 2 * * SAT#1");
    assert_eq!(cron.to_string(), "30 2 * * SAT#1");
    assert_eq!(format!("{cron:?}"), "Cron(30 2 * * SAT#1)");
    let json = serde_json::to_string(&cron).expect("text");
    assert_eq!(json, "\"30 2 * * SAT#1\"");
    assert_eq!(serde_json::from_str::<Cron>(&json).expect("reads back"), cron);
    assert!(serde_json::from_str::<Cron>("\"30 2 * *\"").is_err());
    assert!(cron < Cron::parse("31 2 * * *").expect("parses"));
    assert_ne!(cron, Cron::parse("30 2 * * 6#1").expect("parses"));
}

#[test]
fn s30_what_follows_elapsed_time() {
    for (cron, elapsed) in [
        ("30 2 * * *", false),
        ("0,30 1-3 * * *", false),
        ("0 2 */2 * *", false),
        ("* 2 * * *", true),
        ("30 * * * *", true),
        ("*/5 2 * * *", true),
        ("0 */2 * * *", true),
        ("0-30/10 2 * * *", true),
        ("@daily", false),
        ("@hourly", true),
    ] {
        assert_eq!(Cron::parse(cron).expect(cron).follows_elapsed_time(), elapsed, "{cron}");
    }
}
