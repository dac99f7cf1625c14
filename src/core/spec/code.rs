//! The closed set of diagnostic codes. A code never changes its meaning; documents and searches refer to it.

use serde::{Serialize, Serializer};
use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal,)+) => {
        /// What is wrong, as a stable code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The number behind the `M`.
            pub fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)+
                }
            }

            /// One sentence about the code, for reference pages.
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

codes! {
    /// The file is not UTF-8.
    NotUtf8 = 101,
    /// The text is not YAML.
    Syntax = 102,
    /// A mapping has the same key twice.
    DuplicateKey = 103,
    /// `<<` is not part of YAML 1.2 and not read.
    MergeKey = 104,
    /// Aliases expand to more nodes than allowed, or to themselves.
    AliasBudget = 105,
    /// Nested deeper than allowed.
    TooDeep = 106,
    /// The file has more bytes than allowed.
    TooLarge = 107,
    /// The file has more documents than allowed.
    TooManyDocuments = 108,
    /// A key is not a string.
    KeyNotString = 109,
    /// A number is infinite, not a number, or beyond what can be held.
    BadNumber = 110,
    /// A tag (`!x`) other than those of YAML's core schema.
    UnknownTag = 111,
    /// A file of plans that is not read: a symbolic link, a submodule, an LFS pointer.
    RefusedFile = 112,
    /// No `apiVersion` on a kind of ours.
    MissingApiVersion = 201,
    /// A version of ours that this build does not read.
    WrongVersion = 202,
    /// A kind that does not exist.
    UnknownKind = 203,
    /// Two documents with the same identity.
    DuplicateResource = 204,
    /// `metadata.namespace` is not the project of the file's folder.
    NamespaceMismatch = 205,
    /// The project may not hold this kind.
    KindNotAllowed = 206,
    /// The file belongs to no project.
    NoProject = 207,
    /// The name is Muster's own.
    ReservedName = 208,
    /// A field that does not exist.
    UnknownField = 301,
    /// A field that must be there.
    MissingField = 302,
    /// A value of another type.
    WrongType = 303,
    /// A value that is not one of those allowed.
    UnknownValue = 304,
    /// A text that does not have the form it must have.
    BadFormat = 305,
    /// A text or number that is not a duration.
    BadDuration = 306,
    /// Too small, too large, too few, too many.
    OutOfRange = 307,
    /// Fields that exclude each other, or none of several.
    Conflict = 308,
    /// Two things of the same name.
    NotUnique = 309,
    /// A reference to something that is not there.
    UndefinedReference = 401,
    /// A reference to another project's resource that it does not share.
    NotShared = 402,
    /// A reference to a kind that cannot stand here.
    WrongReference = 403,
    /// A cycle of dependencies.
    Cycle = 404,
    /// A reference into a project that cannot be read.
    BrokenReference = 405,
    /// A port that the service does not have.
    UndefinedPort = 406,
    /// A variable that no data column and no earlier capture sets.
    UndefinedVariable = 407,
    /// A text with `{{…}}` or `${…}` that cannot be substituted.
    BadTemplate = 408,
    /// Not an expression of k6's threshold grammar.
    BadThreshold = 409,
    /// A metric that does not exist.
    UnknownMetric = 410,
    /// A statistic that the metric's type does not have.
    WrongStatistic = 411,
    /// A tag, or its value, that nothing in the plan carries.
    UndefinedTag = 412,
    /// A regular expression that does not compile.
    BadRegex = 413,
    /// Not a JSON pointer.
    BadPointer = 414,
    /// Not a URL that can be requested.
    BadUrl = 415,
    /// A plan whose phases make no load.
    NoLoad = 416,
    /// A topic that the KafkaCluster does not list.
    UndefinedTopic = 417,
    /// Results that travel over Kafka and have no database to go to.
    NoDatabase = 418,
    /// Nothing in the repository takes results from their topic to their database.
    NoIngest = 419,
    /// An environment whose provider cannot hold this kind.
    WrongEnvironment = 420,
    /// A topic whose results go to another database.
    TopicTaken = 421,
    /// Not a five-field cron expression.
    BadSchedule = 422,
    /// A schedule that never fires.
    NeverFires = 423,
    /// Not a time zone of the IANA database.
    UnknownZone = 424,
    /// A schedule or windows whose time zone nobody names.
    NoZone = 425,
    /// Windows that no run of the plan ever fits.
    NeverFits = 426,
    /// A pool starts workers later than load may need.
    ShortLeadTime = 427,
    /// A field that means nothing without a schedule.
    NoSchedule = 428,
    /// A file that is not in the repository.
    FileNotFound = 501,
    /// A path that leaves the repository.
    FileOutside = 502,
    /// A file that is not read: a symbolic link, a submodule, an LFS pointer, too large.
    FileRefused = 503,
    /// Not a CSV file with a header and at least one row.
    BadCsv = 504,
    /// A data file with fewer rows than workers that are to share them.
    TooFewRows = 505,
    /// The settings do not allow this target.
    TargetNotAllowed = 601,
    /// More than the settings' caps.
    CapExceeded = 602,
    /// The settings do not let plans run commands.
    ProcessDisabled = 603,
    /// The project may not use this secret.
    SecretNotAllowed = 604,
    /// More than the plan's own limits, or its pool or environment carries.
    LimitExceeded = 605,
    /// An address other than loopback without what makes it safe.
    UnsafeListen = 701,
    /// An override that names no setting.
    UnknownOverride = 702,
    /// Part of the plan format, but not supported by this build.
    Unsupported = 900,
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "M{:04}", self.number())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
