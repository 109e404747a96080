//! Histories as JSON lines: one flat object for each record, hashes and states in Corda's text form, moments as
//! `[seconds, nanoseconds]`. Processes that take part in a test write them to files; the judge reads them all.

use notary_worker::domain::notary_error::{Consumption, StateUsage};
use notary_worker::domain::{SecureHash, StateRef, TimeWindow, Timestamp, TxId};
use serde::{Deserialize, Serialize};

use super::event::{Answer, Asks, Entry, Event, Record, Request, Settled};

/// Writes a history, one record a line.
pub(crate) fn to_json_lines(history: &[Record]) -> String {
    let mut lines = String::new();
    for record in history {
        lines += &serde_json::to_string(&Line::from(record)).expect("a line has string keys and plain values");
        lines.push('\n');
    }
    lines
}

/// Reads what [`to_json_lines`] wrote; empty lines do not count.
pub(crate) fn from_json_lines(text: &str) -> Result<Vec<Record>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let line: Line = serde_json::from_str(line).map_err(|error| format!("line {}: {error}", i + 1))?;
            line.into_record().map_err(|why| format!("line {}: {why}", i + 1))
        })
        .collect()
}

type Moment = (i64, u32);

/// Every field that some record has.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Line {
    at_ms: u64,
    process: String,
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exchange: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asks: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    consumed: Vec<Consumed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    judged_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    how: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    committed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moment: Option<Moment>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spent: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Consumed {
    state: String,
    hashed_consumer: String,
    usage: String,
}

impl From<&Record> for Line {
    fn from(record: &Record) -> Self {
        let mut line = Self { at_ms: record.at_ms, process: record.process.to_string(), ..Self::default() };
        line.event = match &record.event {
            Event::Invoke { exchange, asks } => {
                line.exchange = Some(*exchange);
                let asks = match asks {
                    Asks::Notarisation(request) => {
                        line.put_request(request);
                        "notarisation"
                    }
                    Asks::Confirmation => "confirmation",
                    Asks::Nothing => "nothing",
                    Asks::Garbage => "garbage",
                };
                line.asks = Some(asks.into());
                "invoke"
            }
            Event::Answer { exchange, answer } => {
                line.exchange = Some(*exchange);
                line.put_answer(answer)
            }
            Event::Complete { exchange } => {
                line.exchange = Some(*exchange);
                "complete"
            }
            Event::Settled { exchange, how } => {
                line.exchange = Some(*exchange);
                let how = match how {
                    Settled::Accepted => "accepted",
                    Settled::Released => "released",
                    Settled::Parked { reason } => {
                        line.reason = Some(reason.clone());
                        "parked"
                    }
                };
                line.how = Some(how.into());
                "settled"
            }
            Event::Stored(entry) => {
                line.put_entry(entry);
                "stored"
            }
            Event::Kept { copy, entry } => {
                line.copy = Some(copy.to_string());
                line.put_entry(entry);
                "kept"
            }
            Event::Healed => "healed",
        }
        .into();
        line
    }
}

impl Line {
    fn put_request(&mut self, request: &Request) {
        self.tx = Some(request.tx.to_string());
        self.inputs = texts(&request.inputs);
        self.references = texts(&request.references);
        self.from = request.window.and_then(|window| window.from()).map(pair);
        self.until = request.window.and_then(|window| window.until()).map(pair);
        self.valid = Some(request.valid);
    }

