//! `[app]`, `[apps.NAME]` and `[[tenants]]`: who is collected, and as whom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use super::Origin;
use super::ambient::{self, Ambient};
use super::clouds::{self, Clouds};
use super::credentials;
use super::merged::{Merged, Table};
use super::problem::{Findings, Place};
use super::schema;
use super::settings::{App, Tenant};
use crate::content::{ContentType, TenantId, subscribable};
use crate::token::Signing;

/// Where a tenant lives that does not say so.
pub(super) const DEFAULT_CLOUD: &str = "worldwide";

/// The apps by name. Those that are written but wrong are `None`, so that nobody is told that they do not exist.
pub(super) type Apps = BTreeMap<String, Option<Arc<App>>>;

pub(super) fn apps(merged: &Merged, ambient: &Ambient, default: Signing, findings: &mut Findings) -> Apps {
    let mut apps = Apps::new();
    // A platform that says it all needs no section.
    if merged.has("app") || (!merged.has("apps") && ambient.is_whole()) {
        apps.insert(String::new(), app("", &merged.section("app"), ambient, default, findings).map(Arc::new));
    }
    for (name, table) in merged.named("apps") {
        let valid = clouds::valid_name(name, &table, findings);
        let app = app(name, &table, ambient, default, findings).filter(|_| valid);
        apps.insert(name.to_owned(), app.map(Arc::new));
    }
    apps
}

fn app(name: &str, table: &Table<'_>, ambient: &Ambient, default: Signing, findings: &mut Findings) -> Option<App> {
    let mut variables = Vec::new();
    // One app can be the platform's; others have ids of their own. Beside a managed identity, the platform names that one.
    let told = ambient
        .get(ambient::CLIENT_ID)
        .filter(|_| name.is_empty() && !table.has("client_id") && !table.has("managed_identity"));
    if !table.has("client_id") && told.is_none() {
        let message = "it is missing; set it to the *Application (client) ID* of the app registration's overview page";
        findings.missing(&table.place, &table.key("client_id"), message);
    }
    let mut platform =
        |key: &'static str, variable: &'static str, findings: &mut Findings| match guid(ambient.get(variable)?) {
            Ok(id) => {
                variables.push((key, variable));
                Some(id)
            }
            Err(message) => {
                findings.problem(&Ambient::place(variable), &table.key(key), message);
                None
            }
        };
    let client_id = match told {
        Some(_) => platform("client_id", ambient::CLIENT_ID, findings),
        None => table.parsed("client_id", findings, guid).map(|found| found.value),
    };
    let publisher_id = table.parsed("publisher_id", findings, guid);
    let credential = credentials::load(table, ambient, default, findings);
    if table.has("publisher_id") && publisher_id.is_none() {
        return None;
    }
    let loaded = credential?;
    let is_platforms = |key: &str| loaded.variables.iter().any(|(filled, _)| *filled == key);
    let publisher_id = match publisher_id {
        Some(found) => Some(found.value),
        // Where the platform proves the app, the tenant that it names is the one that the app is registered in.
        None if is_platforms("federated_token_file") => platform("publisher_id", ambient::TENANT_ID, findings),
        None => None,
    };
    variables.extend(loaded.variables);
    Some(App {
        name: name.to_owned(),
        client_id: client_id?.to_string(),
        publisher_id,
        credential: loaded.credential,
        files: loaded.files,
        variables,
    })
}

/// Warns where the platform's tokens are for another authority than the one that a tenant's cloud has.
pub(super) fn check_authority(
    ambient: &Ambient,
    apps: &Apps,
    tenants: &BTreeMap<TenantId, Tenant>,
    findings: &mut Findings,
) {
    let Some(told) = ambient.get(ambient::AUTHORITY_HOST) else { return };
    // Written with a scheme and without one.
    let host = told.split_once("://").map_or(told, |(_, rest)| rest);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    let is_platforms = |name: &str| {
        let app = apps.get(name).and_then(Option::as_ref);
        app.is_some_and(|app| app.variables.iter().any(|(key, _)| *key == "federated_token_file"))
    };
    let strange: BTreeMap<&str, &Tenant> = tenants
        .values()
        .filter(|tenant| is_platforms(&tenant.app) && tenant.cloud.authority.host_str() != Some(host))
        .map(|tenant| (tenant.cloud.name.as_str(), tenant))
        .collect();
    for (cloud, tenant) in strange {
        let message = format!(
            "it names `{host}`, and the tenants in the cloud `{cloud}` get their tokens from `{}`, which takes no token for \
             another cloud; correct `cloud`, or give them an app with another credential",
            tenant.cloud.authority.host_str().unwrap_or_default()
        );
        findings.warn(&Ambient::place(ambient::AUTHORITY_HOST), "tenants.cloud", message);
    }
}

