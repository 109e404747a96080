//! Who is let in, and what a node may do: send to the inboxes, and nothing else.

use std::net::SocketAddr;

use serde_json::json;
use tokio::time::timeout;

use super::rig::PATIENCE;
use super::services::artemis::{Certificates, Foreign, Login, Server};
use super::services::or_skip;
use super::{PEER, Pool, runtime};

/// What bridges take for "delivered and lost".
const LOST: &str = "AMQ229032";

/// A1, A7: a node may send to the inboxes that are declared. An inbox that is not there is refused in words that make its bridge wait
/// and try again, and not in those that make it drop the message.
#[test]
fn a_node_may_send_to_the_inboxes_and_do_nothing_else() {
    let Some(pool) = Pool::start(Login::Declared) else { return };
    runtime().block_on(async {
        let alice = pool.network.node("alice");
        let bridge = || pool.bridge(alice.tls(), PEER, PEER);
        for inbox in [pool.network.service_inbox(), pool.worker_inbox(1), pool.worker_inbox(2)] {
            let mut node = bridge().await.expect("a node is let in");
            node.bridge_sender(&inbox).await.expect("it may send there").close().await.expect("closed");
            node.close().await;
        }
        for unknown in ["p2p.inbound.DLnobody", &format!("{}::other", pool.network.service_inbox())] {
            let mut node = bridge().await.expect("a node is let in");
            let refusal = node.bridge_sender(unknown).await.expect_err("there is no such inbox");
            assert!(refusal.contains("does not exist") && !refusal.contains(LOST), "{unknown}: {refusal}");
        }
        for foreign in ["notary.dead", "DLQ", "activemq.management", "internal.peers.DLx", "made.up"] {
            let mut node = bridge().await.expect("a node is let in");
            let refusal = node.bridge_sender(foreign).await.expect_err("nodes may not send there");
            let why = ["does not have permission", "not authorized to create producer", "does not exist"];
            assert!(why.iter().any(|why| refusal.contains(why)), "{foreign}: {refusal}");
        }
        for queue in [pool.network.service_inbox(), pool.worker_inbox(1), "notary.dead".to_owned()] {
            let mut node = bridge().await.expect("a node is let in");
            let refusal = node.receiver(&queue).await.expect_err("nodes may not receive");
            assert!(refusal.contains("Unauthorized"), "{queue}: {refusal}");
        }
        let mut admin = pool.admin().await;
        let queues = admin.manage("broker", ("_AMQ_Attribute", "QueueNames"), json!([])).await;
        let queues = queues.expect("answered").to_string();
        assert!(!queues.contains("DLnobody") && !queues.contains("made.up"), "nothing is created for nodes: {queues}");
        admin.close().await;
    });
}

/// A queue that was deleted under an address that is still there: the message is not lost either way.
#[test]
fn an_inbox_whose_queue_is_gone_does_not_make_bridges_drop_messages() {
    let Some(pool) = Pool::start(Login::Declared) else { return };
    runtime().block_on(async {
        let alice = pool.network.node("alice");
        let inbox = pool.network.service_inbox();
        let mut admin = pool.admin().await;
        admin.operation("destroyQueue", json!([inbox, true, false])).await.expect("destroyed");
        let mut node = pool.bridge(alice.tls(), PEER, PEER).await.expect("a node is let in");
        let refusal = node.bridge_sender(&inbox).await.expect_err("nobody would get it");
        assert!(refusal.contains("does not exist") && !refusal.contains(LOST), "{refusal}");
        admin.close().await;
    });
}

/// A1: without a certificate below the network's root nobody is let in, whatever is said.
#[test]
fn whoever_has_no_certificate_of_the_network_is_not_let_in() {
    let Some(pool) = Pool::start(Login::Declared) else { return };
    let other = super::rig::Network::create();
    runtime().block_on(async {
        let stranger = other.node("alice");
        let refused = async {
            // The other network's TLS does not believe our acceptor; so look past that, as an attacker would.
            let stream = super::claims::without_looking(pool.network.address(1), Some(&stranger)).await?;
            Foreign::over(stream, PEER, PEER).await.map(|_| ())
        };
        timeout(PATIENCE, refused).await.expect("it ends").expect_err("a certificate of another network");
        let refused = async {
            let stream = super::claims::without_looking(pool.network.address(1), None).await?;
            Foreign::over(stream, PEER, PEER).await.map(|_| ())
        };
        timeout(PATIENCE, refused).await.expect("it ends").expect_err("no certificate at all");
    });
}

