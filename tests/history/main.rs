//! The history checker's own test: a good history passes, and every way to spoil it is caught by the right check.

#[path = "mod.rs"]
mod history;
mod known_bad;
mod real_signatures;
mod story;
