//! Sign-in: the pages, the codes, the tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tenantry_simulator::{
    App, CONSUMERS, Cloud, Effect, Endpoint, ErrorBody, Fault, Forgery, PERSONAL_ACCOUNT, Verdict,
};
use uuid::Uuid;

use crate::browser::*;
use crate::client::*;

fn aadsts(answer: &Answer) -> u64 {
    if answer.status == 200 { 0 } else { answer.json()["error_codes"][0].as_u64().expect("a code") }
}

#[test]
fn somebody_signs_in_and_the_app_learns_who() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let url = sign_in(&cloud, "organizations", &[]);
    let page = get(&url);
    let html = text(&page);
    assert_eq!(page.status, 200);
    for element in ["<body id=\"accounts\">", "id=\"account-admin-contoso-example\"", "id=\"cancel\"", "Collector"] {
        assert!(html.contains(element), "{element}: {html}");
    }
    let action = html.split("action=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().replace("&amp;", "&");
    assert_eq!(format!("{}{action}", cloud.authority_url()), url, "the page posts to where it came from");
    assert!(cloud.ledger().sign_ins.is_empty(), "nobody has chosen");

    let answer = click(&url, &[("account", ADMIN)]);
    let fields = back(&answer);
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["code", "session_state", "state"]);
    assert_eq!(fields["state"], "s & t");
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();

    let body = redeem(&cloud, "organizations", &fields["code"], &[]).json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(3599)));
    assert_eq!((&body["scope"], &body["refresh_token"]), (&json!("openid profile"), &Value::Null));
    let token = body["id_token"].as_str().unwrap();
    let (header, claims) = (part(token, 0), part(token, 1));
    assert_eq!((&header["alg"], &header["typ"]), (&json!("RS256"), &json!("JWT")));
    assert_eq!(claims["iss"], format!("{}/{TENANT}/v2.0", cloud.authority_url()));
    assert_eq!((&claims["aud"], &claims["tid"]), (&json!(APP), &json!(TENANT)));
    assert_eq!((&claims["nonce"], &claims["ver"]), (&json!("n0nce"), &json!("2.0")));
    assert_eq!(claims["preferred_username"], ADMIN);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3900);
    assert!(claims["wids"].is_null());
    let key = key_of(&cloud, token).expect("a published key has signed it");
    assert_eq!(key["issuer"], format!("{}/{{tenantid}}/v2.0", cloud.authority_url()));
    assert_eq!((&key["x5t"], &key["use"]), (&key["kid"], &json!("sig")));

    // Who is signed in is not asked again, unless the app asks for it.
    let with_cookie = |url: &str| send("GET", url, &[("Cookie", &cookie)], &[]).unwrap();
    assert!(back(&with_cookie(&url)).contains_key("code"));
    assert!(back(&with_cookie(&sign_in(&cloud, "organizations", &[("prompt", "none")]))).contains_key("code"));
    assert_eq!(with_cookie(&sign_in(&cloud, "organizations", &[("prompt", "select_account")])).status, 200);
    assert_eq!(with_cookie(&sign_in(&cloud, &OTHER.to_string(), &[])).status, 200, "not an account of that tenant");

    let ledger = cloud.ledger();
    let first = &ledger.sign_ins[0];
    assert_eq!((first.person.as_deref(), first.tenant, first.verdict), (Some(ADMIN), Some(TENANT), Verdict::Accepted));
    assert_eq!((first.directory.as_str(), first.client_id.as_str()), ("organizations", APP.to_string().as_str()));
    assert_eq!(ledger.sign_ins.len(), 3);
    let redemption = &ledger.redemptions[0];
    assert_eq!((redemption.tenant, redemption.pkce, redemption.refused), (Some(TENANT), true, None));
    assert_eq!((redemption.person.as_deref(), redemption.credential.as_str()), (Some(ADMIN), "secret"));
    assert_eq!(ledger.token_requests[0].grant, "authorization_code");
    assert!(ledger.violations.is_empty(), "{:?}", ledger.violations);
}