/// A1: Artemis remembers who may do what by the name that a client says. So the login for nodes takes the one name of all bridges: a
/// node that says the name of a worker or of an administrator is not let in.
#[test]
fn a_node_that_says_another_users_name_is_not_let_in() {
    let Some(pool) = Pool::start(Login::Declared) else { return };
    runtime().block_on(async {
        let alice = pool.network.node("alice");
        let worker = pool.worker(1);
        for name in ["worker1", super::ADMIN.0, "peer", "", "SystemUsers/NodeP2P"] {
            let refused = timeout(PATIENCE, pool.bridge(alice.tls(), name, PEER)).await.expect("it ends in time");
            assert!(refused.is_err(), "{name:?} is let in");
        }
        assert_eq!(worker.terminate().code(), Some(0));
    });
}

/// The trap that the declaration avoids, as a fact about Artemis 2.40: with a login that looks at certificates alone, a node that
/// says a worker's name has the rights that the broker remembers for that name, and takes requests away. If this fails, Artemis has
/// mended it, and the declaration may be simplified.
#[test]
fn with_a_login_by_certificate_alone_a_node_would_have_a_workers_rights() {
    let Some(pool) = Pool::start(Login::ByCertificateAlone) else { return };
    runtime().block_on(async {
        let alice = pool.network.node("alice");
        let taking = async {
            loop {
                // The broker remembers for ten seconds who may do what: the worker has just received.
                let worker = pool.worker(1);
                let mut node = pool.bridge(alice.tls(), "worker1", "whatever").await.expect("any name is let in");
                let receiver = node.receiver(&pool.network.service_inbox()).await;
                worker.kill();
                if receiver.is_ok() {
                    return;
                }
            }
        };
        timeout(PATIENCE, taking).await.expect("a node receives what was meant for workers");
    });
}

/// The same trap where users have certificates: an acceptor that offers PLAIN beside EXTERNAL lets a client in by its certificate,
/// and gives it the rights remembered for the name that it says. With EXTERNAL alone there is no name to say.
#[test]
fn an_acceptor_with_plain_beside_external_gives_a_certificate_any_users_rights() {
    let network = super::rig::Network::create();
    let dir = network.dir();
    let identity = dir.join("both.pem");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("it reads");
    std::fs::write(&identity, read("tls-1/tls.p8") + &read("tls-1/tls.pem")).expect("written");
    runtime().block_on(async {
        let bob = network.node("bob");
        for (mechanisms, works) in [("EXTERNAL,PLAIN", true), ("EXTERNAL", false)] {
            let users = [("bob", "/.*Bob.*/", "nothing")];
            let authorities = &dir.join("network/root.pem");
            let server =
                Server::start(Some(Certificates { authorities, identity: &identity, users: &users, mechanisms }));
            let Some(server) = or_skip("Artemis", server) else { return };
            let mut admin = server.foreign(super::ADMIN.0, super::ADMIN.1).await;
            let queue = json!({ "name": "q", "address": "q", "routing-type": "ANYCAST", "auto-create-address": true });
            admin.operation("createQueue", json!([queue.to_string()])).await.expect("created");
            let rights = json!(["q", "r", "", "", "", "", "", "", "", "", ""]);
            admin.operation("addSecuritySettings", rights).await.expect("set");
            admin.operation("addUser", json!(["alice", "secret", "r", true])).await.expect("added");
            let address = SocketAddr::from(([127, 0, 0, 1], server.tls_port));
            let mut worked = false;
            // The broker remembers for ten seconds who may do what; a slow machine may need another look.
            for _ in 0..3 {
                let mut alice = server.foreign("alice", "secret").await;
                alice.sender("q").await.expect("that is her right");
                let stream = super::claims::without_looking(address, Some(&bob)).await.expect("a good certificate");
                worked |= match timeout(PATIENCE, Foreign::over(stream, "alice", "wrong")).await.expect("it ends") {
                    Ok(mut bob) => bob.sender("q").await.is_ok(),
                    Err(_) => false,
                };
                alice.close().await;
            }
            assert_eq!(worked, works, "{mechanisms}");
            admin.close().await;
        }
    });
}
