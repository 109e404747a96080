//! Points at which tests break the worker on purpose (FAULTS section 2). They exist in builds with debug assertions only: in a
//! release build every function here is empty.
//!
//! `NOTARY_FAULTS` lists faults, separated by `;`: `POINT=ACTION[@N]`, where the action happens the N-th time (the first, by
//! default) that a delivery passes the point. Actions: `kill` (SIGKILL), `stop` (SIGSTOP), `panic`, `delay:MS` (every time from the
//! N-th on), `gather:COUNT` (deliveries pass by so many at once). `inspect=panic:TEXT` panics on every message that holds TEXT. `actor=hang` makes the flow actor hang at a delivery.
//!
//! Points, in the order of a delivery's way: `inspect`, `before_commit`, `committed`, `before_sign`, `signed`, `before_publish`,
//! `published`, `before_ack`.

#[cfg(debug_assertions)]
mod armed {
    use std::process::Command;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tokio::sync::Barrier;

    struct Fault {
        point: String,
        action: String,
        from: u64,
        passed: AtomicU64,
        gathering: OnceLock<Barrier>,
    }

    fn faults() -> &'static [Fault] {
        static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();
        FAULTS.get_or_init(|| {
            let text = std::env::var("NOTARY_FAULTS").unwrap_or_default();
            let parse = |fault: &str| {
                let (point, rest) = fault.split_once('=').expect("NOTARY_FAULTS: POINT=ACTION");
                let (action, from) = rest.rsplit_once('@').unwrap_or((rest, "1"));
                let from = from.parse().expect("NOTARY_FAULTS: @NUMBER");
                let (passed, gathering) = (AtomicU64::new(0), OnceLock::new());
                Fault { point: point.into(), action: action.into(), from, passed, gathering }
            };
            text.split(';').filter(|fault| !fault.is_empty()).map(parse).collect()
        })
    }

    pub(super) async fn point(point: &str) {
        for fault in faults().iter().filter(|fault| fault.point == point) {
            let passed = fault.passed.fetch_add(1, Ordering::SeqCst) + 1;
            match fault.action.split_once(':') {
                Some(("delay", ms)) if passed >= fault.from => {
                    let ms = ms.parse().expect("NOTARY_FAULTS: delay:MILLISECONDS");
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                }
                Some(("gather", count)) => {
                    let count = count.parse().expect("NOTARY_FAULTS: gather:COUNT");
                    fault.gathering.get_or_init(|| Barrier::new(count)).wait().await;
                }
                None if passed == fault.from => act(&fault.action, point),
                _ => {}
            }
        }
    }

    fn act(action: &str, point: &str) {
        let signal = match action {
            "kill" => "-KILL",
            "stop" => "-STOP",
            "panic" => panic!("asked to panic at {point}"),
            other => panic!("NOTARY_FAULTS: no action {other}"),
        };
        let own = std::process::id().to_string();
        // `kill` of ourselves: the signal arrives before or while we wait for it.
        let _ = Command::new("kill").args([signal, &own]).status();
    }

    pub(super) fn handling() {
        for fault in faults().iter().filter(|fault| fault.point == "actor") {
            assert_eq!(fault.action, "hang", "NOTARY_FAULTS: actor=hang");
            if fault.passed.fetch_add(1, Ordering::SeqCst) + 1 == fault.from {
                loop {
                    std::thread::park();
                }
            }
        }
    }

    pub(super) fn inspecting(message: &[u8]) {
        for fault in faults().iter().filter(|fault| fault.point == "inspect") {
            let text = fault.action.strip_prefix("panic:").expect("NOTARY_FAULTS: inspect=panic:TEXT");
            let held = message.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(!held, "asked to panic on a message with {text}");
        }
    }
}

/// A delivery passes a point.
#[cfg_attr(not(debug_assertions), expect(clippy::unused_async, reason = "asynchronous where faults exist"))]
pub(super) async fn point(point: &'static str) {
    #[cfg(debug_assertions)]
    armed::point(point).await;
    #[cfg(not(debug_assertions))]
    let _ = point;
}

/// The flow actor handles a delivery, on its arbiter.
pub(super) fn handling() {
    #[cfg(debug_assertions)]
    armed::handling();
}

/// A message is about to be inspected.
pub(super) fn inspecting(message: &[u8]) {
    #[cfg(debug_assertions)]
    armed::inspecting(message);
    #[cfg(not(debug_assertions))]
    let _ = message;
}
