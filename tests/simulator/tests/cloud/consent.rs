//! Admin consent: who may, what comes back, and when it is known.

use std::time::{Duration, Instant};

use tenantry_simulator::{App, Cloud, ConsentError, ContentType, PERSONAL_ACCOUNT, Person, Replication, Verdict};

use crate::browser::*;
use crate::client::*;

const SCOPE: &str = "https://manage.office.com/.default";

fn asked(cloud: &Cloud, directory: &str, changed: &[(&str, &str)]) -> String {
    let app = APP.to_string();
    let mut parameters =
        vec![("client_id", app.as_str()), ("scope", SCOPE), ("redirect_uri", BACK), ("state", "s & t")];
    parameters.extend_from_slice(changed);
    format!("{}/{directory}/v2.0/adminconsent?{}", cloud.authority_url(), query(&parameters))
}

fn token_code(cloud: &Cloud) -> u64 {
    let answer = token_by_secret(cloud, TENANT, SECRET, SCOPE);
    if answer.status == 200 { 0 } else { answer.json()["error_codes"][0].as_u64().unwrap() }
}

const ACCEPT: [(&str, &str); 2] = [("account", ADMIN), ("decision", "accept")];
const CANCEL: [(&str, &str); 2] = [("account", ADMIN), ("decision", "cancel")];

#[test]
fn an_administrator_lets_the_app_in() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    assert_eq!(token_code(&cloud), 7_000_229);
    let url = asked(&cloud, &TENANT.to_string(), &[]);
    assert!(text(&get(&url)).contains("<body id=\"accounts\">"));
    let page = click(&url, &[("account", ADMIN)]);
    for element in ["<body id=\"consent\">", "id=\"accept\"", "id=\"cancel\"", "id=\"switch\"", "ActivityFeed.ReadDlp"]
    {
        assert!(text(&page).contains(element), "{element}: {}", text(&page));
    }
    assert_eq!(token_code(&cloud), 7_000_229, "nothing is decided");
    // Who has signed in is not asked for the account.
    let cookie = page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let known = send("GET", &url, &[("Cookie", &cookie)], &[]).unwrap();
    assert!(text(&known).contains("<body id=\"consent\">"));
    assert!(text(&click(&url, &[("account", ADMIN), ("decision", "switch")])).contains("<body id=\"accounts\">"));

    let fields = back(&click(&url, &ACCEPT));
    assert_eq!((fields["admin_consent"].as_str(), fields["state"].as_str()), ("True", "s & t"));
    assert_eq!(fields["tenant"], TENANT.to_string());
    assert_eq!(
        fields["scope"],
        "https://manage.office.com/ActivityFeed.Read https://manage.office.com/ActivityFeed.ReadDlp"
    );
    let client = Client::new(&cloud, TENANT);
    assert_eq!(client.get(&format!("{}/subscriptions/list", client.root())).status, 200);
    let ledger = cloud.ledger();
    let consent = ledger.consents.last().unwrap();
    assert_eq!((consent.tenant, consent.person.as_deref()), (Some(TENANT), Some(ADMIN)));
    assert_eq!((consent.roles.len(), consent.verdict), (2, Verdict::Accepted));
    assert_eq!(ledger.consents.len(), 1);
    assert!(ledger.violations.is_empty(), "{:?}", ledger.violations);
}

#[test]
fn a_scope_of_its_own_grants_no_role() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let url = asked(&cloud, "organizations", &[("scope", "https://manage.office.com/ActivityFeed.Read")]);
    assert_eq!(back(&click(&url, &ACCEPT))["scope"], "https://manage.office.com/ActivityFeed.Read");
    let client = Client::new(&cloud, TENANT);
    let answer = client.list(ContentType::Exchange, "");
    assert_eq!((answer.status, answer.code().as_str()), (401, "AF10001"));
}

#[test]
fn a_refusal_comes_back_in_each_of_its_shapes() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let url = asked(&cloud, &TENANT.to_string(), &[]);
    let names =
        |fields: &std::collections::BTreeMap<String, String>| fields.keys().cloned().collect::<Vec<_>>().join(" ");
    let seen = back(&click(&url, &CANCEL));
    assert_eq!(names(&seen), "admin_consent error error_description error_subcode error_uri state");
    assert_eq!((seen["error"].as_str(), seen["admin_consent"].as_str()), ("access_denied", "True"));
    assert_eq!(seen["error_subcode"], "cancel");
    assert!(seen["error_description"].starts_with("AADSTS65004: User declined to consent"), "{seen:?}");
    cloud.control().set_entra(|entra| entra.consent_error = ConsentError::Documented);
    let documented = back(&click(&url, &CANCEL));
    assert_eq!(names(&documented), "admin_consent error error_description error_uri state tenant");
    assert_eq!(
        (documented["error"].as_str(), documented["tenant"].as_str()),
        ("consent_required", TENANT.to_string().as_str())
    );
    cloud.control().set_entra(|entra| entra.consent_error = ConsentError::Bare);
    assert_eq!(names(&back(&click(&url, &CANCEL))), "admin_consent error error_subcode state");
    assert_eq!(names(&back(&click(&url, &[("decision", "cancel")]))), "admin_consent error error_subcode state");
    assert_eq!(token_code(&cloud), 7_000_229);
    assert!(cloud.ledger().consents.iter().all(|c| c.verdict == Verdict::Cancelled));
}

