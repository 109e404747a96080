//! Real servers for tests, each on free loopback ports in a folder of its own, stopped by pid when dropped. A server that cannot
//! be had skips its tests by name, and fails them where `CI=true`.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "every test binary includes this module and uses a part of it"
)]

pub mod softhsm2;

pub mod artemis;
pub mod rabbitmq;

pub mod postgres;

use std::net::TcpListener;

/// Why a server cannot be had here.
#[derive(Debug)]
pub struct Missing(pub String);

/// The service, or `None` with a line that says what was skipped. With `CI=true` a missing service is a failure.
pub fn or_skip<T>(what: &str, service: Result<T, Missing>) -> Option<T> {
    match service {
        Ok(service) => Some(service),
        Err(Missing(why)) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("{what} is needed: {why}"),
        Err(Missing(why)) => {
            eprintln!("skipped: {what}: {why}");
            None
        }
    }
}

/// Ports of the loopback address that are free now. They are asked for together, so that they differ.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}