#[test]
fn nobody_is_sent_where_the_app_is_not_registered() {
    let mut single = App::new(Uuid::from_u128(5)).redirect_uri(BACK);
    single.only_in = Some(TENANT);
    let cloud = Cloud::start(two_tenants().app(single)).unwrap();
    let refused = |directory: &str, changed: &[(&str, &str)]| {
        let url = sign_in(&cloud, directory, changed);
        let (seen, posted) = (get(&url), click(&url, &[("account", ADMIN)]));
        assert_eq!(code_on(&seen), code_on(&posted));
        code_on(&seen)
    };
    assert_eq!(refused("organizations", &[("redirect_uri", "https://collector.example/consent/callback/")]), 50011);
    assert_eq!(refused("organizations", &[("redirect_uri", "https://attacker.example/")]), 50011);
    assert_eq!(refused("organizations", &[("redirect_uri", "")]), 900_971);
    assert_eq!(refused("organizations", &[("client_id", &TENANT.to_string())]), 700_016);
    assert_eq!(refused("organizations", &[("client_id", "")]), 900_144);
    assert_eq!(refused("00000000-0000-0000-0000-0000000000ff", &[]), 90002);
    assert_eq!(refused("nonsense", &[]), 900_023);
    let single = Uuid::from_u128(5).to_string();
    assert_eq!(refused("organizations", &[("client_id", &single)]), 50194);
    assert_eq!(refused(&OTHER.to_string(), &[("client_id", &single)]), 700_016);
    assert_eq!(refused("contoso.example", &[("client_id", &single)]), 0);
    let reflected = text(&get(&sign_in(&cloud, "organizations", &[("redirect_uri", "https://x/<script>")])));
    assert!(!reflected.contains("<script>"), "{reflected}");
}

#[test]
fn what_the_app_asks_wrongly_it_is_told() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let told = |changed: &[(&str, &str)]| {
        let fields = back(&get(&sign_in(&cloud, "organizations", changed)));
        assert_eq!(fields["state"], "s & t");
        let text = fields["error_description"].clone();
        assert!(text.starts_with("AADSTS") && text.contains("\r\nTrace ID: "), "{text}");
        (fields["error"].clone(), text[6..].split(':').next().unwrap().parse::<u32>().unwrap())
    };
    let invalid = |code| ("invalid_request".to_owned(), code);
    assert_eq!(told(&[("response_type", "")]), invalid(900_144));
    assert_eq!(told(&[("response_type", "id_token")]), ("unsupported_response_type".to_owned(), 700_054));
    assert_eq!(told(&[("prompt", "admin_consent")]), invalid(90023));
    assert_eq!(told(&[("scope", "")]), invalid(900_144));
    assert_eq!(told(&[("resource", "https://manage.office.com")]), invalid(901_002));
    assert_eq!(told(&[("code_challenge", "short")]), invalid(501_491));
    assert_eq!(told(&[("code_challenge_method", "S512")]), invalid(501_491));
    assert_eq!(told(&[("prompt", "none")]), ("login_required".to_owned(), 50058));
    let cancelled = back(&click(&sign_in(&cloud, "organizations", &[]), &[("decision", "cancel")]));
    assert_eq!((cancelled["error"].as_str(), cancelled["error_subcode"].as_str()), ("access_denied", "cancel"));
    let last = cloud.ledger().sign_ins.pop().unwrap();
    assert_eq!((last.person, last.verdict), (None, Verdict::Cancelled));
}

#[test]
fn an_account_of_elsewhere_does_not_fit() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let choose =
        |directory: &str, person: &str| code_on(&click(&sign_in(&cloud, directory, &[]), &[("account", person)]));
    assert_eq!(choose(&TENANT.to_string(), OTHER_ADMIN), 50020);
    assert_eq!(choose("organizations", "nobody@contoso.example"), 50034);
    assert_eq!(choose("organizations", PERSONAL_ACCOUNT), 500_200);
    assert_eq!(choose("common", PERSONAL_ACCOUNT), 500_200);
    cloud.control().set_app(App::new(APP).secret(SECRET).redirect_uri(BACK).personal_accounts());
    assert_eq!(choose("organizations", PERSONAL_ACCOUNT), 500_200);
    let code = back(&click(&sign_in(&cloud, "common", &[]), &[("account", PERSONAL_ACCOUNT)]))["code"].clone();
    let token = redeem(&cloud, "common", &code, &[]).json()["id_token"].as_str().unwrap().to_owned();
    assert_eq!(part(&token, 1)["tid"], json!(CONSUMERS));
    let issuer = format!("{}/{CONSUMERS}/v2.0", cloud.authority_url());
    assert_eq!(key_of(&cloud, &token).unwrap()["issuer"], issuer, "a key of its own");
}

