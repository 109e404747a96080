//! Histories that break a promise each, and are caught for just that.

use notary_worker::domain::notary_error::StateUsage;
use notary_worker::domain::{TimeWindow, TxId};

use crate::history::Check::{
    Closed, ConflictTrue, DurableFirst, NothingLost, OneAnswer, ReferencesUnspent, RefusedRightly, SettledSafe,
    SignatureTrue, Sound, SpentOnce, WindowTrue,
};
use crate::history::{Answer, Asks, Check, Event, Expectations, Request, Settled, from_json_lines, to_json_lines};
use crate::story::{STRICT, Story, at, consumed, good, request, sign, state, tx};

fn assert_fails(story: &Story, checks: &[Check]) {
    assert_eq!(story.fails(&STRICT).into_iter().collect::<Vec<_>>(), checks);
}

/// A store that is not watched and keeps no order: what a test of processes may be left with.
const BLIND: Expectations = Expectations { store_watched: false, settlements_watched: false, ..STRICT };

fn is_answer_to(event: &Event, id: TxId) -> bool {
    let (Event::Answer { answer, .. }, id) = (event, id) else { return false };
    matches!(answer, Answer::Ok { tx, .. } | Answer::Conflict { tx, .. } | Answer::Invalid { tx, .. } if *tx == id)
}

fn is_stored(event: &Event, id: TxId) -> bool {
    matches!(event, Event::Stored(entry) if entry.tx == id)
}

fn is_kept(event: &Event, in_copy: &str, id: TxId) -> bool {
    matches!(event, Event::Kept { copy, entry } if &**copy == in_copy && entry.tx == id)
}

#[test]
fn a_good_history_passes() {
    assert_fails(&good(), &[]);
}

#[test]
fn a_good_history_passes_though_little_of_it_was_seen() {
    let mut story = good();
    story.forget_order();
    story.remove(|event| matches!(event, Event::Stored(_) | Event::Settled { .. }));
    assert!(story.fails(&BLIND).contains(&Closed), "what was parked must have been seen");
    story.remove(|event| matches!(event, Event::Invoke { asks: Asks::Garbage, .. }));
    assert!(story.fails(&BLIND).is_empty());
}

#[test]
fn a_history_survives_json_and_is_judged_alike() {
    let story = good();
    let text = to_json_lines(&story.records);
    assert_eq!(from_json_lines(&text).as_ref(), Ok(&story.records));
    assert_eq!(text.lines().count(), story.records.len());
}

#[test]
fn a_damaged_line_is_named() {
    let text = to_json_lines(&good().records);
    for (from, to) in [
        ("\"event\":\"ok\"", "\"event\":\"fine\""),
        ("\"tx\":\"0101", "\"tx\":\"01zz"),
        ("\"exchange\":2,", ""),
        ("\"at_ms\":5,", "\"at_ms\":5,\"colour\":\"red\","),
        ("(1)", "(-1)"),
        ("[100,0]", "[100,1000000000]"),
        (",\"valid\":true", ""),
    ] {
        let damaged = text.replacen(from, to, 1);
        let line = text.lines().zip(damaged.lines()).position(|(good, bad)| good != bad).expect(from) + 1;
        let error = from_json_lines(&damaged).expect_err(from);
        assert!(error.starts_with(&format!("line {line}: ")), "{error}");
    }
}

#[test]
fn one_state_consumed_by_two_signed_transactions() {
    let mut story = Story::default();
    story.notarised(&request(1, &[1, 2], &[]));
    story.notarised(&request(2, &[3, 2], &[]));
    story.end();
    assert_fails(&story, &[SpentOnce]);
    story.forget_order();
    assert_eq!(story.fails(&BLIND).into_iter().collect::<Vec<_>>(), [SpentOnce]);
}