/// The text is not shown: people paste secrets here by mistake.
fn guid(text: &str) -> Result<Uuid, &'static str> {
    match text.parse::<TenantId>() {
        Ok(id) if id.uuid().is_nil() => Err("it is all zeros; write the real one"),
        Ok(id) => Ok(id.uuid()),
        Err(_) => Err("it is not a GUID; it looks like `12345678-90ab-cdef-1234-567890abcdef`"),
    }
}

/// All tenants; `health` is whether service health is collected.
pub(super) fn tenants(
    merged: &Merged,
    apps: &Apps,
    clouds: &Clouds,
    health: bool,
    findings: &mut Findings,
) -> BTreeMap<TenantId, Tenant> {
    let mut tenants = BTreeMap::new();
    let mut places: BTreeMap<TenantId, Place> = BTreeMap::new();
    for table in merged.entries("tenants") {
        if !table.has("id") {
            let message = "it is missing; set it to the customer's *Directory (tenant) ID*";
            findings.missing(&table.place, &table.key("id"), message);
        }
        let id = table.parsed("id", findings, |text| match text.parse::<TenantId>() {
            Ok(id) if id.uuid().is_nil() => Err("it is all zeros; write the tenant's own id".to_owned()),
            Ok(id) => Ok(id),
            Err(error) => Err(error.to_string()),
        });
        // The rest is looked at even without an id, and so is a second entry.
        let id_or_nil = id.as_ref().map_or(TenantId::from_bytes([0; 16]), |id| id.value);
        let tenant = tenant(id_or_nil, &table, apps, clouds, health, findings);
        let Some(id) = id else { continue };
        if let Some(first) = places.get(&id.value) {
            let message = format!("tenant `{}` is in {first} already; remove one of the two", id.value);
            findings.problem(&id.place, &table.key("id"), message);
            continue;
        }
        places.insert(id.value, id.place);
        tenants.extend(tenant.map(|tenant| (id.value, tenant)));
    }
    warn_of_namesakes(&tenants, &places, findings);
    tenants
}

/// Whether every tenant that is written is in a cloud on this host; one whose cloud cannot be told is reported for that.
/// Where none is written, whether there is such a cloud: a tenant that came otherwise, and is in another one, is then not
/// collected ([`Outline::too_fast`](super::Outline)).
pub(super) fn are_local(merged: &Merged, clouds: &Clouds) -> bool {
    let is_local = |table: Table<'_>| {
        let cloud = table.text("cloud", &mut Findings::default());
        let name = cloud.map_or_else(|| DEFAULT_CLOUD.to_owned(), |cloud| cloud.value);
        clouds.known.get(&name).is_none_or(|cloud| clouds::on_loopback(cloud))
    };
    let some =
        merged.entries("tenants").next().is_some() || clouds.known.values().any(|cloud| clouds::on_loopback(cloud));
    some && merged.entries("tenants").all(is_local)
}

fn tenant(
    id: TenantId,
    table: &Table<'_>,
    apps: &Apps,
    clouds: &Clouds,
    health: bool,
    findings: &mut Findings,
) -> Option<Tenant> {
    let name = table.parsed("name", findings, |text| {
        let text = text.trim();
        // It is printed in logs and tables.
        if text.chars().any(char::is_control) { Err("there is a control character in it") } else { Ok(text.to_owned()) }
    });
    let name = name.map_or_else(|| id.to_string(), |name| name.value);
    let enabled = table.flag("enabled", findings).is_none_or(|enabled| enabled.value);
    let cloud_name = table.text("cloud", findings).map_or_else(|| DEFAULT_CLOUD.to_owned(), |cloud| cloud.value);
    let cloud = clouds.known.get(&cloud_name);
    let has_audit = cloud.is_none_or(|cloud| cloud.management.is_some());
    let content_types = content_types(table, has_audit, findings);
    if !has_audit {
        check_without_audit(&cloud_name, content_types.as_ref(), enabled && !health, table, findings);
    }
    if cloud.is_none() && !clouds.broken.contains(&cloud_name) {
        findings.missing(&table.place_of("cloud"), &table.key("cloud"), clouds::unknown(&cloud_name, clouds));
    }
    let app = app_of(&cloud_name, table, apps, clouds, findings);
    let (origin, line) = origin(&table.place);
    Some(Tenant { id, name, app: app?, cloud: cloud?.clone(), content_types: content_types?, enabled, origin, line })
}

/// The file that names a tenant, and the line there.
pub(super) fn origin(place: &Place) -> (Origin, Option<usize>) {
    match place {
        Place::File { path, line, .. } => (Origin::File(path.to_path_buf()), *line),
        Place::Environment { .. } => (Origin::File(PathBuf::new()), None),
    }
}

