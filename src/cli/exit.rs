//! Exit codes: the one place that decides them (plan format, "The command line contract").

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked.
    Done,
    /// It could not: the error is on stderr.
    Failed,
    /// `diff --detailed-exitcode` found changes.
    Changes,
    /// A run ended; the code stands in its report, a function of the ending.
    Reported(u8),
    /// A run was not started: Blocked or Skipped.
    NotStarted,
    /// The plan or the settings are invalid.
    Invalid,
    /// Interrupted a second time.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Changes => 2,
            Self::Reported(code) => code,
            Self::NotStarted => 95,
            Self::Invalid => 104,
            Self::Interrupted => 105,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;
    use muster_core::model::run::{EndingKind, FailedReason};

    #[test]
    fn s55_codes_are_those_of_the_contract() {
        let table = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Changes, 2),
            (Exit::Reported(EndingKind::Failed(FailedReason::Verify).exit_code()), 99),
            (Exit::NotStarted, 95),
            (Exit::Invalid, 104),
            (Exit::Interrupted, 105),
        ];
        for (exit, code) in table {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }
}