#[test]
fn a_code_is_good_once_for_who_asked_for_it() {
    let other = Uuid::from_u128(5);
    let cloud = Cloud::start(two_tenants().app(App::new(other).secret("other").redirect_uri(BACK))).unwrap();
    let code = || back(&click(&sign_in(&cloud, "organizations", &[]), &[("account", ADMIN)]))["code"].clone();
    let fresh = code();
    let refused = |directory: &str, changed: &[(&str, &str)]| aadsts(&redeem(&cloud, directory, &fresh, changed));
    assert_eq!(refused("organizations", &[("code_verifier", "x".repeat(43).as_str())]), 501_481);
    assert_eq!(refused("organizations", &[("code_verifier", "")]), 501_481);
    assert_eq!(refused("organizations", &[("redirect_uri", "https://attacker.example/")]), 500_112);
    assert_eq!(refused("organizations", &[("client_id", &other.to_string()), ("client_secret", "other")]), 70000);
    assert_eq!(refused("organizations", &[("client_secret", "wrong")]), 7_000_215);
    assert_eq!(refused("organizations", &[("client_secret", "")]), 7_000_218);
    assert_eq!(refused("organizations", &[("code", "1.guess")]), 70000);
    assert_eq!(refused(&OTHER.to_string(), &[]), 700_005);
    assert_eq!(refused("organizations", &[]), 0);
    assert_eq!(refused("organizations", &[]), 54005);
    let old = code();
    cloud.control().set_entra(|entra| entra.code_lifetime_s = 0);
    assert_eq!(aadsts(&redeem(&cloud, "organizations", &old, &[])), 70008);
    let refusals: Vec<_> = cloud.ledger().redemptions.iter().filter_map(|r| r.refused).collect();
    assert_eq!(refusals, [501_481, 501_481, 500_112, 70000, 7_000_215, 7_000_218, 70000, 700_005, 54005, 70008]);
}

#[test]
fn a_refresh_token_gives_new_tokens_to_its_client() {
    let other = Uuid::from_u128(5);
    let cloud = Cloud::start(two_tenants().app(App::new(other).secret("other"))).unwrap();
    let url = sign_in(&cloud, "organizations", &[("scope", "openid offline_access")]);
    let code = back(&click(&url, &[("account", ADMIN)]))["code"].clone();
    let first = redeem(&cloud, "organizations", &code, &[]).json();
    let refresh = |client: Uuid, secret: &str, token: &str| {
        let client = client.to_string();
        let fields = [
            ("client_id", client.as_str()),
            ("client_secret", secret),
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("scope", "openid https://manage.office.com/ActivityFeed.Read"),
        ];
        token_request(&cloud, "organizations/oauth2/v2.0/token", &fields)
    };
    let token = first["refresh_token"].as_str().unwrap();
    let second = refresh(APP, SECRET, token).json();
    let claims = part(second["id_token"].as_str().unwrap(), 1);
    assert!(claims["tid"] == json!(TENANT) && claims["nonce"].is_null(), "{claims}");
    assert_eq!(part(second["access_token"].as_str().unwrap(), 1)["aud"], "https://manage.office.com");
    assert!(first["refresh_token"].is_string() && second["refresh_token"].is_null());
    assert_eq!(aadsts(&refresh(other, "other", token)), 70000);
    assert_eq!(aadsts(&refresh(APP, "wrong", token)), 7_000_215);
    assert_eq!(aadsts(&refresh(APP, SECRET, "guess")), 70000);
}

