//! Starting, stopping and listing subscriptions.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::Call;
use super::answers::{error, in_words, usual_message};
use crate::clock::shift;
use crate::content_type::ContentType;
use crate::hooks::{self, Hook, Wanted};
use crate::http::Response;
use crate::ledger::{Scope, Wait};
use crate::world::SubscriptionStatus;

/// `subscriptions/start`.
pub(super) fn start(call: &Call<'_>) -> Response {
    let content_type = match call.content_type() {
        Ok(content_type) => content_type,
        Err(response) => return *response,
    };
    if call.request.method != "POST" {
        return Response::empty(405);
    }
    let wanted = match webhook(&call.request.body, call.now) {
        Ok(wanted) => wanted,
        Err(response) => return *response,
    };
    let mut state = call.world.lock();
    let cooldown = i64::try_from(state.service.start_cooldown_s).unwrap_or(i64::MAX);
    let as_403 = state.service.cooldown_as_403;
    let limp = i64::try_from(state.service.limp_after_restart_ms).unwrap_or(i64::MAX);
    let Some(tenant) = state.tenants.get_mut(&call.tenant) else {
        return error(400, "AF20011", usual_message("AF20011"));
    };
    let audit_log = tenant.audit_log;
    let subscription = tenant.subscriptions.entry(content_type).or_default();
    let since = subscription.last_start.replace(call.now).map(|last| call.now.duration_since(last).as_secs());
    if let Some(passed) = since.filter(|s| *s < cooldown) {
        // A refused start does not begin the wait anew.
        subscription.last_start = Some(call.now - jiff::SignedDuration::from_secs(passed));
        state.book.violation(
            call.now,
            format!("tenant {}: {content_type} was started {passed} s after another start", call.tenant),
        );
        let left = u64::try_from(cooldown - passed).unwrap_or(0);
        let mut response = if as_403 {
            error(
                403,
                "429",
                &format!("Too many frequent subscription start requests. Please retry again after {}.", in_words(left)),
            )
        } else {
            error(
                429,
                "AF429",
                &format!("Too many frequent subscription start requests. Please retry again after {}", in_words(left)),
            )
        };
        response.wait = Some(Wait { scope: Scope::Start(call.tenant, content_type), time: Duration::from_secs(left) });
        return response;
    }
    if !audit_log {
        return audit_log_off(call, content_type);
    }
    let same = match (&subscription.webhook, &wanted) {
        (Some(hook), Some(wanted)) => hook.is(wanted, call.now),
        (None, None) => true,
        _ => false,
    };
    if subscription.status == SubscriptionStatus::Enabled && same {
        return error(400, "AF20024", usual_message("AF20024"));
    }
    if let Some(wanted) = &wanted {
        let roots = state.service.notices.roots.clone();
        drop(state);
        // The hook answers while the start waits.
        let validated = block_in_place(|| Handle::current().block_on(hooks::validate(&roots, wanted)));
        if let Err(why) = validated {
            let text = format!("The webhook endpoint ({}) could not be validated. {why}", wanted.address);
            return error(400, "AF20021", &text);
        }
        state = call.world.lock();
    }
    let Some(tenant) = state.tenants.get_mut(&call.tenant) else {
        return error(400, "AF20011", usual_message("AF20011"));
    };
    let subscription = tenant.subscriptions.entry(content_type).or_default();
    subscription.webhook = wanted.map(|wanted| Hook::new(wanted, call.claims.appid.clone(), call.now));
    subscription.limps_until = subscription.stopped.map(|_| shift(call.now, limp));
    let shown = subscription.webhook.as_ref().map(|hook| hook.shown(call.now));
    state.set_subscription(call.tenant, content_type, SubscriptionStatus::Enabled, call.now);
    Response::json(200, &json!({ "contentType": content_type, "status": "enabled", "webhook": shown }))
}

