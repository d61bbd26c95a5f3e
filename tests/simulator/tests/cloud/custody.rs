//! Who may see a credential, and the hosts of a cloud.

use std::io::ErrorKind;

use tenantry_simulator::{App, Cloud, ContentType, Feed, Host, Tenant};

use crate::activity::wait_until;
use crate::browser::{ADMIN, BACK, VERIFIER, back, click, sign_in};
use crate::client::*;

const AUDIENCE: &str = "https://manage.example";

/// A cloud whose authority and management host are two.
fn apart() -> Cloud {
    let tenant = Tenant::new(TENANT, "C").feed(Feed::new(ContentType::Exchange).backlog(1, 0.5)).subscribed();
    Cloud::start(scenario().apart().audience(AUDIENCE).tenant(tenant)).unwrap()
}

fn told(cloud: &Cloud) -> Vec<String> {
    cloud.ledger().violations.into_iter().map(|remark| remark.what).collect()
}

fn fields<'a>(app: &'a str, scope: &'a str) -> [(&'static str, &'a str); 4] {
    [("client_id", app), ("client_secret", SECRET), ("scope", scope), ("grant_type", "client_credentials")]
}

#[test]
fn hosts_that_are_apart_serve_their_own_and_want_their_own_audience() {
    let cloud = apart();
    assert_ne!(cloud.url(), cloud.authority_url());
    let (app, path) = (APP.to_string(), format!("{TENANT}/oauth2/v2.0/token"));
    let ask = |scope: &str| token_request_at(&cloud.authority_url(), &path, &fields(&app, scope));
    let list = |token: &str| {
        let client = Client { url: cloud.url(), tenant: TENANT, token: token.to_owned() };
        client.get(&format!("{}/subscriptions/list", client.root()))
    };
    let token = |scope: &str| ask(scope).json()["access_token"].as_str().unwrap().to_owned();
    let good = token(&format!("{AUDIENCE}/.default"));
    assert_eq!(list(&good).status, 200);
    assert_eq!(list(&token("https://manage.office.com/.default")).code(), "AF10001", "another cloud's audience");
    assert_eq!(ask(&format!("{}/.default", cloud.url())).status, 400, "its address is no audience");
    assert_eq!(told(&cloud), [""; 0]);

    // What the one has, the other has not.
    let client = Client { url: cloud.authority_url(), tenant: TENANT, token: good };
    assert_eq!(client.get(&format!("{}/subscriptions/list", client.root())).status, 404);
    let misled = token_request_at(&cloud.url(), &path, &fields(&app, "https://manage.example/.default"));
    assert_eq!(misled.status, 404);
    let told = told(&cloud);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("a bearer token reached the authority"), "{told:?}");
    assert!(told[1].starts_with("a client credential reached the management host"), "{told:?}");
}

#[test]
fn credentials_in_the_wrong_request_are_noticed_on_one_host_too() {
    let cloud = Cloud::start(scenario().tenant(Tenant::new(TENANT, "C").domain("contoso.example"))).unwrap();
    let client = Client::new(&cloud, TENANT);
    let list = format!("{}/subscriptions/list", client.root());
    let named = format!("{list}?PublisherIdentifier={PUBLISHER}");
    let expect = |count: usize, what: &str| {
        let told = told(&cloud);
        assert!(told.len() == count && told[count - 1].starts_with(what), "{told:?}");
    };
    assert_eq!(told(&cloud), [""; 0]);
    client.request("GET", &named, &[], form(&[("client_secret", SECRET)]).as_bytes()).unwrap();
    expect(1, "a client credential reached the management host");
    send("GET", &named, &[("Authorization", &format!("Bearer {SECRET}"))], &[]).unwrap();
    expect(2, "a client credential reached the management host");
    let token = format!("{}/{TENANT}/oauth2/v2.0/token", cloud.url());
    client.request("POST", &token, &[], &[]).unwrap();
    expect(3, "a bearer token reached the authority");
    client.get(&format!("{list}?client_secret={}", encoded(SECRET)));
    expect(4, "an address with a credential in it reached the management host");
    client.get(&format!("{list}?x={}", encoded(SECRET)));
    expect(5, "an address with a credential in it reached the management host");
    send("POST", &format!("{}/x", cloud.foreign_url()), &[("Authorization", "Basic eDp5")], &[]).unwrap();
    expect(6, "a client credential reached the foreign host");
    cloud.control().set_app(App::new(APP).secret(SECRET).redirect_uri(BACK));
    let code = back(&click(&sign_in(&cloud, "organizations", &[]), &[("account", ADMIN)]))["code"].clone();
    assert_eq!(told(&cloud).len(), 6);
    send("POST", &format!("{}/x", cloud.foreign_url()), &[], form(&[("code", &code)]).as_bytes()).unwrap();
    expect(7, "a client credential reached the foreign host");
    let token = format!("{}/organizations/oauth2/v2.0/token", cloud.url());
    send("POST", &format!("{token}?{}", form(&[("code", &code)])), &[], &[]).unwrap();
    expect(8, "an address with a credential in it reached the authority");
    send("POST", &token, &[], form(&[("code", &code), ("code_verifier", VERIFIER)]).as_bytes()).unwrap();
    assert_eq!(told(&cloud).len(), 8, "that is where it belongs");
}

#[test]
fn a_host_can_refuse_connections_and_take_them_again() {
    let cloud = apart();
    let open = |url: String| send("GET", &format!("{url}/"), &[], &[]).map(|answer| answer.status);
    for host in [Host::Authority, Host::Management] {
        let (closed, other) = match host {
            Host::Authority => (cloud.authority_url(), cloud.url()),
            Host::Management => (cloud.url(), cloud.authority_url()),
        };
        cloud.control().set_reachable(host, false);
        wait_until(|| open(closed.clone()).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
        assert_eq!(open(other).unwrap(), 404);
        cloud.control().set_reachable(host, true);
        wait_until(|| open(closed.clone()).is_ok());
    }
    let taken = Cloud::start_at(scenario(), cloud.url().trim_start_matches("http://").parse().unwrap());
    assert!(taken.is_err_and(|error| error.kind() == ErrorKind::AddrInUse), "two clouds shared a port");
}
