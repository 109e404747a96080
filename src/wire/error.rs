//! Why bytes are not a message that this worker understands, and where.

use core::fmt;

/// Bytes that are refused: what is wrong, and at which offset of the (decompressed) message.
#[derive(Clone, PartialEq, Eq)]
pub struct WireError(Box<Detail>);

#[derive(Clone, PartialEq, Eq)]
struct Detail {
    fault: Fault,
    offset: usize,
    part: Option<String>,
}

/// What is wrong with the bytes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Not Corda's AMQP serialization, version 1.0.
    #[error("serialization scheme not supported")]
    UnsupportedScheme,
    /// A compression that is not accepted, or compressed data that does not decompress.
    #[error("compression: {0}")]
    Compression(&'static str),
    /// More than a limit allows.
    #[error("more than {limit} {what}")]
    LimitExceeded {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// The message ends too early.
    #[error("the message ends too early")]
    Truncated,
    /// Bytes follow the message.
    #[error("bytes follow the message")]
    Trailing,
    /// Not AMQP, or AMQP of a form that Corda never writes.
    #[error("{0}")]
    Malformed(&'static str),
    /// A value has a type that neither the message nor this worker describes.
    #[error("no type is described for {0}")]
    UnknownType(String),
    /// A value has another type than the one needed here.
    #[error("{expected} expected, {found} found")]
    WrongType {
        /// The type needed.
        expected: &'static str,
        /// The type found.
        found: String,
    },
    /// A value that cannot be left out is missing or null.
    #[error("{type_name} lacks {field}")]
    MissingField {
        /// The type that lacks it.
        type_name: String,
        /// The field.
        field: &'static str,
    },
    /// Well-formed, but a value that is refused.
    #[error("{0}")]
    Refused(String),
}

impl Fault {
    pub(super) fn limit(what: &'static str, limit: u64) -> Self {
        Self::LimitExceeded { what, limit }
    }
}

impl WireError {
    #[cold]
    pub(super) fn new(fault: Fault, offset: usize) -> Self {
        Self(Box::new(Detail { fault, offset, part: None }))
    }

    /// Says that the error lies in a message nested in another; offsets count from the nested one's start.
    #[cold]
    pub(super) fn inside(mut self, part: impl fmt::Display) -> Self {
        self.0.part = Some(match self.0.part.take() {
            None => part.to_string(),
            Some(inner) => format!("{inner} in {part}"),
        });
        self
    }

    /// What is wrong.
    pub fn fault(&self) -> &Fault {
        &self.0.fault
    }

    /// Where, in bytes from the start of the message, or of the nested message that [`Self::part`] names.
    pub fn offset(&self) -> usize {
        self.0.offset
    }

    /// The nested message in which the error lies, if it is not the outer one.
    pub fn part(&self) -> Option<&str> {
        self.0.part.as_deref()
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {}", self.0.fault, self.0.offset)?;
        match &self.0.part {
            Some(part) => write!(f, " of {part})"),
            None => f.write_str(")"),
        }
    }
}

impl fmt::Debug for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireError({self})")
    }
}

impl core::error::Error for WireError {}