/// What the service says of a tenant without unified audit log: a sentence for a code.
fn audit_log_off(call: &Call<'_>, content_type: ContentType) -> Response {
    let tenant = call.tenant;
    let code = format!(
        "StartSubscription [CorrId={tenant}] [TenantId={tenant},ContentType={content_type},ApplicationId={},PublisherId={}] failed. Exception: Microsoft.Office.Compliance.Audit.DataServiceException: Tenant {tenant} does not exist.",
        call.claims.appid,
        call.parameters.get("publisheridentifier").map_or("", String::as_str)
    );
    let message = format!(
        "Microsoft.Office.Compliance.Audit.DataServiceException: Tenant {tenant} does not exist.\r\n   at Microsoft.Office.Compliance.Audit.API.AzureManager.GetSubscriptionTable(Guid tenantId)\r\n   at Microsoft.Office.Compliance.Audit.API.StartController.StartContentType()"
    );
    error(400, &code, &message)
}

fn webhook(body: &[u8], now: jiff::Timestamp) -> Result<Option<Wanted>, Box<Response>> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let invalid = || Box::new(error(400, "AF20002", "Invalid parameter type: webhook. Expected type: object"));
    let body: Value = serde_json::from_slice(body).map_err(|_| invalid())?;
    let webhook = match &body["webhook"] {
        Value::Null => return Ok(None),
        object => object,
    };
    let address = webhook["address"].as_str().ok_or_else(invalid)?;
    if !address.starts_with("https://") {
        let text =
            format!("The webhook endpoint ({address}) could not be validated. The address must begin with HTTPS.");
        return Err(error(400, "AF20021", &text).into());
    }
    let text = |name: &str| webhook[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let expiration = match text("expiration").map(|text| text.parse::<jiff::Timestamp>()) {
        None => None,
        Some(Ok(time)) if time >= now => Some(time),
        Some(Ok(past)) => {
            let text = format!("Expiration {past} provided is set to past date and time.");
            return Err(error(400, "AF20003", &text).into());
        }
        Some(Err(_)) => {
            let text = "Invalid parameter type: expiration. Expected type: datetime";
            return Err(error(400, "AF20002", text).into());
        }
    };
    Ok(Some(Wanted { address: address.to_owned(), auth_id: text("authId"), expiration }))
}

/// `subscriptions/stop`.
pub(super) fn stop(call: &Call<'_>) -> Response {
    let content_type = match call.content_type() {
        Ok(content_type) => content_type,
        Err(response) => return *response,
    };
    if call.request.method != "POST" {
        return Response::empty(405);
    }
    let mut state = call.world.lock();
    let known = state
        .tenants
        .get(&call.tenant)
        .and_then(|t| t.subscriptions.get(&content_type))
        .is_some_and(|s| s.status != SubscriptionStatus::None);
    if !known {
        return error(400, "AF20022", usual_message("AF20022"));
    }
    state.set_subscription(call.tenant, content_type, SubscriptionStatus::None, call.now);
    if let Some(subscription) =
        state.tenants.get_mut(&call.tenant).and_then(|tenant| tenant.subscriptions.get_mut(&content_type))
    {
        subscription.webhook = None;
    }
    Response::empty(200)
}

/// `subscriptions/list`.
pub(super) fn list(call: &Call<'_>) -> Response {
    let state = call.world.lock();
    let sparse = state.service.sparse_list;
    let Some(tenant) = state.tenants.get(&call.tenant) else {
        return Response::json(200, &json!([]));
    };
    let entries: Vec<Value> = tenant
        .subscriptions
        .iter()
        .filter(|(_, s)| s.status != SubscriptionStatus::None)
        .map(|(content_type, subscription)| {
            let status = if subscription.status == SubscriptionStatus::Enabled { "enabled" } else { "disabled" };
            let mut hook = subscription.webhook.as_ref().map(|hook| hook.shown(call.now));
            if let (Some(hook), Some(hidden)) = (&mut hook, &state.service.notices.hidden_auth_id) {
                hook["authId"] = json!(hidden);
            }
            let mut entry = json!({ "contentType": content_type, "status": status, "webhook": hook });
            if sparse && status == "enabled" {
                entry.as_object_mut().map(|e| e.remove("status"));
            }
            entry
        })
        .collect();
    Response::json(200, &entries)
}
