//! Consent by a link: a customer's administrator in a real browser, an attacker with everything but that, and what the
//! operator sees of both.

use std::net::TcpListener;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tenantry_simulator::{Forgery, Person, Scenario, Tenant};
use uuid::Uuid;

use crate::browser::Browser;
use crate::world::{APP, Daemon, World, tenant, tenant_id};

pub(crate) const CONTOSO: u32 = 1;
pub(crate) const FABRIKAM: u32 = 2;
/// In the configuration from the start.
const NORTHWIND: u32 = 3;

/// A cloud whose customers have consented to nothing, and a daemon with pages.
pub(crate) struct House {
    pub(crate) world: World,
    pub(crate) url: String,
}

impl House {
    pub(crate) fn new(public: &str) -> Self {
        // Redirect URIs are registered before anybody listens there.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let customer = |number: u32, domain: &str| -> Tenant {
            tenant(number, 3, 0.1)
                .without_consent()
                .domain(domain)
                .person(Person::admin(&format!("admin@{domain}")))
                .person(Person::user(&format!("user@{domain}")))
        };
        let scenario = Scenario::new(41)
            .tenant(customer(CONTOSO, "contoso.example"))
            .tenant(customer(FABRIKAM, "fabrikam.example"))
            .tenant(tenant(NORTHWIND, 3, 0.1).domain("northwind.example"));
        let extra = format!(
            "[public]\nlisten = \"127.0.0.1:{port}\"\nurl = \"{url}\"\norganisation = \"Woodgrove Security\"\n\
             contact = \"soc@woodgrove.example\"\n{public}"
        );
        let callback = format!("{url}/consent/callback/simulated");
        let world = World::with_app(scenario, &extra, |app| app.redirect_uri(&callback));
        world.configure(&[(tenant_id(NORTHWIND), "northwind".to_owned())], &extra);
        Self { world, url }
    }

    pub(crate) fn invite(&self, arguments: &[&str]) -> String {
        let invite = ["tenant", "invite", "--name", "contoso", "--cloud", "simulated", "--json"];
        let output = self.world.tenantry(&[&invite, arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["link"].as_str().unwrap().to_owned()
    }

    fn invites(&self) -> Vec<Value> {
        json(&self.world.tenantry(&["tenant", "invites", "--json"])).as_array().unwrap().clone()
    }

    fn tenants(&self) -> Vec<Value> {
        json(&self.world.tenantry(&["tenant", "list", "--json"])).as_array().unwrap().clone()
    }

    /// The origins of a tenant, if it is on the list.
    fn origins(&self, id: Uuid) -> Option<String> {
        let tenants = self.tenants();
        let found = tenants.iter().find(|tenant| tenant["id"] == id.to_string())?;
        Some(found["origins"].to_string())
    }
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Opens a link, and signs in with an account.
async fn sign_in(browser: &Browser, link: &str, account: &str) {
    browser.open(link).await;
    browser.wait_heading("Connect your audit log").await;
    browser.press().await;
    browser.click(&format!("account-{}", account.replace(['@', '.'], "-"))).await;
}

pub(crate) async fn started(world: &World) -> Daemon {
    let mut daemon = world.run();
    assert_eq!(daemon.started_or_ended().await, None, "{}", daemon.log());
    daemon
}

#[tokio::test]
async fn an_administrator_consents_in_a_browser_and_watches_the_tenant_come_alive() {
    let house = House::new("");
    // Longer than the first try of the proof, and not as long as the pause before the second.
    house.world.cloud.control().set_entra(|entra| entra.replication_ms = 5_000);
    let mut daemon = started(&house.world).await;
    let Some(browser) = Browser::start(1100, 900).await else { return };
    let link = house.invite(&[]);
    browser.open(&link).await;
    browser.wait_heading("Connect your audit log").await;
    let page = browser.source().await;
    for part in ["Woodgrove Security", "contoso", "ActivityFeed.Read", "soc@woodgrove.example", "127.0.0.1"] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    assert!(!page.contains("ActivityFeed.ReadDlp"), "nobody asked for it");
    browser.shoot("welcome").await;
    // Nothing of anybody else, and no script: the browser itself says what it loaded.
    let loaded = browser.evaluate("return performance.getEntriesByType('resource').map(e => e.name)").await;
    assert_eq!(loaded, serde_json::json!([format!("{}/assets/style.css", house.url)]));

    browser.press().await;
    browser.click("account-admin-contoso-example").await;
    browser.click("accept").await;
    browser.wait_heading("Setting up the access").await;
    let told = house.world.cloud.ledger().token_requests.len();
    browser.evaluate("window.untouched = true").await;
    browser.wait_heading("Done").await;
    assert!(house.world.cloud.ledger().token_requests.len() > told, "the proof was asked for again");
    let untouched = browser.evaluate("return window.untouched").await;
    assert_eq!(untouched, Value::Bool(true), "the page that somebody reads changes, and is not loaded anew");
    browser.shoot("done").await;
    let page = browser.source().await;
    assert!(page.contains("admin@contoso.example"), "{page}");
    assert_eq!(browser.url().await, format!("{}/onboard", house.url), "no secret stays in the address");

    assert!(house.origins(tenant_id(CONTOSO)).unwrap().contains("consent"));
    assert_eq!(house.invites()[0]["state"], "done");
    let ledger = house.world.cloud.ledger();
    let collected = house.world.exported(&["--tenant", "contoso"]);
    assert!(!collected.is_empty() || !ledger.expected_ids(tenant_id(CONTOSO)).is_empty());
    daemon
        .wait("the records of the new tenant are exported", |_| {
            house.world.exported(&["--tenant", "contoso"]).len() == ledger.expected_ids(tenant_id(CONTOSO)).len()
        })
        .await;

    // The link has done what it was for.
    browser.open(&link).await;
    browser.wait_heading("The link was used").await;
    browser.shoot("used").await;
    let log = daemon.log();
    let secret = link.rsplit('/').next().unwrap();
    assert!(!log.contains(secret), "the link's secret is in the log");
    for part in ["an invite was made", "an administrator has consented", "tenant enrolled", "invite_used"] {
        assert!(log.contains(part), "{part}\n{log}");
    }
    browser.close().await;
}

#[tokio::test]
async fn whoever_does_not_consent_reads_why_and_nothing_is_set_up() {
    let house = House::new("");
    let control = house.world.cloud.control();
    let daemon = started(&house.world).await;
    let Some(browser) = Browser::start(400, 860).await else { return };
    let link = house.invite(&[]);
    let pinned = house.invite(&["--tenant-id", &tenant_id(CONTOSO).to_string()]);

    sign_in(&browser, &link, "admin@contoso.example").await;
    browser.click("cancel").await;
    browser.wait_heading("You have not consented").await;
    browser.shoot("declined").await;
    browser.forget().await;

    sign_in(&browser, &link, "user@contoso.example").await;
    browser.click("return").await;
    browser.wait_heading("An administrator must consent").await;
    browser.shoot("no-administrator").await;
    browser.forget().await;

    sign_in(&browser, &pinned, "admin@fabrikam.example").await;
    browser.wait_heading("This is another organisation").await;
    browser.shoot("another-organisation").await;
    assert!(!browser.source().await.contains(&tenant_id(CONTOSO).to_string()), "whose it is, is not told");
    browser.forget().await;

    sign_in(&browser, &link, "admin@northwind.example").await;
    browser.wait_heading("Your organisation is connected already").await;
    browser.shoot("connected-already").await;
    browser.forget().await;

    // What the authority signs is believed for what it is, and nothing else.
    for (forgery, why) in [
        (Forgery::HmacClientId, "signed with `HS256`"),
        (Forgery::HmacPublicKey, "signed with `HS256`"),
        (Forgery::Unsigned, "signed with `none`"),
        (Forgery::UnsignedButSealed, "signed with `none`"),
        (Forgery::UnknownKey, "a key that the cloud does not publish"),
        (Forgery::WrongKey, "its signature is wrong"),
        (Forgery::CarriedKey, "a key that the cloud does not publish"),
        (Forgery::ConsumerKey, "may not speak for the tenant"),
        (Forgery::Tampered, "its signature is wrong"),
        (Forgery::Nonce, "it belongs to another sign-in"),
        (Forgery::NoNonce, "it belongs to another sign-in"),
        (Forgery::Audience, "it is for another app"),
        (Forgery::Expired, "it is outside its time"),
        (Forgery::Issuer, "its issuer is not the tenant's"),
        (Forgery::ForeignHost, "its issuer is not the tenant's"),
        (Forgery::NoTenant, "it names no tenant"),
        (Forgery::TenantTemplate, "it names no tenant"),
    ] {
        control.set_forgery(Some(forgery));
        sign_in(&browser, &link, "admin@contoso.example").await;
        browser.wait_heading("The answer cannot be trusted").await;
        assert!(daemon.log().contains(why), "{forgery:?}: {why}\n{}", daemon.log());
        browser.forget().await;
    }
    browser.shoot("untrusted").await;
    control.set_forgery(Some(Forgery::Personal));
    sign_in(&browser, &link, "admin@contoso.example").await;
    browser.wait_heading("This is a personal account").await;
    browser.shoot("personal-account").await;
    browser.forget().await;
    control.set_forgery(None);

    browser.open(&format!("{}/onboard/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", house.url)).await;
    browser.wait_heading("There is no such link").await;
    browser.shoot("no-such-link").await;
    browser.open(&format!("{}/anything", house.url)).await;
    browser.wait_heading("There is nothing here").await;
    browser.open(&house.url).await;
    browser.shoot("front").await;

    let ledger = house.world.cloud.ledger();
    assert!(ledger.consents.iter().all(|consent| consent.tenant != Some(tenant_id(FABRIKAM))));
    assert_eq!(house.tenants().len(), 1, "nobody has been enrolled");
    assert!(house.invites().iter().all(|invite| invite["state"] == "open"), "the links are good for another try");
    let log = daemon.log();
    for kind in ["consent_declined", "consent_needs_admin", "wrong_tenant", "tenant_bound", "personal_account"] {
        assert!(log.contains(&format!("kind=\"{kind}\"")) || log.contains(&format!("kind={kind}")), "{kind}\n{log}");
    }

    // After all of that the right one comes through, on a phone.
    sign_in(&browser, &link, "admin@contoso.example").await;
    browser.click("accept").await;
    browser.wait_heading("Done").await;
    browser.shoot("done-on-a-phone").await;
    let wide = browser.evaluate("return document.documentElement.scrollWidth > window.innerWidth").await;
    assert_eq!(wide, Value::Bool(false), "nothing has to be scrolled sideways");
    browser.close().await;
}

#[tokio::test]
async fn a_way_back_that_somebody_else_has_made_up_changes_nothing() {
    let house = House::new("");
    let daemon = started(&house.world).await;
    let Some(browser) = Browser::start(1100, 900).await else { return };
    let link = house.invite(&[]);
    let callback = format!("{}/consent/callback/simulated", house.url);
    let nothing_begun = "This sign-in did not begin here";

    // Nothing was begun in this browser.
    browser.open(&format!("{callback}?code=made-up&state=made-up")).await;
    browser.wait_heading(nothing_begun).await;
    browser.shoot("not-begun-here").await;
    let victim = tenant_id(FABRIKAM);
    browser.open(&format!("{callback}?admin_consent=True&tenant={victim}&state=made-up")).await;
    browser.wait_heading(nothing_begun).await;
    let redemptions = house.world.cloud.ledger().redemptions.len();
    assert_eq!(redemptions, 0, "nobody was asked anything");

    // A foreign state, a foreign cloud, and two states at once, beside the right cookie.
    browser.open(&link).await;
    browser.press().await;
    let asked = loop {
        let url = browser.url().await;
        if url.contains("/authorize?") {
            break url;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let state = query(&asked, "state");
    for wrong in [
        format!("{callback}?code=made-up&state=another"),
        format!("{callback}?code=made-up&state={state}&state={state}"),
        format!("{}/consent/callback/worldwide?code=made-up&state={state}", house.url),
    ] {
        browser.open(&wrong).await;
        browser.wait_heading(nothing_begun).await;
    }
    assert_eq!(house.world.cloud.ledger().redemptions.len(), 0);

    // The sign-in goes on all the same. On the way back, another tenant is named.
    browser.open(&asked).await;
    browser.click("account-admin-contoso-example").await;
    let asked = loop {
        let url = browser.url().await;
        if url.contains("/adminconsent?") {
            break url;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let state = query(&asked, "state");
    browser.open(&format!("{callback}?admin_consent=True&tenant={victim}&state={state}")).await;
    browser.wait_heading("The answer cannot be trusted").await;
    assert!(daemon.log().contains("other_tenant"), "{}", daemon.log());
    // Once more, with the right tenant: the state was good once.
    browser.open(&format!("{callback}?admin_consent=True&tenant={}&state={state}", tenant_id(CONTOSO))).await;
    browser.wait_heading(nothing_begun).await;
    browser.forget().await;

    // A whole way back, replayed.
    sign_in(&browser, &link, "admin@contoso.example").await;
    browser.click("accept").await;
    browser.wait_heading("Done").await;
    let ledger = house.world.cloud.ledger();
    assert!(ledger.redemptions.iter().all(|redemption| redemption.pkce && redemption.refused.is_none()));
    let before = ledger.redemptions.len();
    browser.open(&format!("{callback}?code=once-more&state={state}")).await;
    browser.wait_heading(nothing_begun).await;
    assert_eq!(house.world.cloud.ledger().redemptions.len(), before);
    assert_eq!(house.origins(victim), None);
    assert!(house.origins(tenant_id(CONTOSO)).is_some());
    browser.close().await;
}

pub(crate) fn query(url: &str, name: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    let found = url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    found.unwrap_or_else(|| panic!("no {name} in {url}"))
}

#[tokio::test]
async fn the_proof_outlives_the_daemon_and_an_expired_link_is_dead() {
    let house = House::new("");
    let control = house.world.cloud.control();
    control.set_entra(|entra| entra.replication_ms = 600_000);
    let mut daemon = started(&house.world).await;
    let Some(browser) = Browser::start(1100, 900).await else { return };
    let link = house.invite(&[]);
    let short = house.invite(&["--expires", "5m"]);
    sign_in(&browser, &link, "admin@contoso.example").await;
    browser.click("accept").await;
    browser.wait_heading("Setting up the access").await;
    daemon
        .wait("Microsoft hands the consent on", |_| {
            house.invites().iter().any(|invite| invite["state"] == "proving" && invite["trouble"].is_object())
        })
        .await;
    browser.open(&format!("{}/onboard", house.url)).await;
    assert!(browser.source().await.contains("passing your consent on"), "{}", browser.source().await);
    browser.shoot("setting-up").await;
    assert_eq!(house.origins(tenant_id(CONTOSO)), None, "consent alone is no proof");
    let text = String::from_utf8(house.world.tenantry(&["tenant", "invites"]).stdout).unwrap();
    assert!(text.contains("proving") && text.contains("contoso: "), "{text}");

    // Another browser with the same link.
    browser.forget().await;
    browser.open(&link).await;
    browser.wait_heading("The link is being used").await;
    browser.shoot("in-use").await;

    daemon.kill();
    control.grant(tenant_id(CONTOSO), APP, &["ActivityFeed.Read"]);
    let mut daemon = started(&house.world).await;
    daemon.wait("the tenant is enrolled", |_| house.origins(tenant_id(CONTOSO)).is_some()).await;
    daemon.wait("the invite is done", |_| house.invites().iter().any(|invite| invite["state"] == "done")).await;

    // By the service's time, whatever this host's clock says.
    control.set_clock_offset_ms(600_000);
    let start = std::time::Instant::now();
    loop {
        browser.open(&short).await;
        if browser.source().await.contains("The link has expired") {
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{}", browser.source().await);
    }
    browser.shoot("expired").await;
    let output = house.world.tenantry(&["tenant", "invites", "--withdraw", "not-hexadecimal"]);
    assert_eq!(output.status.code(), Some(64));
    let invites = house.invites();
    let expired = invites.iter().find(|invite| invite["state"] == "expired").unwrap();
    let id = expired["id"].as_str().unwrap();
    assert!(house.world.tenantry(&["tenant", "invites", "--withdraw", &id[..12]]).status.success());
    browser.open(&short).await;
    browser.wait_heading("There is no such link").await;
    browser.close().await;
}

#[tokio::test]
async fn the_flow_of_2019_leads_to_the_same_end() {
    let house = House::new("flow = \"v1\"\n");
    house.world.cloud.control().set_audit_log(tenant_id(FABRIKAM), false);
    let daemon = started(&house.world).await;
    let Some(browser) = Browser::start(1100, 900).await else { return };
    let pinned = house.invite(&["--tenant-id", &tenant_id(CONTOSO).to_string()]);
    sign_in(&browser, &pinned, "admin@fabrikam.example").await;
    browser.click("accept").await;
    browser.wait_heading("This is another organisation").await;
    browser.forget().await;
    sign_in(&browser, &pinned, "admin@contoso.example").await;
    browser.click("accept").await;
    browser.wait_heading("Done").await;
    assert!(house.origins(tenant_id(CONTOSO)).is_some());
    browser.forget().await;

    // The access works, and there is nothing to read.
    let link = house.invite(&[]);
    sign_in(&browser, &link, "admin@fabrikam.example").await;
    browser.click("accept").await;
    browser.wait_heading("The audit log is switched off").await;
    browser.shoot("audit-log-off").await;
    assert!(house.origins(tenant_id(FABRIKAM)).is_some(), "it is enrolled, and its trouble is told as any other's");
    let status = daemon.status().await.unwrap().to_string();
    assert!(status.contains("audit_log_off"), "{status}");
    browser.close().await;
}

#[tokio::test]
async fn pages_tell_browsers_to_keep_nothing_and_to_load_nothing_from_elsewhere() {
    let house = House::new("");
    let daemon = started(&house.world).await;
    let link = house.invite(&[]);
    let http = crate::browser::client();
    let page = http.get(&link).send().await.unwrap();
    let header = |answer: &reqwest::Response, name: &str| {
        answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let policy = header(&page, "content-security-policy");
    let authority = house.world.cloud.authority_url();
    for part in ["default-src 'none'", "style-src 'self'", "base-uri 'none'", "frame-ancestors 'none'", &authority] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    for (name, value) in [
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(header(&page, name), value, "{name}");
    }
    // A form that another page sends.
    for (origin, site) in [("https://attacker.example", "cross-site"), ("null", "cross-site")] {
        let answer = http.post(&link).header("origin", origin).header("sec-fetch-site", site).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{origin}");
        assert_eq!(header(&answer, "set-cookie"), "");
    }
    let begun = http.post(&link).header("origin", &house.url).send().await.unwrap();
    assert_eq!(begun.status(), 303);
    let cookie = header(&begun, "set-cookie");
    assert!(cookie.contains("; HttpOnly; SameSite=Lax") && !cookie.contains("Domain"), "{cookie}");
    let location = header(&begun, "location");
    assert!(location.starts_with(&format!("{authority}/organizations/oauth2/v2.0/authorize?")), "{location}");
    // What is not a page is none, and what the operators' socket has is not here.
    for path in ["/v1/status", "/metrics", "/healthz", "/consent/callback", "/onboard/a/b", "/.well-known/x"] {
        assert_eq!(http.get(format!("{}{path}", house.url)).send().await.unwrap().status(), 404, "{path}");
    }
    let log = daemon.log();
    for secret in [link.rsplit('/').next().unwrap(), &query(&location, "state"), &query(&location, "nonce")] {
        assert!(!log.contains(secret));
    }
}