#[test]
fn one_state_consumed_twice_though_one_signature_never_left() {
    let mut story = Story::default();
    story.notarised(&request(1, &[1], &[]));
    let exchange = story.ask(&request(2, &[1], &[]));
    story.store(&request(2, &[1], &[]), true, at(100));
    story.settle(exchange, Settled::Parked { reason: "given up".into() });
    story.end();
    let expectations = Expectations { requests_may_be_parked: true, ..STRICT };
    assert_eq!(story.fails(&expectations).into_iter().collect::<Vec<_>>(), [SpentOnce]);
}

#[test]
fn a_reference_consumed_before() {
    let mut story = Story::default();
    story.notarised(&request(1, &[1], &[]));
    story.notarised(&request(2, &[2], &[1]));
    story.end();
    assert_fails(&story, &[ReferencesUnspent]);
    story.forget_order();
    assert_eq!(story.fails(&BLIND).into_iter().collect::<Vec<_>>(), [ReferencesUnspent], "by the clients' own time");
}

#[test]
fn two_transactions_that_consume_each_others_references() {
    let mut story = Story::default();
    let exchanges = [story.ask(&request(1, &[1], &[2])), story.ask(&request(2, &[2], &[1]))];
    story.store(&request(1, &[1], &[2]), true, at(1));
    story.store(&request(2, &[2], &[1]), true, at(1));
    for (exchange, number) in exchanges.into_iter().zip([1, 2]) {
        story.ok(exchange, tx(number));
        story.settle(exchange, Settled::Accepted);
    }
    story.end();
    assert_fails(&story, &[ReferencesUnspent]);
}

#[test]
fn a_signature_before_its_commit() {
    let mut story = Story::default();
    let exchange = story.ask(&request(1, &[1], &[]));
    story.ok(exchange, tx(1));
    story.store(&request(1, &[1], &[]), true, at(1));
    story.settle(exchange, Settled::Accepted);
    story.end();
    assert_fails(&story, &[DurableFirst]);
}

#[test]
fn a_refusal_before_it_is_durable() {
    let mut story = good();
    let stored = story.records.iter().position(|record| is_stored(&record.event, tx(2))).expect("it is stored");
    let answer = story.records.iter().position(|record| is_answer_to(&record.event, tx(2))).expect("it is answered");
    story.records.swap(stored, answer);
    assert_fails(&story, &[DurableFirst]);
}

#[test]
fn a_signed_transaction_missing_after_a_failover() {
    let mut story = good();
    story.remove(|event| is_kept(event, "standby", tx(4)));
    assert_fails(&story, &[NothingLost]);
    story.remove(|event| matches!(event, Event::Stored(_)));
    assert_eq!(story.fails(&BLIND).into_iter().collect::<Vec<_>>(), [NothingLost]);
}

#[test]
fn a_durable_commit_lost_before_anybody_was_told() {
    let mut story = Story::default();
    let exchange = story.ask(&request(1, &[1], &[]));
    story.store(&request(1, &[1], &[]), true, at(1));
    story.settle(exchange, Settled::Parked { reason: "given up".into() });
    story.notarised(&request(2, &[2], &[]));
    story.end();
    story.remove(|event| is_kept(event, "store", tx(1)));
    let expectations = Expectations { requests_may_be_parked: true, ..STRICT };
    assert_eq!(story.fails(&expectations).into_iter().collect::<Vec<_>>(), [NothingLost]);
}

#[test]
fn a_commit_that_lost_one_of_its_states() {
    let mut story = good();
    story.change(|event| match event {
        Event::Stored(entry) | Event::Kept { entry, .. } if entry.tx == tx(1) => entry.spent.pop().is_some(),
        _ => false,
    });
    assert_fails(&story, &[NothingLost]);
}

#[test]
fn a_commit_undone_and_done_again_at_another_place() {
    let mut story = good();
    story.store(&request(4, &[3], &[]), true, at(300));
    assert_fails(&story, &[NothingLost]);
}

