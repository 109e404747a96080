//! Moments, durations and time windows.

use core::time::Duration;

use super::amqp::{View, Writer};
use super::error::WireError;
use super::types::Type;
use crate::domain::{TimeWindow, Timestamp};

const INSTANT: &str = "java.time.Instant";
const DURATION: &str = "java.time.Duration";

/// Reads an `Instant`. Java would carry nanoseconds beyond a second over; no sender writes such, so they are refused.
pub(super) fn read_instant(view: View<'_, '_>) -> Result<Timestamp, WireError> {
    let [seconds, nanos] = view.custom(INSTANT)?.exactly(view)?;
    let (seconds, nanos) = (seconds.long()?, nanos.int()?);
    let instant = u32::try_from(nanos).ok().and_then(|nanos| Timestamp::new(seconds, nanos));
    instant.map_or_else(|| view.refuse("a moment is out of range"), Ok)
}

/// Reads a `Duration`, which must not be negative.
pub(super) fn read_duration(view: View<'_, '_>) -> Result<Duration, WireError> {
    let [nanos, seconds] = view.custom(DURATION)?.exactly(view)?;
    match (u64::try_from(seconds.long()?), u32::try_from(nanos.int()?)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => view.refuse("a duration is out of range"),
    }
}

/// Reads a time window of one of its three classes.
pub(super) fn read_time_window(view: View<'_, '_>) -> Result<TimeWindow, WireError> {
    let Some(object) = view.as_object() else { return view.wrong_type(Type::TimeWindow.name()) };
    let from = || read_instant(object.field("fromTime")?);
    let until = || read_instant(object.field("untilTime")?);
    if view.is(Type::TimeWindowBetween) {
        let (from, until) = (from()?, until()?);
        if from >= until {
            return view.refuse("a time window ends before it begins");
        }
        Ok(TimeWindow::Between { from, until })
    } else if view.is(Type::TimeWindowFrom) {
        Ok(TimeWindow::From(from()?))
    } else if view.is(Type::TimeWindowUntil) {
        Ok(TimeWindow::Until(until()?))
    } else {
        view.wrong_type(Type::TimeWindow.name())
    }
}

pub(super) fn write_instant(w: &mut Writer, instant: Timestamp) {
    w.custom_list(INSTANT, |w| {
        w.long(instant.seconds());
        w.int(instant.nanos() as i32);
    });
}

/// Writes a duration; one beyond Java's longest becomes that.
pub(super) fn write_duration(w: &mut Writer, duration: Duration) {
    w.custom_list(DURATION, |w| {
        w.int(duration.subsec_nanos() as i32);
        w.long(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
    });
}

pub(super) fn write_time_window(w: &mut Writer, window: &TimeWindow) {
    match *window {
        TimeWindow::Between { from, until } => w.composite(Type::TimeWindowBetween, |w| {
            write_instant(w, from);
            write_instant(w, until);
        }),
        TimeWindow::From(from) => w.composite(Type::TimeWindowFrom, |w| write_instant(w, from)),
        TimeWindow::Until(until) => w.composite(Type::TimeWindowUntil, |w| write_instant(w, until)),
    }
}

/// A moment as Java's `Instant.toString` writes it: its fraction has 0, 3, 6 or 9 digits.
pub(super) fn java_instant(instant: Timestamp) -> String {
    let text = instant.to_string();
    match text.strip_suffix('Z').and_then(|text| text.split_once('.')) {
        Some((whole, fraction)) => format!("{whole}.{fraction:0<width$}Z", width = fraction.len().next_multiple_of(3)),
        None => text,
    }
}

/// A time window as Corda writes it for people.
pub(super) fn corda_time_window(window: &TimeWindow) -> String {
    match *window {
        TimeWindow::Between { from, until } => format!("[{}, {})", java_instant(from), java_instant(until)),
        TimeWindow::From(from) => format!("[{}, ∞)", java_instant(from)),
        TimeWindow::Until(until) => format!("(∞, {})", java_instant(until)),
    }
}
