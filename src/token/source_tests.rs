//! A tenant's token over simulated hours: tokio's time is paused and moves by itself.

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::clock::{Clock as _, SetClock};
use crate::retry::Advice;
use crate::token::endpoint::Incoming;
use crate::token::testing::{
    Bench, Pair, Reply, SECRET, Seen, TOKEN, answered, granted, listening, pair, refused, request, some_pair,
};
use crate::token::{Certificate, Credential, Federated, Signing};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Runs the renewal loop until the handle is dropped.
fn renewing(source: &TokenSource) -> AbortOnDropHandle<()> {
    let source = source.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { source.renew().await }))
}

#[tokio::test(start_paused = true)]
async fn twelve_hours_take_one_request_per_renewal() {
    let bench = Bench::new(|number, _| granted([3600, 5400, 4321][number % 3]));
    let source = bench.source(1);
    let mut changes = source.changes();
    assert_eq!(*changes.borrow_and_update(), 0);
    let _renewing = renewing(&source);
    sleep(12 * HOUR + MINUTE).await;
    assert_eq!(bench.requests(), 17, "one at the start and 16 renewals: {:?}", bench.gaps());
    for gap in bench.gaps() {
        assert!(gap >= Duration::from_secs(2564) && gap <= Duration::from_secs(2701), "45 min less 5 %: {gap:?}");
    }
    assert_eq!(*changes.borrow_and_update(), 17);
    assert_eq!(source.token().await.unwrap().generation(), 17);
    assert_eq!(bench.requests(), 17, "callers are served from memory");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_entra_asked_for_is_told_and_held_by_the_next_source() {
    let bench = Bench::new(|number, _| match number {
        0 => {
            let incoming = Incoming { status: 429, retry_after: Some(Duration::from_secs(90)), ..Incoming::default() };
            Reply::After(Duration::ZERO, incoming)
        }
        _ => granted(3600),
    });
    let source = bench.source(1);
    let waits = source.waits();
    assert_eq!(*waits.borrow(), None);
    source.token().await.unwrap_err();
    let left = waits.borrow().unwrap() - Instant::now();
    assert!(left >= Duration::from_secs(90) && left <= Duration::from_secs(99), "{left:?}");

    // The next process.
    let source = bench.source(1);
    source.hold(left);
    assert_eq!(source.token().await.unwrap_err().advice(), Advice::Retry { after: Some(left) });
    let _renewing = renewing(&source);
    sleep(left.saturating_sub(Duration::from_secs(1))).await;
    assert_eq!(bench.requests(), 1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.requests(), 2);
    assert!(source.token().await.is_ok());
}

/// A refusal with this code and a `Retry-After`.
fn refused_for(code: u32, wait: Duration) -> Reply {
    let Reply::After(latency, incoming) = refused(code) else { unreachable!("it answers") };
    Reply::After(latency, Incoming { retry_after: Some(wait), ..incoming })
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_obeyed_whatever_it_came_with_and_for_a_day_at_most() {
    for code in [7_000_229, 7_000_222, 90_033] {
        for (asked, least) in [(5 * HOUR, 5 * HOUR), (100 * HOUR, 24 * HOUR)] {
            let bench = Bench::new(move |_, _| refused_for(code, asked));
            let source = bench.source(1);
            let waits = source.waits();
            let _renewing = renewing(&source);
            sleep(least.saturating_sub(MINUTE)).await;
            assert_eq!(bench.requests(), 1, "AADSTS{code} after {asked:?}");
            let remembered = waits.borrow().unwrap();
            let next = bench.source(1);
            next.hold(remembered - Instant::now());
            let _renewing_next = renewing(&next);
            sleep(Duration::from_secs(50)).await;
            assert_eq!(bench.requests(), 1, "nor by the next process");
            sleep(least / 5).await;
            assert!(bench.requests() > 1, "AADSTS{code} after {asked:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_failure_is_remembered_for_the_next_process() {
    for (reply, least, most) in [
        (503, Duration::from_secs(29), Duration::from_secs(37)),
        (7_000_229, Duration::from_mins(4), Duration::from_mins(5)),
    ] {
        let bench = Bench::new(move |_, _| if reply == 503 { answered(503, &json!({})) } else { refused(reply) });
        for _ in 0..20 {
            // A restart loop.
            let source = bench.source(1);
            source.token().await.unwrap_err();
            let left = source.waits().borrow().unwrap() - Instant::now();
            assert!(left >= least && left <= most, "{reply}: {left:?}");
            let next = bench.source(1);
            next.hold(left);
            for _ in 0..5 {
                let Advice::Retry { after: Some(_) } = next.token().await.unwrap_err().advice() else { panic!() };
            }
            sleep(left).await;
        }
        assert_eq!(bench.requests(), 20);
        assert!(bench.gaps().iter().all(|gap| *gap >= FLOOR), "{:?}", bench.gaps());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_granted_ends_what_is_remembered() {
    let bench = Bench::new(|number, _| if number == 0 { refused(7_000_229) } else { granted(3600) });
    let source = bench.source(1);
    source.token().await.unwrap_err();
    let mut waits = source.waits();
    assert!(source.follow(&request(1, Credential::Secret("new".to_owned().into())), &bench.apps));
    sleep(FLOOR).await;
    source.token().await.unwrap();
    assert!(waits.has_changed().unwrap());
    assert_eq!(*waits.borrow_and_update(), None);
}

#[tokio::test(start_paused = true)]
async fn short_and_long_tokens_are_renewed_in_time() {
    for (life, refresh_in, least, most) in [
        (120, None, 57, 61),
        (600, None, 285, 301),
        (3600, None, 2565, 2701),
        (86_400, None, 2565, 2701),
        (86_400, Some(1200), 1140, 1201),
        (40, None, 30, 31),
    ] {
        let bench = Bench::new(move |_, _| {
            answered(
                200,
                &json!({"token_type": "Bearer", "expires_in": life, "refresh_in": refresh_in, "access_token": TOKEN}),
            )
        });
        let source = bench.source(1);
        let _renewing = renewing(&source);
        let end = Instant::now() + 3 * HOUR;
        while Instant::now() < end {
            let token = source.token().await.unwrap();
            assert!(token.valid_until() > Instant::now(), "{life} s: a token is handed out while it is valid");
            sleep(Duration::from_secs(7)).await;
        }
        for gap in bench.gaps() {
            assert!(gap.as_secs() >= least && gap.as_secs() < most, "{life} s: {gap:?}");
        }
        assert!(bench.requests() > 3, "{life} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_valid_token() {
    let ill = Arc::new(AtomicBool::new(false));
    let bench = Bench::new({
        let ill = Arc::clone(&ill);
        move |_, _| {
            if ill.load(Ordering::Relaxed) {
                answered(503, &json!({"error": "temporarily_unavailable", "error_codes": [90_033]}))
            } else {
                granted(3600)
            }
        }
    });
    let source = bench.source(1);
    let _renewing = renewing(&source);
    let start = source.token().await.unwrap().issued();
    ill.store(true, Ordering::Relaxed);
    while start.elapsed() < 59 * MINUTE {
        assert_eq!(source.token().await.unwrap().generation(), 1, "after {:?}", start.elapsed());
        sleep(Duration::from_secs(5)).await;
    }
    let trouble = source.status().last_error.expect("the failure shows in the status");
    assert_eq!((trouble.kind.as_str(), trouble.code.as_deref()), ("entra_transient", Some("AADSTS90033")));
    assert!(!trouble.needs_operator);

    sleep(MINUTE).await;
    let before = bench.requests();
    let error = source.token().await.expect_err("the token has ended");
    let Advice::Retry { after: Some(after) } = error.advice() else { panic!("{error:?}") };
    assert!(after <= Duration::from_mins(18), "the token stage's longest wait and its jitter: {after:?}");
    for _ in 0..1000 {
        source.token().await.expect_err("still ill");
    }
    assert_eq!(bench.requests(), before, "callers do not ask Entra while it is to be left alone");
    assert!(bench.gaps().iter().skip(1).all(|gap| *gap >= FLOOR), "{:?}", bench.gaps());

    ill.store(false, Ordering::Relaxed);
    sleep(after).await;
    assert_eq!(source.token().await.unwrap().generation(), 2);
    assert_eq!(source.status().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn what_entra_asks_for_is_waited_for() {
    let bench = Bench::new(|number, _| match number {
        0 => Reply::After(
            Duration::ZERO,
            Incoming {
                status: 429,
                retry_after: Some(Duration::from_mins(20)),
                body: b"Too Many Requests".to_vec().into(),
                ..Incoming::default()
            },
        ),
        1 => answered(400, &json!({"error": "invalid_grant", "error_codes": [50_196]})),
        2 => answered(400, &json!({"error": "invalid_grant", "error_codes": [90_055]})),
        3 => Reply::Broken,
        _ => granted(3600),
    });
    let source = bench.source(1);
    let _renewing = renewing(&source);
    sleep(2 * HOUR).await;
    let gaps = bench.gaps();
    assert!(gaps[0] >= Duration::from_mins(20) && gaps[0] <= Duration::from_mins(23), "Retry-After: {gaps:?}");
    assert!(gaps[1] >= Duration::from_mins(10), "loop detection: {gaps:?}");
    assert!(gaps[2] >= MINUTE, "throttling without a Retry-After: {gaps:?}");
    assert!(gaps[3] >= FLOOR, "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_share_one_request() {
    let bench = Bench::new(|_, _| granted(3600));
    let source = bench.source(1);
    let tokens = join_all((0..100).map(|_| source.token())).await;
    assert!(tokens.iter().all(|token| token.as_ref().unwrap().generation() == 1));
    assert_eq!(bench.requests(), 1);
    assert_eq!(tokens[0].as_ref().unwrap().authorization(), format!("Bearer {TOKEN}.3600"));
    assert!(tokens[0].as_ref().unwrap().authorization().is_sensitive());
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_wastes_nothing() {
    let bench = Bench::new(|_, _| granted(3600));
    let source = bench.source(1);
    timeout(Duration::from_millis(50), source.token()).await.expect_err("the answer takes longer");
    assert_eq!(source.token().await.unwrap().generation(), 1);
    assert_eq!(bench.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once() {
    let bench = Bench::new(|_, _| granted(3600));
    let source = bench.source(1);
    let first = source.token().await.unwrap();
    sleep(10 * MINUTE).await;
    join_all((0..100).map(|_| source.refused(&first))).await;
    assert_eq!(bench.requests(), 2, "at once, and once for all");
    let second = source.token().await.unwrap();
    assert_eq!(second.generation(), 2);
    sleep(10 * MINUTE).await;
    source.refused(&first).await;
    assert_eq!(bench.requests(), 2, "a late refusal of the old token means nothing");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_at_once_is_replaced_after_the_floor() {
    let bench = Bench::new(|_, _| granted(3600));
    let source = bench.source(1);
    let _renewing = renewing(&source);
    let first = source.token().await.unwrap();
    source.refused(&first).await;
    assert_eq!(source.token().await.unwrap().generation(), 1, "meanwhile the valid token is handed out");
    sleep(FLOOR + Duration::from_secs(1)).await;
    assert_eq!(source.token().await.unwrap().generation(), 2);
    assert_eq!(bench.requests(), 2);
    assert!(bench.gaps()[0] >= FLOOR);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_refusals_costs_one_replacement_per_renewal() {
    let bench = Bench::new(|_, _| granted(3600));
    let source = bench.source(1);
    let _renewing = renewing(&source);
    let start = Instant::now();
    let mut in_vain = 0;
    while start.elapsed() < 2 * HOUR {
        let tokens = join_all((0..20).map(|_| source.token())).await;
        for token in tokens {
            in_vain += u32::from(source.refused(&token.unwrap()).await);
        }
        sleep(Duration::from_secs(1)).await;
    }
    let gaps: Vec<_> = bench.gaps().iter().map(Duration::as_secs).collect();
    assert_eq!(gaps.len(), 5, "two tokens at the start and at each renewal: {gaps:?}");
    for (number, gap) in gaps.iter().enumerate() {
        let expected = if number % 2 == 0 { 30..=31 } else { 2565..=2701 };
        assert!(expected.contains(gap), "{gaps:?}");
    }
    assert!(in_vain > 20 * 6000, "the replacements, and none of those that they replace: {in_vain}");
}

#[tokio::test(start_paused = true)]
async fn one_refusal_of_a_replacement_that_has_served_is_not_in_vain() {
    let bench = Bench::new(|_, _| granted(3600));
    let source = bench.source(1);
    let first = source.token().await.unwrap();
    sleep(MINUTE).await;
    assert!(!source.refused(&first).await);
    let second = source.token().await.unwrap();
    assert_eq!(second.generation(), 2);
    sleep(20 * MINUTE).await;
    assert!(!source.refused(&second).await, "an error of one server, most likely");
    assert_eq!((source.token().await.unwrap().generation(), bench.requests()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_kept_while_entra_is_ill() {
    let bench = Bench::new(|number, _| if number == 0 { granted(3600) } else { Reply::Broken });
    let source = bench.source(1);
    let first = source.token().await.unwrap();
    sleep(10 * MINUTE).await;
    source.refused(&first).await;
    assert_eq!(bench.requests(), 2);
    assert_eq!(source.token().await.unwrap().generation(), 1, "one server's 401 is no proof");
    source.refused(&first).await;
    assert_eq!(bench.requests(), 2, "the same generation again");
}

#[tokio::test(start_paused = true)]
async fn a_tenants_trouble_is_asked_about_seldom_and_does_not_touch_the_others() {
    let consented = Arc::new(AtomicBool::new(false));
    let bench = Bench::new({
        let consented = Arc::clone(&consented);
        move |_, seen| {
            if seen.path.starts_with("/01010101") && !consented.load(Ordering::Relaxed) {
                refused(7_000_229)
            } else {
                granted(3600)
            }
        }
    });
    let (source, other) = (bench.source(1), bench.source(2));
    let _renewing = renewing(&source);
    let error = source.token().await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("consent_missing", Advice::PauseTenant));
    let trouble = error.trouble();
    assert!(trouble.needs_operator && !trouble.shared);
    assert_eq!(
        trouble.to_string(),
        "the tenant 01010101-0101-0101-0101-010101010101 has not consented to the app client: let an administrator of \
         the tenant open https://login.microsoftonline.com/01010101-0101-0101-0101-010101010101/adminconsent\
         ?client_id=client and consent; Microsoft may need half an hour to replicate it"
    );
    assert_eq!((trouble.code.as_deref(), trouble.correlation_id.as_deref()), (Some("AADSTS7000229"), Some("c0ffee")));
    assert_eq!(error.trace_id(), Some("7ace"));
    assert_eq!(other.token().await.unwrap().generation(), 1);

    sleep(12 * HOUR).await;
    let requests = bench.seen().iter().filter(|seen| seen.path.starts_with("/01010101")).count();
    assert!((12..=22).contains(&requests), "5 minutes growing to an hour: {requests}");
    assert_eq!(source.token().await.unwrap_err().advice(), Advice::PauseTenant, "the last error, not a wait");
    consented.store(true, Ordering::Relaxed);
    let mut changes = source.changes();
    timeout(Duration::from_mins(73), changes.changed()).await.expect("noticed by itself").unwrap();
    assert_eq!(source.token().await.unwrap().generation(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_costs_one_request() {
    let service = SetClock::new("2026-11-22T12:00:00Z".parse().unwrap());
    let bench = Bench::new({
        let service = Arc::clone(&service);
        move |_, seen: &Seen| as_entra_checks_time(seen, service.now())
    });
    bench.clock.set("2026-11-22T13:00:00Z".parse().unwrap());
    let certificate = Certificate::from_pem(some_pair().certificate.as_bytes(), Some(some_pair().key.as_bytes()));
    let list = vec![Arc::new(certificate.unwrap())];
    let source = bench.source_with(1, Credential::certificates(list, Signing::Ps256).unwrap());
    let error = source.token().await.unwrap_err();
    let trouble = error.trouble();
    assert!(matches!(error.advice(), Advice::Retry { .. }), "{error:?}");
    assert!(
        trouble.cause.contains("good from 2026-11-22T13:00:00Z to 2026-11-22T13:10:00Z")
            && trouble.cause.contains("Entra's clock 2026-11-22T12:00:00Z"),
        "{trouble}"
    );
    assert_eq!(bench.apps.alarms(), []);
    let _renewing = renewing(&source);
    sleep(Duration::from_secs(40)).await;
    assert_eq!(source.token().await.unwrap().generation(), 1, "signed by Microsoft's time");

    bench.clock.set("2026-11-20T13:00:00Z".parse().unwrap());
    sleep(12 * HOUR).await;
    assert_eq!(source.status().last_error, None, "a step of the host's clock changes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_nothing_explains_is_the_hosts_trouble() {
    let bench = Bench::new(|_, _| refused(700_024));
    let source = bench.source(1);
    let error = source.token().await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("clock", Advice::PauseApp), "the only tenant's word is believed");
    assert!(error.trouble().cause.contains("Entra's clock not told"), "{}", error.trouble());
}

/// Refuses an assertion outside its time, as Entra does, and tells its time.
fn as_entra_checks_time(seen: &Seen, now: Timestamp) -> Reply {
    let assertion = seen.field("client_assertion").unwrap();
    let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    let skew = SignedDuration::from_mins(5);
    let at = |name: &str| Timestamp::from_second(claims[name].as_i64().unwrap()).unwrap();
    let good = at("nbf") - skew <= now && now <= at("exp") + skew;
    let Reply::After(latency, mut incoming) = (if good { granted(3600) } else { refused(700_024) }) else {
        unreachable!("both answer")
    };
    incoming.date = Some(now);
    Reply::After(latency, incoming)
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_that_passes() {
    let bench = Bench::new(|number, _| if number == 0 { Reply::Panic } else { granted(3600) });
    let source = bench.source(1);
    let error = source.token().await.unwrap_err();
    assert_eq!(error.kind(), "ended");
    let Advice::Retry { .. } = source.token().await.unwrap_err().advice() else { panic!("{error:?}") };
    assert_eq!(bench.requests(), 1);
    let _renewing = renewing(&source);
    sleep(MINUTE).await;
    assert_eq!(source.token().await.unwrap().generation(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_times_of_day() {
    let bench = Bench::new(|_, _| granted(3600));
    let source = bench.source(1);
    assert_eq!(source.status().valid_until, None);
    source.token().await.unwrap();
    sleep(10 * MINUTE).await;
    let status = source.status();
    assert_eq!(status.valid_until, "2026-11-22T13:00:00Z".parse().ok());
    let renews_at = status.renews_at.unwrap();
    let earliest: Timestamp = "2026-11-22T12:42:45Z".parse().unwrap();
    assert!(renews_at >= earliest && renews_at <= "2026-11-22T12:45:00Z".parse().unwrap(), "{renews_at}");
}

#[tokio::test(start_paused = true)]
async fn no_output_contains_what_is_secret() {
    let echoed = Arc::new(Mutex::new(String::new()));
    let bench = Bench::new({
        let echoed = Arc::clone(&echoed);
        move |number, seen: &Seen| {
            let proof = seen.field("client_secret").or(seen.field("client_assertion")).unwrap();
            proof.clone_into(&mut echoed.lock().unwrap());
            match number % 3 {
                0 => answered(
                    400,
                    &json!({"error": proof, "error_description": format!("AADSTS1: {proof} {} Trace ID: {proof}", "x".repeat(290)),
                            "trace_id": proof, "correlation_id": proof}),
                ),
                1 => answered(200, &json!({"token_type": "pop", "expires_in": 3600, "access_token": TOKEN})),
                _ => granted(3600),
            }
        }
    });
    let pair = some_pair();
    let certificate = Certificate::from_pem(pair.certificate.as_bytes(), Some(pair.key.as_bytes())).unwrap();
    let certificates = Credential::certificates(vec![Arc::new(certificate)], Signing::Ps256).unwrap();
    let (lines, _listening) = listening(tracing::Level::TRACE);
    let mut output = String::new();
    let mut secrets = vec![SECRET.to_owned(), TOKEN.to_owned()];
    for source in [bench.source(1), bench.source_with(2, certificates)] {
        for _ in 0..3 {
            let outcome = source.token().await;
            secrets.push(echoed.lock().unwrap().clone());
            if let Err(error) = &outcome {
                let mut next = error.source();
                while let Some(source) = next {
                    _ = write!(output, "{source} {source:?} ");
                    next = source.source();
                }
                _ = write!(output, "{error} {} {}", error.trouble(), serde_json::to_string(&error.trouble()).unwrap());
            }
            _ = write!(output, "{source:?} {source:#?} {outcome:?} {:?} {:?}", source.status(), bench.apps);
            sleep(HOUR).await;
        }
    }
    output += &lines.text();
    assert!(output.contains("token granted"), "the log is part of it");
    secrets.extend(pair.key.lines().filter(|line| !line.starts_with("---")).map(str::to_owned));
    assert!(secrets.len() > 20);
    for secret in secrets {
        for part in [&secret[..], &secret[..secret.len().min(12)], &secret[secret.len().saturating_sub(12)..]] {
            assert!(!output.contains(part), "{part} is in:\n{output}");
        }
    }
}

// One app, many tenants.

/// Tenants 1 to `count`, renewing.
fn tenants(bench: &Bench, count: u8) -> Vec<(TokenSource, AbortOnDropHandle<()>)> {
    (1..=count)
        .map(|tenant| {
            let source = bench.source(tenant);
            let renewing = renewing(&source);
            (source, renewing)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_expired_secret_of_fifty_tenants_is_one_alarm_and_one_probe_at_a_time() {
    let (lines, _listening) = listening(tracing::Level::INFO);
    let renewed = Arc::new(AtomicBool::new(false));
    let bench = Bench::new({
        let renewed = Arc::clone(&renewed);
        move |_, _| if renewed.load(Ordering::Relaxed) { granted(3600) } else { refused(7_000_222) }
    });
    let tenants = tenants(&bench, 50);
    sleep(MINUTE).await;
    assert_eq!(bench.requests(), 2, "two tenants are enough to find out");
    for (source, _) in &tenants {
        let error = source.token().await.unwrap_err();
        assert_eq!((error.kind(), error.advice()), ("secret_expired", Advice::PauseApp));
        assert!(error.trouble().shared);
    }
    let alarms = bench.apps.alarms();
    assert_eq!((alarms.len(), alarms[0].tenants), (1, 50));
    assert_eq!(alarms[0].trouble.code.as_deref(), Some("AADSTS7000222"));

    sleep(6 * HOUR).await;
    let requests = bench.requests();
    assert!((20..=40).contains(&requests), "a probe every 5 to 15 minutes: {requests}");
    let text = lines.text();
    assert_eq!(text.matches("ERROR").count(), text.lines().count(), "{text}");
    assert!((2..=6).contains(&text.lines().count()), "at once and then seldom:\n{text}");
    let probers: std::collections::BTreeSet<_> = bench.seen().into_iter().map(|seen| seen.path).collect();
    assert!(probers.len() > 10, "the turn to probe goes round: {}", probers.len());

    renewed.store(true, Ordering::Relaxed);
    let start = Instant::now();
    for (source, _) in &tenants {
        source.changes().wait_for(|generation| *generation == 1).await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_mins(20), "{:?}", start.elapsed());
    assert_eq!(bench.requests() - requests, 50, "one each");
    let times: Vec<_> = bench.seen()[requests..].iter().map(|seen| seen.at).collect();
    assert!(times[49] - times[0] > Duration::from_secs(2), "spread out");
    assert_eq!(bench.apps.alarms(), []);
    assert_eq!(lines.text().matches("app works again").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_looks_again_waits_for_the_floor_and_not_for_the_pause() {
    let mended = Arc::new(AtomicBool::new(false));
    let bench = Bench::new({
        let mended = Arc::clone(&mended);
        move |_, _| if mended.load(Ordering::Relaxed) { granted(3600) } else { refused(7_000_112) }
    });
    let source = bench.source(1);
    source.look_again().await.expect_err("the app is disabled in the tenant");
    for _ in 0..1000 {
        source.look_again().await.expect_err("the last answer");
    }
    assert_eq!(bench.requests(), 1, "the floor holds for everybody");
    mended.store(true, Ordering::Relaxed);
    sleep(FLOOR).await;
    source.token().await.expect_err("collecting pauses for minutes");
    assert_eq!(source.look_again().await.unwrap().generation(), 1);
    for _ in 0..1000 {
        source.look_again().await.unwrap();
    }
    assert_eq!(bench.requests(), 2, "a token that is there is taken");
}

#[tokio::test(start_paused = true)]
async fn whoever_looks_again_at_an_app_costs_one_probe() {
    let renewed = Arc::new(AtomicBool::new(false));
    let bench = Bench::new({
        let renewed = Arc::clone(&renewed);
        move |_, _| if renewed.load(Ordering::Relaxed) { granted(3600) } else { refused(7_000_222) }
    });
    let tenants = tenants(&bench, 50);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.requests(), 2);
    let look_again = async || {
        bench.apps.look_again();
        join_all(tenants.iter().map(|(source, _)| source.look_again())).await
    };
    assert!(look_again().await.iter().all(Result::is_err));
    assert_eq!(bench.requests(), 2, "less than half a minute ago");
    sleep(FLOOR).await;
    assert!(look_again().await.iter().all(Result::is_err));
    assert!(look_again().await.iter().all(Result::is_err));
    assert_eq!(bench.requests(), 3, "one probe for all");
    renewed.store(true, Ordering::Relaxed);
    sleep(FLOOR).await;
    assert!(look_again().await.iter().any(Result::is_ok));
    assert_eq!(bench.apps.alarms(), []);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_expires_in_service_costs_two_requests() {
    let expired = Arc::new(AtomicBool::new(false));
    let bench = Bench::new({
        let expired = Arc::clone(&expired);
        move |_, _| if expired.load(Ordering::Relaxed) { refused(7_000_222) } else { granted(3600) }
    });
    let tenants = tenants(&bench, 50);
    sleep(10 * MINUTE).await;
    assert_eq!(bench.requests(), 50);
    expired.store(true, Ordering::Relaxed);
    sleep(45 * MINUTE).await;
    for (source, _) in &tenants {
        assert_eq!(source.token().await.unwrap().generation(), 1, "the valid token is kept");
    }
    let requests = bench.requests() - 50;
    assert!((2..=4).contains(&requests), "two to believe it, then probes: {requests}");
}

#[tokio::test(start_paused = true)]
async fn one_tenants_complaint_does_not_stop_the_others() {
    let bench = Bench::new(|_, seen| if seen.path.starts_with("/01010101") { refused(700_027) } else { granted(3600) });
    let tenants = tenants(&bench, 20);
    sleep(6 * HOUR).await;
    assert_eq!(bench.apps.alarms(), []);
    let error = tenants[0].0.token().await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), ("certificate_unknown", Advice::PauseTenant));
    for (source, _) in &tenants[1..] {
        assert_eq!(source.token().await.unwrap().generation(), 9, "renewed eight times in six hours");
        assert_eq!(source.status().last_error, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_answer_delays_the_others_by_seconds() {
    let bench = Bench::new(|_, seen| if seen.path.starts_with("/01010101") { Reply::Never } else { granted(3600) });
    let tenants = tenants(&bench, 50);
    sleep(Duration::from_secs(6)).await;
    for (source, _) in &tenants[1..] {
        assert_eq!(source.token().await.unwrap().generation(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_entra_is_nobodys_fault() {
    let ill = Arc::new(AtomicU64::new(1));
    let bench = Bench::new({
        let ill = Arc::clone(&ill);
        move |_, _| if ill.load(Ordering::Relaxed) == 1 { Reply::Broken } else { granted(3600) }
    });
    let tenants = tenants(&bench, 20);
    sleep(HOUR).await;
    assert_eq!(bench.apps.alarms(), []);
    let requests = bench.requests();
    assert!((20 * 6..=20 * 12).contains(&requests), "30 s growing to 15 min, each for itself: {requests}");
    ill.store(0, Ordering::Relaxed);
    sleep(Duration::from_mins(18)).await;
    for (source, _) in &tenants {
        assert_eq!(source.token().await.unwrap().generation(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_credential_begins_anew() {
    let bench = Bench::new(
        |_, seen| {
            if seen.field("client_secret") == Some("new") { granted(3600) } else { refused(7_000_215) }
        },
    );
    let old = bench.source(1);
    assert_eq!(old.token().await.unwrap_err().advice(), Advice::PauseApp);
    let new = bench.source_with(1, Credential::Secret("new".to_owned().into()));
    assert_eq!(new.token().await.unwrap().generation(), 1);
    assert_eq!(bench.apps.alarms().len(), 1, "the old one's");
    drop(old);
    assert_eq!(bench.apps.alarms(), [], "an alarm ends with the last source that it concerns");
}

#[tokio::test(start_paused = true)]
async fn no_tenant_knows_a_client_id_that_is_wrong() {
    let right = Arc::new(AtomicBool::new(false));
    let bench = Bench::new({
        let right = Arc::clone(&right);
        move |_, _| if right.load(Ordering::Relaxed) { granted(3600) } else { refused(700_016) }
    });
    let some = tenants(&bench, 2);
    sleep(MINUTE).await;
    assert_eq!(bench.apps.alarms(), [], "two may not have consented");
    assert_eq!(some[0].0.token().await.unwrap_err().advice(), Advice::PauseTenant);
    drop(some);

    let many = tenants(&bench, 50);
    sleep(2 * HOUR).await;
    let alarms = bench.apps.alarms();
    assert_eq!((alarms.len(), alarms[0].trouble.kind.as_str()), (1, "app_unknown"));
    assert_eq!(alarms[0].trouble.cause, "none of the tenants that were asked for knows the app client");
    assert!(alarms[0].trouble.remedy.starts_with("check the client id"), "{}", alarms[0].trouble);
    assert!(bench.requests() < 80, "each asks once, then a probe at a time: {}", bench.requests());
    right.store(true, Ordering::Relaxed);
    sleep(20 * MINUTE).await;
    assert_eq!(bench.apps.alarms(), []);
    for (source, _) in &many {
        assert_eq!(source.token().await.unwrap().generation(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_one_tenant_knows_has_the_right_client_id() {
    let bench = Bench::new(|_, seen| if seen.path.starts_with("/14141414") { granted(3600) } else { refused(700_016) });
    let tenants = tenants(&bench, 20);
    sleep(2 * HOUR).await;
    assert_eq!(bench.apps.alarms(), []);
    assert_eq!(tenants[0].0.token().await.unwrap_err().advice(), Advice::PauseTenant);
    assert!(tenants[19].0.token().await.is_ok());
}

// Following the configuration.

fn secret(text: &str) -> Credential {
    Credential::Secret(text.to_owned().into())
}

#[tokio::test(start_paused = true)]
async fn another_credential_keeps_the_token_and_the_floor() {
    let bench =
        Bench::new(
            |_, seen| {
                if seen.field("client_secret") == Some("wrong") { refused(7_000_215) } else { granted(3600) }
            },
        );
    let source = bench.source(1);
    let _renewing = renewing(&source);
    let first = source.token().await.unwrap();
    // At once: Entra hears of it half a minute after the last request.
    assert!(source.follow(&request(1, secret("wrong")), &bench.apps));
    assert_eq!(source.token().await.unwrap().generation(), 1);
    sleep(Duration::from_secs(29)).await;
    assert_eq!(bench.requests(), 1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.requests(), 2);
    assert_eq!(source.status().last_error.unwrap().kind, "secret_invalid");
    assert_eq!(bench.apps.alarms().len(), 1, "the operator hears of it at once");
    while first.issued().elapsed() < 58 * MINUTE {
        assert_eq!(source.token().await.unwrap().generation(), 1, "the valid token is kept");
        sleep(MINUTE).await;
    }
    assert!(source.follow(&request(1, secret("right")), &bench.apps));
    assert_eq!(bench.apps.alarms(), [], "what is said of the old credential is not said of the new one");
    sleep(FLOOR).await;
    assert_eq!(source.token().await.unwrap().generation(), 2);
    assert!(bench.gaps().iter().all(|gap| *gap >= FLOOR), "{:?}", bench.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_hundred_reloads_do_not_ask_a_hundred_times() {
    let bench = Bench::new(|_, _| granted(3600));
    let source = bench.source(1);
    let _renewing = renewing(&source);
    source.token().await.unwrap();
    let start = Instant::now();
    for number in 0..100 {
        assert!(source.follow(&request(1, secret(&number.to_string())), &bench.apps));
        sleep(Duration::from_millis(700)).await;
        source.token().await.unwrap();
    }
    sleep(MINUTE).await;
    assert!(start.elapsed() < Duration::from_secs(150) && bench.requests() <= 7, "{:?}", bench.gaps());
    assert!(bench.gaps().iter().all(|gap| *gap >= FLOOR), "{:?}", bench.gaps());
    assert_eq!(bench.seen().last().unwrap().field("client_secret"), Some("99"));
}

#[tokio::test(start_paused = true)]
async fn a_new_credential_of_many_tenants_is_asked_for_spread_out() {
    let bench = Bench::new(|_, _| granted(3600));
    let tenants = tenants(&bench, 50);
    sleep(MINUTE).await;
    assert_eq!(bench.requests(), 50);
    for (tenant, (source, _)) in (1..).zip(&tenants) {
        assert!(source.follow(&request(tenant, secret("new")), &bench.apps));
    }
    sleep(MINUTE).await;
    let times: Vec<_> = bench.seen()[50..].iter().map(|seen| seen.at).collect();
    assert_eq!(times.len(), 50);
    assert!(times[49] - times[0] > Duration::from_secs(1), "spread out");
}

#[tokio::test(start_paused = true)]
async fn another_pace_is_the_living_tokens_too() {
    let bench = Bench::new(|_, _| granted(3600));
    let source = bench.source(1);
    let _renewing = renewing(&source);
    source.token().await.unwrap();
    sleep(10 * MINUTE).await;
    let request = |minutes| TokenRequest {
        renew_after: minutes * MINUTE,
        ..request(1, Credential::Secret(SECRET.to_owned().into()))
    };
    assert!(source.follow(&request(20), &bench.apps));
    sleep(8 * MINUTE).await;
    assert_eq!(bench.requests(), 1);
    sleep(2 * MINUTE).await;
    assert_eq!(bench.requests(), 2, "20 minutes after it was issued, less 5 %");
    sleep(10 * MINUTE).await;
    assert!(source.follow(&request(5), &bench.apps));
    sleep(MINUTE).await;
    assert_eq!(bench.requests(), 3, "it is due already");
}

#[tokio::test(start_paused = true)]
async fn a_token_does_not_follow_to_another_cloud() {
    let bench = Bench::new(|_, _| granted(3600));
    let source = bench.source(1);
    source.token().await.unwrap();
    let same = request(1, secret("new"));
    let cloud = Arc::new(crate::cloud::Cloud::preset("gcc").unwrap());
    assert!(!source.follow(&TokenRequest { cloud, ..same.clone() }, &bench.apps));
    assert!(!source.follow(&TokenRequest { audience: "https://other".to_owned(), ..same }, &bench.apps));
    assert!(!source.follow(&request(2, secret("new")), &bench.apps));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_the_old_credential_does_not_count_against_the_new_one() {
    let slow = |reply| match reply {
        Reply::After(_, incoming) => Reply::After(Duration::from_secs(5), incoming),
        other => other,
    };
    for grants in [false, true] {
        let bench =
            Bench::new(move |number, _| slow(if number > 0 || grants { granted(3600) } else { refused(7_000_222) }));
        let source = bench.source(1);
        let _renewing = renewing(&source);
        sleep(Duration::from_secs(1)).await;
        assert!(source.follow(&request(1, secret("new")), &bench.apps));
        sleep(Duration::from_secs(5)).await;
        assert_eq!(source.status().last_error, None);
        assert_eq!(source.token().await.is_ok(), grants, "a token is a token");
        sleep(FLOOR + Duration::from_secs(10)).await;
        assert_eq!(bench.seen()[1].field("client_secret"), Some("new"));
        assert!(source.token().await.is_ok());
        assert!(bench.gaps().iter().all(|gap| *gap >= FLOOR), "{:?}", bench.gaps());
    }
}

// Several certificates.

/// Two certificates, the older one first, and the `x5t#S256` of each.
fn two_certificates() -> (Credential, [String; 2]) {
    let read =
        |pair: &Pair| Arc::new(Certificate::from_pem(pair.certificate.as_bytes(), Some(pair.key.as_bytes())).unwrap());
    let mut both = [read(some_pair()), read(&pair("another pair"))];
    let credential = Credential::certificates(both.to_vec(), Signing::Ps256).unwrap();
    let newest = Arc::clone(credential.certificate("2026-11-22T12:00:00Z".parse().unwrap()).unwrap());
    both.sort_by_key(|certificate| *certificate == newest);
    (credential, both.map(|certificate| certificate.x5t_s256().to_owned()))
}

/// Which certificate signed.
fn signer(seen: &Seen) -> String {
    let header = URL_SAFE_NO_PAD.decode(seen.field("client_assertion").unwrap().split('.').next().unwrap()).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["x5t#S256"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_uploaded_yet_stops_nobody() {
    for code in [700_027, 50_012, 700_030] {
        let (lines, _listening) = listening(tracing::Level::INFO);
        let (credential, [old, new]) = two_certificates();
        let uploaded = Arc::new(AtomicBool::new(false));
        let bench = Bench::new({
            let (uploaded, old) = (Arc::clone(&uploaded), old.clone());
            move |_, seen| {
                if signer(seen) == old || uploaded.load(Ordering::Relaxed) { granted(3600) } else { refused(code) }
            }
        });
        let sources: Vec<_> = (1..=20).map(|tenant| bench.source_with(tenant, credential.clone())).collect();
        let _renewing: Vec<_> = sources.iter().map(renewing).collect();
        sleep(FLOOR + Duration::from_secs(10)).await;
        for source in &sources {
            assert!(source.token().await.is_ok());
        }
        assert_eq!(bench.requests(), 21, "one met the refusal, and waits for the floor");
        sleep(6 * HOUR).await;
        assert_eq!(bench.apps.alarms(), []);
        let refusals = bench.seen().iter().filter(|seen| signer(seen) == new).count();
        assert!((3..=8).contains(&refusals), "tried again about hourly: {refusals}");
        let text = lines.text();
        assert!(text.contains("upload the public certificate with the SHA-1 thumbprint"), "{text}");
        assert!(text.matches("WARN").count() <= refusals && !text.contains("ERROR"), "{text}");

        uploaded.store(true, Ordering::Relaxed);
        let before = bench.requests();
        sleep(3 * HOUR).await;
        assert!(bench.seen()[before..].iter().any(|seen| signer(seen) == new), "noticed by itself");
        let last = bench.requests();
        sleep(HOUR).await;
        assert!(bench.seen()[last..].iter().all(|seen| signer(seen) == new), "the newest signs again");
        assert_eq!(lines.text().matches("certificate accepted after all").count(), 1, "{}", lines.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_certificate_that_was_refused_signs_when_the_old_one_is_withdrawn() {
    let (lines, _listening) = listening(tracing::Level::INFO);
    let (credential, [old, new]) = two_certificates();
    let switched = Arc::new(AtomicBool::new(false));
    let bench = Bench::new({
        let (switched, old, new) = (Arc::clone(&switched), old.clone(), new.clone());
        move |_, seen| {
            let known = if switched.load(Ordering::Relaxed) { &new } else { &old };
            if signer(seen) == *known { granted(3600) } else { refused(700_027) }
        }
    });
    let sources: Vec<_> = (1..=5).map(|tenant| bench.source_with(tenant, credential.clone())).collect();
    let _renewing: Vec<_> = sources.iter().map(renewing).collect();
    sleep(20 * MINUTE).await;
    // The new one is uploaded and the old one removed, long before the new one's turn.
    switched.store(true, Ordering::Relaxed);
    let start = Instant::now();
    while start.elapsed() < 2 * HOUR {
        sleep(MINUTE).await;
        for source in &sources {
            source.token().await.unwrap_or_else(|error| panic!("{:?}: {}", start.elapsed(), error.trouble()));
        }
    }
    assert_eq!(bench.apps.alarms(), []);
    assert!(!lines.text().contains("ERROR"), "{}", lines.text());
    let last = bench.seen().pop().unwrap();
    assert_eq!(signer(&last), new);
    let refusals = bench.seen().iter().filter(|seen| signer(seen) == old).count();
    assert!(refusals < 15, "{refusals} requests were signed with the old one");
}

#[tokio::test(start_paused = true)]
async fn certificates_that_are_all_refused_are_the_apps_trouble() {
    let (credential, [old, _]) = two_certificates();
    let uploaded = Arc::new(AtomicBool::new(false));
    let bench = Bench::new({
        let uploaded = Arc::clone(&uploaded);
        move |_, seen| {
            if uploaded.load(Ordering::Relaxed) && signer(seen) == old { granted(3600) } else { refused(700_027) }
        }
    });
    let source = bench.source_with(1, credential);
    let _renewing = renewing(&source);
    assert!(matches!(source.token().await.unwrap_err().advice(), Advice::Retry { .. }), "the other one is tried");
    sleep(FLOOR + Duration::from_secs(10)).await;
    assert_eq!(source.token().await.unwrap_err().advice(), Advice::PauseApp);
    assert_eq!(bench.apps.alarms()[0].trouble.kind, "certificate_unknown");
    sleep(2 * HOUR).await;
    uploaded.store(true, Ordering::Relaxed);
    sleep(40 * MINUTE).await;
    assert!(source.token().await.is_ok(), "the one that is remedied is found, whichever it is");
    assert_eq!(bench.apps.alarms(), []);
}

/// A JWT for `audience`, as another issuer signs it.
fn foreign_jwt(number: u32, audience: &str) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"iss": "https://k8s.example", "sub": "system:serviceaccount:a:b", "aud": audience, "jti": number,
                        "exp": 1_795_352_400});
    format!("{}.{}.c2lnbmF0dXJl", part(json!({"alg": "RS256"})), part(claims))
}

const EXCHANGE: &str = "api://AzureADTokenExchange";

#[tokio::test(start_paused = true)]
async fn a_federated_token_is_read_for_each_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let bench = Bench::new(|_, _| granted(3600));
    let source = bench.source_with(1, Credential::Federated(Federated::File(path.clone())));
    for number in 0..3 {
        std::fs::write(&path, format!("{}\n", foreign_jwt(number, EXCHANGE))).unwrap();
        let token = source.token().await.unwrap();
        let seen = bench.seen().pop().unwrap();
        assert_eq!(seen.field("client_assertion"), Some(&foreign_jwt(number, EXCHANGE)[..]));
        assert_eq!(seen.field("client_assertion_type"), Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
        tokio::time::sleep_until(token.valid_until()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_file_that_is_missing_is_one_alarm_and_looked_for_soon() {
    let (lines, _listening) = listening(tracing::Level::INFO);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let bench = Bench::new(|_, _| granted(3600));
    let credential = Credential::Federated(Federated::File(path.clone()));
    let sources: Vec<_> = (0..20).map(|tenant| bench.source_with(tenant, credential.clone())).collect();
    let _renewals: Vec<_> = sources.iter().map(renewing).collect();
    tokio::time::sleep(Duration::from_mins(30)).await;
    let status = sources[7].status().last_error.unwrap();
    assert_eq!((status.kind.as_str(), status.shared, status.needs_operator), ("federated_token_missing", true, true));
    assert!(status.cause.contains(path.to_str().unwrap()), "{status}");
    assert!(status.remedy.contains("`federated_token_file`"), "{status}");
    assert_eq!(bench.requests(), 0, "nothing is asked without a proof");
    assert!((1..=3).contains(&lines.text().matches("ERROR").count()), "one alarm, told again seldom: {}", lines.text());

    std::fs::write(&path, foreign_jwt(1, EXCHANGE)).unwrap();
    tokio::time::sleep(Duration::from_secs(2 * 60 + 30)).await;
    for source in &sources {
        assert!(source.status().valid_until.is_some(), "{:?}", source.status());
    }
    assert!(lines.text().contains("app works again"), "{}", lines.text());
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_federated_token_says_of_itself_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    for (code, audience, kind, cause, remedy) in [
        (
            700_213,
            EXCHANGE,
            "federated_mismatch",
            "it has issuer `https://k8s.example`, subject `system:serviceaccount:a:b`, audience `api://AzureADTokenExchange`",
            "letter by letter",
        ),
        (
            700_212,
            "api://other",
            "federated_mismatch",
            "audience `api://other`, and this cloud wants the audience `api://AzureADTokenExchange`",
            "letter by letter",
        ),
        (50_027, EXCHANGE, "federated_refused", "issuer `https://k8s.example`", "letter by letter"),
        (700_024, EXCHANGE, "federated_expired", "it is good until 2026-11-22T13:00:00Z", "renewed in time"),
    ] {
        std::fs::write(&path, foreign_jwt(code, audience)).unwrap();
        let bench = Bench::new(move |_, _| refused(code));
        let source = bench.source_with(1, Credential::Federated(Federated::File(path.clone())));
        let error = source.token().await.unwrap_err();
        let trouble = error.trouble();
        assert_eq!((error.kind(), trouble.code.clone()), (kind, Some(format!("AADSTS{code}"))), "{trouble}");
        assert!(trouble.cause.contains(cause) && trouble.remedy.contains(remedy), "{trouble}");
        assert!(trouble.shared && trouble.needs_operator, "{trouble:?}");
        for part in foreign_jwt(code, audience).split('.') {
            assert!(!format!("{trouble} {error:?}").contains(part), "{trouble}");
        }
    }
}