#[test]
fn a_success_that_becomes_a_conflict() {
    let mut story = good();
    let exchange = story.ask(&request(3, &[], &[3]));
    let consumed = vec![consumed(3, 4, StateUsage::Reference)];
    story.answer(exchange, Answer::Conflict { tx: tx(3), consumed });
    story.settle(exchange, Settled::Accepted);
    // Nor was there such an outcome, nor such a consumer when 3 was decided.
    assert_fails(&story, &[DurableFirst, OneAnswer, ConflictTrue]);
}

#[test]
fn a_conflict_that_becomes_a_success() {
    let mut story = good();
    let exchange = story.ask(&request(2, &[9, 2], &[8, 1]));
    story.ok(exchange, tx(2));
    story.settle(exchange, Settled::Accepted);
    // The signature is out, whatever was said before and is on record.
    assert_fails(&story, &[SpentOnce, ReferencesUnspent, DurableFirst, NothingLost, OneAnswer]);
}

#[test]
fn a_window_judged_again_on_a_repeat() {
    let mut story = good();
    let window = TimeWindow::Between { from: at(100), until: at(200) };
    let exchange = story.ask(&Request { window: Some(window), ..request(5, &[5], &[]) });
    story.answer(exchange, Answer::Invalid { tx: tx(5), reason: "too late".into(), judged_at: Some(at(300)) });
    story.settle(exchange, Settled::Accepted);
    assert_fails(&story, &[DurableFirst, OneAnswer]);
}

#[test]
fn a_refusal_in_other_words() {
    let mut story = good();
    let mut times = 0;
    story.change(|event| match event {
        Event::Answer { answer: Answer::Invalid { tx: id, judged_at, .. }, .. } if *id == tx(6) => {
            times += 1;
            *judged_at = Some(at(200 + times));
            true
        }
        _ => false,
    });
    assert_fails(&story, &[OneAnswer]);
}

#[test]
fn a_failure_told_of_a_transaction_that_is_committed() {
    let mut story = Story::default();
    let window = Some(TimeWindow::Until(at(100)));
    let request = Request { window, ..request(1, &[1], &[]) };
    let exchange = story.ask(&request);
    story.store(&request, true, at(50));
    story.answer(exchange, Answer::Invalid { tx: tx(1), reason: "failed".into(), judged_at: Some(at(100)) });
    story.settle(exchange, Settled::Accepted);
    story.end();
    assert_fails(&story, &[DurableFirst, OneAnswer]);
}

fn with_conflict_of_2(consumed: Vec<notary_worker::domain::notary_error::Consumption>) -> Story {
    let mut story = good();
    story.change(|event| match event {
        Event::Answer { answer: Answer::Conflict { tx: id, consumed: told }, .. } if *id == tx(2) => {
            *told = consumed.clone();
            true
        }
        _ => false,
    });
    story
}

#[test]
fn a_conflict_that_names_nobody_or_somebody_else_or_not_all() {
    let (input, reference) = (consumed(2, 1, StateUsage::Input), consumed(1, 1, StateUsage::Reference));
    for wrong in [
        vec![],
        vec![input],
        vec![reference, input],
        vec![input, reference, consumed(8, 4, StateUsage::Reference)],
        vec![consumed(2, 4, StateUsage::Input), reference],
        vec![consumed(2, 2, StateUsage::Input), reference],
        vec![input, consumed(1, 1, StateUsage::Input)],
        vec![input, reference, reference],
    ] {
        println!("{wrong:?}");
        assert_fails(&with_conflict_of_2(wrong), &[ConflictTrue]);
    }
}

#[test]
fn a_conflict_that_names_nobody_or_somebody_else_or_not_all_as_far_as_clients_can_tell() {
    let (input, reference) = (consumed(2, 1, StateUsage::Input), consumed(1, 1, StateUsage::Reference));
    for wrong in [vec![], vec![input], vec![consumed(2, 4, StateUsage::Input), reference]] {
        let mut story = with_conflict_of_2(wrong);
        story.forget_order();
        story.remove(|event| matches!(event, Event::Stored(_)));
        assert_eq!(story.fails(&BLIND).into_iter().collect::<Vec<_>>(), [ConflictTrue]);
    }
}

