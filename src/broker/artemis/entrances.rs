//! Who sent a request, on a broker that does not say so.
//!
//! Artemis validates users, but over AMQP 1.0 it tells nobody: `populate-validated-user` reaches messages of its own protocol
//! only, and an AMQP sender may write `_AMQ_VALIDATED_USER` itself (seen with 2.40). What the broker does enforce is who may write
//! to which address. So every caller has an entrance of its own, an address to which only its user may send; a divert leads from
//! there to the shared queue, and notes on the message through which address it came, over whatever the sender wrote there. Nobody
//! may write to the shared queue itself.
//!
//! A transformer that sets a header would be no use: on messages above 100 KiB it does nothing, and the sender's claim arrives
//! (seen with 2.40). The note of the original address is made on messages of any size.

/// How entrances are called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entrances {
    from: String,
    probe: String,
}

impl Entrances {
    /// Those of the service whose names begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { from: format!("{prefix}.from."), probe: format!("{prefix}.probe.") }
    }

    /// The entrance of a broker user.
    pub(super) fn of(&self, user: &str) -> String {
        format!("{}{user}", self.from)
    }

    /// The user to whom an entrance belongs.
    pub(super) fn user<'a>(&self, address: &'a str) -> Option<&'a str> {
        address.strip_prefix(&self.from).filter(|user| !user.is_empty())
    }

    /// The entrance by which a worker, whose queue is `queue`, sends to itself.
    pub(super) fn probe(&self, slug: &str) -> String {
        format!("{}{slug}", self.probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entrance_belongs_to_one_user() {
        let entrances = Entrances::new("notary");
        assert_eq!(entrances.of("alice"), "notary.from.alice");
        let legal = "O=Alice Corp, L=Madrid, C=ES";
        assert_eq!(entrances.user(&entrances.of(legal)), Some(legal));
        for foreign in ["notary.requests", "notary.from.", "notary.probe.w1", "other.from.alice", ""] {
            assert_eq!(entrances.user(foreign), None, "{foreign}");
        }
    }
}
