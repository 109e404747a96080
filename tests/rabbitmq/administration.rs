//! `notary broker` on RabbitMQ: idempotent, heals drift, and finds what is unsafe (RG5, LD2).

use notary_worker::broker::admin::{AdminError, Administrator, Service};
use notary_worker::ports::finding::{Finding, Severity};

use crate::rig::RabbitRig;
use crate::suite::{Rig, Setup, eventually};

async fn plan(rig: &RabbitRig) -> Vec<String> {
    let planned = rig.blocking(|rig| rig.admin(rig.service()).plan()).await.unwrap();
    planned.iter().map(ToString::to_string).collect()
}

async fn apply(rig: &RabbitRig) -> Vec<String> {
    let applied = rig.blocking(|rig| rig.admin(rig.service()).apply()).await.unwrap();
    applied.iter().map(ToString::to_string).collect()
}

async fn faults(rig: &RabbitRig) -> Vec<Finding> {
    let findings = rig.blocking(|rig| rig.admin(rig.service()).examine()).await;
    findings.into_iter().filter(|finding| finding.severity == Severity::Fault).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_once_stays_and_drift_is_found_and_healed() {
    let Some(rig) = RabbitRig::start().await else { return };
    assert_eq!(plan(&rig).await, [""; 0]);
    assert_eq!(apply(&rig).await, [""; 0], "it was applied when the rig was made");
    assert_eq!(faults(&rig).await, []);

    let policy = r#"{"pattern":"^notary\\.requests$","apply-to":"queues","definition":{"max-length":5},"priority":10}"#;
    rig.ask("PUT", &rig.path("policies", "notary.requests"), Some(policy.into())).await;
    let wide = r#"{"configure":".*","write":".*","read":".*"}"#;
    rig.ask("PUT", &rig.path("permissions", &rig.user("Mallory")), Some(wide.into())).await;
    rig.ask("DELETE", &rig.path("queues", &rig.reply_queue("Alice")), None).await;
    rig.ask("DELETE", &rig.path("exchanges", "notary.any"), None).await;
    let planned = plan(&rig).await;
    let beginnings = [
        format!("set the rights of user {}: configure is", rig.user("Mallory")),
        "create exchange notary.any (fanout): missing".into(),
        "set policy notary.requests: ".into(),
        format!("create queue {}: missing", rig.reply_queue("Alice")),
        "bind queue notary.requests to exchange notary.any: missing".into(),
    ];
    assert_eq!(planned.len(), beginnings.len(), "{planned:#?}");
    for (planned, beginning) in planned.iter().zip(&beginnings) {
        assert!(planned.starts_with(beginning), "{planned}");
    }
    for difference in ["max-length is 5, declared 100000", "overflow is not set"] {
        assert!(planned[2].contains(difference), "{}", planned[2]);
    }
    let found = faults(&rig).await;
    assert!(found.len() >= beginnings.len(), "{found:#?}");
    assert!(found.iter().all(|finding| finding.advice.contains("notary broker apply")), "{found:#?}");

    assert_eq!(apply(&rig).await, planned);
    assert_eq!(plan(&rig).await, [""; 0]);
    // The broker's figures follow within seconds.
    eventually("all is well again", || async { faults(&rig).await.is_empty() }).await;
}

/// Messages lie in it: nobody but a person deletes a queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_the_wrong_kind_is_left_to_people() {
    let Some(rig) = RabbitRig::start().await else { return };
    rig.ask("DELETE", &rig.path("queues", "notary.dead"), None).await;
    let classic = r#"{"durable":true,"auto_delete":false,"arguments":{"x-queue-type":"classic"}}"#;
    rig.ask("PUT", &rig.path("queues", "notary.dead"), Some(classic.into())).await;
    rig.ask("DELETE", &rig.path("queues", &rig.reply_queue("Bob")), None).await;
    let refused = rig.blocking(|rig| rig.admin(rig.service()).apply()).await.unwrap_err();
    let AdminError::Refused(why) = &refused else { panic!("{refused}") };
    assert!(why.contains("delete queue notary.dead by hand") && why.contains("1 done"), "{why}");
    assert_eq!(plan(&rig).await.len(), 1, "the rest was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_user_is_made_without_a_place_for_its_password() {
    let Some(rig) = RabbitRig::start().await else { return };
    let stranger = |rig: &RabbitRig| {
        let mut service = rig.service();
        service.callers[0].user = format!("O=New {}, L=Rome, C=IT", rig.number);
        service
    };
    let without = move |rig: &RabbitRig| Service { secrets: None, ..stranger(rig) };
    let refused = rig.blocking(move |rig| rig.admin(without(rig)).apply()).await.unwrap_err();
    assert!(refused.to_string().contains("--secrets"), "{refused}");
    let applied = rig.blocking(move |rig| rig.admin(stranger(rig)).apply()).await.unwrap();
    assert!(applied.iter().any(|change| change.what.contains("create user O=New")), "{applied:?}");
    assert_eq!(rig.blocking(move |rig| rig.admin(stranger(rig)).plan()).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn dangerous_users_and_foreign_policies_are_found() {
    let Some(rig) = RabbitRig::start().await else { return };
    let worker = rig.worker(1, Setup::default()).await;
    let forger = rig.user("forger");
    let body = r#"{"password":"x","tags":"impersonator"}"#;
    rig.ask("PUT", &format!("users/{forger}"), Some(body.into())).await;
    let override_all = r#"{"pattern":".*","apply-to":"queues","definition":{"max-length":1},"priority":99}"#;
    rig.ask("PUT", &rig.path("policies", "mine"), Some(override_all.into())).await;
    eventually("both are found", || async {
        let found = faults(&rig).await;
        let finds = |subject: &str, text: &str| {
            found.iter().any(|finding| finding.subject.contains(subject) && finding.found.contains(text))
        };
        finds(&forger, "others' names") && finds("notary.requests", "ruled by policy mine")
    })
    .await;
    rig.ask("DELETE", &format!("users/{forger}"), None).await;
    worker.queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_who_is_not_let_in_is_told_so() {
    let Some(rig) = RabbitRig::start().await else { return };
    let findings = rig.blocking(|rig| rig.admin_as("guest", "wrong").examine()).await;
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert!(finding.severity == Severity::Fault && finding.found.contains("401"), "{finding}");
}
