//! The host's service that hands out an identity's tokens, and all its moods.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::token::endpoint::Incoming;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const ID: &str = "11111111-2222-3333-4444-555555555555";

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn jwt(number: usize) -> String {
    use base64::Engine as _;
    let part = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(json!({"alg": "RS256"})), part(json!({"sub": "identity", "jti": number})))
}

/// As the instance metadata service answers.
fn granted(number: usize, life: u64) -> Incoming {
    answer(
        200,
        &json!({"access_token": jwt(number), "refresh_token": "", "expires_in": life.to_string(),
                "expires_on": "1506484173", "not_before": "1506480273", "resource": AUDIENCE, "token_type": "Bearer"}),
    )
}

fn answer(status: u16, body: &Value) -> Incoming {
    Incoming { status, body: body.to_string().into_bytes().into(), ..Incoming::default() }
}

/// A request as the service saw it: when, where, and its one header.
type Seen = (Instant, Url, String, String);
type Script = dyn Fn(usize) -> Result<Incoming, IdentityError> + Send + Sync;

struct Scripted {
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Box<Script>,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl Local for Scripted {
    fn get(
        &self,
        url: Url,
        (name, value): (HeaderName, HeaderValue),
        _now: Timestamp,
    ) -> BoxFuture<'_, Result<Incoming, IdentityError>> {
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push((Instant::now(), url, name.to_string(), value.to_str().unwrap().to_owned()));
            seen.len() - 1
        };
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            (self.script)(number)
        })
    }
}

fn identity(
    service: Service,
    script: impl Fn(usize) -> Result<Incoming, IdentityError> + Send + Sync + 'static,
) -> (ManagedIdentity, Arc<Mutex<Vec<Seen>>>) {
    let seen = Arc::default();
    let local = Scripted { seen: Arc::clone(&seen), script: Box::new(script) };
    (ManagedIdentity::with_local(ID.parse().unwrap(), service, Box::new(local)), seen)
}

fn metadata() -> Service {
    Service::Metadata(METADATA.parse().unwrap())
}

fn app_service() -> Service {
    let header = HeaderValue::from_static("853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a");
    Service::AppService("http://127.0.0.1:41741/msi/token".parse().unwrap(), header)
}

#[test]
fn each_service_is_asked_in_its_own_way() {
    let resource = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n";
    for (identity, name, by_app_service, id) in [
        (ID.to_owned(), "client_id", "client_id", ID),
        (format!("client_id:{ID}"), "client_id", "client_id", ID),
        (format!("object_id:{ID}"), "object_id", "principal_id", ID),
        (format!("resource_id:{resource}"), "msi_res_id", "mi_res_id", resource),
    ] {
        let identity: Identity = identity.parse().unwrap();
        for (service, path, header, version, name) in [
            (metadata(), "/metadata/identity/oauth2/token", ("metadata", "true"), "2018-02-01", name),
            (
                app_service(),
                "/msi/token",
                ("x-identity-header", "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"),
                "2019-08-01",
                by_app_service,
            ),
        ] {
            let (url, header_name, value) = service.request(&identity, AUDIENCE);
            assert_eq!((url.path(), header_name.as_str(), value.to_str().unwrap()), (path, header.0, header.1));
            let query: Vec<_> =
                url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            let expected = [("api-version", version), ("resource", AUDIENCE), (name, id)];
            assert_eq!(query, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
            assert!(!format!("{service:?} {service}").contains("853b9a84"), "{service:?}");
        }
        assert_eq!(identity.to_string().parse(), Ok(identity), "as it is shown it can be written");
    }
    for wrong in ["", "system", "object_id:x", "name:n", "resource_id:n"] {
        assert!(wrong.parse::<Identity>().is_err(), "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_serves_everybody_until_shortly_before_the_tokens_end() {
    let (identity, seen) = identity(metadata(), |number| Ok(granted(number, 3600)));
    let identity = Arc::new(identity);
    let begun = Instant::now();
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let identity = Arc::clone(&identity);
            tokio::spawn(async move { identity.token(AUDIENCE, now()).await.unwrap().token })
        })
        .collect();
    for one in waiting {
        assert_eq!(one.await.unwrap().expose(), jwt(0));
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
    tokio::time::advance(begun + Duration::from_secs(3600 - 301) - Instant::now()).await;
    assert_eq!(identity.token(AUDIENCE, now()).await.unwrap().token.expose(), jwt(0));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(identity.token(AUDIENCE, now()).await.unwrap().token.expose(), jwt(1), "five minutes before its end");
    identity.token("api://other", now()).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 3, "each audience has its own");
    identity.forget().await;
    assert_eq!(
        identity.token(AUDIENCE, now()).await.unwrap().token.expose(),
        jwt(3),
        "what was refused is not used again"
    );
}

#[tokio::test(start_paused = true)]
async fn an_app_services_token_ends_when_it_says() {
    let (identity, seen) = identity(app_service(), |number| {
        let on = (now().as_second() + 7200).to_string();
        Ok(answer(
            200,
            &json!({"access_token": jwt(number), "expires_on": on, "resource": AUDIENCE, "token_type": "Bearer",
                    "client_id": ID}),
        ))
    });
    identity.token(AUDIENCE, now()).await.unwrap();
    tokio::time::advance(Duration::from_secs(6800)).await;
    identity.token(AUDIENCE, now()).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
    tokio::time::advance(Duration::from_secs(200)).await;
    identity.token(AUDIENCE, now()).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 2);
}

