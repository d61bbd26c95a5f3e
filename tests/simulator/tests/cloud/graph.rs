//! Graph's service communications: roles, pages, files and waits.

use serde_json::json;
use tenantry_simulator::{
    ACTIVITY_READ, App, Board, Cloud, Effect, Endpoint, Fault, HEALTH_READ, Scenario, Tenant, Throttle, ThrottleShape,
};

use crate::client::*;

/// A cloud whose tenant lets the app read health, and no messages.
fn cloud() -> Cloud {
    let tenant = Tenant::new(TENANT, "Contoso").consent(APP, &[ACTIVITY_READ, HEALTH_READ]);
    Cloud::start(Scenario::new(1).app(App::new(APP).secret(SECRET)).tenant(tenant)).unwrap()
}

fn token(cloud: &Cloud, resource: &str) -> String {
    let scope = format!("{resource}/.default");
    let app = APP.to_string();
    let fields = [
        ("client_id", app.as_str()),
        ("client_secret", SECRET),
        ("scope", &scope),
        ("grant_type", "client_credentials"),
    ];
    let answer = token_request(cloud, &format!("{TENANT}/oauth2/v2.0/token"), &fields).json();
    answer["access_token"].as_str().unwrap().to_owned()
}

fn get(url: &str, token: &str) -> Answer {
    send("GET", url, &[("Authorization", &format!("Bearer {token}"))], b"").unwrap()
}

#[test]
fn lists_need_their_roles_and_tokens_their_audience() {
    let cloud = cloud();
    let base = format!("{}/v1.0/admin/serviceAnnouncement", cloud.graph_url());
    let good = token(&cloud, "https://graph.microsoft.com");
    let overview = get(&format!("{base}/healthOverviews"), &good);
    assert_eq!((overview.status, overview.json()["value"].as_array().unwrap().len()), (200, 3));
    let refused = get(&format!("{base}/messages"), &good);
    assert_eq!((refused.status, refused.code().as_str()), (403, "AccessDenied"));
    assert_eq!(refused.json()["error"]["message"], "Required roles claim values are not provided.");
    assert!(cloud.ledger().violations.is_empty(), "{:?}", cloud.ledger().violations);
    let other = get(&format!("{base}/issues"), &token(&cloud, "https://manage.office.com"));
    assert_eq!((other.status, get(&format!("{base}/issues"), "nobody's").status), (401, 401));
    let told = &cloud.ledger().violations[0].what;
    assert!(told.contains("a token for `https://manage.office.com` reached Graph"), "{told}");
}

#[test]
fn pages_files_and_revisions_are_as_graph_has_them() {
    let cloud = cloud();
    let base = format!("{}/v1.0/admin/serviceAnnouncement", cloud.graph_url());
    let token = token(&cloud, "https://graph.microsoft.com");
    for n in 0..5 {
        cloud.control().announce(TENANT, Board::Issues, json!({"id": format!("EX{n}"), "status": "investigating"}));
    }
    let first = get(&format!("{base}/issues?$top=2"), &token).json();
    assert_eq!(first["value"].as_array().unwrap().len(), 2);
    let next = first["@odata.nextLink"].as_str().unwrap();
    assert_eq!(next, format!("{base}/issues?$skip=2"));
    assert_eq!(get(next, &token).json()["value"].as_array().unwrap().len(), 3);
    assert!(cloud.ledger().announced.iter().all(|of| of.current && of.served == 1), "{:?}", cloud.ledger().announced);

    let report = format!("{base}/issues/EX0/incidentReport");
    assert_eq!(get(&report, &token).status, 404, "there is none yet");
    let over = json!({"id": "EX0", "status": "postIncidentReviewPublished"});
    cloud.control().announce(TENANT, Board::Issues, over);
    let file = get(&report, &token);
    assert!(file.status == 200 && file.body.starts_with(b"PIR of EX0"), "{file:?}");

    let other = json!({"id": "MC1", "hasAttachments": true});
    cloud.control().announce(TENANT, Board::Messages, other);
    assert_eq!(get(&format!("{base}/messages/MC1/attachments"), &token).status, 403, "another role");
    let standing: Vec<_> = cloud.ledger().announced.iter().filter(|of| of.id == "EX0").map(|of| of.current).collect();
    assert_eq!(standing, [false, true]);
}

#[test]
fn whoever_does_not_wait_or_asks_too_often_is_noticed() {
    let cloud = cloud();
    let url = format!("{}/v1.0/admin/serviceAnnouncement/issues", cloud.graph_url());
    let token = token(&cloud, "https://graph.microsoft.com");
    assert!((0..240).all(|_| get(&url, &token).status == 200));
    assert!(cloud.ledger().violations.is_empty());
    get(&url, &token);
    assert!(cloud.ledger().violations[0].what.contains("more than 240 requests a minute"));
    cloud.control().forget_violations();
    let throttle = Throttle { shape: ThrottleShape::TooManyRequests, retry_after_s: Some(30) };
    cloud.control().add_fault(Fault::new(Effect::Throttled(throttle)).on([Endpoint::GraphIssues]));
    let told = get(&url, &token);
    assert_eq!((told.status, told.header("retry-after"), told.code().as_str()), (429, Some("30"), "TooManyRequests"));
}