#[test]
fn a_certificate_proves_the_app_at_this_very_address() {
    let identity = Identity::new(30);
    let app = App::new(APP).certificate(identity.der.clone()).redirect_uri(BACK);
    let cloud = Cloud::start(two_tenants()).unwrap();
    cloud.control().set_app(app);
    let now = cloud.ledger().at.as_second();
    let thumbprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &identity.der);
    let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": URL_SAFE_NO_PAD.encode(thumbprint) });
    let attempt = |audience: String| {
        let code = back(&click(&sign_in(&cloud, "organizations", &[]), &[("account", ADMIN)]))["code"].clone();
        let assertion = identity.sign(&header, &claims(&audience, now));
        let proof = [
            ("client_secret", ""),
            ("client_assertion", assertion.as_str()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ];
        aadsts(&redeem(&cloud, "organizations", &code, &proof))
    };
    assert_eq!(attempt(format!("{}/organizations/oauth2/v2.0/token", cloud.authority_url())), 0);
    assert_eq!(attempt(format!("{}/{TENANT}/oauth2/v2.0/token", cloud.authority_url())), 700_023);
    assert_eq!(cloud.ledger().redemptions[0].credential, "PS256");
    assert!(cloud.ledger().warnings.is_empty(), "{:?}", cloud.ledger().warnings);
}

#[test]
fn the_answer_may_come_as_a_form_or_a_fragment() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let url = sign_in(&cloud, "organizations", &[("response_mode", "form_post")]);
    let page = text(&click(&url, &[("account", ADMIN)]));
    assert!(page.contains(&format!("method=\"post\" name=\"hiddenform\" action=\"{BACK}\"")), "{page}");
    assert!(page.contains("name=\"state\" value=\"s &amp; t\"") && page.contains("name=\"code\" value=\"1."), "{page}");
    let url = sign_in(&cloud, "organizations", &[("response_mode", "fragment")]);
    let answer = click(&url, &[("account", ADMIN)]);
    assert!(answer.header("location").unwrap().starts_with(&format!("{BACK}#code=1.")), "{answer:?}");
}

#[test]
fn the_endpoint_of_2019_signs_in_and_consents() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let app = APP.to_string();
    let url = |changed: &[(&str, &str)]| {
        let mut parameters = vec![
            ("client_id", app.as_str()),
            ("response_type", "code"),
            ("redirect_uri", BACK),
            ("resource", "https://manage.office.com"),
            ("state", "s"),
        ];
        parameters.extend_from_slice(changed);
        format!("{}/common/oauth2/authorize?{}", cloud.authority_url(), query(&parameters))
    };
    // An ordinary user of a tenant that does not know the app cannot let it in.
    let approval = click(&url(&[]), &[("account", USER)]);
    assert!(text(&approval).contains("<body id=\"approval\">") && text(&approval).contains("AADSTS90094: "));
    let returned = back(&click(&url(&[]), &[("account", USER), ("decision", "return")]));
    assert!(returned["error_description"].starts_with("AADSTS90094: "), "{returned:?}");

    let page = click(&url(&[]), &[("account", ADMIN)]);
    assert!(text(&page).contains("<body id=\"consent\">") && text(&page).contains("ActivityFeed.ReadDlp"));
    let fields = back(&click(&url(&[]), &[("account", ADMIN), ("decision", "accept")]));
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["code", "session_state", "state"]);
    let redeem = |code: &str| {
        let fields = [
            ("client_id", app.as_str()),
            ("client_secret", SECRET),
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", BACK),
            ("resource", "https://manage.office.com"),
        ];
        token_request(&cloud, "common/oauth2/token", &fields).json()
    };
    let body = redeem(&fields["code"]);
    assert_eq!((&body["expires_in"], &body["resource"]), (&json!("3599"), &json!("https://manage.office.com")));
    assert_eq!(body["scope"], "ActivityFeed.Read ActivityFeed.ReadDlp");
    assert!(body["refresh_token"].is_string() && body["expires_on"].is_string());
    assert_eq!(part(body["access_token"].as_str().unwrap(), 1)["tid"], json!(TENANT));
    let id_token = body["id_token"].as_str().unwrap();
    assert!(id_token.ends_with('.') && part(id_token, 0)["alg"] == "none", "{id_token}");
    assert_eq!(part(id_token, 1)["iss"], format!("https://sts.windows.net/{TENANT}/"));
    assert_eq!((&part(id_token, 1)["ver"], &part(id_token, 1)["upn"]), (&json!("1.0"), &json!(ADMIN)));

    // The tenant knows the app now, so that nobody is asked again, unless the app wants it.
    assert!(back(&click(&url(&[]), &[("account", USER)])).contains_key("code"));
    let again = url(&[("prompt", "admin_consent")]);
    assert!(text(&click(&again, &[("account", ADMIN)])).contains("<body id=\"consent\">"));
    let fields = back(&click(&again, &[("account", ADMIN), ("decision", "accept")]));
    assert_eq!(fields["admin_consent"], "True");
    cloud.control().set_entra(|entra| entra.v1_signs = true);
    assert!(key_of(&cloud, redeem(&fields["code"])["id_token"].as_str().unwrap()).is_some());
    let declined = back(&click(&again, &[("account", ADMIN), ("decision", "cancel")]));
    assert_eq!((declined["error"].as_str(), declined["error_subcode"].as_str()), ("access_denied", "cancel"));
    let consents: Vec<_> = cloud.ledger().consents.iter().map(|c| (c.person.clone().unwrap(), c.verdict)).collect();
    let refused = (USER.to_owned(), Verdict::Refused(90094));
    let accepted = (ADMIN.to_owned(), Verdict::Accepted);
    let cancelled = (ADMIN.to_owned(), Verdict::Cancelled);
    assert_eq!(consents, [refused.clone(), refused, accepted.clone(), accepted, cancelled]);
}