fn refusal(status: u16) -> Incoming {
    answer(status, &json!({"error": "invalid_request", "error_description": "Identity not found"}))
}

/// After how many seconds each request came.
fn pauses(seen: &Mutex<Vec<Seen>>) -> Vec<u64> {
    let seen = seen.lock().unwrap();
    seen.windows(2).map(|two| (two[1].0 - two[0].0).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_again_within_seconds() {
    for status in [404, 429, 500, 503] {
        let (identity, seen) = identity(metadata(), move |number| match number {
            0 | 1 => Ok(refusal(status)),
            _ => Ok(granted(number, 3600)),
        });
        identity.token(AUDIENCE, now()).await.unwrap();
        let pauses = pauses(&seen);
        assert!(pauses.len() == 2 && pauses[0] <= 1 && (1..=2).contains(&pauses[1]), "{status}: {pauses:?}");
    }
    let (updating, seen) = identity(metadata(), |number| match number {
        0..5 => Ok(refusal(410)),
        _ => Ok(granted(number, 3600)),
    });
    updating.token(AUDIENCE, now()).await.unwrap();
    assert!(pauses(&seen).iter().all(|pause| (10..=11).contains(pause)), "{:?}", pauses(&seen));
}

#[tokio::test(start_paused = true)]
async fn what_lasts_is_the_callers_and_told_with_its_remedy() {
    type Case = (&'static str, Box<Script>, usize, &'static str, bool, &'static str);
    let busy = |after: u64| Incoming { retry_after: Some(Duration::from_secs(after)), ..refusal(503) };
    let cases: Vec<Case> = vec![
        ("gone for long", Box::new(|_| Ok(refusal(410))), 7, "managed_identity_busy", false, "is not ready"),
        ("ill", Box::new(|_| Ok(refusal(500))), 3, "managed_identity_busy", false, "unavailable"),
        ("asks for minutes", Box::new(move |_| Ok(busy(600))), 1, "managed_identity_busy", false, "unavailable"),
        ("unknown", Box::new(|_| Ok(refusal(400))), 1, "managed_identity_refused", true, "400 Identity not found"),
        ("forbidden", Box::new(|_| Ok(refusal(403))), 1, "managed_identity_refused", true, "assign this user-assigned"),
        ("a page", Box::new(|_| Ok(answer(200, &json!("welcome")))), 3, "managed_identity_busy", false, "as it should"),
        (
            "no JWT",
            Box::new(|_| Ok(answer(200, &json!({"access_token": "x", "expires_in": 9, "token_type": "Bearer"})))),
            3,
            "managed_identity_busy",
            false,
            "no JWT",
        ),
    ];
    for (what, script, requests, kind, needs_operator, words) in cases {
        let (identity, seen) = identity(metadata(), script);
        let error = identity.token(AUDIENCE, now()).await.unwrap_err();
        let trouble = error.trouble();
        assert_eq!(error.kind(), kind, "{what}: {trouble}");
        assert_eq!(trouble.needs_operator, needs_operator, "{what}");
        let told = trouble.to_string();
        assert!(told.contains(words) && told.contains(ID) && told.contains("169.254.169.254"), "{what}: {told}");
        assert!(!trouble.remedy.is_empty(), "{what}");
        assert_eq!(seen.lock().unwrap().len(), requests, "{what}");
        // Those who come next do not ask one after the other.
        identity.token(AUDIENCE, now()).await.unwrap_err();
        assert_eq!(seen.lock().unwrap().len(), requests, "{what}");
        tokio::time::advance(FAILED).await;
        identity.token(AUDIENCE, now()).await.unwrap_err();
        assert!(seen.lock().unwrap().len() > requests, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_token_that_is_still_good() {
    let (identity, _) =
        identity(metadata(), |number| if number == 0 { Ok(granted(0, 3600)) } else { Ok(refusal(400)) });
    identity.token(AUDIENCE, now()).await.unwrap();
    tokio::time::advance(Duration::from_secs(3400)).await;
    assert_eq!(identity.token(AUDIENCE, now()).await.unwrap().token.expose(), jwt(0));
    assert_eq!(
        identity.token(AUDIENCE, now()).await.unwrap().token.expose(),
        jwt(0),
        "while the failure is remembered"
    );
    tokio::time::advance(Duration::from_secs(150)).await;
    identity.token(AUDIENCE, now()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn the_header_stays_between_the_service_and_us() {
    let (identity, _) = identity(app_service(), |_| {
        let echo = "no 853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a here";
        Ok(answer(401, &json!({"error": "unauthorized", "error_description": echo})))
    });
    let error = identity.token(AUDIENCE, now()).await.unwrap_err();
    let told = format!("{error:?} {} {identity:?}", error.trouble());
    assert!(!told.contains("853b9a84") && told.contains("[redacted]"), "{told}");
}

#[tokio::test]
async fn no_proxy_stands_between() {
    // Nothing listens there; with a proxy in between, somebody else would say so.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let service = Service::Metadata(format!("http://{nowhere}").parse().unwrap());
    let local = Direct::default();
    let (url, name, value) = service.request(&ID.parse().unwrap(), AUDIENCE);
    let error = local.get(url, (name, value), now()).await.err().unwrap();
    let error = TokenError::managed_identity(error, ID, &service);
    assert_eq!(error.kind(), "managed_identity_unreachable");
    assert!(error.trouble().cause.contains("refused"), "{}", error.trouble());
}
