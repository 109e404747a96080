//! What the declarations in `broker/` have in common: entries made once, or for each worker, caller or inbox of a service, with
//! placeholders for their names.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::admin::{CallerAccount, Service, WorkerAccount};
use super::names::slug;

/// For whom an entry is made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Each {
    #[default]
    Once,
    Worker,
    Caller,
    Inbox,
}

/// One entry of a declaration.
#[derive(Deserialize)]
pub(super) struct Entry<T> {
    #[serde(default)]
    each: Each,
    #[serde(flatten)]
    what: T,
}

/// What stands for the placeholders of one entry.
#[derive(Clone)]
pub(super) struct Values(Vec<(&'static str, String)>);

impl Values {
    fn with(&self, more: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self(self.0.iter().cloned().chain(more).collect())
    }

    fn worker(&self, WorkerAccount { name, user, inbox }: &WorkerAccount) -> Self {
        self.with([
            ("{worker.slug}", slug(name)),
            ("{worker.name}", name.to_string()),
            ("{worker.user}", user.clone()),
            ("{worker.inbox}", inbox.clone().unwrap_or_default()),
        ])
    }

    fn caller(&self, CallerAccount { user, inbox }: &CallerAccount) -> Self {
        self.with([("{caller.user}", user.clone()), ("{caller.inbox}", inbox.clone().unwrap_or_default())])
    }

    /// `text` with each value escaped by `escape`. In one pass, so that what is put in is never looked at again.
    pub(super) fn escaped(&self, text: &str, escape: fn(&str) -> String) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find('{') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            match self.0.iter().find(|(name, _)| rest.starts_with(name)) {
                Some((name, value)) => {
                    out.push_str(&escape(value));
                    rest = &rest[name.len()..];
                }
                None => {
                    out.push('{');
                    rest = &rest[1..];
                }
            }
        }
        out + rest
    }

    /// `text` with the values as they are.
    pub(super) fn text(&self, text: &str) -> String {
        self.escaped(text, str::to_owned)
    }

    /// The same for every text of a table.
    pub(super) fn table(&self, table: &Map<String, Value>) -> Map<String, Value> {
        let value = |value: &Value| match value {
            Value::String(text) => Value::String(self.text(text)),
            other => other.clone(),
        };
        table.iter().map(|(key, inner)| (key.clone(), value(inner))).collect()
    }
}

/// The values of one service, for every entry that its declaration may have.
pub(super) struct Filling {
    once: Vec<Values>,
    workers: Vec<Values>,
    callers: Vec<Values>,
    inboxes: Vec<Values>,
}

impl Filling {
    /// `more` is what else stands for a caller with this kind of broker.
    pub(super) fn new(service: &Service, more: impl Fn(&CallerAccount) -> Option<(&'static str, String)>) -> Self {
        let inbox = service.inbox.clone().unwrap_or_default();
        let once = Values(vec![("{prefix}", service.prefix.clone()), ("{service.inbox}", inbox)]);
        let caller = |account: &CallerAccount| once.caller(account).with(more(account));
        Self {
            workers: service.workers.iter().map(|worker| once.worker(worker)).collect(),
            callers: service.callers.iter().map(caller).collect(),
            inboxes: service.callers.iter().filter(|account| account.inbox.is_some()).map(caller).collect(),
            once: vec![once],
        }
    }

    /// What `fill` makes of every entry, for each of those for whom it is made.
    pub(super) fn each<T, U>(&self, entries: &[Entry<T>], fill: impl Fn(&T, &Values) -> U) -> Vec<U> {
        let mut filled = Vec::new();
        for Entry { each, what } in entries {
            let values = match each {
                Each::Once => &self.once,
                Each::Worker => &self.workers,
                Each::Caller => &self.callers,
                Each::Inbox => &self.inboxes,
            };
            filled.extend(values.iter().map(|values| fill(what, values)));
        }
        filled
    }
}