#[test]
fn keys_change_and_old_ones_are_withdrawn() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let old = id_token(&cloud, ADMIN);
    assert!(key_of(&cloud, &old).is_some());
    cloud.control().roll_keys(true);
    let new = id_token(&cloud, ADMIN);
    assert_ne!(part(&new, 0)["kid"], part(&old, 0)["kid"]);
    assert!(key_of(&cloud, &old).is_some() && key_of(&cloud, &new).is_some());
    cloud.control().roll_keys(false);
    assert!(key_of(&cloud, &old).is_none() && key_of(&cloud, &new).is_none());
    assert!(key_of(&cloud, &id_token(&cloud, ADMIN)).is_some());
    // The metadata leads to the keys, and both can fail on their own.
    let metadata = format!("{}/organizations/v2.0/.well-known/openid-configuration", cloud.authority_url());
    let document = get(&metadata).json();
    assert_eq!(document["issuer"], format!("{}/{{tenantid}}/v2.0", cloud.authority_url()));
    let keys = document["jwks_uri"].as_str().unwrap();
    assert_eq!(get(keys).json()["keys"].as_array().unwrap().len(), 2);
    let down = Effect::Status { status: 503, body: ErrorBody::Html, retry_after_s: None };
    cloud.control().add_fault(Fault::new(down).on([Endpoint::Keys]));
    assert_eq!((get(keys).status, get(&metadata).status), (503, 200));
}

#[test]
fn metadata_and_keys_can_lead_astray() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let metadata = format!("{}/organizations/v2.0/.well-known/openid-configuration", cloud.authority_url());
    cloud.control().add_fault(Fault::new(Effect::ForeignMetadata).on([Endpoint::Metadata]));
    let document = get(&metadata).json();
    for name in ["jwks_uri", "token_endpoint"] {
        let path = if name == "jwks_uri" { "discovery/v2.0/keys" } else { "oauth2/v2.0/token" };
        assert_eq!(document[name], format!("{}/organizations/{path}", cloud.foreign_url()));
    }
    assert_eq!(document["issuer"], format!("{}/{{tenantid}}/v2.0", cloud.authority_url()));
    cloud.control().add_fault(Fault::new(Effect::OddKeys).on([Endpoint::Keys]));
    let keys = get(&format!("{}/common/discovery/v2.0/keys", cloud.authority_url())).json();
    let kinds: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|key| key["kty"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["unheard-of", "EC", "RSA", "RSA", "RSA", "RSA"]);
    assert!(key_of(&cloud, &id_token(&cloud, ADMIN)).is_some(), "the sound ones are there still");
}

#[test]
fn the_app_can_be_told_any_error() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    let blocked = Effect::Entra { code: 53003, retry_after_s: None };
    cloud.control().add_fault(Fault::new(blocked).on([Endpoint::SignIn, Endpoint::AdminConsent]));
    let told = back(&get(&sign_in(&cloud, "organizations", &[])));
    assert!(told["error"] == "invalid_grant" && told["error_description"].starts_with("AADSTS53003: "), "{told:?}");
    let app = APP.to_string();
    let consent = |uri: &str| {
        let parameters = query(&[("client_id", &app), ("redirect_uri", uri), ("scope", "x"), ("state", "s")]);
        get(&format!("{}/organizations/v2.0/adminconsent?{parameters}", cloud.authority_url()))
    };
    let told = back(&consent(BACK));
    assert!(told["admin_consent"] == "True" && told["error_description"].starts_with("AADSTS53003: "), "{told:?}");
    assert_eq!(code_on(&consent("https://attacker.example/")), 53003, "nobody is sent there");
}

