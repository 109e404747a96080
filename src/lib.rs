//! A notary worker for Corda-style ledgers. It answers one question, for ever: has any of these states been spent before?
//!
//! In reading order, which is also the order in which a request passes:

// The rules, pure: no I/O, no clock, no randomness, no runtime.
pub mod domain;
// What the rules need from outside, as traits.
pub mod ports;
// Brokers, from which requests come: adapters of the request queue port.
pub mod broker;
// Bytes to domain and back: session messages, payloads and replies as Corda serializes them.
pub mod wire;
// The three stages of a request as pure machines.
pub mod stages;
// The stages as bounded actix actors.
pub mod actors;
// TLS towards brokers and databases.
pub mod tls;
// Stores: adapters of the uniqueness port.
pub mod sql;
// Private keys in memory and in files.
pub mod keys;
// Holders of the service key: adapters of the signer port.
pub mod hsm;
// Who takes part: network material, and development networks.
pub mod network;
// Figures and logs.
pub mod observe;
// Every setting: defaults, units, bounds; the only reader of files and environment.
pub mod config;
// The only place where ports meet adapters.
pub mod worker;
// The other side: Corda-style clients for the demo, the benchmarks and the tests.
pub mod client;
// The verbs of the command line.
pub mod commands;
