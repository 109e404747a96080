//! Histories: what a test saw of a notary, and whether the notary kept its promises.
//!
//! Whoever takes part in a test writes records: a client what it asked and what it got, a broker how a message ended, a store
//! what became durable and what it holds in the end. [`check`] then judges the whole. It shares no rule with the notary: what
//! may be committed is worked out again here, from the records alone, and each signature is verified anew.
//!
//! Shared by every test that has something to judge; histories of processes are gathered as JSON lines ([`from_json_lines`]).
#![allow(dead_code, unused_imports, reason = "each test target uses the part it needs")]

mod check;
mod corda;
mod event;
mod json;

pub(crate) use check::{Check, Expectations, Verifier, Violation, check};
pub(crate) use corda::CordaVerifier;
pub(crate) use event::{Answer, Asks, Entry, Event, Record, Request, Settled};
pub(crate) use json::{from_json_lines, to_json_lines};