#[test]
fn a_conflict_with_a_transaction_that_came_later() {
    let mut story = Story::default();
    story.refused(&request(1, &[1], &[]), vec![consumed(1, 2, StateUsage::Input)]);
    story.notarised(&request(2, &[1], &[]));
    story.end();
    assert_fails(&story, &[ConflictTrue]);
    story.forget_order();
    assert_fails(&story, &[ConflictTrue]);
}

#[test]
fn a_commit_outside_its_window() {
    let window = TimeWindow::Between { from: at(100), until: at(200) };
    for (moment, checks) in [(99, &[WindowTrue][..]), (100, &[]), (199, &[]), (200, &[WindowTrue])] {
        let mut story = Story::default();
        let request = Request { window: Some(window), ..request(1, &[], &[]) };
        let exchange = story.ask(&request);
        story.store(&request, true, at(moment));
        story.ok(exchange, tx(1));
        story.settle(exchange, Settled::Accepted);
        story.end();
        assert_fails(&story, checks);
    }
}

#[test]
fn a_refusal_for_a_window_that_was_open_or_is_none() {
    for window in [None, Some(TimeWindow::Until(at(201))), Some(TimeWindow::From(at(200)))] {
        let mut story = Story::default();
        let request = Request { window, ..request(1, &[1], &[]) };
        let exchange = story.ask(&request);
        story.store(&request, false, at(200));
        story.answer(exchange, Answer::Invalid { tx: tx(1), reason: "late".into(), judged_at: Some(at(200)) });
        story.settle(exchange, Settled::Accepted);
        story.end();
        assert_fails(&story, &[WindowTrue]);
    }
}

#[test]
fn a_good_request_refused_by_checks_and_a_bad_one_notarised() {
    let mut story = Story::default();
    let exchange = story.ask(&request(1, &[1], &[]));
    story.answer(exchange, Answer::Invalid { tx: tx(1), reason: "no".into(), judged_at: None });
    story.settle(exchange, Settled::Accepted);
    story.notarised(&Request { valid: false, ..request(2, &[2], &[]) });
    story.end();
    assert_fails(&story, &[RefusedRightly]);
}

#[test]
fn a_signature_over_another_transaction_even_in_a_repeat() {
    for nth in [0, 1] {
        let mut story = good();
        let mut seen = 0;
        story.change(|event| match event {
            Event::Answer { answer: Answer::Ok { tx: id, signature }, .. } if *id == tx(3) => {
                seen += 1;
                if seen == nth + 1 {
                    *signature = sign(&tx(4));
                }
                true
            }
            _ => false,
        });
        assert_eq!(seen, 2);
        assert_fails(&story, &[SignatureTrue]);
    }
}

#[test]
fn a_message_accepted_before_its_answer_is_safe() {
    let mut story = good();
    let exchange = story.ask(&request(4, &[3], &[]));
    story.write(Event::Answer { exchange, answer: Answer::Ok { tx: tx(4), signature: sign(&tx(4)) } });
    story.settle(exchange, Settled::Accepted);
    story.write(Event::Complete { exchange });
    assert_fails(&story, &[SettledSafe]);
}

#[test]
fn a_confirmation_accepted_before_it_is_safe() {
    let mut story = good();
    let exchange = story.open(Asks::Confirmation);
    story.settle(exchange, Settled::Accepted);
    story.write(Event::Complete { exchange });
    assert_fails(&story, &[SettledSafe]);
}

#[test]
fn a_message_parked_without_a_reason_or_need() {
    for (asks, reason) in [(Asks::Garbage, ""), (Asks::Notarisation(request(4, &[3], &[]).into()), "tired")] {
        let mut story = good();
        let exchange = story.open(asks);
        story.settle(exchange, Settled::Parked { reason: reason.into() });
        assert_fails(&story, &[SettledSafe]);
    }
}

