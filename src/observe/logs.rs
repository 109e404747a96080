//! Logs. What comes from peers is cleaned and capped before it reaches a log line.

use std::borrow::Cow;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Directs logs to standard error, as text or as one JSON object a line. A second call changes nothing.
///
/// # Errors
/// If `directives` are no log filter.
pub fn init(directives: &str, json: bool) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(directives)?;
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    // Another subscriber is in place already: a test's, or that of an earlier worker in this process.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
    Ok(())
}

/// The longest text from a peer that a log line shows, in characters.
const FIELD_CHARS_MAX: usize = 300;

/// `text` without control characters (no log injection, no terminal escapes), cut after 300 characters.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.len() <= FIELD_CHARS_MAX && !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut cleaned: String =
        text.chars().take(FIELD_CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(FIELD_CHARS_MAX).is_some() {
        cleaned.push('…');
    }
    Cow::Owned(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_length_are_tamed() {
        assert_eq!(clean("plain"), "plain");
        assert_eq!(clean("a\x1b[2J\nb"), "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(clean(&"x".repeat(10_000)).chars().count(), FIELD_CHARS_MAX + 1);
    }
}