#[test]
fn each_forgery_is_what_it_says() {
    let cloud = Cloud::start(two_tenants()).unwrap();
    cloud.control().set_entra(|entra| entra.wids = true);
    let sound = part(&id_token(&cloud, ADMIN), 1);
    assert_eq!(sound["wids"][0], "62e90394-69f5-4237-9190-012177145e10");
    assert_eq!(part(&id_token(&cloud, USER), 1)["wids"].as_array().unwrap().len(), 1);
    let forged = |forgery: Forgery| {
        cloud.control().set_forgery(Some(forgery));
        let token = id_token(&cloud, ADMIN);
        let key = key_of(&cloud, &token);
        (part(&token, 0), part(&token, 1), key, token)
    };
    for forgery in [Forgery::HmacClientId, Forgery::HmacSecret, Forgery::HmacPublicKey] {
        let (header, claims, key, _) = forged(forgery);
        assert!(header["alg"] == "HS256" && key.is_none() && claims["tid"] == sound["tid"], "{forgery:?}");
    }
    let hmac = |key: &[u8], token: &str| {
        let (signed, code) = token.rsplit_once('.').unwrap();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(code).unwrap()).is_ok()
    };
    assert!(hmac(APP.to_string().as_bytes(), &forged(Forgery::HmacClientId).3));
    assert!(hmac(SECRET.as_bytes(), &forged(Forgery::HmacSecret).3));
    let (header, _, _, token) = forged(Forgery::Unsigned);
    assert!(header["alg"] == "none" && token.ends_with('.'));
    let (header, _, key, _) = forged(Forgery::UnsignedButSealed);
    assert!(header["alg"] == "none" && key.is_some());
    let published = key_of(&cloud, &forged(Forgery::Nonce).3).unwrap()["kid"].clone();
    assert_ne!(forged(Forgery::UnknownKey).0["kid"], published);
    let (header, _, key, _) = forged(Forgery::WrongKey);
    assert!(header["kid"] == published && key.is_none());
    assert!(forged(Forgery::CarriedKey).0["jwk"]["n"].is_string());
    let (_, claims, key, _) = forged(Forgery::ConsumerKey);
    assert!(claims["iss"] == sound["iss"] && key.unwrap()["issuer"].as_str().unwrap().contains("9188040d"));
    assert!(forged(Forgery::Tampered).2.is_none());
    // The others are signed as they should be, and say something else.
    let now = cloud.ledger().at.as_second();
    let says = |forgery: Forgery| {
        let (_, claims, key, _) = forged(forgery);
        assert!(key.is_some(), "{forgery:?}");
        claims
    };
    assert_eq!(says(Forgery::Nonce)["nonce"], "another");
    assert!(says(Forgery::NoNonce)["nonce"].is_null());
    assert_ne!(says(Forgery::Audience)["aud"], sound["aud"]);
    assert_eq!(says(Forgery::Audiences)["aud"][0], sound["aud"]);
    assert!(says(Forgery::Expired)["exp"].as_i64().unwrap() < now - 3000);
    assert!(says(Forgery::NotYetValid)["nbf"].as_i64().unwrap() > now + 3000);
    let other = says(Forgery::Issuer);
    assert!(other["tid"] == sound["tid"] && other["iss"] != sound["iss"]);
    assert!(says(Forgery::ForeignHost)["iss"].as_str().unwrap().ends_with(&format!("/{TENANT}/v2.0")));
    assert_eq!(says(Forgery::Version1)["ver"], "1.0");
    assert!(says(Forgery::NoTenant)["tid"].is_null());
    assert_eq!(says(Forgery::TenantTemplate)["tid"], "{tenantid}");
    assert_eq!(says(Forgery::Personal)["tid"], json!(CONSUMERS));
    assert!(forged(Forgery::Long(300)).3.len() > 400_000);
    cloud.control().set_forgery(None);
    assert_eq!(part(&id_token(&cloud, ADMIN), 1)["oid"], sound["oid"], "sound again");
}