    fn put_answer(&mut self, answer: &Answer) -> &'static str {
        match answer {
            Answer::Ok { tx, signature } => {
                self.tx = Some(tx.to_string());
                self.signature = Some(hex::encode(signature));
                "ok"
            }
            Answer::Conflict { tx, consumed } => {
                self.tx = Some(tx.to_string());
                self.consumed = consumed.iter().map(Consumed::from).collect();
                "conflict"
            }
            Answer::Invalid { tx, reason, judged_at } => {
                self.tx = Some(tx.to_string());
                self.reason = Some(reason.clone());
                self.judged_at = judged_at.map(pair);
                "invalid"
            }
            Answer::Unavailable => "unavailable",
            Answer::Unknown => "unknown",
        }
    }

    fn put_entry(&mut self, entry: &Entry) {
        self.tx = Some(entry.tx.to_string());
        self.committed = Some(entry.committed);
        self.position = entry.position;
        self.moment = entry.moment.map(pair);
        self.spent = texts(&entry.spent);
    }

    fn into_record(self) -> Result<Record, String> {
        let exchange = || self.exchange.ok_or("no exchange");
        let event = match self.event.as_str() {
            "invoke" => Event::Invoke {
                exchange: exchange()?,
                asks: match self.asks.as_deref() {
                    Some("notarisation") => Asks::Notarisation(self.request()?.into()),
                    Some("confirmation") => Asks::Confirmation,
                    Some("nothing") => Asks::Nothing,
                    Some("garbage") => Asks::Garbage,
                    other => return Err(format!("asks {other:?}")),
                },
            },
            "ok" | "conflict" | "invalid" | "unavailable" | "unknown" => {
                Event::Answer { exchange: exchange()?, answer: self.answer()? }
            }
            "complete" => Event::Complete { exchange: exchange()? },
            "settled" => Event::Settled {
                exchange: exchange()?,
                how: match self.how.as_deref() {
                    Some("accepted") => Settled::Accepted,
                    Some("released") => Settled::Released,
                    Some("parked") => Settled::Parked { reason: self.reason.clone().unwrap_or_default() },
                    other => return Err(format!("settled {other:?}")),
                },
            },
            "stored" => Event::Stored(self.entry()?),
            "kept" => Event::Kept { copy: self.copy.as_deref().ok_or("no copy")?.into(), entry: self.entry()? },
            "healed" => Event::Healed,
            other => return Err(format!("no event is called {other:?}")),
        };
        Ok(Record { at_ms: self.at_ms, process: self.process.into(), event })
    }

    fn tx(&self) -> Result<TxId, String> {
        hash(self.tx.as_deref().ok_or("no tx")?).map(TxId)
    }

    fn request(&self) -> Result<Request, String> {
        let window = match (self.from.map(timestamp).transpose()?, self.until.map(timestamp).transpose()?) {
            (Some(from), Some(until)) => Some(TimeWindow::Between { from, until }),
            (Some(from), None) => Some(TimeWindow::From(from)),
            (None, Some(until)) => Some(TimeWindow::Until(until)),
            (None, None) => None,
        };
        Ok(Request {
            tx: self.tx()?,
            inputs: states(&self.inputs)?,
            references: states(&self.references)?,
            window,
            valid: self.valid.ok_or("valid or not?")?,
        })
    }

    fn answer(&self) -> Result<Answer, String> {
        Ok(match self.event.as_str() {
            "ok" => {
                let signature = hex::decode(self.signature.as_deref().ok_or("no signature")?);
                Answer::Ok { tx: self.tx()?, signature: signature.map_err(|error| error.to_string())? }
            }
            "conflict" => {
                let consumed = self.consumed.iter().map(Consumption::try_from).collect::<Result<_, _>>()?;
                Answer::Conflict { tx: self.tx()?, consumed }
            }
            "invalid" => Answer::Invalid {
                tx: self.tx()?,
                reason: self.reason.clone().ok_or("no reason")?,
                judged_at: self.judged_at.map(timestamp).transpose()?,
            },
            "unavailable" => Answer::Unavailable,
            _ => Answer::Unknown,
        })
    }

    fn entry(&self) -> Result<Entry, String> {
        Ok(Entry {
            tx: self.tx()?,
            committed: self.committed.ok_or("committed or not?")?,
            position: self.position,
            moment: self.moment.map(timestamp).transpose()?,
            spent: states(&self.spent)?,
        })
    }
}

impl From<&Consumption> for Consumed {
    fn from(consumption: &Consumption) -> Self {
        let usage = match consumption.usage {
            StateUsage::Input => "input",
            StateUsage::Reference => "reference",
        };
        Self {
            state: consumption.state.to_string(),
            hashed_consumer: consumption.hashed_consumer.to_string(),
            usage: usage.into(),
        }
    }
}

impl TryFrom<&Consumed> for Consumption {
    type Error = String;

    fn try_from(consumed: &Consumed) -> Result<Self, String> {
        let usage = match consumed.usage.as_str() {
            "input" => StateUsage::Input,
            "reference" => StateUsage::Reference,
            other => return Err(format!("usage {other:?}")),
        };
        Ok(Self { state: state(&consumed.state)?, hashed_consumer: hash(&consumed.hashed_consumer)?, usage })
    }
}

fn texts(states: &[StateRef]) -> Vec<String> {
    states.iter().map(StateRef::to_string).collect()
}

fn states(texts: &[String]) -> Result<Vec<StateRef>, String> {
    texts.iter().map(|text| state(text)).collect()
}

fn state(text: &str) -> Result<StateRef, String> {
    let (tx_id, index) = text.strip_suffix(')').and_then(|text| text.split_once('(')).ok_or(format!("state {text}"))?;
    Ok(StateRef { tx_id: TxId(hash(tx_id)?), index: index.parse().map_err(|error| format!("state {text}: {error}"))? })
}

fn hash(text: &str) -> Result<SecureHash, String> {
    SecureHash::parse(text).ok_or(format!("hash {text}"))
}

fn pair(moment: Timestamp) -> Moment {
    (moment.seconds(), moment.nanos())
}

fn timestamp((seconds, nanos): Moment) -> Result<Timestamp, String> {
    Timestamp::new(seconds, nanos).ok_or(format!("moment {seconds}.{nanos}"))
}
