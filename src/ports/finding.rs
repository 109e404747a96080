//! What an examination of the set-up found: the lines of `db check`, `broker check`, `keys test` and `doctor`.

use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// As it should be.
    Good,
    /// Works, but not for production, or not for long.
    Warning,
    /// The worker must not, or cannot, serve like this.
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was looked at, such as `postgres: synchronous_commit`.
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// What to do about it; empty if nothing.
    pub advice: String,
}

impl Finding {
    /// All is well.
    pub fn good(subject: impl Into<String>, found: impl fmt::Display) -> Self {
        Self { subject: subject.into(), severity: Severity::Good, found: found.to_string(), advice: String::new() }
    }

    /// Not for production.
    pub fn warning(subject: impl Into<String>, found: impl fmt::Display, advice: impl Into<String>) -> Self {
        let (found, advice) = (found.to_string(), advice.into());
        Self { subject: subject.into(), severity: Severity::Warning, found, advice }
    }

    /// Several findings in one line, for logs and errors.
    pub fn one_line(findings: &[Self]) -> String {
        let text = |finding: &Self| match finding.advice.as_str() {
            "" => format!("{}: {}", finding.subject, finding.found),
            advice => format!("{}: {} ({advice})", finding.subject, finding.found),
        };
        findings.iter().map(text).collect::<Vec<_>>().join("; ")
    }

    /// Not to be served from.
    pub fn fault(subject: impl Into<String>, found: impl fmt::Display, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Fault, ..Self::warning(subject, found, advice) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.severity {
            Severity::Good => "ok   ",
            Severity::Warning => "warn ",
            Severity::Fault => "FAULT",
        };
        write!(f, "{mark}  {}: {}", self.subject, self.found)?;
        match self.advice.as_str() {
            "" => Ok(()),
            advice => write!(f, "\n       do: {advice}"),
        }
    }
}