#[test]
fn only_an_administrator_of_the_tenant_can() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let url = asked(&cloud, &TENANT.to_string(), &[]);
    let approval = click(&url, &[("account", USER)]);
    assert_eq!(approval.status, 200);
    for element in ["<body id=\"approval\">", "AADSTS90094: ", "id=\"return\"", "id=\"switch\""] {
        assert!(text(&approval).contains(element), "{element}: {}", text(&approval));
    }
    let accept = click(&url, &[("account", USER), ("decision", "accept")]);
    assert!(text(&accept).contains("<body id=\"approval\">"), "clicking harder does not help");
    let returned = back(&click(&url, &[("account", USER), ("decision", "return")]));
    assert!(returned["error"] == "access_denied" && returned["error_description"].starts_with("AADSTS90094: "));
    assert!(!returned.contains_key("tenant") && !returned.contains_key("error_subcode"), "{returned:?}");
    assert_eq!(code_on(&click(&url, &[("account", OTHER_ADMIN), ("decision", "accept")])), 50020);
    assert_eq!(code_on(&click(&url, &[("account", PERSONAL_ACCOUNT), ("decision", "accept")])), 50020);
    let anywhere = asked(&cloud, "organizations", &[]);
    assert_eq!(code_on(&click(&anywhere, &[("account", PERSONAL_ACCOUNT), ("decision", "accept")])), 500_200);
    assert_eq!(token_code(&cloud), 7_000_229);
    // The one who was asked for may become one.
    cloud.control().set_people(TENANT, [Person::admin(USER)]);
    assert_eq!(back(&click(&url, &[("account", USER), ("decision", "accept")]))["tenant"], TENANT.to_string());
    assert_eq!(code_on(&click(&url, &ACCEPT)), 50034, "the other is gone");
    // `organizations` takes whoever comes, which is what an app must notice.
    let other = back(&click(&anywhere, &[("account", OTHER_ADMIN), ("decision", "accept")]));
    assert_eq!(other["tenant"], OTHER.to_string());
}

#[test]
fn what_is_asked_wrongly_is_a_dead_end() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let dead = |directory: &str, changed: &[(&str, &str)]| code_on(&get(&asked(&cloud, directory, changed)));
    let tenant = TENANT.to_string();
    assert_eq!(dead(&tenant, &[("redirect_uri", "https://attacker.example/")]), 50011);
    assert_eq!(dead(&tenant, &[("client_id", &OTHER.to_string())]), 700_016);
    assert_eq!(dead(&tenant, &[("scope", "")]), 900_144);
    assert_eq!(dead(&tenant, &[("scope", "https://nowhere.example/.default")]), 500_011);
    assert_eq!(dead("common", &[]), 900_023);
    let obsolete = App::new(APP).redirect_uri(BACK).required_roles(&["ActivityFeed.Read", "ActivityReports.Read"]);
    cloud.control().set_app(obsolete);
    assert_eq!(code_on(&click(&asked(&cloud, &tenant, &[]), &ACCEPT)), 650_051);
    cloud.control().set_app(App::new(APP).redirect_uri(BACK).required_roles(&[]));
    assert_eq!(code_on(&click(&asked(&cloud, &tenant, &[]), &ACCEPT)), 650_056);
}

#[test]
fn the_older_endpoint_answers_in_its_own_way() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let app = APP.to_string();
    let parameters = query(&[("client_id", &app), ("redirect_uri", BACK), ("state", "s")]);
    let url = format!("{}/common/adminconsent?{parameters}", cloud.authority_url());
    let declined = back(&click(&url, &CANCEL));
    assert_eq!(declined["error"], "permission_denied");
    assert_eq!(declined["error_description"], "The admin canceled the request");
    let fields = back(&click(&url, &ACCEPT));
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["admin_consent", "state", "tenant"]);
    assert_eq!(token_code(&cloud), 0);
}

#[test]
fn a_consent_takes_its_time_to_be_known() {
    let mut scenario = two_tenants();
    scenario.entra.replication_ms = 3_600_000;
    let cloud = Cloud::start(scenario).unwrap();
    let accept = || back(&click(&asked(&cloud, &TENANT.to_string(), &[]), &ACCEPT));
    assert_eq!(accept()["tenant"], TENANT.to_string(), "the app is told at once");
    assert_eq!(token_code(&cloud), 700_016);
    cloud.control().set_entra(|entra| entra.replication = Replication::NoPrincipal);
    assert_eq!(token_code(&cloud), 7_000_229);
    cloud.control().set_entra(|entra| entra.replication = Replication::NoRoles);
    let answer = Client::new(&cloud, TENANT).list(ContentType::Exchange, "");
    assert_eq!((answer.status, answer.code().as_str()), (401, "AF10001"));
    cloud.control().set_entra(|entra| {
        entra.replication = Replication::InStages;
        entra.replication_ms = 300;
    });
    accept();
    let (began, mut codes) = (Instant::now(), Vec::new());
    while codes.last() != Some(&1) {
        assert!(began.elapsed() < Duration::from_secs(20), "{codes:?}");
        let code = match token_code(&cloud) {
            0 if Client::new(&cloud, TENANT).list(ContentType::Exchange, "").status == 401 => 0,
            0 => 1,
            code => code,
        };
        if codes.last() != Some(&code) {
            codes.push(code);
        }
    }
    // A machine that stands still for long may miss a stage, but never sees them out of order.
    let stages = [700_016, 7_000_229, 0, 1];
    assert!(codes.is_sorted_by_key(|code| stages.iter().position(|stage| stage == code)), "{codes:?}");
}
