//! The old entities, with the fields of the reference and those that its answers had beside them. What the fields mean, and
//! what they are taken from, the table in [`super`] says.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::request::Operation;
use super::words;
use crate::content::ContentType;

/// A service of `Services`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Service {
    pub(super) id: String,
    pub(super) display_name: String,
    pub(super) feature_names: Vec<String>,
    pub(super) features: Vec<Value>,
}

/// A row of `CurrentStatus` and `HistoricalStatus`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WorkloadStatus {
    pub(super) id: String,
    pub(super) workload: String,
    pub(super) workload_display_name: String,
    pub(super) status: String,
    pub(super) status_display_name: String,
    pub(super) status_time: Option<Timestamp>,
    /// What the samples of the reference call it.
    pub(super) status_date: Option<Timestamp>,
    pub(super) incident_ids: Vec<String>,
    pub(super) feature_status: Vec<FeatureStatus>,
    /// What the reference calls it.
    pub(super) feature_group_status_collection: Vec<FeatureGroupStatus>,
}

/// How a feature stands, as the API answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "they are the old API's names")]
pub(super) struct FeatureStatus {
    pub(super) feature_display_name: String,
    pub(super) feature_name: String,
    pub(super) feature_service_status: String,
    pub(super) feature_service_status_display_name: String,
}

/// The same, as the reference has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct FeatureGroupStatus {
    pub(super) feature: String,
    pub(super) feature_group_display_name: String,
    pub(super) feature_status: String,
}

/// A message of `Messages`, whatever its type.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "they are the old API's names")]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) title: String,
    pub(super) message_type: &'static str,
    pub(super) start_time: Option<String>,
    pub(super) end_time: Option<String>,
    pub(super) last_updated_time: Option<String>,
    pub(super) status: String,
    pub(super) messages: Vec<MessageHistory>,
    pub(super) workload: Option<String>,
    pub(super) workload_display_name: Option<String>,
    pub(super) feature: Option<String>,
    pub(super) feature_display_name: Option<String>,
    pub(super) classification: Option<String>,
    pub(super) severity: Option<String>,
    pub(super) impact_description: Option<String>,
    pub(super) user_functional_impact: Option<String>,
    pub(super) action_type: Option<String>,
    pub(super) additional_details: Vec<Detail>,
    pub(super) affected_tenant_count: u64,
    pub(super) affected_user_count: Option<u64>,
    pub(super) affected_workload_names: Vec<String>,
    pub(super) affected_workload_display_names: Vec<String>,
    pub(super) post_incident_document_url: Option<String>,
    pub(super) tenant_params: Vec<Value>,
    /// What only posts of the Message Center had.
    #[serde(flatten)]
    pub(super) post: Option<Post>,
}

/// What a post of the Message Center has besides.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Post {
    pub(super) action_required_by_date: Option<String>,
    pub(super) announcement_id: u64,
    pub(super) applies_to: Option<String>,
    pub(super) blog_link: String,
    pub(super) category: String,
    pub(super) external_link: String,
    pub(super) feature_name: Option<String>,
    pub(super) flight_name: Option<String>,
    pub(super) help_link: String,
    pub(super) is_dismissed: bool,
    pub(super) is_major_change: bool,
    pub(super) is_read: bool,
    pub(super) message_tag_names: Vec<String>,
    pub(super) milestone: String,
    pub(super) milestone_date: Option<String>,
    pub(super) preview_duration: Option<String>,
}

/// One text of a message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct MessageHistory {
    pub(super) published_time: Option<String>,
    pub(super) message_text: String,
}

/// A detail of a message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Detail {
    pub(super) name: String,
    pub(super) value: String,
}

impl FeatureStatus {
    pub(super) fn new(feature: &str, group: &str, status: &str) -> Self {
        Self {
            feature_display_name: group.to_owned(),
            feature_name: feature.to_owned(),
            feature_service_status: words::status(status),
            feature_service_status_display_name: words::status_display(status),
        }
    }
}

impl FeatureGroupStatus {
    pub(super) fn new(feature: &str, group: &str, status: &str) -> Self {
        Self {
            feature: feature.to_owned(),
            feature_group_display_name: group.to_owned(),
            feature_status: words::status(status),
        }
    }
}

/// The `MessageType` of what is kept as this.
pub(super) const fn kind(content_type: ContentType) -> &'static str {
    if matches!(content_type, ContentType::HealthIssues) { "Incident" } else { "MessageCenter" }
}

/// An entity as JSON. A struct of these fields cannot fail to become an object.
pub(super) fn row(entity: impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(entity) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The names that `$select` may have.
pub(super) fn properties(operation: Operation) -> Vec<String> {
    let fields = match operation {
        Operation::Services => row(Service::default()),
        Operation::CurrentStatus | Operation::HistoricalStatus => row(WorkloadStatus::default()),
        Operation::Messages => row(Message { post: Some(Post::default()), ..Message::default() }),
    };
    fields.into_iter().map(|(name, _)| name).collect()
}