#[test]
fn garbage_that_is_accepted() {
    let mut story = good();
    let exchange = story.open(Asks::Garbage);
    story.settle(exchange, Settled::Accepted);
    assert_fails(&story, &[SettledSafe, Closed]);
}

#[test]
fn a_request_never_answered() {
    let mut story = good();
    story.ask(&request(4, &[3], &[]));
    assert_fails(&story, &[Closed]);
}

#[test]
fn a_message_never_settled() {
    let mut story = good();
    let exchange = story.ask(&request(4, &[3], &[]));
    story.ok(exchange, tx(4));
    story.settle(exchange, Settled::Released);
    assert_fails(&story, &[Closed]);
}

#[test]
fn a_request_told_to_come_again_for_ever() {
    let mut story = good();
    for answer in [Answer::Unavailable, Answer::Unknown] {
        let exchange = story.ask(&request(8, &[18], &[]));
        story.answer(exchange, answer);
        story.settle(exchange, Settled::Accepted);
    }
    assert_fails(&story, &[Closed]);
}

#[test]
fn an_answer_too_long_after_healing() {
    for (at_ms, checks) in [(60_000, &[][..]), (70_000, &[Closed])] {
        let mut story = good();
        let exchange = story.ask(&request(4, &[3], &[]));
        story.ok(exchange, tx(4));
        story.settle(exchange, Settled::Accepted);
        story.records.iter_mut().rev().take(3).for_each(|record| record.at_ms = at_ms);
        assert_fails(&story, checks);
    }
}

#[test]
fn an_answer_to_the_wrong_exchange() {
    let mut story = good();
    let exchange = story.ask(&request(4, &[3], &[]));
    story.ok(exchange, tx(1));
    story.settle(exchange, Settled::Accepted);
    assert_fails(&story, &[Sound]);
}

#[test]
fn an_answer_that_nobody_asked_for() {
    let mut story = good();
    story.ok(999, tx(1));
    story.settle(999, Settled::Accepted);
    assert_fails(&story, &[Sound]);
}

#[test]
fn a_decision_that_nobody_asked_for() {
    let mut story = Story::default();
    story.notarised(&request(1, &[1], &[]));
    story.store(&request(2, &[2], &[]), true, at(1));
    story.end();
    assert_fails(&story, &[Sound]);
}

#[test]
fn one_id_for_two_requests() {
    let mut story = good();
    let exchange = story.ask(&request(4, &[3, 33], &[]));
    story.ok(exchange, tx(4));
    story.settle(exchange, Settled::Accepted);
    assert_fails(&story, &[Sound]);
}

#[test]
fn a_history_that_never_reached_the_store_needs_no_word_from_it() {
    let mut story = Story::default();
    let exchange = story.ask(&Request { valid: false, ..request(1, &[1], &[]) });
    story.answer(exchange, Answer::Invalid { tx: tx(1), reason: "forged".into(), judged_at: None });
    story.settle(exchange, Settled::Accepted);
    assert_fails(&story, &[]);
}

#[test]
fn a_history_without_the_stores_last_word_proves_nothing() {
    let mut story = good();
    story.remove(|event| matches!(event, Event::Kept { .. }));
    assert_fails(&story, &[Sound]);
    story.remove(|event| matches!(event, Event::Stored(_)));
    assert_eq!(story.fails(&BLIND).into_iter().collect::<Vec<_>>(), [Sound]);
}

#[test]
fn states_under_two_algorithms_are_two_states() {
    let twin = notary_worker::domain::SecureHash::new(
        notary_worker::domain::HashAlgorithm::Sha3_256,
        state(1).tx_id.0.as_bytes(),
    );
    let mut other = request(2, &[1], &[]);
    other.inputs[0].tx_id = TxId(twin.expect("32 bytes"));
    let mut story = Story::default();
    story.notarised(&request(1, &[1], &[]));
    story.notarised(&other);
    story.end();
    assert_fails(&story, &[]);
    let text = to_json_lines(&story.records);
    assert_eq!(from_json_lines(&text).as_ref(), Ok(&story.records));
}