/// The tenant's own app, else its cloud's, else `[app]`.
fn app_of(cloud: &str, table: &Table<'_>, apps: &Apps, clouds: &Clouds, findings: &mut Findings) -> Option<String> {
    if table.has("app") {
        let app = table.text("app", findings)?;
        if !apps.contains_key(&app.value) {
            findings.missing(&app.place, &table.key("app"), unknown_app(&app.value, apps));
        }
        return Some(app.value);
    }
    // A cloud that names an app that does not exist is reported once, at the cloud.
    let app = clouds.apps.get(cloud).map_or_else(String::new, |app| app.value.clone());
    if app.is_empty() && !apps.contains_key("") {
        let message = if cloud == DEFAULT_CLOUD {
            "it names no `app` and there is no `[app]`; write the one or the other".to_owned()
        } else {
            format!(
                "it names no `app`, nor does `[clouds.{cloud}]`, and there is no `[app]`; write `app` here or there, or \
                 write `[app]`"
            )
        };
        findings.missing(&table.place, &table.key("app"), message);
    }
    Some(app)
}

/// Reports the clouds whose app does not exist.
pub(super) fn check_clouds(apps: &Apps, clouds: &Clouds, findings: &mut Findings) {
    for (cloud, app) in &clouds.apps {
        if !apps.contains_key(&app.value) {
            findings.missing(&app.place, &format!("clouds.{cloud}.app"), unknown_app(&app.value, apps));
        }
    }
}

fn unknown_app(name: &str, apps: &Apps) -> String {
    let names = || apps.keys().map(String::as_str).filter(|name| !name.is_empty());
    if let Some(near) = schema::nearest(name, names()) {
        format!("there is no `[apps.{name}]`; did you mean `{near}`?")
    } else if names().next().is_some() {
        format!("there is no `[apps.{name}]`; write it, or choose from {}", schema::list(names()))
    } else {
        format!("there is no `[apps.{name}]`; write it, or leave the key out to use `[app]`")
    }
}

/// What is right for any cloud is wrong where there are no audit records, and a tenant of which nothing is collected is a
/// mistake.
fn check_without_audit(
    cloud: &str,
    content_types: Option<&BTreeSet<ContentType>>,
    is_idle: bool,
    table: &Table<'_>,
    findings: &mut Findings,
) {
    if content_types.is_some_and(|types| !types.is_empty()) {
        let message = format!(
            "the cloud `{cloud}` has no Management Activity API, so that no audit records can be collected there; leave the \
             key out: service health and the Message Center are collected if `[health]` says so"
        );
        findings.problem(&table.place_of("content_types"), &table.key("content_types"), message);
    } else if is_idle {
        let message = format!(
            "the cloud `{cloud}` has no Management Activity API, and service health is not collected, so that nothing would \
             be; set `enabled = true` under `[health]`, or `enabled = false` here"
        );
        findings.missing(&table.place, &table.key("cloud"), message);
    }
}

/// What is collected; by default the four `Audit` types where there are audit records, else none.
pub(super) fn content_types(
    table: &Table<'_>,
    has_audit: bool,
    findings: &mut Findings,
) -> Option<BTreeSet<ContentType>> {
    if !table.has("content_types") {
        return Some(if has_audit { ContentType::AUDIT.into() } else { BTreeSet::new() });
    }
    let key = table.key("content_types");
    let texts = table.texts("content_types", findings)?;
    if texts.value.is_empty() && !has_audit {
        return Some(BTreeSet::new());
    }
    if texts.value.is_empty() {
        let message = "the list is empty, so that nothing would be collected; leave the key out for the four `Audit` \
                       types, or set `enabled = false`";
        findings.problem(&texts.place, &key, message);
        return None;
    }
    let mut wrong = false;
    let mut types = BTreeSet::new();
    for text in &texts.value {
        if let Ok(content_type) = subscribable(&text.value) {
            types.insert(content_type);
        } else {
            let valid = || ContentType::ALL.into_iter().map(ContentType::as_str);
            let near = schema::nearest(&text.value, valid()).map(|near| format!("did you mean `{near}`? "));
            let message = format!(
                "`{}` is no content type; {}the types are {}",
                text.value,
                near.unwrap_or_default(),
                schema::list(valid())
            );
            findings.problem(&text.place, &key, message);
            wrong = true;
        }
    }
    (!wrong).then_some(types)
}

/// Commands take a tenant's name where it is the only one of that name.
fn warn_of_namesakes(
    tenants: &BTreeMap<TenantId, Tenant>,
    places: &BTreeMap<TenantId, Place>,
    findings: &mut Findings,
) {
    let mut names: BTreeMap<String, TenantId> = BTreeMap::new();
    for tenant in tenants.values() {
        let Some(first) = names.insert(tenant.name.to_lowercase(), tenant.id) else { continue };
        let (Some(one), Some(other)) = (places.get(&first), places.get(&tenant.id)) else { continue };
        let message =
            format!("`{}` is also the name of the tenant in {one}; commands will ask for the id instead", tenant.name);
        findings.warn(other, "tenants.name", message);
    }
}
