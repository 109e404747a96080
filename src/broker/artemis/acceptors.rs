//! What is wrong with the broker's acceptors, if anything. Only its own file can change them.

use serde_json::Value;

use crate::broker::printable;
use crate::ports::Finding;

/// How acceptors for Corda nodes are called, or begin to be called.
const PEERS_ACCEPTOR: &str = "peers";

/// An acceptor as management describes it.
struct Acceptor<'a>(&'a Value);

impl Acceptor<'_> {
    fn all(acceptors: &Value) -> impl Iterator<Item = Acceptor<'_>> {
        acceptors.as_array().into_iter().flatten().map(Acceptor)
    }

    fn name(&self) -> &str {
        self.0["name"].as_str().unwrap_or("?")
    }

    fn subject(&self) -> String {
        format!("artemis: acceptor {}", printable(self.name(), 128))
    }

    fn param(&self, key: &str) -> Option<&str> {
        self.0["params"][key].as_str().or_else(|| self.0["extraProps"][key].as_str())
    }

    fn is(&self, key: &str, value: &str) -> bool {
        self.param(key).is_some_and(|held| held.eq_ignore_ascii_case(value))
    }
}

/// Acceptors where passwords and requests go over a network in plain text.
pub(super) fn in_plain_text(acceptors: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for acceptor in Acceptor::all(acceptors) {
        let host = acceptor.param("host").unwrap_or_default();
        let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !acceptor.is("sslEnabled", "true") && !loopback {
            let advice = "enable TLS (sslEnabled=true), or let it listen on loopback only";
            findings.push(Finding::warning(acceptor.subject(), format!("plain text at {host}"), advice));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::good("artemis: acceptors", "none in plain text beyond this machine"));
    }
    findings
}

/// Acceptors for users.
pub(super) fn for_users(acceptors: &Value) -> Vec<Finding> {
    let mut findings = in_plain_text(acceptors);
    for acceptor in Acceptor::all(acceptors) {
        if acceptor.is("amqpDuplicateDetection", "false") {
            let advice = "set amqpDuplicateDetection=true: answers that are sent again must be dropped";
            findings.push(Finding::fault(acceptor.subject(), "does not drop duplicates", advice));
        }
        let offers = |mechanism: &str| {
            let offered = acceptor.param("saslMechanisms").unwrap_or_default();
            offered.split(',').any(|offered| offered.trim().eq_ignore_ascii_case(mechanism))
        };
        if offers("EXTERNAL") && offers("PLAIN") {
            let found =
                "lets in by certificate a client that says another user's name, and Artemis remembers rights by name";
            let advice = "offer EXTERNAL or PLAIN there, not both (saslMechanisms)";
            findings.push(Finding::fault(acceptor.subject(), found, advice));
        }
    }
    findings
}

/// Acceptors for Corda nodes, as `broker/artemis/peers/broker.xml` has them and says why.
pub(super) fn for_nodes(acceptors: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for acceptor in Acceptor::all(acceptors).filter(|acceptor| acceptor.name().starts_with(PEERS_ACCEPTOR)) {
        let mut fault = |found: String, advice: &str| {
            findings.push(Finding::fault(
                acceptor.subject(),
                found,
                format!("{advice} (broker/artemis/peers/broker.xml)"),
            ));
        };
        for (key, value, why) in [
            ("sslEnabled", "true", "nodes speak TLS only"),
            ("needClientAuth", "true", "without a certificate below the network's root anybody could send"),
            ("protocols", "AMQP", "the broker's other protocols are not for nodes"),
            (
                "saslMechanisms",
                "PLAIN",
                "otherwise a client may say another's name, and have the rights remembered by it",
            ),
            ("amqpDuplicateDetection", "false", "a request that is sent again must be served again"),
        ] {
            if !acceptor.is(key, value) {
                let held = acceptor.param(key).unwrap_or("not set");
                fault(format!("{key} is {}", printable(held, 128)), &format!("set {key}={value}: {why}"));
            }
        }
        if acceptor.param("securityDomain").is_none_or(str::is_empty) {
            fault(
                "no login of its own".into(),
                "set securityDomain=NotaryPeers: certificates decide there, not passwords",
            );
        }
        if !acceptor.param("enabledProtocols").is_some_and(|versions| versions.contains("TLSv1.2")) {
            fault(
                "TLS 1.2 is not named".into(),
                "set enabledProtocols=TLSv1.2,TLSv1.3: nodes speak 1.2, and older is broken",
            );
        }
        if findings.iter().all(|finding| finding.subject != acceptor.subject()) {
            let host = acceptor.param("host").unwrap_or_default();
            let found = format!("for Corda nodes, at {host}:{}", acceptor.param("port").unwrap_or_default());
            findings.push(Finding::good(acceptor.subject(), found));
        }
    }
    if findings.is_empty() {
        let found = format!("none whose name begins with {PEERS_ACCEPTOR}, so no Corda node reaches the broker");
        findings.push(Finding::fault("artemis: acceptors", found, "merge broker/artemis/peers/broker.xml"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::super::admin::PEERS_FILES;
    use super::*;
    use crate::ports::finding::Severity;

    /// The acceptor that the file for people tells to make is the one that `check` wants, and each deviation is found.
    #[test]
    fn acceptors_for_nodes_are_as_declared_or_the_deviation_is_named() {
        let line = PEERS_FILES.lines().find(|line| line.contains("<acceptor name=\"peers\">")).expect("it is there");
        let params = line.split_once('?').and_then(|(_, rest)| rest.split_once('<')).expect("parameters").0;
        let mut params: Map<String, Value> = params
            .split(';')
            .filter_map(|param| param.split_once('='))
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect();
        let found = |params: &Map<String, Value>| {
            for_nodes(&json!([{ "name": "peers-2", "params": params }, { "name": "workers", "params": {} }]))
        };
        assert!(found(&params).iter().all(|finding| finding.severity == Severity::Good), "{:?}", found(&params));
        for key in [
            "sslEnabled",
            "needClientAuth",
            "protocols",
            "saslMechanisms",
            "amqpDuplicateDetection",
            "securityDomain",
            "enabledProtocols",
        ] {
            let held = params.remove(key).expect("it is declared");
            let faults: Vec<_> = found(&params).into_iter().filter(|f| f.severity == Severity::Fault).collect();
            assert_eq!(faults.len(), 1, "{key}: {faults:?}");
            params.insert(key.to_owned(), held);
        }
        params["saslMechanisms"] = json!("PLAIN,ANONYMOUS");
        assert!(found(&params).iter().any(|finding| finding.severity == Severity::Fault));
        assert!(for_nodes(&json!([])).iter().any(|finding| finding.severity == Severity::Fault), "none at all");
    }
}
